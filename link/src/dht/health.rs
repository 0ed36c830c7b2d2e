//! Whether a node still does what it is told.
//!
//! Every command to the crate's thread fails by a panic when that has ended. Nothing is known by which others could end it now
//! that lookups are ours, but a command leads no further than here all the same, and a node that is ill is to be given
//! up for a new one.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;

/// A command asks nobody else.
const MOST: Duration = Duration::from_secs(10);

/// The health of one node; clones are the same node's.
#[derive(Clone, Debug, Default)]
pub(super) struct Health(Arc<AtomicBool>);

impl Health {
    /// What a command gives, unless the node is ill or busy.
    pub(super) async fn ask<T>(&self, command: impl Future<Output = T>) -> Option<T> {
        let done = timeout(MOST, AssertUnwindSafe(command).catch_unwind()).await.ok()?;
        if done.is_err() {
            self.0.store(true, Ordering::Relaxed);
        }
        done.ok()
    }

    /// What is wrong with the node.
    pub(super) fn problem(&self) -> Option<&'static str> {
        self.0.load(Ordering::Relaxed).then_some("its thread has ended")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_the_crate_leads_no_further() {
        let health = Health::default();
        assert_eq!(health.ask(async { 1 }).await, Some(1));
        assert_eq!(health.problem(), None);
        assert_eq!(health.ask(async { panic!("the thread is gone") }).await, None::<()>);
        assert_eq!(health.problem(), Some("its thread has ended"));
    }
}
