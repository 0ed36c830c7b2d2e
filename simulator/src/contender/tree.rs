//! A binomial tree: whoever has the whole image sends it to one more host, and both go on.
//!
//! The textbook's broadcast without pieces: `⌈log2 (N+1)⌉ · S/r`, whole images stored and forwarded. (With pieces it
//! becomes the binomial pipeline, which reaches `S/r · (1 + ⌊log2 N⌋/M)`: the optimum that stands beside our result.)
//!
//! Senders prefer hosts of their own rack; with all of it served they go where most are left. A transfer of which one end dies is begun again by another holder. The latency
//! of starting a transfer is not counted: it is nothing beside a whole image.

use std::collections::{BTreeMap, BTreeSet};

use drover_protocol::time::Instant;

use super::fluid::Fluid;
use super::timeline::{Change, Timeline};
use super::{Course, TCP_GOODPUT};
use crate::scenario::Scenario;

/// The schedule on max-min fair links.
pub(super) fn double(scenario: &Scenario) -> Course {
    let mut tree = Tree {
        scenario,
        fluid: Fluid::new(scenario, &scenario.links(TCP_GOODPUT), scenario.uplink(TCP_GOODPUT)),
        idle: BTreeSet::new(),
        lacking: BTreeMap::new(),
        sender_of: BTreeMap::new(),
        course: Course::new(scenario),
    };
    let mut timeline = Timeline::new(scenario);
    while let Some(done) = tree.fluid.advance(timeline.next_at()) {
        for host in done {
            tree.received(host);
        }
        while let Some(change) = timeline.pop(tree.fluid.now()) {
            tree.change(change);
        }
        tree.send();
    }
    if tree.sender_of.is_empty() && tree.idle.is_empty() {
        tree.course.stopped = Some("nobody who has the image is left".to_owned());
    }
    tree.course
}

struct Tree<'a> {
    scenario: &'a Scenario,
    fluid: Fluid<'a>,
    /// Hosts that have the image and send it to nobody.
    idle: BTreeSet<usize>,
    /// By rack: hosts that are here, lack it and don't receive it. No set is empty.
    lacking: BTreeMap<Option<usize>, BTreeSet<usize>>,
    /// By receiver.
    sender_of: BTreeMap<usize, usize>,
    course: Course,
}

impl Tree<'_> {
    fn received(&mut self, host: usize) {
        let sender = self.sender_of.remove(&host).expect("somebody sent it");
        self.course.sent(self.scenario, sender, host, self.scenario.data_len());
        self.course.completed[host] = Some(self.fluid.now());
        self.idle.extend([sender, host]);
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Comes(host) if self.has(host) => {
                self.idle.insert(host);
            }
            Change::Comes(host) => {
                self.lacks(host);
            }
            Change::Goes(host) => {
                self.idle.remove(&host);
                self.lacks_no_more(host);
                let mut ended: Vec<usize> = vec![host];
                ended.extend(self.sender_of.iter().filter(|&(_, &from)| from == host).map(|(&to, _)| to));
                ended.into_iter().for_each(|to| self.broke(to, host));
            }
        }
    }

    /// The transfer to a host, if there was one, ended because one end died.
    fn broke(&mut self, to: usize, dead: usize) {
        let (Some(left), Some(from)) = (self.fluid.close(to), self.sender_of.remove(&to)) else { return };
        self.course.sent(self.scenario, from, to, self.scenario.data_len() - left);
        if to == dead {
            self.idle.insert(from);
        } else {
            self.lacks(to);
        }
    }

    /// Gives every idle holder somebody to send to.
    fn send(&mut self) {
        for from in self.idle.clone() {
            let near = self.lacking.get(&self.scenario.hosts[from].rack);
            let Some(rack) = near.or_else(|| self.lacking.values().rev().max_by_key(|rack| rack.len())) else { return };
            let to = *rack.first().expect("no set is empty");
            self.lacks_no_more(to);
            self.idle.remove(&from);
            self.sender_of.insert(to, from);
            self.fluid.open(from, to, &[], self.scenario.data_len());
        }
    }

    fn has(&self, host: usize) -> bool {
        host == 0 || self.course.completed[host].is_some_and(|at: Instant| at <= self.fluid.now())
    }

    fn lacks(&mut self, host: usize) {
        self.lacking.entry(self.scenario.hosts[host].rack).or_default().insert(host);
    }

    fn lacks_no_more(&mut self, host: usize) {
        let rack = self.scenario.hosts[host].rack;
        let Some(its) = self.lacking.get_mut(&rack) else { return };
        its.remove(&host);
        if its.is_empty() {
            self.lacking.remove(&rack);
        }
    }
}
