//! A host that joins: one stream, one request, one answer.
//!
//! What can be refused without touching the token is refused first; then the token is used up; then the certificate is
//! made. So a token is lost only to a tracker that fails, never to a request that could not have succeeded.

use std::sync::Arc;

use drover_link::ca::{CertificateAuthority, IssueError};
use drover_link::close;
use drover_link::endpoint::Joining;
use drover_link::frame::{FrameError, expect_frame, write_frame};
use drover_link::identity::{Role, unix_now_s};
use drover_link::member::{HostNameError, Member, check_host_name};
use drover_protocol::announce::{Enrolment, JoinReply, JoinRequest};
use drover_protocol::id::PeerId;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::limits::JOIN_TIMEOUT;
use crate::publishers::ChangeError;
use crate::server::{Server, refusal};
use crate::tokens::UseError;

/// Why a host was not let in. The text goes to it.
#[derive(Debug, thiserror::Error)]
enum RefuseError {
    #[error(transparent)]
    Name(#[from] HostNameError),
    #[error(transparent)]
    Token(#[from] UseError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Publisher(#[from] ChangeError),
    #[error(
        "this host's key was revoked; move its folder STATE/identity away and join again: it gets a new key then. The token \
             is still good"
    )]
    Revoked,
    #[error("this token is for a publisher, and no publisher's key came with it; update drover on that host")]
    NoPublisherKey,
    #[error("the tracker failed while it worked on this; see its log, and get a new token")]
    Failed,
}

struct Admitted {
    enrolment: Enrolment,
    peer: PeerId,
    role: Role,
}

/// Serves a host that joins, within its deadline.
pub(crate) async fn serve(server: Arc<Server>, joining: Joining) {
    let from = joining.remote_addr();
    match timeout(JOIN_TIMEOUT, converse(&server, &joining)).await {
        Ok(Ok(())) => {
            // The answer must not be cut off. Whoever has it and then falls silent is none of the tracker's business.
            let left = timeout(JOIN_TIMEOUT, joining.quic.closed()).await.is_ok();
            debug!(%from, left, "joining is over");
        }
        Ok(Err(error)) => info!(%from, %error, "joining ended early"),
        Err(_) => {
            info!(%from, "joining took too long");
            close::close(&joining.quic, close::HANDSHAKE, "joining took too long");
        }
    }
}

async fn converse(server: &Arc<Server>, joining: &Joining) -> Result<(), FrameError> {
    let from = joining.remote_addr();
    let Ok((mut send, mut receive)) = joining.quic.accept_bi().await else { return Ok(()) };
    let request: JoinRequest = match expect_frame(&mut receive).await {
        Ok(request) => request,
        Err(error) => {
            close::close(&joining.quic, close::PROTOCOL, &error.to_string());
            return Err(error);
        }
    };
    let host = request.host.clone();
    let server = server.clone();
    let admitted = spawn_blocking(move || admit(&server, &request)).await.unwrap_or(Err(RefuseError::Failed));
    let reply = match admitted {
        Ok(Admitted { enrolment, peer, role }) => {
            info!(%from, host, peer = %peer.short(), %role, "joined");
            JoinReply::Joined(enrolment)
        }
        Err(error) => {
            warn!(%from, host = ?host, cause = ?error, "refused to let in: {error}");
            JoinReply::Refused(refusal(&error))
        }
    };
    write_frame(&mut send, &reply).await?;
    // Can only fail if the other side has left, which is its right.
    let _ = send.finish();
    Ok(())
}

fn admit(server: &Server, request: &JoinRequest) -> Result<Admitted, RefuseError> {
    check_host_name(&request.host)?;
    let checked = CertificateAuthority::check(&request.csr)?;
    let peer = checked.peer_id();
    if server.is_revoked(peer) {
        return Err(RefuseError::Revoked);
    }
    if let Some(key) = request.publisher
        && !server.publishers.has_room_for(key)
    {
        return Err(ChangeError::Full.into());
    }
    let role = server.tokens.consume(&request.token)?;
    if role == Role::Publisher {
        let key = request.publisher.ok_or(RefuseError::NoPublisherKey)?;
        server.publishers.add(key)?;
        info!(publisher = %key, host = request.host, "a new publisher is trusted");
    }
    if server.members.has_other_named(&request.host, peer) {
        warn!(host = request.host, peer = %peer.short(), "a host joins with the name of another; both keep it");
    }
    let certificate = server.ca.issue_checked(&checked, role, &request.host, server.certificate_life)?;
    let member = Member { peer, role, name: request.host.clone() };
    server.note(&member, unix_now_s() + server.certificate_life.as_secs());
    let enrolment = Enrolment { certificate, ca: server.ca.roots(), publishers: server.publishers.all() };
    Ok(Admitted { enrolment, peer, role })
}
