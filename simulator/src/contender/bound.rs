//! Times that nothing of a kind can beat, from the wires alone.
//!
//! For one host: all bytes must pass its own link, its rack's uplink, and must have left the publisher once. For the
//! fleet: what all get, all that may send must have sent. That is `max(S/u, S/d, N·S/(u + Σuᵢ))` of Kumar and Ross (2006)
//! where hosts pass on, and `N·S/u` where one server sends all. Multicast sends once for all, so only the first two hold,
//! and so it is for a swarm with multicast.

use super::Contender;
use crate::scenario::Scenario;

/// What one contender's hosts need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound<'a> {
    scenario: &'a Scenario,
    contender: Contender,
}

impl<'a> Bound<'a> {
    pub(super) fn new(scenario: &'a Scenario, contender: Contender) -> Self {
        Bound { scenario, contender }
    }

    /// Bytes that each host gets over the network.
    pub(super) fn need(&self) -> u64 {
        match (self.contender, self.scenario.vms) {
            (Contender::NfsOnDemand, Some(vms)) => vms.per_host * vms.boot_len,
            _ => self.scenario.data_len(),
        }
    }

    /// Seconds from the start before which a host can't be complete.
    pub(super) fn of_host(&self, host: usize) -> f64 {
        let (plan, publisher) = (&self.scenario.hosts[host], &self.scenario.hosts[0]);
        let (down, unique, least) = match (self.contender, self.scenario.vms) {
            // Machines read what they need and write nothing; what all read need leave the server's disk but once.
            (Contender::NfsOnDemand, Some(vms)) => (plan.wire.down, vms.boot_len, vms.boot_time.as_secs_f64()),
            _ => (plan.access.down, self.scenario.data_len(), 0.0),
        };
        let own = plan.arrives.as_secs_f64() + least.max(seconds(self.need(), down));
        let first_copy = seconds(unique, publisher.access.up);
        let is_elsewhere = plan.rack != publisher.rack;
        let uplink = self.scenario.rack_uplink.filter(|_| is_elsewhere).map_or(0.0, |uplink| seconds(unique, uplink));
        own.max(first_copy).max(uplink)
    }

    /// Seconds from the start before which `finished` hosts can't all be complete.
    pub(super) fn of_fleet(&self, finished: usize) -> f64 {
        let bytes = self.need() as f64 * finished as f64;
        let publisher = self.scenario.hosts[0].wire.up as f64;
        match self.contender {
            Contender::Nfs | Contender::NfsOnDemand | Contender::Http => bytes / publisher,
            Contender::Multicast | Contender::Hybrid => 0.0,
            Contender::Chain | Contender::Tree | Contender::P2p => {
                let others: f64 = self.scenario.hosts[1..].iter().map(|host| host.access.up as f64).sum();
                bytes / (publisher + others)
            }
        }
    }
}

fn seconds(bytes: u64, bytes_per_s: u64) -> f64 {
    bytes as f64 / bytes_per_s as f64
}
