//! The driver's data streams: requests of ours, and requests of peers.

use core::ops::Range;
use std::time::Duration;

use drover_link::frame::{prompt, write_frame};
use drover_protocol::geometry::PieceIndex;
use drover_protocol::id::PeerId;
use drover_protocol::message::{DataReply, DataRequest};
use drover_protocol::swarm::{Refusal, RequestEnd, RequestId, ServeId};
use drover_protocol::time::Instant;
use quinn::SendStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::manifest;
use super::{Driver, Input};
use crate::store::ReadError;
use crate::transfer::ingest::Fetch;
use crate::transfer::pages;
use crate::transfer::serve::{ServeFailure, Served, Serving};
use crate::transport::{Asked, Link};

/// A peer takes a short answer at once.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A request of a peer's that the swarm knows of.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) peer: PeerId,
    /// What to serve where, until that is granted.
    waiting: Option<(Link, SendStream, Vec<Range<u32>>)>,
}

impl Driver<'_> {
    /// Asks a peer for chunks, as the swarm wants it.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        peer: PeerId,
        request: RequestId,
        piece: PieceIndex,
        chunks: Vec<Range<u32>>,
    ) {
        let Some(link) = self.peers.get(&peer).cloned() else {
            return self.swarm.handle_request_ended(now, request, RequestEnd::Failed);
        };
        let fetch = Fetch {
            link,
            image: self.disk.clone(),
            piece,
            chunks,
            buffers: self.parts.receiving.clone(),
            workers: self.parts.disk.clone(),
        };
        let (cancel, cancelled) = oneshot::channel();
        self.requests.insert(request, cancel);
        let (reports, from_workers) = (self.inlets.reports.clone(), self.inlets.reports.clone());
        // On a worker's thread. A driver that has ended wants no reports.
        let report = move |batch| drop(from_workers.blocking_send(Input::Came(request, batch)));
        tokio::spawn(async move {
            if let Some(end) = fetch.run(report, cancelled).await {
                let _ = reports.send(Input::RequestEnded(request, end)).await;
            }
        });
    }

    /// A peer asks for something.
    pub(super) fn on_asked(&mut self, now: Instant, asked: Asked) {
        let Asked { link, request, send } = asked;
        match request {
            DataRequest::Manifest { .. } => {
                tokio::spawn(manifest::serve(self.parts.clone(), self.disk.clone(), send));
            }
            DataRequest::Pages { piece, ranges, .. } => {
                let geometry = self.disk.manifest().geometry();
                let Some(chunks) = pages::to_chunks(&geometry, piece, &ranges) else {
                    tracing::debug!(peer = %link.peer().short(), piece, "refusing a request for no whole chunks");
                    return answer(send, DataReply::NotHeld);
                };
                if !self.admit(now, &link) {
                    return;
                }
                self.last_serve += 1;
                let serve = ServeId(self.last_serve);
                let peer = link.peer();
                self.serves.insert(serve, Serve { peer, waiting: Some((link, send, chunks.clone())) });
                self.swarm.handle_request(now, peer, serve, piece, chunks);
            }
        }
    }

    /// Serves a request, as the swarm wants it.
    pub(super) fn grant(&mut self, serve: ServeId) {
        let waiting = self.serves.get_mut(&serve).and_then(|serve| serve.waiting.take());
        // Without an entry the peer has gone, and the swarm knows.
        let Some((link, stream, chunks)) = waiting else { return };
        link.put_in_order(&stream);
        let serving = Serving {
            stream,
            image: self.disk.clone(),
            chunks,
            buffers: self.parts.serving.clone(),
            workers: self.parts.disk.clone(),
        };
        let reports = self.inlets.reports.clone();
        tokio::spawn(async move {
            let served = serving.run().await;
            // A driver that has ended serves nobody.
            let _ = reports.send(Input::Served(serve, served)).await;
        });
    }

    /// Refuses a request, as the swarm wants it.
    pub(super) fn refuse(&mut self, serve: ServeId, refusal: Refusal) {
        let Some((_, stream, _)) = self.serves.remove(&serve).and_then(|serve| serve.waiting) else { return };
        let reply = match refusal {
            Refusal::Busy { retry_after, instead } => DataReply::Busy {
                retry_after_ms: u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX),
                instead: instead.map(PieceIndex::number),
            },
            Refusal::NotHeld => DataReply::NotHeld,
        };
        answer(stream, reply);
    }

    /// A peer was served, or not.
    pub(super) fn on_served(&mut self, now: Instant, serve: ServeId, served: Served) {
        // If the peer has gone, the swarm knows; what was read may still tell of the disk.
        let known = self.serves.remove(&serve).is_some();
        match served.failure {
            None if known => self.swarm.handle_served(now, serve, served.bytes),
            Some(_) if known => self.swarm.handle_serve_cancelled(now, serve, served.bytes),
            _ => {}
        }
        let Some(ServeFailure::Read(chunk, error)) = served.failure else { return };
        match error {
            ReadError::Changed { .. } => self.withdraw(&error),
            ReadError::Disk(_) if self.disk.is_sealed() => {
                tracing::error!(image = %self.disk.id(), %error, "the master can't be read");
                self.withdraw(&error);
            }
            ReadError::Disk(_) | ReadError::NotHeld { .. } => {
                tracing::warn!(image = %self.disk.id(), chunk = chunk.number(), %error, "a chunk is lost");
                self.swarm.handle_chunks_lost(now, &[chunk]);
            }
        }
    }
}

/// Sends a short answer and ends the stream.
pub(super) fn answer(mut stream: SendStream, reply: DataReply) {
    prompt(&stream);
    tokio::spawn(async move {
        // A peer that does not take the answer has given up on the question.
        if let Ok(Ok(())) = timeout(ANSWER_DEADLINE, write_frame(&mut stream, &reply)).await {
            let _ = stream.finish();
        }
    });
}
