//! Something that is tried again and again, ever more rarely.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock;

/// When to try again; doubled each time.
const AGAIN_LEAST: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    next: Instant,
    tries: u32,
}

impl Retry {
    pub(super) fn at(next: Instant) -> Self {
        Retry { next, tries: 0 }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// How often it was tried.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    /// It is tried again after this time at the latest.
    pub(super) fn no_later(&mut self, latest: Instant) {
        self.next = self.next.min(latest);
    }

    /// It is tried now.
    pub(super) fn again(&mut self, now: Instant) {
        self.next = now + clock::jittered((AGAIN_LEAST * 2u32.pow(self.tries.min(10))).min(AGAIN_MOST));
        self.tries = self.tries.saturating_add(1);
    }
}
