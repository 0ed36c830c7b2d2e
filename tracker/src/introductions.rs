//! The task that owns the [`Directory`], and the [`Leases`] of those who send by multicast, which only hosts get that the directory
//! knows as seeders: others ask it through a bounded inbox, and it keeps the directory's time.

use std::net::IpAddr;
use std::time::Duration;

use drover_protocol::announce::{Announce, Announced, Cohort, SwarmCohort};
use drover_protocol::directory::{Directory, DirectoryConfig};
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::multicast::election::{LeaseReply, LeaseRequest, Leases};
use drover_protocol::multicast::packet::SessionId;
use drover_protocol::time::Instant;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time;

use crate::limits::WATCH_BACKLOG;

/// Questions that may wait. Who finds no room waits with his connection, which slows him down and nobody else.
const INBOX_LEN: usize = 256;
/// Swarms that a status shows.
const MAX_SWARMS_SHOWN: usize = 1000;

/// Asks the directory's task.
#[derive(Clone)]
pub(crate) struct Introductions {
    inbox: mpsc::Sender<Question>,
    changes: broadcast::Sender<Vec<SwarmCohort>>,
}

enum Question {
    Announce { peer: PeerId, observed: IpAddr, announce: Box<Announce>, answer: oneshot::Sender<Announced> },
    Leave { peer: PeerId },
    Lease { peer: PeerId, request: LeaseRequest, answer: oneshot::Sender<Option<LeaseReply>> },
    EndLease { peer: PeerId, image: ImageId, session: SessionId },
    Swarms { answer: oneshot::Sender<Vec<(ImageId, Cohort)>> },
}

impl Introductions {
    /// Makes a directory, and the task that owns it; the caller runs the task.
    pub(crate) fn new(config: DirectoryConfig, seed: u64) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (inbox, questions) = mpsc::channel(INBOX_LEN);
        let changes = broadcast::channel(WATCH_BACKLOG).0;
        let task = own(Directory::new(config, seed), questions, changes.clone());
        (Introductions { inbox, changes }, task)
    }

    /// Swarms as they change, from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<Vec<SwarmCohort>> {
        self.changes.subscribe()
    }

    /// Whom a host that announces itself should know; `None` if the tracker shuts down.
    pub(crate) async fn announce(&self, peer: PeerId, observed: IpAddr, announce: Announce) -> Option<Announced> {
        let (answer, answered) = oneshot::channel();
        let question = Question::Announce { peer, observed, announce: Box::new(announce), answer };
        self.inbox.send(question).await.ok()?;
        answered.await.ok()
    }

    /// A host is gone.
    pub(crate) async fn leave(&self, peer: PeerId) {
        // If the task has ended, so has its memory.
        let _ = self.inbox.send(Question::Leave { peer }).await;
    }

    /// Whether a host may send an image by multicast; `None` if it does not hold the image, or the tracker shuts down.
    pub(crate) async fn lease(&self, peer: PeerId, request: LeaseRequest) -> Option<LeaseReply> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(Question::Lease { peer, request, answer }).await.ok()?;
        answered.await.ok().flatten()
    }

    /// A host does not send an image any more.
    pub(crate) async fn end_lease(&self, peer: PeerId, image: ImageId, session: SessionId) {
        // If the task has ended, so has its memory.
        let _ = self.inbox.send(Question::EndLease { peer, image, session }).await;
    }

    /// The swarms and how far they are; `None` if the task does not answer.
    pub(crate) async fn swarms(&self) -> Option<Vec<(ImageId, Cohort)>> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(Question::Swarms { answer }).await.ok()?;
        answered.await.ok()
    }
}

async fn own(
    mut directory: Directory,
    mut questions: mpsc::Receiver<Question>,
    changes: broadcast::Sender<Vec<SwarmCohort>>,
) {
    let start = time::Instant::now();
    let mut leases = Leases::new(now(start));
    loop {
        let told = directory.poll_changes(now(start));
        if !told.is_empty() {
            // Nobody may be watching.
            let _ = changes.send(told);
        }
        let wake = directory.poll_timeout().map(|due| start + Duration::from_nanos(due.as_nanos()));
        let question = tokio::select! {
            question = questions.recv() => question,
            () = time::sleep_until(wake.unwrap_or(start)), if wake.is_some() => {
                directory.handle_timeout(now(start));
                continue;
            }
        };
        // Who does not wait for an answer any more does not need one.
        match question {
            None => return,
            Some(Question::Announce { peer, observed, announce, answer }) => {
                let _ = answer.send(directory.handle_announce(now(start), peer, observed, &announce));
            }
            Some(Question::Leave { peer }) => directory.handle_leave(now(start), peer),
            Some(Question::Lease { peer, request, answer }) => {
                let is_seeder = directory.is_seeder(peer, request.image);
                let _ = answer.send(is_seeder.then(|| leases.handle_request(now(start), peer, &request)));
            }
            Some(Question::EndLease { peer, image, session }) => leases.handle_release(peer, image, session),
            Some(Question::Swarms { answer }) => {
                let _ = answer.send(directory.swarms().take(MAX_SWARMS_SHOWN).collect());
            }
        }
    }
}

fn now(start: time::Instant) -> Instant {
    Instant::START + start.elapsed()
}
