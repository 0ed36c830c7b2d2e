//! The daemon's end of the control socket: routes, and nothing that decides.
//!
//! Who can open the socket may command the daemon; the file's mode and the state folder's say who that is. Bodies are
//! bounded, and a stream of events ends when its reader goes away, while what it reports on goes on.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path as Segment, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::api::{self, Event, Line, MasterRef};
use super::{Code, Problem, Route, SocketAddress, socket_path};
use crate::daemon::Daemon;

/// Events of a long operation on their way to whoever asked for it.
pub(crate) type EventSink = mpsc::Sender<Event>;

/// Binds the socket of a state folder. The caller holds the folder's lock, so whatever has the socket's name is left
/// over from a daemon that is no more.
pub(crate) fn bind(state: &Path) -> io::Result<UnixListener> {
    // Under another name first: the socket has its mode before anybody can find it.
    let unfinished = state.join(UNFINISHED);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let address = SocketAddress::new(state, UNFINISHED)?;
    let listener = UnixListener::bind(address.path())?;
    std::fs::set_permissions(&unfinished, PermissionsExt::from_mode(0o660))?;
    std::fs::rename(&unfinished, socket_path(state))?;
    Ok(listener)
}

/// Serves until dropped.
pub(crate) async fn serve(listener: UnixListener, daemon: Daemon) -> io::Result<()> {
    axum::serve(listener, router(daemon)).await
}

fn router(daemon: Daemon) -> Router {
    let routes = Route::ALL.into_iter().fold(Router::new(), |router, route| {
        let (_, path) = route.method_and_path();
        router.route(path, handler(route))
    });
    routes
        .fallback(nothing_here)
        .method_not_allowed_fallback(nothing_here)
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(daemon)
}

fn handler(route: Route) -> MethodRouter<Daemon> {
    match route {
        Route::Status => get(status),
        Route::Masters => get(masters),
        Route::Master => get(master),
        Route::Remove => delete(remove),
        Route::NextRelease => get(next_release),
        Route::PostRelease => post(post_release),
        Route::Publish => post(publish),
        Route::Fetch => post(fetch),
        Route::Verify => post(verify),
        Route::Gc => post(gc),
        Route::ProbeMulticast => post(probe_multicast),
    }
}

async fn status(State(daemon): State<Daemon>) -> Response {
    json(&daemon.status())
}

async fn masters(State(daemon): State<Daemon>) -> Result<Response, Problem> {
    Ok(json(&daemon.masters().await?))
}

async fn master(State(daemon): State<Daemon>, Segment(wanted): Segment<String>) -> Result<Response, Problem> {
    Ok(json(&daemon.master(read_ref(&wanted)?).await?))
}

async fn remove(State(daemon): State<Daemon>, Segment(wanted): Segment<String>) -> Result<Response, Problem> {
    Ok(json(&daemon.remove(read_ref(&wanted)?).await?))
}

async fn next_release(State(daemon): State<Daemon>, Segment(name): Segment<String>) -> Result<Response, Problem> {
    let name = name.parse().map_err(|error| Problem::new(Code::Usage, "release", error))?;
    Ok(json(&daemon.next_release(&name)))
}

async fn post_release(State(daemon): State<Daemon>, body: Bytes) -> Result<Response, Problem> {
    let request: api::PostRelease = read(&body)?;
    Ok(json(&daemon.post_release(request).await?))
}

async fn gc(State(daemon): State<Daemon>, body: Bytes) -> Result<Response, Problem> {
    let request: api::Gc = read(&body)?;
    Ok(json(&daemon.collect(request.dry_run).await?))
}

async fn probe_multicast(State(daemon): State<Daemon>, body: Bytes) -> Result<Response, Problem> {
    let request: api::ProbeMulticast = read(&body)?;
    Ok(json(&daemon.probe_multicast(request.hosts).await?))
}

async fn publish(State(daemon): State<Daemon>, body: Bytes) -> Result<Response, Problem> {
    let request: api::Publish = read(&body)?;
    Ok(stream(|events| async move { daemon.publish(request, &events).await }))
}

async fn fetch(State(daemon): State<Daemon>, body: Bytes) -> Result<Response, Problem> {
    let request: api::Fetch = read(&body)?;
    Ok(stream(|events| async move { daemon.fetch(request, &events).await }))
}

async fn verify(State(daemon): State<Daemon>, body: Bytes) -> Result<Response, Problem> {
    let request: api::Verify = read(&body)?;
    Ok(stream(|events| async move { daemon.verify(request, &events).await }))
}

async fn nothing_here() -> Problem {
    Problem::new(Code::NotFound, "control socket", "there is no such request").todo(
        "its requests are listed in the documentation of drover_agent::control; is the command newer than the daemon?",
    )
}

/// Answers with the events that an operation sends, the last of which is its result.
fn stream<F, O>(operation: F) -> Response
where
    F: FnOnce(EventSink) -> O,
    O: Future<Output = Result<Event, Problem>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(EVENTS_WAITING);
    let running = operation(sender.clone());
    tokio::spawn(async move {
        let last = running.await.unwrap_or_else(Event::Error);
        // The reader may be gone; the operation is done all the same.
        let _ = sender.send(last).await;
    });
    let lines = ReceiverStream::new(receiver).map(|event| {
        serde_json::to_vec(&Line::from(event)).map(|mut line| {
            line.push(b'\n');
            line
        })
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn json(found: &impl Serialize) -> Response {
    match serde_json::to_vec(found) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => Problem::failed("answer", error).into_response(),
    }
}

/// Reads a body whatever its content type says: who pipes JSON through curl should not have to name it.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::new(Code::Usage, "request", error))
}

fn read_ref(text: &str) -> Result<MasterRef, Problem> {
    text.parse().map_err(|error| Problem::new(Code::Usage, "master", error))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

const UNFINISHED: &str = "agent.sock.new";
/// A signed release is half a kilobyte, a path four: this is generous.
const LONGEST_BODY: usize = 64 << 10;
/// Events that a slow reader may lag behind; senders of progress leave one out rather than wait.
const EVENTS_WAITING: usize = 16;
