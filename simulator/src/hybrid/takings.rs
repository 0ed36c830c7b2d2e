//! What a session takes of which links.

use std::collections::BTreeMap;

use drover_protocol::multicast::fec::SYMBOL_LEN;
use drover_protocol::multicast::packet::{WIRE_OVERHEAD, packet_len};

use crate::fabric::{Access, Way};
use crate::scenario::{QUIC_GOODPUT, Scenario};

/// Share of the wire that is left for the image, as long as no parity is sent.
const MULTICAST_GOODPUT: f64 = SYMBOL_LEN as f64 / (packet_len(SYMBOL_LEN) + WIRE_OVERHEAD) as f64;

/// The links, and what is taken of them.
#[derive(Debug)]
pub(super) struct Takings {
    /// What flows would have of each host's links, and what they carry on the wire.
    links: Vec<(Access, Access)>,
    racks: Vec<Option<usize>>,
    uplink: Option<(u64, u64)>,
    /// Where a scenario says itself what headers leave, wires are that much faster.
    faster: f64,
    taken: BTreeMap<Way, u64>,
    last_rate: (usize, u64),
    is_changed: bool,
}

impl Takings {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let faster = scenario.goodput.map_or(1.0, |share| share / MULTICAST_GOODPUT);
        let wires = scenario.hosts.iter().map(|host| host.wire);
        let uplink = scenario.uplink(QUIC_GOODPUT).zip(scenario.rack_uplink);
        Takings {
            links: scenario.links(QUIC_GOODPUT).into_iter().zip(wires).collect(),
            racks: scenario.hosts.iter().map(|host| host.rack).collect(),
            uplink,
            faster,
            taken: BTreeMap::new(),
            last_rate: (0, 0),
            is_changed: false,
        }
    }

    /// What a link carries of a session's packets, in bytes per second.
    pub(super) fn on_the_wire(&self, bytes_per_s: u64) -> u64 {
        (bytes_per_s as f64 * self.faster) as u64
    }

    /// What a limited rack's link carries of them.
    pub(super) fn uplink(&self) -> Option<u64> {
        self.uplink.map(|(_, wire)| self.on_the_wire(wire))
    }

    /// Bytes of the image and of parity in so many packets.
    pub(super) fn payload_of(&self, packets: u32) -> u64 {
        u64::from(packets) * SYMBOL_LEN as u64
    }

    /// Who listens, or sends, is another now.
    pub(super) fn change(&mut self) {
        self.is_changed = true;
    }

    /// A host sends at this rate, in bytes per second, to these; and the disks of those have enough to do. Gives what is taken of links of which something else was
    /// taken before.
    pub(super) fn update(
        &mut self,
        (sender, rate): (usize, u64),
        listening: impl Iterator<Item = usize>,
        with_busy_disks: impl Iterator<Item = usize>,
    ) -> Vec<(Way, u64)> {
        if !core::mem::take(&mut self.is_changed) && self.last_rate == (sender, rate) {
            return Vec::new();
        }
        self.last_rate = (sender, rate);
        let mut taken = if rate > 0 { self.takings(sender, rate, listening) } else { BTreeMap::new() };
        taken.extend(with_busy_disks.map(|host| (Way::To(host), self.links[host].0.down)));
        let ended = self.taken.keys().filter(|way| !taken.contains_key(way)).map(|&way| (way, 0));
        let other = taken.iter().filter(|&(way, bytes_per_s)| self.taken.get(way) != Some(bytes_per_s));
        let updates = ended.chain(other.map(|(&way, &bytes_per_s)| (way, bytes_per_s))).collect();
        self.taken = taken;
        updates
    }

    fn takings(&self, sender: usize, rate: u64, listening: impl Iterator<Item = usize>) -> BTreeMap<Way, u64> {
        let mut taken = BTreeMap::new();
        let (flows, wire) = self.links[sender];
        taken.insert(Way::From(sender), self.share(flows.up, wire.up, rate));
        for host in listening {
            let (flows, wire) = self.links[host];
            taken.insert(Way::To(host), self.share(flows.down, wire.down, rate));
            if let (Some((flows, wire)), Some(home), Some(rack)) = (self.uplink, self.racks[sender], self.racks[host])
                && home != rack
            {
                taken.insert(Way::OutOf(home), self.share(flows, wire, rate));
                taken.insert(Way::Into(rack), self.share(flows, wire, rate));
            }
        }
        taken
    }

    /// What flows lose of a link of `wire` where they would have `flows`, when `rate` goes over it.
    fn share(&self, flows: u64, wire: u64, rate: u64) -> u64 {
        let share = rate as f64 / self.on_the_wire(wire) as f64;
        (flows as f64 * share.min(1.0)) as u64
    }
}
