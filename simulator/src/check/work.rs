//! A host's dealings with its disk: chunks that came, checkpoints, a disk that refuses, the seal.
//!
//! As in the agent's driver: a disk that refuses pauses the asking, not the serving; the refused chunk is kept and tried again
//! every few seconds; there is at most one checkpoint, trial or seal under way. What is decided about the order of writes is
//! decided in `drover_durability`.

use core::time::Duration;

use drover_durability::{CheckpointError, NotDurable};
use drover_protocol::geometry::ChunkIndex;
use drover_protocol::planted::{Bug, is_planted};
use drover_protocol::swarm::{RequestEnd, RequestId};
use drover_protocol::time::Instant;

use super::host::{self, Running};
use super::token::{self, Token};
use super::world::{Event, World};

/// How often a disk that refused is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(3);
/// How long a peer is left alone whose chunk this side could not store; it did nothing wrong.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How a seal ended.
pub(super) type SealResult = Result<(), NotDurable>;

/// What became of a chunk that came.
enum Stored {
    Held,
    Rejected,
    Refused,
}

impl World {
    /// A chunk that came from a peer is verified and written.
    pub(super) fn store(
        &mut self,
        (at, peer): (usize, usize),
        request: RequestId,
        number: u32,
        token: Token,
        is_last: bool,
    ) {
        let Some(chunk) = self.plan.manifest.geometry().chunk(number) else { return };
        match self.take_in(at, chunk, token) {
            Stored::Held => {
                self.check_stored(at, number);
                self.settle(at, number);
                self.tell(at, |swarm, now| swarm.handle_chunk_stored(now, chunk, Some(request)));
            }
            Stored::Rejected => {
                if !is_planted(Bug::ForgetStrike) {
                    self.tell(at, |swarm, now| swarm.handle_chunk_rejected(now, chunk, request));
                }
                self.check_struck(at, peer);
            }
            Stored::Refused => {
                self.pause(at);
                if self.end_request(at, request) {
                    let end = RequestEnd::Busy { retry_after: ASK_AGAIN, instead: None };
                    self.tell(at, |swarm, now| swarm.handle_request_ended(now, request, end));
                }
            }
        }
        if is_last && self.end_request(at, request) {
            self.tell(at, |swarm, now| swarm.handle_request_ended(now, request, RequestEnd::Done));
        }
        self.note_unsynced(at);
        self.notice_power(at);
    }

    /// A chunk is there: no request of ours has to bring it any more.
    fn settle(&mut self, host: usize, chunk: u32) {
        for asked in self.hosts[host].run.iter_mut().flat_map(|run| run.requests.values_mut()) {
            asked.chunks.retain(|asked| *asked != chunk);
        }
    }

    fn end_request(&mut self, host: usize, request: RequestId) -> bool {
        self.hosts[host].run.as_mut().is_some_and(|run| run.requests.remove(&request).is_some())
    }

    fn take_in(&mut self, at: usize, chunk: ChunkIndex, token: Token) -> Stored {
        let now = self.now;
        let Some(run) = &mut self.hosts[at].run else { return Stored::Rejected };
        let Some(image) = &run.image else { return Stored::Rejected };
        let Some(verified) = token::verify(image.manifest(), chunk, token.clone()) else { return Stored::Rejected };
        match image.write(now, &verified) {
            Ok(_) => Stored::Held,
            Err(_) => {
                run.work.refused.get_or_insert((chunk, token));
                Stored::Refused
            }
        }
    }

    /// What was to be done by now: a trial, a seal or a checkpoint.
    pub(super) fn work(&mut self, host: usize) {
        let (now, life) = (self.now, self.hosts[host].life);
        let Some(run) = &mut self.hosts[host].run else { return };
        if run.work.is_busy || run.work.due.is_none_or(|due| due > now) {
            return;
        }
        run.work.due = None;
        let Some(image) = &run.image else { return };
        let is_due = image.checkpoint_due_in(now).is_some_and(|due| due.is_zero());
        if let Some((chunk, token)) = run.work.refused.take() {
            self.try_again(host, chunk, token);
        } else if run.work.is_sealing {
            run.work.is_busy = true;
            let result = host::seal(now, &run.layout, image);
            self.note(|| format!("host {host} seals: {result:?}"));
            self.count_loss(host, matches!(&result, Err(NotDurable::Checkpoint(error)) if !error.lost().is_empty()));
            self.check_durable(host, result.is_ok());
            let ready = self.disk_ready(host);
            self.queue.push(ready, Event::Sealed { host, life, result });
        } else if is_due || run.work.is_paused {
            run.work.is_busy = true;
            let result = image.checkpoint(now);
            self.note(|| format!("host {host} checkpoint: {result:?}"));
            self.count_loss(host, result.as_ref().is_err_and(|error| !error.lost().is_empty()));
            self.check_durable(host, result.is_ok());
            let ready = self.disk_ready(host);
            self.queue.push(ready, Event::Checkpointed { host, life, result });
        } else {
            self.note_unsynced(host);
        }
        self.notice_power(host);
    }

    /// The disk has lost something that the swarm is told of in a moment, or it was told.
    pub(super) fn set_untold(&mut self, host: usize, is_untold: bool) {
        if let Some(run) = &mut self.hosts[host].run {
            run.work.untold_losses = if is_untold { run.work.untold_losses + 1 } else { run.work.untold_losses - 1 };
        }
    }

    fn count_loss(&mut self, host: usize, is_loss: bool) {
        if is_loss {
            self.set_untold(host, true);
        }
    }

    /// When the disk is done with a sync.
    fn disk_ready(&mut self, host: usize) -> Instant {
        let time = self.plan.hosts[host].disk_time * (1 + self.rng.below(10));
        self.hosts[host].stalled_until.max(self.now) + time
    }

    fn try_again(&mut self, host: usize, chunk: ChunkIndex, token: Token) {
        match self.take_in(host, chunk, token) {
            Stored::Held => {
                self.check_stored(host, chunk.number());
                self.settle(host, chunk.number());
                self.tell(host, |swarm, now| swarm.handle_chunk_stored(now, chunk, None));
                self.resume(host);
            }
            Stored::Rejected => {}
            Stored::Refused => self.pause(host),
        }
        self.note_unsynced(host);
    }

    pub(super) fn checkpointed(&mut self, host: usize, result: Result<u32, CheckpointError>) {
        self.end_work(host);
        let Some(run) = &self.hosts[host].run else { return };
        match result {
            Ok(_) => {
                if run.work.is_paused && run.work.refused.is_none() {
                    self.resume(host);
                }
                self.note_unsynced(host);
            }
            Err(error) => self.checkpoint_failed(host, &error),
        }
    }

    pub(super) fn sealed(&mut self, host: usize, result: SealResult) {
        self.end_work(host);
        let Some(run) = &mut self.hosts[host].run else { return };
        match result {
            Ok(()) => {
                run.work = super::host::Work { untold_losses: run.work.untold_losses, ..Default::default() };
                self.trace.note(self.now, "sealed", [host as u64, 0]);
            }
            Err(NotDurable::Checkpoint(error)) => self.checkpoint_failed(host, &error),
            Err(NotDurable::Incomplete { .. }) => self.resync(host),
            Err(NotDurable::Disk(_)) => self.pause(host),
        }
    }

    /// Seals the master, if every chunk is held and it is not sealed yet.
    pub(super) fn seal_if_complete(&mut self, host: usize) {
        let Some(run) = &mut self.hosts[host].run else { return };
        let is_complete = run.swarm.as_ref().is_some_and(drover_protocol::swarm::Swarm::is_complete);
        if is_complete && run.image.as_ref().is_some_and(|image| !image.is_sealed()) {
            run.work.is_sealing = true;
            self.due_at(host, self.now);
        }
    }

    fn checkpoint_failed(&mut self, host: usize, error: &CheckpointError) {
        if !error.lost().is_empty() {
            self.set_untold(host, false);
            // Some may have come again meanwhile: a peer that asked for one had told of its loss before.
            let image = self.hosts[host].run.as_ref().and_then(|run| run.image.as_ref());
            let is_lost = |chunk: &ChunkIndex| image.is_none_or(|image| !image.holds(*chunk));
            let lost: Vec<ChunkIndex> = error.lost().iter().copied().filter(is_lost).collect();
            if !is_planted(Bug::ForgetLost) {
                self.tell(host, |swarm, now| swarm.handle_chunks_lost(now, &lost));
            }
            self.set_sealing_by_swarm(host);
        }
        self.pause(host);
    }

    /// The store lacks chunks that the swarm counts as held: the store is right.
    fn resync(&mut self, host: usize) {
        let Some(Running { image: Some(image), swarm: Some(swarm), .. }) = &self.hosts[host].run else { return };
        let lost: Vec<ChunkIndex> = swarm.held().difference(&image.held()).collect();
        self.tell(host, |swarm, now| swarm.handle_chunks_lost(now, &lost));
        // What was lost while the seal was tried may be there again by now.
        self.set_sealing_by_swarm(host);
        // The seal's checkpoint succeeded, so the disk takes data.
        self.resume(host);
    }

    fn set_sealing_by_swarm(&mut self, host: usize) {
        if let Some(Running { swarm: Some(swarm), work, .. }) = &mut self.hosts[host].run {
            work.is_sealing = swarm.is_complete();
        }
    }

    /// A chunk could not be read. Of a sealed master that ends the exchange, until the service is started again.
    pub(super) fn withdraw_or_lose(&mut self, host: usize, chunk: ChunkIndex) {
        let is_sealed =
            self.hosts[host].run.as_ref().and_then(|run| run.image.as_ref()).is_some_and(|at| at.is_sealed());
        if is_sealed {
            self.stop(host);
            return self.after(TRY_AGAIN, Event::Start { host });
        }
        self.tell(host, |swarm, now| swarm.handle_chunks_lost(now, &[chunk]));
        self.note_unsynced(host);
    }

    pub(super) fn note_unsynced(&mut self, host: usize) {
        let now = self.now;
        // While the disk refuses, it is tried every few seconds and not sooner, however long something waits.
        let Some(run) = self.hosts[host].run.as_ref().filter(|run| !run.work.is_paused) else { return };
        if let Some(due_in) = run.image.as_ref().and_then(|image| image.checkpoint_due_in(now)) {
            self.due_at(host, now + due_in);
        }
    }

    fn due_at(&mut self, host: usize, at: Instant) {
        let (life, now) = (self.hosts[host].life, self.now);
        let Some(run) = &mut self.hosts[host].run else { return };
        if run.work.due.is_none_or(|due| at < due) {
            run.work.due = Some(at);
            self.queue.push(at.max(now), Event::Work { host, life });
        }
    }

    /// What was under way is done; what came due meanwhile has its turn.
    fn end_work(&mut self, host: usize) {
        let (life, now) = (self.hosts[host].life, self.now);
        let Some(run) = &mut self.hosts[host].run else { return };
        run.work.is_busy = false;
        if let Some(due) = run.work.due {
            self.queue.push(due.max(now), Event::Work { host, life });
        }
    }

    fn pause(&mut self, host: usize) {
        let life = self.hosts[host].life;
        let at = self.now + TRY_AGAIN;
        let Some(run) = &mut self.hosts[host].run else { return };
        run.work.due = Some(at);
        self.queue.push(at, Event::Work { host, life });
        if !run.work.is_paused {
            run.work.is_paused = true;
            self.note(|| format!("host {host} is paused"));
            self.tell(host, |swarm, now| swarm.set_paused(now, true));
        }
    }

    fn resume(&mut self, host: usize) {
        let Some(run) = &mut self.hosts[host].run else { return };
        if run.work.is_paused && !is_planted(Bug::NeverResume) {
            run.work.is_paused = false;
            self.note(|| format!("host {host} goes on"));
            self.tell(host, |swarm, now| swarm.set_paused(now, false));
        }
    }
}
