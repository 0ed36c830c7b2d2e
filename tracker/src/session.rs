//! A member's connection: a stream for each question, one answer each, and for a watch one answer for each release, for
//! each change of a swarm, for each revocation and whenever publishers come or go.

use std::sync::Arc;

use drover_link::ca::CertificateAuthority;
use drover_link::close;
use drover_link::endpoint::{Connection, Link};
use drover_link::frame::{FrameError, expect_frame, write_frame};
use drover_link::identity::unix_now_s;
use drover_protocol::announce::{Enrolment, PUBLISHERS_SINCE, TrackerReply, TrackerRequest};
use drover_protocol::release::SignedRelease;
use drover_protocol::revocation::REVOCATION_SINCE;
use quinn::{ConnectionError, RecvStream, SendStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::limits::{ANSWER_TIMEOUT, QUESTION_TIMEOUT, QUESTIONS_AT_A_TIME};
use crate::releases::Posted;
use crate::server::{Server, refusal};

/// Serves a member until its connection ends.
pub(crate) async fn serve(server: Arc<Server>, connection: Connection) {
    // The control stream says nothing after the hellos; it is kept so that it does not look closed.
    let (link, _control_out, _control_in) = connection.split();
    server.members.arrive(&link);
    // It may have been revoked between its handshake and its arrival.
    if server.is_revoked(link.member.peer) {
        link.close(close::REVOKED, "this host was revoked");
    }
    debug!(member = %link.member, from = %link.remote_addr(), agent = %link.agent, "connected");
    let ended = answer_questions(&server, &link).await;
    let last = server.members.depart(&link);
    debug!(member = %link.member, reason = close::reason(&ended), "disconnected");
    // A host that says goodbye may come again for the next announce; one that fell silent is not worth a dial.
    let fell_silent = matches!(ended, ConnectionError::TimedOut | ConnectionError::Reset);
    if last && fell_silent {
        server.introductions.leave(link.member.peer).await;
    }
}

async fn answer_questions(server: &Arc<Server>, link: &Link) -> ConnectionError {
    let mut questions = JoinSet::new();
    loop {
        let has_room = questions.len() < QUESTIONS_AT_A_TIME;
        tokio::select! {
            stream = link.quic.accept_bi(), if has_room => match stream {
                Ok((send, receive)) => {
                    questions.spawn(answer(server.clone(), link.clone(), send, receive));
                }
                Err(ended) => return ended,
            },
            Some(_) = questions.join_next() => {}
            ended = link.quic.closed() => return ended,
        }
    }
}

async fn answer(server: Arc<Server>, link: Link, mut send: SendStream, mut receive: RecvStream) {
    let question = match timeout(QUESTION_TIMEOUT, expect_frame::<TrackerRequest>(&mut receive)).await {
        Ok(Ok(question)) => question,
        Ok(Err(FrameError::Decode(error))) => {
            warn!(member = %link.member, %error, "sent something that is no question");
            return link.close(close::PROTOCOL, &error.to_string());
        }
        // Given up by the member, or too slow: the stream ends with this.
        Ok(Err(_)) | Err(_) => return,
    };
    sleep_until(server.members.turn(link.member.peer)).await;
    let replied = match question {
        TrackerRequest::Watch => watch(&server, &mut send, link.version).await,
        other => {
            let reply = reply(&server, &link, other).await;
            write(&mut send, &reply).await
        }
    };
    match replied {
        // Can only fail if the member has stopped the stream, which is its right.
        Ok(()) => drop(send.finish()),
        Err(error) => debug!(member = %link.member, %error, "an answer did not get through"),
    }
}

async fn reply(server: &Arc<Server>, link: &Link, question: TrackerRequest) -> TrackerReply {
    match question {
        TrackerRequest::Announce(announce) => {
            let observed = link.remote_addr().ip();
            match server.introductions.announce(link.member.peer, observed, announce).await {
                Some(announced) => TrackerReply::Announced(announced),
                None => TrackerReply::Refused("the tracker shuts down; ask another, or again later".to_owned()),
            }
        }
        TrackerRequest::Post(release) => post(server, link, release).await,
        TrackerRequest::Releases { names } => TrackerReply::Releases(server.newest(&names)),
        TrackerRequest::Renew { csr } => {
            let (server, link) = (server.clone(), link.clone());
            let renewed = spawn_blocking(move || renew(&server, &link, &csr)).await;
            renewed.unwrap_or_else(|_| TrackerReply::Refused("the tracker failed at this; see its log".to_owned()))
        }
        TrackerRequest::Lease(request) => match server.introductions.lease(link.member.peer, request).await {
            Some(reply) => TrackerReply::Lease(reply),
            None => TrackerReply::Refused("this host is not known to hold the image".to_owned()),
        },
        TrackerRequest::EndLease { image, session } => {
            server.introductions.end_lease(link.member.peer, image, session).await;
            TrackerReply::LeaseEnded
        }
        TrackerRequest::Secret => TrackerReply::Secret(server.ca.cluster_secret()),
        TrackerRequest::Watch => unreachable!("a watch has many replies and is answered elsewhere"),
    }
}

/// Any member may post: what counts is the publisher's signature.
async fn post(server: &Arc<Server>, link: &Link, signed: SignedRelease) -> TrackerReply {
    let blocking = server.clone();
    let posted = signed.clone();
    let kept = spawn_blocking(move || blocking.post(&posted)).await;
    match kept {
        Ok(Ok((release, posted))) => {
            if posted == Posted::New {
                let (name, version) = (&release.name, release.version);
                info!(%name, version, image = %release.image, by = %link.member, "a new release");
            }
            TrackerReply::Posted
        }
        Ok(Err(error)) => {
            let claim = signed.claim().map(|(name, version)| format!("{name}@{version}"));
            let publisher = signed.publisher;
            warn!(by = %link.member, ?claim, %publisher, cause = ?error, "refused a release: {error}");
            TrackerReply::Refused(refusal(&error))
        }
        Err(_) => TrackerReply::Refused("the tracker failed while it kept the release; see its log".to_owned()),
    }
}

/// Name and role stay what they are, and so does the key. Blocks for the disk.
fn renew(server: &Server, link: &Link, csr: &[u8]) -> TrackerReply {
    let member = &link.member;
    if server.is_revoked(member.peer) {
        return TrackerReply::Refused("this host was revoked".to_owned());
    }
    let issued = CertificateAuthority::check(csr).and_then(|checked| {
        if checked.peer_id() != member.peer {
            return Ok(None);
        }
        server.ca.issue_checked(&checked, member.role, &member.name, server.certificate_life).map(Some)
    });
    match issued {
        Ok(Some(certificate)) => {
            info!(%member, "renewed a certificate");
            server.note(member, unix_now_s() + server.certificate_life.as_secs());
            // The connection proves the same key as the new certificate, and may live as long.
            server.members.extend(member.peer, unix_now_s() + server.certificate_life.as_secs());
            let (ca, publishers) = (server.ca.roots(), server.publishers.all());
            TrackerReply::Renewed(Enrolment { certificate, ca, publishers })
        }
        Ok(None) => {
            warn!(%member, "asked to renew a certificate for another key");
            let why = "a certificate is renewed only for the key that the connection was made with; \
                       join anew for another key";
            TrackerReply::Refused(why.to_owned())
        }
        Err(error) => TrackerReply::Refused(refusal(&error)),
    }
}

async fn watch(server: &Server, send: &mut SendStream, version: u16) -> Result<(), FrameError> {
    // Listening begins before the lists are read, so that nothing falls between; hearing a thing twice does no harm.
    let (mut news, mut changes) = (server.news.subscribe(), server.introductions.changes());
    let (mut revocations, mut publishers) = (server.revocations.subscribe(), server.publishers_told.subscribe());
    write(send, &TrackerReply::Releases(server.newest(&[]))).await?;
    let knows_revocation = version >= REVOCATION_SINCE;
    let revoked = server.endpoint.revoked();
    if knows_revocation && !revoked.is_empty() {
        write(send, &TrackerReply::Revoked(revoked)).await?;
    }
    let knows_publishers = version >= PUBLISHERS_SINCE;
    if knows_publishers {
        let told = publishers.borrow_and_update().clone();
        write(send, &TrackerReply::Publishers(told)).await?;
    }
    loop {
        tokio::select! {
            release = news.recv() => match release {
                Ok(release) => write(send, &TrackerReply::Releases(vec![release])).await?,
                Err(RecvError::Closed) => return Ok(()),
                Err(RecvError::Lagged(missed)) => {
                    debug!(missed, "a watcher reads too slowly and has to watch anew");
                    return Ok(());
                }
            },
            revoked = revocations.recv(), if knows_revocation => match revoked {
                Ok(revoked) => write(send, &TrackerReply::Revoked(revoked)).await?,
                // Who watches anew is told of all.
                Err(_) => return Ok(()),
            },
            Ok(()) = publishers.changed(), if knows_publishers => {
                let told = publishers.borrow_and_update().clone();
                write(send, &TrackerReply::Publishers(told)).await?;
            }
            changed = changes.recv() => match changed {
                Ok(cohorts) => write(send, &TrackerReply::Cohorts(cohorts)).await?,
                Err(RecvError::Closed) => return Ok(()),
                // What was missed is told with the host's next announce.
                Err(RecvError::Lagged(missed)) => debug!(missed, "a watcher reads too slowly to hear of every change"),
            },
            _ = send.stopped() => return Ok(()),
        }
    }
}

/// Who reads too slowly loses the stream.
async fn write(send: &mut SendStream, reply: &TrackerReply) -> Result<(), FrameError> {
    timeout(ANSWER_TIMEOUT, write_frame(send, reply)).await.unwrap_or(Err(FrameError::Ended("answer in time")))
}
