//! The driver's dealings with the disk: checkpoints, a disk that refuses, the seal.
//!
//! A disk that refuses pauses the asking, not the serving; the refused chunk is kept and written again every few seconds,
//! and when that works the transfer goes on by itself. There is at most one checkpoint, trial or seal under way.

use std::time::Duration;

use drover_protocol::geometry::ChunkIndex;
use drover_protocol::swarm::{RequestEnd, RequestId};
use drover_protocol::time::Instant;

use super::{Driver, End, Input};
use crate::clock;
use crate::exchange::Phase;
use crate::store::{CheckpointError, MasterInfo, SealError};
use crate::transfer::ingest::{Batch, Refused};

/// How often a disk that refused is tried again: often enough that nobody has to restart anything.
const TRY_AGAIN: Duration = Duration::from_secs(3);
/// How long a peer is left alone whose chunk this side could not store; it did nothing wrong.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How chunks came that a worker looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// A request brought them.
    Request(RequestId),
    /// The disk had refused one; it was tried again.
    Trial,
    /// Multicast brought them.
    Multicast,
}

/// Where the driver is with making things durable.
#[derive(Debug, Default)]
pub(super) struct Durability {
    /// Whether a checkpoint, trial or seal is under way.
    busy: bool,
    /// When the next checkpoint, trial or seal is due.
    due: Option<Instant>,
    /// A chunk that the disk did not take.
    refused: Option<Refused>,
    /// Whether asking is paused, because the disk refuses.
    paused: bool,
    /// Whether the next thing to do is the seal.
    sealing: bool,
}

impl Durability {
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.due.filter(|_| !self.busy)
    }

    fn due_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

impl Driver<'_> {
    /// A worker looked at chunks that came.
    pub(super) fn on_batch(&mut self, now: Instant, origin: Origin, batch: Batch) {
        let request = if let Origin::Request(request) = origin { Some(request) } else { None };
        if !batch.stored.is_empty() && !self.has_begun {
            self.has_begun = true;
            tracing::debug!(image = %self.disk.id(), "first chunk");
        }
        for chunk in batch.stored {
            self.swarm.handle_chunk_stored(now, chunk, request);
            self.multicast.note_stored(chunk);
            self.drain();
        }
        for chunk in batch.rejected {
            if let Some(request) = request {
                self.swarm.handle_chunk_rejected(now, chunk, request);
                self.drain();
            } else if origin == Origin::Multicast {
                self.multicast.note_rejected(chunk);
            }
        }
        if origin == Origin::Trial {
            self.durability.busy = false;
            if batch.refused.is_none() {
                self.resume(now);
            }
        }
        if let Some(refused) = batch.refused {
            let why = refused.error.to_string();
            self.durability.refused.get_or_insert(refused);
            // What else it brings would be refused, too.
            self.multicast.stop_receiving();
            self.pause(now, &why);
            if let Some(request) = request.filter(|request| self.requests.remove(request).is_some()) {
                let end = RequestEnd::Busy { retry_after: ASK_AGAIN, instead: None };
                self.swarm.handle_request_ended(now, request, end);
            }
        }
        self.note_unsynced(now);
    }

    /// A checkpoint has ended.
    pub(super) fn on_checkpointed(&mut self, now: Instant, result: Result<u32, CheckpointError>) {
        self.durability.busy = false;
        match result {
            Ok(chunks) => {
                tracing::trace!(image = %self.disk.id().short(), chunks, "checkpoint");
                if self.durability.paused && self.durability.refused.is_none() {
                    self.resume(now);
                }
                self.note_unsynced(now);
            }
            Err(error) => self.on_checkpoint_error(now, &error),
        }
    }

    /// The seal was tried.
    pub(super) fn on_sealed(&mut self, now: Instant, result: Result<MasterInfo, SealError>) {
        self.durability.busy = false;
        match result {
            Ok(master) => {
                self.durability = Durability::default();
                tracing::info!(image = %master.image, path = %master.path.display(), "master sealed");
                self.reporter.set_phase(Phase::Complete);
                self.reporter.publish(&self.swarm);
            }
            Err(SealError::Checkpoint(error)) => self.on_checkpoint_error(now, &error),
            Err(SealError::Incomplete { .. }) => self.resync_held(now),
            Err(SealError::Disk(error)) => self.pause(now, &error.to_string()),
            Err(error) => self.end = Some(End::Failed(error.to_string())),
        }
    }

    /// What was to be done by now.
    pub(super) fn on_durability_due(&mut self, now: Instant) {
        self.durability.due = None;
        self.durability.busy = true;
        let (disk, reports) = (self.disk.clone(), self.inlets.reports.clone());
        if let Some(refused) = self.durability.refused.take() {
            // On a worker's thread, here and below. A driver that has ended wants no reports.
            let trial = move || drop(reports.blocking_send(Input::Retried(refused.retry(&disk))));
            drop(self.parts.disk.begin(trial));
        } else if self.durability.sealing {
            let store = self.parts.store.clone();
            let seal = move || drop(reports.blocking_send(Input::Sealed(Box::new(store.seal(disk.id())))));
            drop(self.parts.sync.begin(seal));
            self.reporter.set_phase(Phase::Sealing);
        } else if disk.checkpoint_due_in().is_some_and(|due| due.is_zero()) || self.durability.paused {
            drop(self.parts.sync.begin(move || drop(reports.blocking_send(Input::Checkpointed(disk.checkpoint())))));
        } else {
            self.durability.busy = false;
            self.note_unsynced(now);
        }
    }

    /// Seals the master, if every chunk is held and it is not sealed yet.
    pub(super) fn seal_if_complete(&mut self) {
        if self.disk.is_sealed() {
            self.reporter.set_phase(Phase::Complete);
        } else if self.swarm.is_complete() {
            self.durability.sealing = true;
            self.durability.due_at(clock::now());
        }
    }

    fn on_checkpoint_error(&mut self, now: Instant, error: &CheckpointError) {
        if !error.lost().is_empty() {
            // Some may have come again meanwhile: a peer that asked for one had told of its loss before.
            let is_lost = |chunk: &ChunkIndex| !self.disk.holds(*chunk);
            let lost: Vec<ChunkIndex> = error.lost().iter().copied().filter(is_lost).collect();
            self.swarm.handle_chunks_lost(now, &lost);
            self.durability.sealing = self.swarm.is_complete();
        }
        self.pause(now, &error.to_string());
    }

    /// The store lacks chunks that the swarm counts as held: the store is right.
    fn resync_held(&mut self, now: Instant) {
        let held = self.disk.held();
        let lost: Vec<_> = self.swarm.held().difference(&held).collect();
        self.swarm.handle_chunks_lost(now, &lost);
        // What was lost while the seal was tried may be there again by now.
        self.durability.sealing = self.swarm.is_complete();
        // The seal's checkpoint succeeded, so the disk takes data; else nothing would ever be asked for again.
        self.resume(now);
    }

    fn note_unsynced(&mut self, now: Instant) {
        // While the disk refuses, it is tried every few seconds and not sooner, however long something waits.
        if self.durability.paused {
            return;
        }
        if let Some(due_in) = self.disk.checkpoint_due_in() {
            self.durability.due_at(now + due_in);
        }
    }

    fn pause(&mut self, now: Instant, why: &str) {
        self.durability.due = Some(now + TRY_AGAIN);
        if !self.durability.paused {
            tracing::warn!(image = %self.disk.id(), why, "paused");
            self.durability.paused = true;
            self.swarm.set_paused(now, true);
        }
        self.reporter.set_phase(Phase::Paused(format!("{why}; it is tried again every {} s", TRY_AGAIN.as_secs())));
    }

    fn resume(&mut self, now: Instant) {
        if self.durability.paused {
            tracing::info!(image = %self.disk.id(), "the disk takes data again");
            self.durability.paused = false;
            self.swarm.set_paused(now, false);
        }
        self.reporter.set_phase(Phase::Fetching);
    }
}
