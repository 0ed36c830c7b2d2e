//! Who comes and goes when, for the contenders that have no machines.

use std::collections::VecDeque;

use drover_protocol::time::Instant;

use crate::scenario::Scenario;

/// A host comes or goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Comes(usize),
    Goes(usize),
}

/// All of a scenario, in order of time.
#[derive(Clone, Debug)]
pub(super) struct Timeline(VecDeque<(Instant, Change)>);

impl Timeline {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mut changes = Vec::new();
        for (host, plan) in scenario.hosts.iter().enumerate() {
            changes.push((Instant::START + plan.arrives, Change::Comes(host)));
            for absence in &plan.absences {
                changes.push((Instant::START + absence.from, Change::Goes(host)));
                changes.extend(absence.until.map(|until| (Instant::START + until, Change::Comes(host))));
            }
        }
        changes.sort_by_key(|&(at, _)| at);
        Timeline(changes.into())
    }

    /// When the next change is.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.0.front().map(|&(at, _)| at)
    }

    /// The next change that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Change> {
        self.0.pop_front_if(|(at, _)| *at <= now).map(|(_, change)| change)
    }
}
