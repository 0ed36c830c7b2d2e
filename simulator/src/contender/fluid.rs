//! Flows over a scenario's links, exactly: rates are found anew at every change, and nothing happens in between.
//!
//! The same max-min fair rates as in the fabric, without its reports of progress and its quanta, so that ten thousand
//! long flows cost as much as their beginnings and ends.

use core::time::Duration;
use std::collections::BTreeMap;

use drover_protocol::time::Instant;

use crate::fabric::{Access, LinkId, max_min};
use crate::scenario::Scenario;

/// Nanoseconds in a second: bytes are counted in billionths, so that no rounding gathers.
const NANOS: u128 = 1_000_000_000;

/// Links and what flows over them. A flow is named by the host that receives; there is one for each at most.
#[derive(Debug)]
pub(super) struct Fluid<'a> {
    scenario: &'a Scenario,
    /// Two for each host, up and down, then two for each rack, then those that were added.
    capacities: Vec<u64>,
    has_uplinks: bool,
    flows: BTreeMap<usize, Flow>,
    now: Instant,
    is_changed: bool,
}

#[derive(Debug)]
struct Flow {
    path: Vec<LinkId>,
    /// Billionths of bytes.
    left: u128,
    /// Bytes per second.
    rate: u64,
}

impl<'a> Fluid<'a> {
    pub(super) fn new(scenario: &'a Scenario, links: &[Access], uplink: Option<u64>) -> Self {
        let mut capacities: Vec<u64> = links.iter().flat_map(|access| [access.up, access.down]).collect();
        if let Some(uplink) = uplink {
            capacities.resize(capacities.len() + 2 * scenario.rack_count(), uplink);
        }
        Fluid {
            scenario,
            capacities,
            has_uplinks: uplink.is_some(),
            flows: BTreeMap::new(),
            now: Instant::START,
            is_changed: false,
        }
    }

    /// One more link, for [`Fluid::open`].
    pub(super) fn add_link(&mut self, bytes_per_s: u64) -> LinkId {
        self.capacities.push(bytes_per_s);
        self.capacities.len() as LinkId - 1
    }

    /// Begins to send `len` bytes from one host to another, over `more` links that were added, too.
    pub(super) fn open(&mut self, from: usize, to: usize, more: &[LinkId], len: u64) {
        let mut path = vec![2 * from as LinkId, 2 * to as LinkId + 1];
        let rack = |host: usize| self.scenario.hosts[host].rack;
        if let (true, Some(up), Some(down)) = (self.has_uplinks, rack(from), rack(to))
            && up != down
        {
            let link = |rack: usize| 2 * (self.scenario.hosts.len() + rack) as LinkId;
            path.extend([link(up), link(down) + 1]);
        }
        path.extend(more);
        let flow = Flow { path, left: u128::from(len) * NANOS, rate: 0 };
        assert!(self.flows.insert(to, flow).is_none(), "host {to} receives one flow at a time");
        self.is_changed = true;
    }

    /// Stops the flow to a host; says how many bytes of it had not come.
    pub(super) fn close(&mut self, to: usize) -> Option<u64> {
        let flow = self.flows.remove(&to)?;
        self.is_changed = true;
        Some(flow.left.div_ceil(NANOS) as u64)
    }

    /// Goes on until flows are done, or to `until`. Gives the hosts that have received all; `None` if nothing flows and
    /// there is no `until`.
    pub(super) fn advance(&mut self, until: Option<Instant>) -> Option<Vec<usize>> {
        self.solve();
        let first_end = self.flows.values().filter_map(|flow| flow.time_left()).min().map(|left| self.now + left);
        let next = first_end.into_iter().chain(until).min()?;
        let elapsed = next.since(self.now).as_nanos();
        self.now = next;
        for flow in self.flows.values_mut() {
            flow.left = flow.left.saturating_sub(u128::from(flow.rate) * elapsed);
        }
        let done: Vec<usize> = self.flows.iter().filter(|(_, flow)| flow.left == 0).map(|(&to, _)| to).collect();
        for to in &done {
            self.flows.remove(to);
            self.is_changed = true;
        }
        Some(done)
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    fn solve(&mut self) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let paths: Vec<(&[LinkId], u32)> = self.flows.values().map(|flow| (flow.path.as_slice(), 1)).collect();
        let rates = max_min(&self.capacities, &paths);
        for (flow, rate) in self.flows.values_mut().zip(rates) {
            flow.rate = rate;
        }
    }
}

impl Flow {
    fn time_left(&self) -> Option<Duration> {
        let nanos = self.left.div_ceil(u128::from((self.rate > 0).then_some(self.rate)?));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_share_links_and_leave_them() {
        let text = "hosts = 2\nimage_mib = 1\nup_mbit_s = 8\ndown_mbit_s = 8\ngoodput = 1.0";
        let scenario = Scenario::parse(text, None).expect("a scenario");
        let mut fluid = Fluid::new(&scenario, &scenario.links(1.0), None);
        fluid.open(0, 1, &[], 1_000_000);
        fluid.open(0, 2, &[], 2_000_000);
        assert_eq!(fluid.advance(None), Some(vec![1]));
        assert_eq!(fluid.now(), Instant::from_millis(2000));
        assert_eq!(fluid.advance(Some(Instant::from_millis(2500))), Some(vec![]));
        assert_eq!(fluid.close(2), Some(500_000));
        assert_eq!(fluid.advance(None), None);
    }
}
