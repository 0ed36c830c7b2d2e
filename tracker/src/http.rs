//! Status for people and for what watches over services. It changes nothing, and asks nobody who they are: by default
//! it is to be had on this machine only.

use std::sync::{PoisonError, Weak};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use drover_link::identity::unix_now_s;
use drover_protocol::id::{ImageId, PublisherKey};
use drover_protocol::release::Name;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::error;

use crate::server::Server;

/// How long the parts of the tracker have to answer before it counts as dead.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Status {
    version: &'static str,
    members: usize,
    publishers: usize,
    certificate_expires_unix_s: u64,
    swarms: Vec<SwarmStatus>,
    releases: Vec<ReleaseStatus>,
}

#[derive(Serialize)]
struct SwarmStatus {
    image: ImageId,
    seeders: u32,
    leechers: u32,
    held_permille: u16,
}

#[derive(Serialize)]
struct ReleaseStatus {
    name: Name,
    version: u64,
    image: ImageId,
    publisher: PublisherKey,
    expires_unix_s: u64,
}

/// Answers until it is aborted. A connection that somebody keeps open does not keep the server.
pub(crate) async fn serve(server: Weak<Server>, listener: TcpListener) {
    let routes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .with_state(server);
    if let Err(error) = axum::serve(listener, routes).await {
        error!(%error, "status is not to be had any more");
    }
}

/// Whether the directory's task answers, and with it the runtime's timers and inboxes.
pub(crate) async fn is_alive(server: &Server, patience: Duration) -> bool {
    matches!(timeout(patience, server.introductions.swarms()).await, Ok(Some(_)))
}

async fn livez(State(server): State<Weak<Server>>) -> (StatusCode, &'static str) {
    match server.upgrade() {
        Some(server) if is_alive(&server, PATIENCE).await => (StatusCode::OK, "ok\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "stuck, or shutting down\n"),
    }
}

async fn readyz(State(server): State<Weak<Server>>) -> (StatusCode, &'static str) {
    if server.upgrade().is_some_and(|server| certificate_expires(&server) <= unix_now_s()) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the tracker's certificate is expired\n");
    }
    livez(State(server)).await
}

async fn status(State(server): State<Weak<Server>>) -> Result<Json<Status>, StatusCode> {
    let server = server.upgrade().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let asked = timeout(PATIENCE, server.introductions.swarms()).await;
    let swarms = asked.ok().flatten().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let swarms = swarms.into_iter().map(|(image, cohort)| SwarmStatus {
        image,
        seeders: cohort.seeders,
        leechers: cohort.leechers,
        held_permille: cohort.held_permille,
    });
    let releases = server.releases();
    let releases = releases.all().map(|(name, kept)| ReleaseStatus {
        name: name.clone(),
        version: kept.seen.version,
        image: kept.seen.image,
        publisher: kept.signed.publisher,
        expires_unix_s: kept.expires_unix_s,
    });
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        members: server.members.count(),
        publishers: server.publishers.all().len(),
        certificate_expires_unix_s: certificate_expires(&server),
        swarms: swarms.collect(),
        releases: releases.collect(),
    }))
}

fn certificate_expires(server: &Server) -> u64 {
    server.identity.read().unwrap_or_else(PoisonError::into_inner).expires_unix_s()
}
