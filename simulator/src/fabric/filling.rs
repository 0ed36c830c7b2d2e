//! Max-min fair rates where something changed, for many hosts.
//!
//! The same progressive filling as in `fair`, which stays the oracle; but only flows that are joined to a change by links
//! that they share are looked at, and all that is needed for it is kept from one time to the next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use drover_protocol::time::Instant;

use super::net::{LinkId, Net, Slot};

/// The links that changed, and room to work in.
#[derive(Debug, Default)]
pub(super) struct Filling {
    /// Per link.
    work: Vec<Work>,
    dirty: Vec<LinkId>,
    /// What is joined to a change: links, and flows with their rates.
    links: Vec<LinkId>,
    flows: Vec<Slot>,
    rates: Vec<u64>,
    /// Changes since rates were found, and when those were in the mean that the last rates follow.
    changes: Changes,
    changed_at: Instant,
    /// Per flow: where it stands in `flows`, if it was found in this round.
    found: Vec<(u32, u32)>,
    round: u32,
    next: Vec<Reverse<(u64, LinkId)>>,
}

/// A link while rates are found.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    left: u64,
    /// Weights of its flows that have no rate yet.
    open: u64,
    /// When it was found last, and when it was so because it changed itself.
    round: u32,
    changed_in: u32,
    is_dirty: bool,
    changes: Changes,
}

/// When something changed: how often, and the sum of the times in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Changes {
    count: u32,
    sum: u128,
}

/// A flow that has no rate yet.
const NONE: u64 = u64::MAX;

impl Filling {
    /// For so many links.
    pub(super) fn new(links: usize) -> Self {
        Filling { work: vec![Work::default(); links], ..Filling::default() }
    }

    /// Something about these links changed.
    pub(super) fn touch(&mut self, now: Instant, links: &[LinkId]) {
        for &link in links {
            let work = &mut self.work[link as usize];
            if !core::mem::replace(&mut work.is_dirty, true) {
                work.changes = Changes::default();
                self.dirty.push(link);
            }
            work.changes.add(now);
            self.changes.add(now);
        }
    }

    /// When the changes were that concern a flow over these links: in the mean of those at its links, else of all.
    pub(super) fn changed_at(&self, path: &[LinkId]) -> Instant {
        let own = path.iter().map(|&link| &self.work[link as usize]).filter(|work| work.changed_in == self.round);
        own.fold(Changes::default(), |sum, work| sum.plus(work.changes)).mean().unwrap_or(self.changed_at)
    }

    /// Finds the rates of all flows that a change may concern.
    pub(super) fn solve(&mut self, net: &Net) {
        self.find(net);
        self.fill(net);
    }

    /// The flows whose rates were found, with their rates in bytes per second.
    pub(super) fn solved(&self) -> impl Iterator<Item = (Slot, u64)> {
        self.flows.iter().copied().zip(self.rates.iter().copied())
    }

    /// Gathers what is joined to a change.
    fn find(&mut self, net: &Net) {
        self.round += 1;
        self.changed_at = core::mem::take(&mut self.changes).mean().unwrap_or(self.changed_at);
        self.links.clear();
        self.flows.clear();
        self.found.resize(net.flows.len(), (0, 0));
        for link in self.dirty.drain(..) {
            let work = &mut self.work[link as usize];
            (work.is_dirty, work.round, work.changed_in) = (false, self.round, self.round);
            self.links.push(link);
        }
        let mut at = 0;
        while let Some(&link) = self.links.get(at) {
            at += 1;
            let mut open = 0;
            for &slot in &net.links[link as usize].flows {
                open += u64::from(net.flows[slot as usize].weight);
                if self.found[slot as usize].0 == self.round {
                    continue;
                }
                self.found[slot as usize] = (self.round, self.flows.len() as u32);
                self.flows.push(slot);
                for &link in net.flows[slot as usize].path() {
                    if core::mem::replace(&mut self.work[link as usize].round, self.round) != self.round {
                        self.links.push(link);
                    }
                }
            }
            let work = &mut self.work[link as usize];
            (work.left, work.open) = (net.links[link as usize].capacity, open);
        }
    }

    fn fill(&mut self, net: &Net) {
        self.rates.clear();
        self.rates.resize(self.flows.len(), NONE);
        self.next.clear();
        for &link in &self.links {
            let work = &self.work[link as usize];
            if work.open > 0 {
                self.next.push(Reverse((work.share(), link)));
            }
        }
        let mut next = BinaryHeap::from(core::mem::take(&mut self.next));
        while let Some(Reverse((share, link))) = next.pop() {
            let work = &self.work[link as usize];
            if work.open == 0 {
                continue;
            }
            // Shares only grow while others are served, so an outdated entry is too low and goes back to its place.
            let now = work.share();
            if now > share {
                next.push(Reverse((now, link)));
                continue;
            }
            for &slot in &net.links[link as usize].flows {
                let rate = &mut self.rates[self.found[slot as usize].1 as usize];
                if *rate != NONE {
                    continue;
                }
                let flow = &net.flows[slot as usize];
                *rate = share * u64::from(flow.weight);
                for &link in flow.path() {
                    let work = &mut self.work[link as usize];
                    work.left -= *rate;
                    work.open -= u64::from(flow.weight);
                }
            }
        }
        self.next = next.into_vec();
    }
}

impl Changes {
    fn add(&mut self, now: Instant) {
        *self = self.plus(Changes { count: 1, sum: u128::from(now.as_nanos()) });
    }

    fn plus(self, other: Changes) -> Self {
        Changes { count: self.count + other.count, sum: self.sum + other.sum }
    }

    /// When they were in the mean, if there were any.
    fn mean(self) -> Option<Instant> {
        (self.count > 0).then(|| Instant::from_nanos((self.sum / u128::from(self.count)) as u64))
    }
}

impl Work {
    /// What a flow of weight 1 gets.
    fn share(&self) -> u64 {
        self.left / self.open
    }
}
