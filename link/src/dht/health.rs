//! Whether a node still does what it is told.
//!
//! The crate's thread ends by a panic when more than 255 nodes answered near a key that something is to be put under, or when
//! an answer is of a kind that it does not expect; every command fails by a panic from then on. And a lookup goes on for as
//! long as each answer names a node that is nearer. So each command has a deadline and leads no further than here, and a node
//! that is ill is to be given up for a new one.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;

/// What is told by then is all that there is. Nodes that are gone hold a lookup up for some seconds.
const LOOKUP_MOST: Duration = Duration::from_secs(10);
/// A node whose lookups were late so often in sequence is ill.
const LATE_MOST: u32 = 3;

/// The health of one node; clones are the same node's.
#[derive(Clone, Debug)]
pub(super) struct Health {
    seen: Arc<Seen>,
    /// How long a command may take.
    most: Duration,
}

#[derive(Debug, Default)]
struct Seen {
    has_ended: AtomicBool,
    late: AtomicU32,
}

impl Default for Health {
    fn default() -> Self {
        Health { seen: Arc::default(), most: LOOKUP_MOST }
    }
}

impl Health {
    /// What a question about the node itself gives, unless it is ill.
    pub(super) async fn ask<T>(&self, command: impl Future<Output = T>) -> Option<T> {
        self.within_deadline(command).await.ok().flatten()
    }

    /// What a command gives that asks other nodes, unless it comes too late or the node is ill.
    pub(super) async fn look_up<T>(&self, command: impl Future<Output = T>) -> Option<T> {
        let Ok(done) = self.within_deadline(command).await else {
            self.seen.late.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.seen.late.store(0, Ordering::Relaxed);
        done
    }

    /// What is wrong with the node.
    pub(super) fn problem(&self) -> Option<&'static str> {
        if self.seen.has_ended.load(Ordering::Relaxed) {
            Some("its thread has ended: too many nodes answered, or one did so in an unknown way")
        } else if self.seen.late.load(Ordering::Relaxed) >= LATE_MOST {
            Some("its lookups do not end")
        } else {
            None
        }
    }

    /// Nothing of a command that panicked; an error of one that is late.
    async fn within_deadline<T>(
        &self,
        command: impl Future<Output = T>,
    ) -> Result<Option<T>, tokio::time::error::Elapsed> {
        let done = timeout(self.most, AssertUnwindSafe(command).catch_unwind()).await?;
        if done.is_err() {
            self.seen.has_ended.store(true, Ordering::Relaxed);
        }
        Ok(done.ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_whose_lookups_do_not_end_is_ill_until_one_does() {
        let health = Health { most: Duration::from_millis(20), ..Health::default() };
        for _ in 0..LATE_MOST {
            assert_eq!(health.problem(), None);
            assert_eq!(health.look_up(core::future::pending::<()>()).await, None);
        }
        assert_eq!(health.problem(), Some("its lookups do not end"));
        assert_eq!(health.ask(async { 1 }).await, Some(1));
        assert!(health.problem().is_some(), "that asks nobody");
        assert_eq!(health.look_up(async { 2 }).await, Some(2));
        assert_eq!(health.problem(), None);
    }

    #[tokio::test]
    async fn a_panic_of_the_crate_leads_no_further() {
        let health = Health::default();
        assert_eq!(health.look_up(async { panic!("too many nodes") }).await, None::<()>);
        assert!(health.problem().is_some_and(|problem| problem.contains("has ended")));
    }
}
