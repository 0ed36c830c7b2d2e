//! The network as flows: how many bytes of each arrive by when.
//!
//! Every host has an access link up and one down. Hosts may stand in racks: between racks each rack has a link up and one
//! down, if they are limited; everything else is without limits. The flows that are open share the links max-min fairly, by
//! weight.
//!
//! The *exact* solver finds all rates anew at every change: an oracle for some hundred hosts. The *batched* one does so a
//! quantum after the first change, and only for flows that the change may concern, so that a burst of changes costs one
//! solution. Until then a new flow has what its links have left over, which is most of what the one before it gave up, and
//! what nobody takes is idle. When rates are found, this is made good: who sent more than its new rate since the change (in the mean
//! of the changes on its links) gives it back, as far as it was not told yet, and who sent less gets it, as far as its
//! links were idle or others gave back. So no link carries more than it can, over the time from a change until rates follow it,
//! and the model is slower than the truth, never faster. Now and then rates are checked against the definition of max-min
//! fairness.
//!
//! What is no flow, and yields to nobody, takes its part of a link beforehand.
//!
//! Driven like the machines: `open` and `close` in, `poll_progress` out, `poll_timeout` and `handle_timeout`.

mod certificate;
mod fair;
mod filling;
mod net;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use drover_protocol::time::Instant;

pub(crate) use fair::max_min;
use filling::Filling;
pub(crate) use net::LinkId;
use net::{Net, Slot};

/// A flow tells how far it is at least so often, unless told otherwise. Shorter than any time-out for lack of progress.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// Only what ends or reports within so long is put in order of time: rates may change until then.
const FORESIGHT: Duration = Duration::from_millis(50);
/// One of so many solutions is checked.
const CHECKED_OF: u64 = 64;

/// A flow, as long as it is open; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FlowId {
    slot: Slot,
    generation: u32,
}

impl FlowId {
    /// The place of this flow: a small number that no other flow has until this one's end was told.
    pub fn place(self) -> usize {
        self.slot as usize
    }
}

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

/// One direction of a host's access link, or of a rack's link to the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// From this host.
    From(usize),
    /// To this host.
    To(usize),
    /// Out of this rack.
    OutOf(usize),
    /// Into this rack.
    Into(usize),
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
    /// Two links for each host, up and down, then two for each rack.
    net: Net,
    hosts: usize,
    racks: Option<Racks>,
    /// Bytes that left each rack by flows that are closed.
    crossed: Vec<u64>,
    /// What is to be taken of links when rates are found anew.
    takings: Vec<(LinkId, u64)>,
    solver: Solver,
    report_interval: Duration,
    /// When rates are found anew, if something has changed.
    solve_at: Option<Instant>,
    /// When it is looked again which flows end or report soon; none while there are no flows.
    look_at: Option<Instant>,
    /// When flows end or report until then. Entries of an old prediction are skipped.
    reports: BinaryHeap<Reverse<(Instant, FlowId, u32)>>,
    progress: VecDeque<Progress>,
    solutions: u64,
    violation: Option<String>,
}

/// How rates are found.
#[derive(Debug)]
enum Solver {
    Exact,
    Batched { quantum: Duration, filling: Box<Filling> },
}

impl Fabric {
    /// Links for hosts of these rates, numbered from 0, and for their racks, with the batched solver.
    pub fn new(hosts: &[Access], racks: Option<Racks>, quantum: Duration) -> Self {
        let mut fabric = Self::exact(hosts, racks);
        fabric.solver = Solver::Batched { quantum, filling: Box::new(Filling::new(fabric.net.links.len())) };
        fabric
    }

    /// The same with the exact solver.
    pub fn exact(hosts: &[Access], racks: Option<Racks>) -> Self {
        let mut capacities: Vec<u64> = hosts.iter().flat_map(|access| [access.up, access.down]).collect();
        let mut crossed = Vec::new();
        if let Some(racks) = &racks {
            let count = racks.of_host.iter().max().map_or(0, |&last| last + 1);
            capacities.resize(capacities.len() + 2 * count, racks.uplink);
            crossed.resize(count, 0);
        }
        Fabric {
            net: Net::new(capacities),
            hosts: hosts.len(),
            racks,
            crossed,
            takings: Vec::new(),
            solver: Solver::Exact,
            report_interval: REPORT_INTERVAL,
            solve_at: None,
            look_at: None,
            reports: BinaryHeap::new(),
            progress: VecDeque::new(),
            solutions: 0,
            violation: None,
        }
    }

    /// Flows tell how far they are at least so often.
    pub fn reporting_every(mut self, interval: Duration) -> Self {
        self.report_interval = interval;
        self
    }

    /// Begins to send `len` bytes from one host to another.
    pub fn open(&mut self, now: Instant, from: usize, to: usize, len: u64) -> FlowId {
        self.open_weighted(now, from, to, len, 1)
    }

    /// Begins to send `len` bytes from one host to another, with so many times the share of a full link that a flow of
    /// weight 1 has. `weight` must not be zero.
    pub fn open_weighted(&mut self, now: Instant, from: usize, to: usize, len: u64, weight: u32) -> FlowId {
        let (path, hops) = self.path(from, to);
        self.solve_soon(now);
        let slot = self.net.open(now, &path[..hops], weight, len);
        self.net.flows[slot as usize].report_at = now + self.report_interval;
        if let Solver::Batched { filling, .. } = &mut self.solver {
            filling.touch(now, &path[..hops]);
            self.net.set_rate(now, slot, self.net.slack(slot));
        }
        self.look_at.get_or_insert(now + FORESIGHT);
        self.predict(slot);
        self.id(slot)
    }

    /// Stops a flow before its end; says how many bytes have left the sender.
    pub fn close(&mut self, now: Instant, flow: FlowId) -> Option<u64> {
        let open = self.net.flows.get(flow.slot as usize)?;
        if !open.is_open || open.generation != flow.generation {
            return None;
        }
        let sent = self.end(now, flow.slot);
        self.net.release(flow.slot);
        Some(sent)
    }

    /// From now on so many bytes per second of a link are taken by what is no flow and yields to nobody. Flows make room when
    /// rates are found anew.
    ///
    /// Without racks that are limited nothing is taken between them.
    pub fn take(&mut self, now: Instant, way: Way, bytes_per_s: u64) {
        let rack = |rack: usize| 2 * (self.hosts + rack) as LinkId;
        let link = match way {
            Way::From(host) => 2 * host as LinkId,
            Way::To(host) => 2 * host as LinkId + 1,
            Way::OutOf(_) | Way::Into(_) if self.racks.is_none() => return,
            Way::OutOf(number) => rack(number),
            Way::Into(number) => rack(number) + 1,
        };
        self.takings.push((link, bytes_per_s));
        self.solve_soon(now);
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
        if self.look_at.is_some_and(|at| at <= now) {
            self.look(now);
        }
    }

    /// When to call [`Fabric::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let report = self.reports.peek().map(|&Reverse((at, ..))| at);
        report.into_iter().chain(self.solve_at).chain(self.look_at).min()
    }

    /// What became of flows. To be called until it is `None` after every timeout.
    pub fn poll_progress(&mut self) -> Option<Progress> {
        let progress = self.progress.pop_front()?;
        if progress.is_done {
            self.net.release(progress.flow.slot);
        }
        Some(progress)
    }

    /// How often rates were found anew.
    pub fn solutions(&self) -> u64 {
        self.solutions
    }

    /// Bytes that left each rack for another by flows that are closed; empty without racks.
    pub fn crossed(&self) -> &[u64] {
        &self.crossed
    }

    /// What was wrong with rates, if anything ever was: then the model is.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    fn path(&self, from: usize, to: usize) -> ([LinkId; 4], usize) {
        let (up, down) = (2 * from as LinkId, 2 * to as LinkId + 1);
        if let Some(Racks { of_host, .. }) = &self.racks
            && of_host[from] != of_host[to]
        {
            let rack = |host: usize| 2 * (self.hosts + of_host[host]) as LinkId;
            return ([up, down, rack(from), rack(to) + 1], 4);
        }
        ([up, down, 0, 0], 2)
    }

    fn id(&self, slot: Slot) -> FlowId {
        FlowId { slot, generation: self.net.flows[slot as usize].generation }
    }

    /// Closes a flow; says how many bytes have left the sender.
    fn end(&mut self, now: Instant, slot: Slot) -> u64 {
        self.solve_soon(now);
        self.net.close(now, slot);
        let closed = &self.net.flows[slot as usize];
        let sent = closed.sent();
        if let Some(&up) = closed.path().get(2) {
            self.crossed[up as usize / 2 - self.hosts] += sent;
        }
        if let Solver::Batched { filling, .. } = &mut self.solver {
            filling.touch(now, closed.path());
        }
        sent
    }

    fn solve_soon(&mut self, now: Instant) {
        let quantum = match &self.solver {
            Solver::Exact => Duration::ZERO,
            Solver::Batched { quantum, .. } => *quantum,
        };
        if self.solve_at.is_none() {
            self.solve_at = Some(now + quantum);
            self.net.begin_window(now);
        }
    }

    fn report(&mut self, now: Instant, id: FlowId, prediction: u32) {
        let flow = &mut self.net.flows[id.slot as usize];
        if !flow.is_open || (flow.generation, flow.prediction) != (id.generation, prediction) {
            return;
        }
        flow.count(now);
        flow.tell();
        let (sent, is_done) = (flow.sent(), flow.is_done());
        self.progress.push_back(Progress { flow: id, sent, is_done });
        if is_done {
            self.end(now, id.slot);
        } else {
            flow.report_at = now + self.report_interval;
            self.predict(id.slot);
        }
    }

    /// Puts the end or the next report of a flow in order of time, if it comes before the next look.
    fn predict(&mut self, slot: Slot) {
        let flow = &mut self.net.flows[slot as usize];
        flow.prediction += 1;
        if self.look_at.is_some_and(|by| flow.is_due(by)) {
            let id = FlowId { slot, generation: flow.generation };
            self.reports.push(Reverse((flow.due_at(), id, flow.prediction)));
        }
    }

    fn look(&mut self, now: Instant) {
        self.look_at = (!self.net.is_empty()).then_some(now + FORESIGHT);
        for slot in 0..self.net.flows.len() as Slot {
            if self.net.flows[slot as usize].is_open {
                self.predict(slot);
            }
        }
    }

    fn solve(&mut self, now: Instant) {
        self.solve_at = None;
        self.solutions += 1;
        let mut solver = core::mem::replace(&mut self.solver, Solver::Exact);
        for (link, bytes_per_s) in self.takings.drain(..) {
            self.net.take(link, bytes_per_s);
            if let Solver::Batched { filling, .. } = &mut solver {
                filling.touch(now, &[link]);
            }
        }
        match &mut solver {
            Solver::Exact => {
                fair::solve(&self.net).into_iter().for_each(|(slot, rate)| self.change(now, slot, rate));
            }
            Solver::Batched { filling, .. } => {
                filling.solve(&self.net);
                self.correct(now, filling);
                filling.solved().for_each(|(slot, rate)| self.change(now, slot, rate));
            }
        }
        self.solver = solver;
        if self.solutions % CHECKED_OF == 1 && self.violation.is_none() {
            self.violation = certificate::check(&self.net).err();
        }
    }

    /// Makes up for the time in which rates did not follow changes.
    fn correct(&mut self, now: Instant, filling: &Filling) {
        for (slot, rate) in filling.solved() {
            let flow = &self.net.flows[slot as usize];
            if flow.rate > rate {
                let since = filling.changed_at(flow.path()).max(flow.opened_at);
                self.net.take_back(now, slot, rate, since);
            }
        }
        for (slot, rate) in filling.solved() {
            let flow = &self.net.flows[slot as usize];
            if flow.rate < rate {
                let since = filling.changed_at(flow.path()).max(flow.opened_at);
                self.net.make_good(now, slot, rate, since);
            }
        }
    }

    fn change(&mut self, now: Instant, slot: Slot, rate: u64) {
        if self.net.flows[slot as usize].rate != rate {
            self.net.set_rate(now, slot, rate);
            self.predict(slot);
        }
    }
}
