//! How a host comes to know where others are: by trackers, the hash table and peers, any of which may lie.
//!
//! What to make of what they say is decided by the lists of [`drover_protocol::hints`]; here it is carried out as the agent
//! does: a dial tries the addresses of each source one after the other, and the first that proves to be the peer is taken. Peers are not asked
//! for more hosts here, nor are hosts remembered: that is the agent's own.

use core::net::SocketAddr;
use core::time::Duration;

use drover_protocol::announce::Announced;
use drover_protocol::hints::{
    BOOK_MOST, CANDIDATES_MOST, DIAL_STAGGER, DIALS_MOST, FEW_NEIGHBOURS, LookupPace, MANIFEST_ASKED_AT_ONCE,
    STRANGERS_MOST, Source,
};
use drover_protocol::id::PeerId;
use drover_protocol::message::PeerAddress;
use drover_protocol::swarm::Swarm;

use super::hints::{addr_of, host_at};
use super::host::{Dial, host_of, peer_id};
use super::net::Link;
use super::tracker::Tracker;
use super::world::{Event, World};

/// An address at which nobody answers is given up after this.
const CONNECT_MOST: Duration = Duration::from_secs(2);
/// How often it is looked whether something is to be looked up.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);
/// How many round trips a lookup takes.
const LOOKUP_TRIPS: u32 = 10;
/// The number of the tracker that lies.
const LIAR: u16 = 1;

impl World {
    /// A host that has just started begins to make itself known.
    pub(super) fn begin_discovery(&mut self, host: usize) {
        let life = self.hosts[host].life;
        if self.plan.hosts[host].is_bystander {
            return;
        }
        self.table.insert(addr_of(host));
        if self.liar.is_some() {
            self.after(self.net.latency(), Event::Announce { host, life, tracker: LIAR });
        }
        if self.plan.has_true_tracker {
            self.after(self.net.latency(), Event::Announce { host, life, tracker: 0 });
        }
        self.after(LOOK_UP_EVERY, Event::LookUp { host, life });
    }

    pub(super) fn announce(&mut self, host: usize, life: u32, tracker: u16) {
        let rack = self.plan.hosts[host].rack.clone();
        let Some(run) = self.hosts[host].run.as_ref().filter(|_| self.hosts[host].life == life) else { return };
        let progress = match &run.swarm {
            Some(swarm) => (swarm.held().count(), self.data.count()),
            None => (0, 0),
        };
        let image = self.plan.manifest.image_id();
        let announced = match &mut self.liar {
            Some(liar) if tracker == LIAR => liar.announced(host, image, &mut self.counts),
            liar => {
                let dice = (&mut self.rng, &mut self.counts);
                let told = self.tracker.announce(self.now, host, rack.as_deref(), progress, self.hosts.len(), dice);
                liar.iter_mut().for_each(|liar| liar.overhear(&told));
                told
            }
        };
        self.after(self.net.latency(), Event::Told { host, life, tracker, announced });
    }

    pub(super) fn told(&mut self, host: usize, life: u32, tracker: u16, announced: Announced) {
        if !self.lives(host, life) {
            return;
        }
        let again = announced.interval();
        let asked = [Tracker::question(self.plan.manifest.image_id(), (0, 0))];
        for swarm in announced.of_announced(&asked) {
            self.learn(host, Source::Tracker(tracker), &swarm.peers);
        }
        let wait = again - again * self.rng.below(1000) / 10_000;
        self.after(wait, Event::Announce { host, life, tracker });
    }

    /// Somebody told a host where others are that exchange the image.
    pub(super) fn learn(&mut self, host: usize, source: Source, peers: &[PeerAddress]) {
        let (now, me) = (self.now, peer_id(host));
        let Some(run) = &mut self.hosts[host].run else { return };
        let others = || peers.iter().filter(|about| about.peer != me);
        for about in others() {
            run.book.hint(now, about.peer, &about.addrs, source);
        }
        let named: Vec<PeerId> = others().map(|about| about.peer).collect();
        self.name(host, source, &named);
    }

    /// A host hears of others that may exchange the image.
    pub(super) fn name(&mut self, host: usize, source: Source, peers: &[PeerId]) {
        let now = self.now;
        match &mut self.hosts[host].run {
            Some(run) if run.swarm.is_none() => {
                peers.iter().for_each(|&peer| run.search.add(now, source, peer));
                self.search(host);
            }
            _ => self.tell(host, |swarm, now| swarm.handle_candidates(now, source, peers)),
        }
        self.check_hints(host);
    }

    /// Asks candidates for the manifest, as far as some may be asked now.
    pub(super) fn search(&mut self, host: usize) {
        let (now, life) = (self.now, self.hosts[host].life);
        loop {
            let Some(run) = self.hosts[host].run.as_mut().filter(|run| run.image.is_none()) else { return };
            let Some(peer) = run.search.dial(now, &mut self.rng, MANIFEST_ASKED_AT_ONCE, |_| false) else { break };
            self.dial(host, host_of(peer));
        }
        let Some(run) = &mut self.hosts[host].run else { return };
        let Some(next) = run.search.next_dial_at(now, MANIFEST_ASKED_AT_ONCE, |_| false) else { return };
        if run.seek_at.is_none_or(|armed| next < armed) {
            run.seek_at = Some(next);
            self.queue.push(next.max(now), Event::Seek { host, life });
        }
    }

    /// Looks up in the hash table who exchanges the image, if few are known.
    pub(super) fn look_up(&mut self, host: usize, life: u32) {
        let now = self.now;
        if !self.lives(host, life) {
            return;
        }
        let Some(run) = &mut self.hosts[host].run else { return };
        if run.swarm.as_ref().is_some_and(Swarm::is_complete) {
            return;
        }
        if run.peers.len() >= FEW_NEIGHBOURS {
            run.lookups = None;
        } else if run.lookups.get_or_insert(LookupPace::new(now, true)).is_due(now, &mut self.rng) {
            let found = match &mut self.liar {
                Some(liar) => liar.found(&self.table, &mut self.counts),
                None => self.table.iter().copied().collect(),
            };
            self.after(self.net.latency() * LOOKUP_TRIPS, Event::Found { host, life, found });
        }
        self.after(LOOK_UP_EVERY, Event::LookUp { host, life });
    }

    pub(super) fn found(&mut self, host: usize, life: u32, found: Vec<SocketAddr>) {
        let now = self.now;
        if !self.lives(host, life) {
            return;
        }
        let Some(run) = &mut self.hosts[host].run else { return };
        let others = found.into_iter().filter(|addr| *addr != addr_of(host));
        run.strangers.found(now, &mut self.rng, (), others);
        self.knock(host);
    }

    /// Dials addresses of which nobody said whose they are.
    fn knock(&mut self, host: usize) {
        let life = self.hosts[host].life;
        while let Some((addr, ())) = self.hosts[host].run.as_mut().and_then(|run| run.strangers.dial()) {
            let wait = self.answer_time(host, addr);
            self.after(wait, Event::Knocked { host, life, addr });
        }
        self.check_hints(host);
    }

    /// Somebody of the cluster answered, or nobody did.
    pub(super) fn knocked(&mut self, host: usize, life: u32, addr: SocketAddr) {
        let now = self.now;
        if !self.lives(host, life) {
            return;
        }
        let there = host_at(addr, self.hosts.len()).filter(|&to| self.can_connect(host, to));
        let Some(run) = &mut self.hosts[host].run else { return };
        match there {
            Some(to) => {
                run.strangers.reached(addr);
                run.book.reached(now, peer_id(to), addr, Some(Source::Dht));
                self.name(host, Source::Dht, &[peer_id(to)]);
            }
            None => run.strangers.failed(now, addr),
        }
        self.knock(host);
    }

    /// Begins to dial a peer, if that is not under way.
    pub(super) fn dial(&mut self, host: usize, to: usize) {
        let life = self.hosts[host].life;
        let Some(run) = &mut self.hosts[host].run else { return };
        if run.dials.contains_key(&to) {
            return;
        }
        run.last_dial += 1;
        let dial = run.last_dial;
        run.dials.insert(to, Dial { number: dial, step: 0, tried: Vec::new(), under_way: 0 });
        self.after(Duration::ZERO, Event::Dial { from: host, life, to, dial, step: 0 });
    }

    /// Goes on with a dial: the next address, if there is one; else it has failed as soon as none is tried any more.
    pub(super) fn dial_on(&mut self, from: usize, life: u32, to: usize, (number, step): (u64, u32)) {
        let now = self.now;
        if !self.lives(from, life) {
            return;
        }
        let Some(run) = &mut self.hosts[from].run else { return };
        let Some(dial) = run.dials.get_mut(&to).filter(|dial| (dial.number, dial.step) == (number, step)) else {
            return;
        };
        dial.step += 1;
        let next = run.book.next_addrs(now, peer_id(to), &dial.tried);
        if next.is_empty() && dial.under_way == 0 {
            run.dials.remove(&to);
            return self.reached_nobody(from, to);
        }
        dial.under_way += next.len() as u32;
        dial.tried.extend(&next);
        for addr in next {
            self.check_dial(from, addr);
            let wait = self.answer_time(from, addr);
            self.after(wait, Event::Dialled { from, life, to, dial: number, addr });
        }
        self.after(DIAL_STAGGER, Event::Dial { from, life, to, dial: number, step: step + 1 });
    }

    /// What became of one address of a dial.
    pub(super) fn dialled(&mut self, from: usize, life: u32, to: usize, number: u64, addr: SocketAddr) {
        let now = self.now;
        if !self.lives(from, life) {
            return;
        }
        let is_it = host_at(addr, self.hosts.len()) == Some(to) && self.can_connect(from, to);
        let Some(run) = &mut self.hosts[from].run else { return };
        let Some(dial) = run.dials.get_mut(&to).filter(|dial| dial.number == number) else { return };
        if is_it {
            run.dials.remove(&to);
            run.book.reached(now, peer_id(to), addr, None);
            return self.reached(from, to);
        }
        dial.under_way -= 1;
        let step = dial.step;
        // The peer may have dialled this host meanwhile: that says nothing against the address.
        if !run.peers.contains_key(&to) {
            run.book.failed(now, peer_id(to), addr);
        }
        self.dial_on(from, life, to, (number, step));
    }

    /// A dial led to the peer.
    fn reached(&mut self, from: usize, to: usize) {
        let life = self.hosts[from].life;
        if self.hosts[from].run.as_ref().is_some_and(|run| run.swarm.is_none()) {
            return self.ask_manifest(from, to);
        }
        let lives = [life, self.hosts[to].life];
        self.links.push(Link::new([from, to], lives));
        self.meet(from, self.links.len() - 1);
    }

    /// A dial led nowhere.
    fn reached_nobody(&mut self, from: usize, to: usize) {
        let now = self.now;
        match &mut self.hosts[from].run {
            Some(run) if run.swarm.is_none() => {
                run.search.failed(now, peer_id(to));
                self.search(from);
            }
            _ => self.tell(from, |swarm, now| swarm.handle_connect_failed(now, peer_id(to))),
        }
    }

    /// How long it takes until it is known whether somebody answers at an address.
    fn answer_time(&self, from: usize, addr: SocketAddr) -> Duration {
        let answers =
            |to: usize| self.hosts[to].run.is_some() && from != to && self.net.is_reachable(self.now, from, to);
        let is_there = host_at(addr, self.hosts.len()).is_some_and(answers);
        if is_there { self.net.latency() * 4 } else { CONNECT_MOST }
    }

    /// What a host keeps of what it was told stays within its bounds.
    fn check_hints(&mut self, host: usize) {
        let Some(run) = &self.hosts[host].run else { return };
        let candidates = run.swarm.as_ref().map_or(run.search.len(), Swarm::candidate_count);
        let counts = [
            ("candidates", candidates, CANDIDATES_MOST),
            ("peers in the address book", run.book.peer_count(), BOOK_MOST),
            ("addresses that led nowhere", run.strangers.dead_count(), STRANGERS_MOST),
            // The search's and the swarm's, and as many that each took for failed while the host slept.
            ("dials", run.dials.len(), 4 * DIALS_MOST),
        ];
        if let Some((what, count, most)) = counts.into_iter().find(|(_, count, most)| count > most) {
            self.fail(format!("host {host} keeps {count} {what}, and the most is {most}"));
        }
    }

    /// Nothing is dialled that is outside of the cluster's networks.
    fn check_dial(&mut self, host: usize, addr: SocketAddr) {
        if !super::host::networks().contain(addr.ip()) {
            self.fail(format!("host {host} dials {addr}, which is in none of its networks"));
        }
    }
}
