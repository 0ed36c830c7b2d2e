//! Connections as QUIC has them: what is sent on one stream arrives whole and in order, streams do not wait for each other,
//! and a connection breaks as a whole.
//!
//! A lost packet is late, not lost. Who is cut off for less than the idle time-out hears everything afterwards; for longer, the
//! connection is gone, and its two ends notice at different times.

use core::time::Duration;

use drover_protocol::rng::Rng;
use drover_protocol::time::Instant;

use super::fault::{Fault, FaultCounts};
use super::plan::NetDice;

/// After how long of silence a connection is lost: the idle time-out of a link.
pub(super) const IDLE_MOST: Duration = Duration::from_secs(10);

/// A connection between two hosts, or what its ends still take for one.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) ends: [usize; 2],
    /// The lives that the hosts lived when it was made.
    pub(super) lives: [u32; 2],
    /// Whether each end still takes it for open.
    pub(super) is_open: [bool; 2],
    /// Whether nothing gets through any more.
    pub(super) is_cut: bool,
    /// When the last thing on each end's control stream arrives at the other end.
    control_arrives: [Instant; 2],
    /// When the last thing on any stream does, in the order of sending.
    last_arrives: [Instant; 2],
}

impl Link {
    pub(super) fn new(ends: [usize; 2], lives: [u32; 2]) -> Self {
        let never = [Instant::START; 2];
        Link { ends, lives, is_open: [true; 2], is_cut: false, control_arrives: never, last_arrives: never }
    }

    /// Which end a host is.
    pub(super) fn end_of(&self, host: usize) -> usize {
        usize::from(self.ends[1] == host)
    }

    /// The host at the other end.
    pub(super) fn other(&self, host: usize) -> usize {
        self.ends[1 - self.end_of(host)]
    }
}

/// Delays, and who is cut off from whom.
#[derive(Debug)]
pub(super) struct Net {
    dice: NetDice,
    hosts: usize,
    /// Until when nothing gets from one host to another.
    blocked_until: Vec<Instant>,
}

/// What becomes of something that is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transit {
    /// It arrives then.
    Arrives(Instant),
    /// It never does.
    Lost,
    /// It never does, and the connection is lost with it.
    Breaks,
}

impl Net {
    pub(super) fn new(dice: NetDice, hosts: usize) -> Self {
        Net { dice, hosts, blocked_until: vec![Instant::START; hosts * hosts] }
    }

    /// No more faults.
    pub(super) fn heal(&mut self) {
        (self.dice.loss, self.dice.delay.0, self.dice.late) = (0.0, 0.0, 0.0);
        self.blocked_until.fill(Instant::START);
    }

    pub(super) fn block(&mut self, from: usize, to: usize, until: Instant) {
        let blocked = &mut self.blocked_until[from * self.hosts + to];
        *blocked = (*blocked).max(until);
    }

    /// Whether a dial would get through, which takes both directions.
    pub(super) fn is_reachable(&self, now: Instant, from: usize, to: usize) -> bool {
        [(from, to), (to, from)].into_iter().all(|(from, to)| self.blocked_until[from * self.hosts + to] <= now)
    }

    pub(super) fn latency(&self) -> Duration {
        self.dice.latency
    }

    /// How likely a chunk comes although its request was cancelled.
    pub(super) fn late(&self) -> f64 {
        self.dice.late
    }

    /// Something is sent from one end of a link; on its control stream it comes after all that was sent there before.
    pub(super) fn send(
        &self,
        now: Instant,
        link: &mut Link,
        from: usize,
        is_control: bool,
        rng: &mut Rng,
        counts: &mut FaultCounts,
    ) -> Transit {
        if link.is_cut {
            return Transit::Lost;
        }
        let end = link.end_of(from);
        let clear_at = self.blocked_until[from * self.hosts + link.other(from)];
        if clear_at.since(now) >= IDLE_MOST {
            return Transit::Breaks;
        }
        let mut at = now.max(clear_at) + self.dice.latency;
        while rng.chance(self.dice.loss) {
            counts.add(Fault::Loss);
            at = at + self.dice.latency * 3 + Duration::from_millis(5);
        }
        if rng.chance(self.dice.delay.0) {
            counts.add(Fault::Delay);
            at = at + self.dice.delay.1 * (1 + rng.below(100)) / 100;
        }
        if is_control {
            at = at.max(link.control_arrives[end]);
            link.control_arrives[end] = at;
        }
        if at < link.last_arrives[end] {
            counts.add(Fault::Reorder);
        }
        link.last_arrives[end] = at;
        Transit::Arrives(at)
    }
}
