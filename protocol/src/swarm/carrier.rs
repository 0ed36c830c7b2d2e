//! What comes by another way than requests, as by multicast, and whether it is relied on.
//!
//! To ask peers for what another way is about to bring would only slow that down, as long as it fills this host's link. Whether it does, nobody
//! says; but it is seen what it brings, and what peers brought before. So it is relied on from the moment in which it begins, and goes on
//! being compared: a way that brings clearly less than peers did is not relied on any more, and then peers are asked for everything while it
//! brings what it can. It is relied on again once it brings about as much as they do.
//!
//! Bytes are counted as they are stored, over spans of a second: chunks come in batches, and shorter spans would tell of the batches.

use core::time::Duration;

use crate::time::Instant;

/// What one other way brings, beside what peers bring.
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    /// Whether it brings anything.
    is_up: bool,
    is_relied_on: bool,
    /// When the span began, and what came since.
    since: Instant,
    by_peers: u64,
    by_it: u64,
    /// The most that peers brought in a span lately, in bytes per second.
    best_of_peers: u64,
}

impl Carrier {
    /// Nothing comes by another way.
    pub(super) fn new(now: Instant) -> Self {
        Carrier { is_up: false, is_relied_on: false, since: now, by_peers: 0, by_it: 0, best_of_peers: 0 }
    }

    /// The other way brings something from now on, or nothing any more.
    pub(super) fn set_up(&mut self, now: Instant, is_up: bool) {
        if self.is_up != is_up {
            (self.is_up, self.is_relied_on) = (is_up, is_up);
            self.begin_span(now);
        }
    }

    /// So many bytes that were lacking are stored.
    pub(super) fn add(&mut self, bytes: u64, by_request: bool) {
        *(if by_request { &mut self.by_peers } else { &mut self.by_it }) += bytes;
    }

    /// Ends the span, if it is long enough, and judges by it.
    pub(super) fn roll(&mut self, now: Instant) {
        let nanos = now.since(self.since).as_nanos();
        if nanos < SPAN.as_nanos() {
            return;
        }
        let rate = |bytes: u64| u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX);
        if !self.is_relied_on {
            self.best_of_peers = (self.best_of_peers - self.best_of_peers / FORGETTING).max(rate(self.by_peers));
        }
        let enough = self.best_of_peers / 100 * if self.is_relied_on { ENOUGH_TO_GO_ON } else { ENOUGH_TO_BEGIN };
        self.is_relied_on = self.is_up && rate(self.by_it) >= enough;
        self.begin_span(now);
    }

    /// Whether peers are to be asked for nothing that the other way is going to bring.
    pub(super) fn is_relied_on(&self) -> bool {
        self.is_relied_on
    }

    fn begin_span(&mut self, now: Instant) {
        (self.since, self.by_peers, self.by_it) = (now, 0, 0);
    }
}

/// A sixteenth of what peers brought is forgotten with each span, unless they bring it again.
const FORGETTING: u64 = 16;
/// Long enough that a batch more or less does not matter.
const SPAN: Duration = Duration::from_secs(1);
/// Shares of what peers brought, in percent, with which another way goes on being relied on, and is again. What it brings while they are asked,
/// too, tells little: both share the link.
const ENOUGH_TO_GO_ON: u64 = 60;
const ENOUGH_TO_BEGIN: u64 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    struct Story {
        carrier: Carrier,
        now: Instant,
    }

    impl Story {
        fn new() -> Self {
            Story { carrier: Carrier::new(Instant::START), now: Instant::START }
        }

        fn set_up(&mut self, is_up: bool) {
            self.carrier.set_up(self.now, is_up);
        }

        /// In each of so many seconds peers bring `by_peers` bytes, and the other way brings `by_it`; says whether it is relied on then.
        fn pass(&mut self, seconds: u32, by_peers: u64, by_it: u64) -> bool {
            for _ in 0..seconds * 4 {
                self.carrier.add(by_peers / 4, true);
                self.carrier.add(by_it / 4, false);
                self.now = self.now + SPAN / 4;
                self.carrier.roll(self.now);
            }
            self.carrier.is_relied_on()
        }
    }

    #[test]
    fn it_is_relied_on_at_once_and_while_it_brings_about_what_peers_did() {
        let mut story = Story::new();
        assert!(!story.pass(3, 10_000_000, 0));
        story.set_up(true);
        assert!(story.carrier.is_relied_on());
        assert!(story.pass(30, 0, 7_000_000));
        assert!(!story.pass(1, 0, 5_000_000), "what peers brought is not forgotten meanwhile");
    }

    #[test]
    fn what_was_too_slow_is_relied_on_again_once_it_brings_about_as_much_as_peers() {
        let mut story = Story::new();
        story.pass(2, 10_000_000, 0);
        story.set_up(true);
        assert!(!story.pass(1, 0, 1_000_000));
        assert!(!story.pass(5, 9_000_000, 1_000_000));
        assert!(story.pass(20, 4_000_000, 4_000_000));
    }

    #[test]
    fn where_peers_brought_nothing_any_rate_is_enough() {
        let mut story = Story::new();
        story.set_up(true);
        assert!(story.pass(5, 0, 1_000));
        story.set_up(false);
        assert!(!story.carrier.is_relied_on());
    }
}
