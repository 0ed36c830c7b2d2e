//! The network as flows: how many bytes of each arrive by when.
//!
//! Every host has an access link up and one down. Hosts may stand in racks: between racks each rack has a link up and one
//! down, if they are limited; everything else is without limits. The flows that are open
//! share the links max-min fairly. Rates are found anew a quantum after something changed, not at once, so that a burst
//! of changes costs one solution; until then a new flow waits and what a closed one leaves is idle. That makes the model
//! slower than the truth by at most a quantum each time, never faster.
//!
//! Driven like the machines: `open` and `close` in, `poll_progress` out, `poll_timeout` and `handle_timeout`.

mod fair;

use core::time::Duration;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use drover_protocol::time::Instant;

use fair::LinkId;
pub(crate) use fair::max_min;

/// Nanoseconds in a second: bytes are counted in billionths, so that no rounding gathers.
const NANOS: u128 = 1_000_000_000;
/// A flow tells how far it is at least so often. Shorter than any time-out for lack of progress.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// A flow, as long as it is open; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FlowId(u64);

/// What became of a flow since its last report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Which flow.
    pub flow: FlowId,
    /// All bytes that have left the sender so far.
    pub sent: u64,
    /// Whether that was all; the flow is closed then.
    pub is_done: bool,
}

/// How fast a host's access link is, in bytes per second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// From the host.
    pub up: u64,
    /// To the host.
    pub down: u64,
}

/// Which hosts stand together, and what leaves and enters each rack at most.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Racks {
    /// Number of each host's rack.
    pub of_host: Vec<usize>,
    /// Bytes per second up from each rack, and as many down to it.
    pub uplink: u64,
}

/// The links and what flows over them.
#[derive(Debug)]
pub struct Fabric {
    /// Two for each host, up and down, then two for each rack.
    capacities: Vec<u64>,
    hosts: usize,
    racks: Option<Racks>,
    /// Bytes that were to leave each rack by flows that are closed.
    crossed: Vec<u64>,
    quantum: Duration,
    flows: BTreeMap<FlowId, Flow>,
    opened: u64,
    /// When rates are found anew, if something has changed.
    solve_at: Option<Instant>,
    /// When flows report. Entries of an old prediction are skipped.
    reports: BinaryHeap<Reverse<(Instant, FlowId, u32)>>,
    progress: VecDeque<Progress>,
    solutions: u64,
}

#[derive(Debug)]
struct Flow {
    path: Vec<LinkId>,
    /// Bytes in all.
    len: u64,
    /// Billionths of bytes that are left.
    left: u128,
    /// Bytes per second.
    rate: u64,
    /// Until when `left` is counted.
    counted_at: Instant,
    /// Which of its predictions is the last.
    prediction: u32,
}

impl Fabric {
    /// Links for hosts of these rates, numbered from 0, and for their racks.
    pub fn new(hosts: &[Access], racks: Option<Racks>, quantum: Duration) -> Self {
        let mut capacities: Vec<u64> = hosts.iter().flat_map(|access| [access.up, access.down]).collect();
        let mut crossed = Vec::new();
        if let Some(racks) = &racks {
            let count = racks.of_host.iter().max().map_or(0, |&last| last + 1);
            capacities.resize(capacities.len() + 2 * count, racks.uplink);
            crossed.resize(count, 0);
        }
        Fabric {
            capacities,
            hosts: hosts.len(),
            racks,
            crossed,
            quantum,
            flows: BTreeMap::new(),
            opened: 0,
            solve_at: None,
            reports: BinaryHeap::new(),
            progress: VecDeque::new(),
            solutions: 0,
        }
    }

    /// Begins to send `len` bytes from one host to another.
    pub fn open(&mut self, now: Instant, from: usize, to: usize, len: u64) -> FlowId {
        self.opened += 1;
        let flow = FlowId(self.opened);
        let left = u128::from(len) * NANOS;
        let path = self.path(from, to);
        self.flows.insert(flow, Flow { path, len, left, rate: 0, counted_at: now, prediction: 0 });
        self.solve_soon(now);
        flow
    }

    /// Stops a flow before its end; says how many bytes have left the sender.
    pub fn close(&mut self, now: Instant, flow: FlowId) -> Option<u64> {
        let mut closed = self.flows.remove(&flow)?;
        closed.count(now);
        self.note_crossing(&closed);
        self.solve_soon(now);
        Some(closed.sent())
    }

    /// The time given to [`Fabric::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&Reverse((at, flow, prediction))) = self.reports.peek()
            && at <= now
        {
            self.reports.pop();
            self.report(now, flow, prediction);
        }
        if self.solve_at.is_some_and(|at| at <= now) {
            self.solve(now);
        }
    }

    /// When to call [`Fabric::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let report = self.reports.peek().map(|&Reverse((at, ..))| at);
        report.into_iter().chain(self.solve_at).min()
    }

    /// What became of flows. To be called until it is `None` after every timeout.
    pub fn poll_progress(&mut self) -> Option<Progress> {
        self.progress.pop_front()
    }

    /// How often rates were found anew.
    pub fn solutions(&self) -> u64 {
        self.solutions
    }

    /// Bytes that left each rack for another by flows that are closed; empty without racks.
    pub fn crossed(&self) -> &[u64] {
        &self.crossed
    }

    fn path(&self, from: usize, to: usize) -> Vec<LinkId> {
        let mut path = vec![2 * from, 2 * to + 1];
        if let Some(Racks { of_host, .. }) = &self.racks
            && of_host[from] != of_host[to]
        {
            path.extend([2 * (self.hosts + of_host[from]), 2 * (self.hosts + of_host[to]) + 1]);
        }
        path
    }

    fn note_crossing(&mut self, closed: &Flow) {
        if let Some(up) = closed.path.get(2) {
            self.crossed[up / 2 - self.hosts] += closed.sent();
        }
    }

    fn solve_soon(&mut self, now: Instant) {
        self.solve_at.get_or_insert(now + self.quantum);
    }

    fn report(&mut self, now: Instant, id: FlowId, prediction: u32) {
        let Some(flow) = self.flows.get_mut(&id).filter(|flow| flow.prediction == prediction) else { return };
        flow.count(now);
        let is_done = flow.left == 0;
        self.progress.push_back(Progress { flow: id, sent: flow.sent(), is_done });
        if is_done {
            let closed = self.flows.remove(&id);
            closed.iter().for_each(|closed| self.note_crossing(closed));
            self.solve_soon(now);
        } else {
            let at = flow.predict(now);
            self.reports.push(Reverse((at, id, flow.prediction)));
        }
    }

    fn solve(&mut self, now: Instant) {
        self.solve_at = None;
        self.solutions += 1;
        let paths: Vec<&[LinkId]> = self.flows.values().map(|flow| flow.path.as_slice()).collect();
        let rates = max_min(&self.capacities, &paths);
        for ((&id, flow), rate) in self.flows.iter_mut().zip(rates) {
            if flow.rate != rate {
                flow.count(now);
                flow.rate = rate;
                let at = flow.predict(now);
                self.reports.push(Reverse((at, id, flow.prediction)));
            }
        }
    }
}

impl Flow {
    /// Counts what was sent until `now`.
    fn count(&mut self, now: Instant) {
        let moved = u128::from(self.rate) * now.since(self.counted_at).as_nanos();
        self.left = self.left.saturating_sub(moved);
        self.counted_at = now;
    }

    fn sent(&self) -> u64 {
        self.len - self.left.div_ceil(NANOS) as u64
    }

    /// When it reports next: at its end, or when it would be silent for too long.
    fn predict(&mut self, now: Instant) -> Instant {
        self.prediction += 1;
        if self.rate == 0 {
            return now + REPORT_INTERVAL;
        }
        let nanos = self.left.div_ceil(u128::from(self.rate));
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        now + Duration::from_nanos(nanos).min(REPORT_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBYTE: u64 = 1_000_000;

    fn fabric(hosts: usize, quantum: Duration) -> Fabric {
        Fabric::new(&vec![Access { up: MBYTE, down: MBYTE }; hosts], None, quantum)
    }

    /// Runs until nothing is left; gives the time at which each flow was done.
    fn finish(fabric: &mut Fabric) -> BTreeMap<FlowId, Instant> {
        let mut done = BTreeMap::new();
        while let Some(now) = fabric.poll_timeout() {
            fabric.handle_timeout(now);
            while let Some(progress) = fabric.poll_progress() {
                if progress.is_done {
                    done.insert(progress.flow, now);
                }
            }
        }
        done
    }

    #[test]
    fn a_flow_alone_takes_its_length_over_its_rate() {
        let mut fabric = fabric(2, Duration::ZERO);
        let flow = fabric.open(Instant::START, 0, 1, 3 * MBYTE);
        assert_eq!(finish(&mut fabric), BTreeMap::from([(flow, Instant::from_millis(3000))]));
    }

    #[test]
    fn what_one_leaves_the_other_takes() {
        let mut fabric = fabric(3, Duration::ZERO);
        let short = fabric.open(Instant::START, 0, 1, MBYTE);
        let long = fabric.open(Instant::START, 0, 2, 2 * MBYTE);
        let done = finish(&mut fabric);
        assert_eq!(done, BTreeMap::from([(short, Instant::from_millis(2000)), (long, Instant::from_millis(3000))]));
    }

    #[test]
    fn what_runs_between_racks_shares_their_link_and_is_counted() {
        let racks = Racks { of_host: vec![0, 0, 1, 1], uplink: MBYTE };
        let mut fabric = Fabric::new(&[Access { up: MBYTE, down: MBYTE }; 4], Some(racks), Duration::ZERO);
        let within = fabric.open(Instant::START, 0, 1, MBYTE / 2);
        let across = [fabric.open(Instant::START, 0, 2, MBYTE / 2), fabric.open(Instant::START, 1, 3, MBYTE / 2)];
        let done = finish(&mut fabric);
        assert_eq!(done[&within], Instant::from_millis(1000));
        assert_eq!(across.map(|flow| done[&flow]), [Instant::from_millis(1000); 2]);
        assert_eq!(fabric.crossed(), [MBYTE, 0]);
    }

    #[test]
    fn a_closed_flow_says_how_far_it_was() {
        let mut fabric = fabric(2, Duration::ZERO);
        let flow = fabric.open(Instant::START, 0, 1, MBYTE);
        fabric.handle_timeout(Instant::START);
        assert_eq!(fabric.close(Instant::from_millis(250), flow), Some(MBYTE / 4));
        assert_eq!(fabric.close(Instant::from_millis(250), flow), None);
        assert_eq!(finish(&mut fabric), BTreeMap::new());
    }

    #[test]
    fn a_quantum_only_makes_it_slower() {
        let quantum = Duration::from_millis(10);
        let mut fabric = fabric(2, quantum);
        let flow = fabric.open(Instant::START, 0, 1, MBYTE);
        assert_eq!(finish(&mut fabric)[&flow], Instant::from_millis(1010));
    }
}
