//! The fleet of one run: events in order, and the driver that does what the machines say.
//!
//! The driver is like the agent's: links are admitted and lost, requests become streams, chunks are verified and written, and
//! what the disk refuses pauses the asking. Hosts see each other only by what the network carries.

use std::collections::BTreeSet;

use core::net::SocketAddr;
use core::time::Duration;

use drover_protocol::codec::{decode, encode};
use drover_protocol::have::ChunkSet;
use drover_protocol::hints::{AddressBook, Source};
use drover_protocol::message::PeerMessage;
use drover_protocol::planted::{Bug, is_planted};
use drover_protocol::rng::Rng;
use drover_protocol::swarm::{Swarm, SwarmConfig};
use drover_protocol::time::Instant;

use super::disk::SimDisk;
pub(super) use super::event::Event;
use super::fault::{Fault, FaultCounts};
use super::hints::{Liar, addr_of};
use super::host::{Host, Running, Work, open, peer_id};
use super::net::{Link, Net, Transit};
use super::plan::Plan;
use super::tracker::Tracker;
use crate::queue::Queue;
use crate::trace::Trace;

/// Events of one run at most: a fleet that needs more is in a storm.
const EVENTS_MOST: u64 = 3_000_000;
/// How often it is looked whether everything has come to its end.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long everybody has, after all faults have ended: the longest that a peer is left alone, twice, and some rounds of
/// announces. What has to be sent is added.
const LIVENESS_MOST: Duration = Duration::from_secs(240);

/// The state of a run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now: Instant,
    pub(super) queue: Queue<Event>,
    pub(super) hosts: Vec<Host>,
    pub(super) links: Vec<Link>,
    pub(super) net: Net,
    pub(super) tracker: Tracker,
    /// Says where hosts are not, in the place of a second tracker and of the hash table.
    pub(super) liar: Option<Liar>,
    /// Addresses that stand in the hash table.
    pub(super) table: BTreeSet<SocketAddr>,
    pub(super) rng: Rng,
    pub(super) counts: FaultCounts,
    pub(super) data: ChunkSet,
    pub(super) is_healed: bool,
    /// Until when everything must have come to its end.
    pub(super) deadline: Instant,
    pub(super) is_over: bool,
    /// When the last host became complete.
    pub(super) completed_at: Instant,
    pub(super) violation: Option<String>,
    pub(super) trace: Trace,
    /// What happened, in words, if somebody wants to read it.
    pub(super) log: Option<Vec<String>>,
    pub(super) events: u64,
}

impl World {
    pub(super) fn new(plan: Plan, is_logged: bool) -> Self {
        let mut rng = Rng::seeded(plan.seed ^ 0x636f_6465);
        let new_host = |at: &super::plan::HostPlan, rng: &mut Rng| {
            let disk = SimDisk::new(rng.next_u64());
            disk.with(|inner| inner.dice = at.disk);
            Host {
                disk,
                life: 0,
                run: None,
                suspended_until: Instant::START,
                stalled_until: Instant::START,
                clock_off_s: 0,
                is_dead: false,
                uplink_free_at: Instant::START,
                highest_version: 0,
                promised: Default::default(),
                was_sealed: false,
            }
        };
        let hosts: Vec<Host> = plan.hosts.iter().map(|at| new_host(at, &mut rng)).collect();
        let mut queue = Queue::default();
        for (host, at) in plan.hosts.iter().enumerate() {
            queue.push(at.arrives, Event::Start { host });
        }
        for (at, trouble) in &plan.trouble {
            queue.push(*at, Event::Trouble(*trouble));
        }
        queue.push(plan.heals_at, Event::Heal);
        let data = plan.manifest.data_chunks();
        let mut world = World {
            now: Instant::START,
            queue,
            net: Net::new(plan.net, hosts.len()),
            hosts,
            links: Vec::new(),
            tracker: Tracker::new(rng.next_u64(), plan.tracker_lies, plan.manifest.image_id()),
            liar: plan.has_false_hints.then(|| Liar::new(plan.seed, plan.hosts.len())),
            table: BTreeSet::new(),
            rng,
            counts: FaultCounts::default(),
            data,
            is_healed: false,
            deadline: Instant::from_nanos(u64::MAX),
            is_over: false,
            completed_at: Instant::START,
            violation: None,
            trace: Trace::default(),
            log: is_logged.then(Vec::new),
            events: 0,
            plan,
        };
        world.fill_publisher();
        world.draw_releases();
        world
    }

    /// Runs until everything has come to its end, or something is wrong.
    pub(super) fn run(&mut self) {
        while !self.is_over && self.violation.is_none() {
            let Some((at, event)) = self.queue.pop() else { return self.fail("nothing happens any more".to_owned()) };
            if at < self.now {
                return self.fail("time goes back".to_owned());
            }
            self.now = at;
            self.events += 1;
            if self.events > EVENTS_MOST {
                return self.fail(format!("a storm: {EVENTS_MOST} events"));
            }
            if let Some(until) = self.suspended(&event) {
                self.queue.push(until, event);
                continue;
            }
            self.happen(event);
        }
    }

    /// Something that must not be.
    pub(super) fn fail(&mut self, what: String) {
        self.note(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:>12.6} {}", self.now.since(Instant::START).as_secs_f64(), what()));
        }
    }

    pub(super) fn after(&mut self, wait: Duration, event: Event) {
        self.queue.push(self.now + wait, event);
    }

    /// Until when the host that an event is for does nothing, if it does nothing now.
    fn suspended(&self, event: &Event) -> Option<Instant> {
        let host = match event {
            Event::Timer { host, .. }
            | Event::Announce { host, .. }
            | Event::Told { host, .. }
            | Event::LookUp { host, .. }
            | Event::Found { host, .. }
            | Event::Knocked { host, .. }
            | Event::Seek { host, .. }
            | Event::Manifest { host, .. }
            | Event::Release { host, .. }
            | Event::Send { host, .. }
            | Event::Store { host, .. }
            | Event::Work { host, .. }
            | Event::Checkpointed { host, .. }
            | Event::Sealed { host, .. }
            | Event::Greed { host, .. } => *host,
            Event::Dial { from, .. } | Event::Dialled { from, .. } => *from,
            Event::Heard { at, .. }
            | Event::Asked { at, .. }
            | Event::Cancelled { at, .. }
            | Event::Answered { at, .. }
            | Event::Came { at, .. }
            | Event::Lost { at, .. } => *at,
            Event::Trouble(_) | Event::Start { .. } | Event::Relief { .. } | Event::Heal | Event::Look => return None,
        };
        Some(self.hosts[host].suspended_until).filter(|until| *until > self.now)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Trouble(trouble) => self.trouble(trouble),
            Event::Start { host } => self.start(host),
            Event::Timer { host, life } => self.ring(host, life),
            Event::Announce { host, life, tracker } => self.announce(host, life, tracker),
            Event::Told { host, life, tracker, announced } => self.told(host, life, tracker, announced),
            Event::LookUp { host, life } => self.look_up(host, life),
            Event::Found { host, life, found } => self.found(host, life, found),
            Event::Knocked { host, life, addr } => self.knocked(host, life, addr),
            Event::Seek { host, life } => self.seek(host, life),
            Event::Manifest { host, life, from, bytes } => self.take_manifest(host, life, from, bytes.as_deref()),
            Event::Release { host, number } => self.hear_release(host, number),
            Event::Dial { from, life, to, dial, step } => self.dial_on(from, life, to, (dial, step)),
            Event::Dialled { from, life, to, dial, addr } => self.dialled(from, life, to, dial, addr),
            Event::Heard { link, at, frame } => self.heard(link, at, &frame),
            Event::Asked { link, at, request, piece, chunks } => self.asked(link, at, request, piece, chunks),
            Event::Cancelled { link, at, request } => self.cancelled(link, at, request),
            Event::Answered { link, at, request, end } => self.answered(link, at, request, end),
            Event::Send { host, life, serve } => self.send_next(host, life, serve),
            Event::Came { link, at, request, chunk, token, is_last } => {
                self.came(link, at, request, chunk, token, is_last);
            }
            Event::Store { host, life, peer, request, chunk, token, is_last } => {
                if self.lives(host, life) {
                    self.store((host, peer), request, chunk, token, is_last);
                }
            }
            Event::Work { host, life } => {
                if self.lives(host, life) {
                    self.work(host);
                }
            }
            Event::Checkpointed { host, life, result } => {
                if self.lives(host, life) {
                    self.checkpointed(host, result);
                }
            }
            Event::Sealed { host, life, result } => {
                if self.lives(host, life) {
                    self.sealed(host, result);
                }
            }
            Event::Lost { link, at } => self.lost(link, at),
            Event::Relief { host, is_full } => self.relieve(host, is_full),
            Event::Greed { host, life } => self.be_greedy(host, life),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    /// A host gets power: it opens its store and goes on.
    fn start(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        if at.is_dead || at.run.is_some() {
            return;
        }
        if at.life > 0 {
            self.trace.note(self.now, "restart", [host as u64, 0]);
        }
        let opened = match open(&at.disk, self.plan.manifest.image_id()) {
            Ok(opened) => opened,
            // The service is started again until the disk lets it.
            Err(error) => {
                self.note(|| format!("host {host} can't open its store: {error}"));
                if self.hosts[host].disk.is_cut() {
                    self.lose_power(host);
                }
                return self.after(Duration::from_secs(2), Event::Start { host });
            }
        };
        let life = at.life;
        self.note(|| format!("host {host} starts, life {life}"));
        self.check_opened(host, &opened);
        let run = Running {
            layout: opened.layout,
            catalog: opened.catalog,
            image: opened.image,
            swarm: None,
            peers: Default::default(),
            banned: Default::default(),
            book: AddressBook::of(super::host::networks()),
            search: Default::default(),
            seek_at: None,
            strangers: Default::default(),
            lookups: None,
            dials: Default::default(),
            last_dial: 0,
            requests: Default::default(),
            serves: Default::default(),
            last_serve: 0,
            armed: None,
            work: Work::default(),
        };
        let has_image = run.image.is_some();
        self.hosts[host].run = Some(run);
        self.begin_discovery(host);
        if has_image {
            self.join_swarm(host);
        }
        if self.plan.hosts[host].lie == Some(super::plan::Lie::Greedy) {
            self.after(Duration::from_millis(200), Event::Greed { host, life });
        }
    }

    /// Begins to exchange the image that the store has.
    pub(super) fn join_swarm(&mut self, host: usize) {
        let seed = self.rng.next_u64();
        let config = SwarmConfig { rack: self.plan.hosts[host].rack.clone(), ..self.plan.config.clone() };
        let (now, data) = (self.now, self.data.clone());
        let Some(run) = &mut self.hosts[host].run else { return };
        let Some(image) = &run.image else { return };
        let (geometry, held) = (image.manifest().geometry(), image.held());
        run.swarm = Some(Swarm::new(now, peer_id(host), geometry, data, held, config, seed));
        let searched = std::mem::take(&mut run.search);
        self.tell(host, |swarm, now| swarm.handle_searched(now, searched));
        self.seal_if_complete(host);
    }

    fn ring(&mut self, host: usize, life: u32) {
        let now = self.now;
        let Some(run) = self.running(host, life) else { return };
        if run.armed.is_none_or(|armed| armed > now) {
            return;
        }
        run.armed = None;
        self.tell(host, Swarm::handle_timeout);
        let next = self.hosts[host].run.as_ref().and_then(|run| run.swarm.as_ref()?.poll_timeout());
        if next.is_some_and(|next| next <= now) {
            self.fail(format!("host {host}: a timer that rang is not done with"));
        }
    }

    /// Calls a host's swarm, if there is one, and does what it says.
    pub(super) fn tell(&mut self, host: usize, call: impl FnOnce(&mut Swarm, Instant)) {
        let now = self.now;
        let Some(swarm) = self.hosts[host].run.as_mut().and_then(|run| run.swarm.as_mut()) else { return };
        call(swarm, now);
        self.drain(host);
    }

    fn drain(&mut self, host: usize) {
        let mut outputs = 0;
        while let Some(output) = self.hosts[host].run.as_mut().and_then(|run| run.swarm.as_mut()?.poll_output()) {
            self.obey(host, output);
            outputs += 1;
            if outputs > 20_000 {
                return self.fail(format!("host {host}: {outputs} outputs upon one input"));
            }
        }
        self.arm(host);
        self.check_host(host);
    }

    fn arm(&mut self, host: usize) {
        let (now, life) = (self.now, self.hosts[host].life);
        let Some(run) = &mut self.hosts[host].run else { return };
        let Some(next) = run.swarm.as_ref().and_then(Swarm::poll_timeout).map(|next| next.max(now)) else { return };
        // A timer that rings too soon finds that nothing is due; so only an earlier time needs another one.
        if run.armed.is_none_or(|armed| next < armed) {
            run.armed = Some(next);
            self.queue.push(next, Event::Timer { host, life });
        }
    }

    /// Whether a dial succeeds: the other runs and can be reached, neither shut the other out, and they have a version in
    /// common.
    pub(super) fn can_connect(&mut self, from: usize, to: usize) -> bool {
        if to >= self.hosts.len() {
            return false;
        }
        let bans =
            |host: usize, other: usize| self.hosts[host].run.as_ref().is_none_or(|run| run.banned.contains(&other));
        let is_there = self.hosts[to].suspended_until <= self.now && self.net.is_reachable(self.now, from, to);
        if from == to || bans(from, to) || bans(to, from) || !is_there {
            return false;
        }
        match super::versions::agree(self.plan.hosts[from].versions, self.plan.hosts[to].versions) {
            Ok(agreed) => agreed,
            Err(what) => {
                self.fail(format!("hosts {from} and {to}: {what}"));
                false
            }
        }
    }

    /// A link that was dialled stands: the swarm asks the peer to be a neighbour.
    pub(super) fn meet(&mut self, host: usize, link: usize) {
        let peer = peer_id(self.links[link].other(host));
        if self.admit(host, link) {
            self.tell(host, |swarm, now| swarm.handle_connected(now, peer));
        } else {
            self.tell(host, |swarm, now| swarm.handle_connect_failed(now, peer));
        }
    }

    /// Makes sure that this link is the one by which the peer is connected; `false` if that is over.
    pub(super) fn admit(&mut self, host: usize, link: usize) -> bool {
        let at = &self.links[link];
        let (peer, end) = (at.other(host), at.end_of(host));
        if !self.lives(host, at.lives[end]) || !at.is_open[end] {
            return false;
        }
        let Some(run) = &self.hosts[host].run else { return false };
        if run.banned.contains(&peer) {
            return false;
        }
        match run.peers.get(&peer) {
            Some(known) if *known == link => return true,
            Some(known) if *known > link => return false,
            Some(_) => {
                // The peer has come back before this side noticed that it had gone, or both had dialled.
                self.counts.add(Fault::Duplicate);
                self.forget(host, peer);
                self.tell(host, |swarm, now| swarm.handle_disconnected(now, peer_id(peer)));
            }
            None => {}
        }
        let now = self.now;
        if let Some(run) = &mut self.hosts[host].run {
            run.peers.insert(peer, link);
            run.book.reached(now, peer_id(peer), addr_of(peer), None);
        }
        true
    }

    /// One end of a link notices that it is gone.
    fn lost(&mut self, link: usize, at: usize) {
        let end = self.links[link].end_of(at);
        self.links[link].is_open[end] = false;
        self.links[link].is_cut = true;
        let peer = self.links[link].other(at);
        let Some(run) = self.running(at, self.links[link].lives[end]) else { return };
        if run.peers.get(&peer) != Some(&link) {
            return;
        }
        self.forget(at, peer);
        if !is_planted(Bug::ForgetDisconnect) {
            self.tell(at, |swarm, now| swarm.handle_disconnected(now, peer_id(peer)));
        }
    }

    /// Forgets the link with a peer, and everything under way on it.
    pub(super) fn forget(&mut self, host: usize, peer: usize) {
        if let Some(run) = &mut self.hosts[host].run {
            run.peers.remove(&peer);
            run.serves.retain(|_, serve| serve.peer != peer);
            // Their streams end with the connection; the swarm knows that without being told.
            run.requests.retain(|_, asked| asked.peer != peer);
        }
    }

    /// A link breaks: nothing gets through any more, and the ends notice some time after.
    pub(super) fn break_link(&mut self, link: usize) {
        if self.links[link].is_cut {
            return;
        }
        self.links[link].is_cut = true;
        for end in 0..2 {
            let at = self.links[link].ends[end];
            let notices_after = match self.rng.chance(0.5) {
                true => Duration::ZERO,
                false => super::net::IDLE_MOST * self.rng.below(100) / 100,
            };
            self.after(notices_after, Event::Lost { link, at });
        }
    }

    /// Says something on a control stream.
    pub(super) fn say(&mut self, from: usize, link: usize, message: &PeerMessage) {
        let frame = match encode(message) {
            Ok(frame) => frame,
            Err(error) => return self.fail(format!("host {from} says what nobody may hear: {error}")),
        };
        let at = self.links[link].other(from);
        if let Some(arrives) = self.transit(link, from, true) {
            self.queue.push(arrives, Event::Heard { link, at, frame });
        }
    }

    /// When something that is sent over a link arrives, if it does.
    pub(super) fn transit(&mut self, link: usize, from: usize, is_control: bool) -> Option<Instant> {
        let (rng, counts) = (&mut self.rng, &mut self.counts);
        match self.net.send(self.now, &mut self.links[link], from, is_control, rng, counts) {
            Transit::Arrives(at) => Some(at),
            Transit::Lost => None,
            Transit::Breaks => {
                self.break_link(link);
                None
            }
        }
    }

    fn heard(&mut self, link: usize, at: usize, frame: &[u8]) {
        let from = self.links[link].other(at);
        if self.links[link].is_cut || !self.admit(at, link) {
            return;
        }
        let message = match decode::<PeerMessage>(frame) {
            Ok(message) => message,
            Err(error) => return self.fail(format!("host {at} can't read what host {from} said: {error}")),
        };
        self.trace.note(self.now, "heard", [at as u64, from as u64]);
        match message {
            PeerMessage::Swarm { message, .. } => {
                self.note(|| format!("{from} -> {at}: {message:?}"));
                let now = self.now;
                if let Some(run) = self.hosts[at].run.as_mut().filter(|run| run.swarm.is_none()) {
                    // Nothing can be said about pieces before the manifest is known.
                    run.search.add(now, Source::DialledHere, peer_id(from));
                    run.search.seen(now, peer_id(from));
                    return self.turn_away(at, link, &message);
                }
                self.tell(at, |swarm, now| swarm.handle_message(now, peer_id(from), message));
            }
            PeerMessage::Peers { peers, .. } => {
                let source = Source::PeerExchange(peer_id(from));
                self.learn(at, source, &peers);
                // Who tells of others that exchange an image does so itself.
                self.name(at, source, &[peer_id(from)]);
            }
            PeerMessage::Multicast { .. } | PeerMessage::Probe(_) | PeerMessage::Discovery(_) => {
                self.fail(format!("host {from} speaks of multicast or discovery, which nobody here takes part in"));
            }
        }
    }

    pub(super) fn lives(&self, host: usize, life: u32) -> bool {
        self.hosts[host].run.is_some() && self.hosts[host].life == life
    }

    pub(super) fn running(&mut self, host: usize, life: u32) -> Option<&mut Running> {
        let at = &mut self.hosts[host];
        at.run.as_mut().filter(|_| at.life == life)
    }

    fn look(&mut self) {
        if self.has_ended() {
            self.check_end();
            self.is_over = true;
        } else if self.now >= self.deadline {
            let why = self.why_unfinished();
            self.fail(why);
        } else {
            self.after(LOOK_EVERY, Event::Look);
        }
    }

    /// From now on everything must come to its end.
    pub(super) fn demand_end(&mut self) {
        let slowest = self.plan.hosts.iter().map(|host| host.rate).min().unwrap_or(1);
        let fleet = self.plan.manifest.data_len() * self.hosts.len() as u64;
        let limited = self.plan.config.upload_limit.into_iter().chain(self.plan.config.download_limit).min();
        let rate = limited.map_or(slowest, |limit| limit.min(slowest)).max(1);
        self.deadline = self.now + LIVENESS_MOST + Duration::from_secs(3 * fleet / rate);
        self.after(LOOK_EVERY, Event::Look);
    }
}
