//! Multicast beside the swarm: the real machines of sender, receivers and election, on the simulated hosts.
//!
//! [`Air`] is driven like a machine: it is told who comes, goes and holds what, and answers with [`Action`]s for the world. What
//! multicast brings goes into the same swarms as everything else; what it does not bring they ask of each other.
//!
//! Modelled: a session takes its rate of its sender's wire, and of the wire of every host that listens, whatever flows are
//! there; between limited racks it takes it of the sender's way out and of every other rack's way in, once. What is sent faster
//! than one of them carries gets lost there: between racks for all behind it, at a host's wire for that host. Packets
//! lost on the sender's wire are lost for all, those lost on a receiver's wire for that one. A slow disk
//! has a backlog, and takes nothing else until it is written. Messages go over the control path, with its latency and as bytes of who says them. A pass over some blocks is one event; see
//! `pass`. Multicast ends at a site's router.
//!
//! Not modelled: payload, sealing and decoding, so no block fails its verification; sockets that overflow; switches that flood, or forget who listens. How a
//! sender comes to talk to hosts that are no neighbours of its is left to the agent: here it talks to every host that lacks something.

mod disk;
mod election;
mod losses;
mod member;
mod pass;
mod session;
mod takings;

use core::ops::Range;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use drover_protocol::codec;
use drover_protocol::geometry::ChunkIndex;
use drover_protocol::have::ChunkSet;
use drover_protocol::message::PeerMessage;
use drover_protocol::multicast::config::{ReceiverConfig, SenderConfig};
use drover_protocol::multicast::election::{LeaseReply, LeaseRequest};
use drover_protocol::multicast::message::{Announcement, MulticastMessage};
use drover_protocol::multicast::packet::SessionId;
use drover_protocol::multicast::receiver::Receiver;
use drover_protocol::rng::Rng;
use drover_protocol::time::Instant;

use self::disk::Disk;
use self::election::Election;
use self::losses::Losses;
use self::member::{Member, drop_surplus};
use self::pass::Pass;
use self::session::Session;
use self::takings::Takings;
use crate::fabric::Way;
use crate::host::{host_of, peer_id};
use crate::scenario::Scenario;
use crate::tracker::IMAGE;

/// What the world is to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// A host is offered to take part: answer with [`Air::take_part`].
    Offer { host: usize, announcement: Announcement },
    /// Chunks that `from` sent to all came to a host and are stored.
    Stored { host: usize, from: usize, chunks: Vec<Range<u32>> },
    /// Multicast brings what a host lacks from now on, or does not any more.
    Carry { host: usize, is_carried: bool },
    /// It won't bring these chunks to a host.
    Miss { host: usize, chunks: Vec<ChunkIndex> },
    /// So many bytes of the image, parity included, left a host.
    Sent { host: usize, bytes: u64 },
    /// So many of them came into the rack of this host, for all that listen there.
    Entered { host: usize, bytes: u64 },
    /// So many bytes of messages left a host.
    Said { host: usize, bytes: u64 },
    /// Multicast takes so many bytes per second of a link.
    Take { way: Way, bytes_per_s: u64 },
}

/// What is still to happen.
#[derive(Debug)]
enum Event {
    Message {
        from: usize,
        to: usize,
        life: u32,
        message: MulticastMessage,
    },
    Pass {
        sender: usize,
        pass: Pass,
    },
    Member {
        host: usize,
        life: u32,
    },
    Written {
        host: usize,
        life: u32,
        from: usize,
        chunks: Range<u32>,
    },
    Candidate {
        host: usize,
        life: u32,
    },
    Ask {
        host: usize,
        life: u32,
        request: LeaseRequest,
    },
    Reply {
        host: usize,
        life: u32,
        reply: LeaseReply,
    },
    /// It is looked whether the session still takes something of the links.
    Lull,
    /// Those who could send consider whether to.
    Consider,
}

/// All of multicast.
#[derive(Debug)]
pub(crate) struct Air<'a> {
    scenario: &'a Scenario,
    data: Arc<ChunkSet>,
    rng: Rng,
    /// How often each host came.
    lives: Vec<u32>,
    /// Hosts that run and lack something: how many bytes.
    lacking: BTreeMap<usize, u64>,
    data_len: u64,
    members: BTreeMap<usize, Member>,
    /// Those that are slower than their wires.
    disks: BTreeMap<usize, Disk>,
    election: Election,
    session: Option<Session>,
    takings: Takings,
    queue: BTreeMap<(Instant, u64), Event>,
    queued: u64,
    actions: VecDeque<Action>,
}

impl<'a> Air<'a> {
    pub(crate) fn new(scenario: &'a Scenario, data: Arc<ChunkSet>, seed: u64) -> Self {
        let mut air = Air {
            scenario,
            data_len: data.iter().map(|chunk| u64::from(scenario.geometry.chunk_len(chunk))).sum(),
            data,
            rng: Rng::seeded(seed),
            lives: vec![0; scenario.hosts.len()],
            lacking: BTreeMap::new(),
            members: BTreeMap::new(),
            disks: slow_disks(scenario),
            election: Election::new(scenario.multicast),
            session: None,
            takings: Takings::new(scenario),
            queue: BTreeMap::new(),
            queued: 0,
            actions: VecDeque::new(),
        };
        air.push(Instant::START, Event::Consider);
        air
    }

    /// A host that holds so many bytes begins to run.
    pub(crate) fn handle_arrived(&mut self, now: Instant, host: usize, held_bytes: u64) {
        if held_bytes == self.data_len {
            return self.handle_complete(now, host);
        }
        self.lacking.insert(host, self.data_len - held_bytes);
        if let Some(session) = self.session.as_mut().filter(|session| is_reached(self.scenario, session.host, host)) {
            session.sender.handle_candidate(peer_id(host));
        }
        self.settle(now);
    }

    /// A host dies. Its connections seem to live for a while, and a sender notices its silence sooner.
    pub(crate) fn handle_died(&mut self, now: Instant, host: usize) {
        self.lives[host] += 1;
        self.lacking.remove(&host);
        self.members.remove(&host);
        // What was not written is lost.
        self.disks.entry(host).and_modify(Disk::forget);
        self.election.remove(host);
        self.session.take_if(|session| session.host == host);
        self.takings.change();
        self.settle(now);
    }

    /// A host lacks nothing any more.
    pub(crate) fn handle_complete(&mut self, now: Instant, host: usize) {
        self.lacking.remove(&host);
        let bytes_per_s = self.sending_config(host).link_bytes_per_s;
        self.election.add(now, host, bytes_per_s, &mut self.rng);
        self.settle(now);
    }

    /// A host holds so many bytes now.
    pub(crate) fn handle_held(&mut self, host: usize, held_bytes: u64) {
        if let Some(lacking) = self.lacking.get_mut(&host) {
            *lacking = self.data_len - held_bytes;
        }
    }

    /// Peers brought chunks to a host.
    pub(crate) fn handle_stored(&mut self, now: Instant, host: usize, chunks: &[Range<u32>]) {
        if self.members.contains_key(&host) {
            self.store(host, chunks);
            self.obey_member(now, host);
            self.settle(now);
        }
    }

    /// A host that was offered to take part holds `held`, and takes part.
    pub(crate) fn take_part(&mut self, now: Instant, host: usize, held: ChunkSet, announcement: &Announcement) {
        let Some(sender) = self.session.as_ref().filter(|session| session.id == announcement.session) else { return };
        let (sender, plan) = (sender.host, &self.scenario.hosts[host]);
        if self.members.get(&host).is_some_and(|member| member.receiver.is_listening()) {
            return;
        }
        let wire = self.takings.on_the_wire(plan.wire.down);
        let config = ReceiverConfig { link_bytes_per_s: wire, ..ReceiverConfig::default() };
        let (geometry, data, seed) = (self.scenario.geometry, (*self.data).clone(), self.rng.next_u64());
        let receiver = Receiver::new(now, announcement, geometry, data, held, config, seed);
        self.members.insert(host, Member::new(receiver, sender, Losses::new(plan.loss), wire));
        self.obey_member(now, host);
        self.settle(now);
    }

    /// The tracker dies, and forgets its leases.
    pub(crate) fn handle_tracker_died(&mut self) {
        self.election.tracker_died();
    }

    /// The tracker is back.
    pub(crate) fn handle_tracker_back(&mut self, now: Instant) {
        self.election.tracker_is_back(now);
    }

    /// The time given to [`Air::poll_timeout`] has come.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now) {
            let event = entry.remove();
            self.happen(now, event);
        }
        if let Some(session) = self.session.as_mut().filter(|session| is_due(session, now)) {
            session.sender.handle_timeout(now);
        }
        self.settle(now);
    }

    /// When to call [`Air::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let sender = self.session.as_ref().and_then(|session| session.sender.poll_timeout());
        self.queue.keys().next().map(|&(at, _)| at).into_iter().chain(sender).min()
    }

    /// What to do next. To be called until it is `None` after every input.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn happen(&mut self, now: Instant, event: Event) {
        match event {
            Event::Message { from, to, life, message } if self.lives[to] == life => self.hear(now, from, to, message),
            Event::Pass { sender, pass } => self.receive(now, sender, &pass),
            Event::Member { host, life } if self.lives[host] == life => self.ring(now, host),
            Event::Written { host, life, from, chunks } if self.lives[host] == life => {
                self.stored(host, from, vec![chunks]);
                self.obey_member(now, host);
                if !self.disks.get(&host).is_some_and(|disk| disk.is_busy(now)) {
                    self.takings.change();
                }
            }
            Event::Candidate { host, life } if self.lives[host] == life => self.election.ring(now, host),
            Event::Ask { host, life, request } => {
                let reply = self.election.answer(now, host, &request);
                reply.into_iter().for_each(|reply| self.after_control(now, host, Event::Reply { host, life, reply }));
            }
            Event::Reply { host, life, reply } if self.lives[host] == life => self.election.hear(now, host, &reply),
            Event::Lull => self.takings.change(),
            Event::Consider => self.consider(now),
            Event::Message { .. }
            | Event::Member { .. }
            | Event::Written { .. }
            | Event::Candidate { .. }
            | Event::Reply { .. } => {}
        }
    }

    fn hear(&mut self, now: Instant, from: usize, to: usize, message: MulticastMessage) {
        if let Some(session) = self.session.as_mut().filter(|session| session.host == to) {
            session.sender.handle_message(now, peer_id(from), message);
        } else if let MulticastMessage::Announce(announcement) = message {
            self.actions.push_back(Action::Offer { host: to, announcement });
        } else if let Some(member) = self.members.get_mut(&to) {
            member.receiver.handle_message(now, &message);
            self.obey_member(now, to);
        }
    }

    /// A pass comes to all that listen.
    fn receive(&mut self, now: Instant, sender: usize, pass: &Pass) {
        let listening = self.members.iter().filter(|(_, member)| member.is_in_group).map(|(&host, _)| host);
        let listening: Vec<usize> = listening.collect();
        let mut lost_before_rack: BTreeMap<Option<usize>, Vec<u32>> = BTreeMap::new();
        for host in listening {
            let rack = self.scenario.hosts[host].rack;
            let lost = lost_before_rack.entry(rack).or_insert_with(|| {
                let mut lost = pass.lost.clone();
                if rack != self.scenario.hosts[sender].rack {
                    let uplink = self.takings.uplink().unwrap_or(u64::MAX);
                    drop_surplus(pass, uplink, &mut self.rng, &mut lost);
                    let bytes = self.takings.payload_of(pass.len());
                    self.actions.push_back(Action::Entered { host, bytes });
                }
                lost
            });
            if let Some(member) = self.members.get_mut(&host) {
                member.hear(now, pass, lost, &mut self.rng);
            }
            self.obey_member(now, host);
        }
    }

    fn ring(&mut self, now: Instant, host: usize) {
        let Some(member) = self.members.get_mut(&host) else { return };
        if member.armed.take_if(|at| *at <= now).is_none() {
            return;
        }
        if member.receiver.poll_timeout().is_some_and(|at| at <= now) {
            if let Some((waiting, bytes_per_s)) = self.disks.get(&host).map(|disk| disk.backlog(now)) {
                member.receiver.handle_backlog(now, waiting, bytes_per_s);
            }
            member.receiver.handle_timeout(now);
        }
        self.obey_member(now, host);
    }

    /// Chunks that multicast brought are written; at once, unless the disk is slow.
    fn write(&mut self, now: Instant, host: usize, from: usize, chunks: Vec<Range<u32>>) {
        let Some(disk) = self.disks.get_mut(&host) else { return self.stored(host, from, chunks) };
        if !disk.is_busy(now) {
            self.takings.change();
        }
        let written = |chunks: Range<u32>| (disk.write(now, chunks.clone(), &self.scenario.geometry), chunks);
        let written: Vec<(Instant, Range<u32>)> = chunks.into_iter().map(written).collect();
        let life = self.lives[host];
        for (at, chunks) in written {
            self.push(at, Event::Written { host, life, from, chunks });
        }
    }

    /// What multicast brought is stored.
    fn stored(&mut self, host: usize, from: usize, chunks: Vec<Range<u32>>) {
        self.store(host, &chunks);
        self.actions.push_back(Action::Stored { host, from, chunks });
    }

    /// A member's receiver hears that chunks are stored.
    fn store(&mut self, host: usize, chunks: &[Range<u32>]) {
        let Some(member) = self.members.get_mut(&host) else { return };
        let chunks = chunks.iter().cloned().flatten().filter_map(|number| self.scenario.geometry.chunk(number));
        chunks.for_each(|chunk| member.receiver.handle_stored(chunk));
    }

    /// Does what a member's receiver says, and sets its timer.
    fn obey_member(&mut self, now: Instant, host: usize) {
        while let Some(member) = self.members.get_mut(&host) {
            let (sender, words) = (member.sender, member.listen());
            if words.is_moved {
                self.takings.change();
            }
            words.messages.into_iter().for_each(|message| self.say(now, host, sender, message));
            if !words.missed.is_empty() {
                self.actions.push_back(Action::Miss { host, chunks: words.missed });
            }
            if let Some(is_carried) = words.carries {
                self.actions.push_back(Action::Carry { host, is_carried });
            }
            if words.whole.is_empty() {
                break;
            }
            self.write(now, host, sender, words.whole);
        }
        self.arm(now, host);
    }

    /// Sets a member's timer, unless it is set for sooner already; forgets it when its session is over.
    fn arm(&mut self, now: Instant, host: usize) {
        let Some(member) = self.members.get_mut(&host) else { return };
        let Some(next) = member.receiver.poll_timeout().map(|next| next.max(now)) else {
            self.members.remove(&host);
            return;
        };
        if member.armed.is_none_or(|armed| next < armed) {
            member.armed = Some(next);
            let life = self.lives[host];
            self.push(next, Event::Member { host, life });
        }
    }

    /// Those who could send consider whether to, a few times a second.
    fn consider(&mut self, now: Instant) {
        let (scenario, lacking) = (self.scenario, &self.lacking);
        let reached = |from: usize| {
            let reached = lacking.iter().filter(|&(&host, _)| is_reached(scenario, from, host));
            reached.map(|(_, &bytes)| bytes).collect()
        };
        self.election.consider(now, reached);
        self.push(now + CONSIDERED_EVERY, Event::Consider);
    }

    /// Does what the sender and the candidates say.
    fn settle(&mut self, now: Instant) {
        while self.obey_sender(now) | self.obey_election(now) {}
        let rate = self.session.as_ref().map_or((0, 0), |session| (session.host, session.rate(now)));
        let listening = self.members.iter().filter(|(_, member)| member.is_in_group).map(|(&host, _)| host);
        let busy = self.disks.iter().filter(|(_, disk)| disk.is_busy(now)).map(|(&host, _)| host);
        let actions = self.takings.update(rate, listening, busy);
        self.actions.extend(actions.into_iter().map(|(way, bytes_per_s)| Action::Take { way, bytes_per_s }));
    }

    /// Says whether there was anything to do.
    fn obey_sender(&mut self, now: Instant) -> bool {
        let Some(session) = &mut self.session else { return false };
        let (host, words) = (session.host, session.listen(now, &mut self.rng));
        let lull_at = session.lull_at(now);
        let is_idle = words.messages.is_empty() && words.passes.is_empty() && words.ended.is_none();
        words.messages.into_iter().for_each(|(peer, message)| self.say(now, host, host_of(peer), message));
        if words.sent_bytes > 0 {
            self.actions.push_back(Action::Sent { host, bytes: words.sent_bytes });
        }
        for pass in words.passes {
            self.push(now + self.scenario.latency, Event::Pass { sender: host, pass });
            lull_at.into_iter().for_each(|at| self.push(at, Event::Lull));
        }
        if let Some(ended) = words.ended {
            self.session = None;
            self.takings.change();
            self.election.session_is_over(now, host, ended);
        }
        !is_idle
    }

    /// Says whether there was anything to do.
    fn obey_election(&mut self, now: Instant) -> bool {
        let mut was_busy = false;
        while let Some((host, words)) = self.election.listen(now) {
            was_busy = true;
            let life = self.lives[host];
            words
                .asks
                .into_iter()
                .for_each(|request| self.after_control(now, host, Event::Ask { host, life, request }));
            if words.is_deposed
                && let Some(session) = self.session.as_mut().filter(|session| session.host == host)
            {
                session.sender.handle_stop();
            }
            if let Some(session) = words.elected {
                self.begin(now, host, session);
            }
            words.timer.into_iter().for_each(|at| self.push(at, Event::Candidate { host, life }));
        }
        was_busy
    }

    /// A session begins: its sender tells all whom multicast reaches.
    fn begin(&mut self, now: Instant, host: usize, id: SessionId) {
        let (config, losses) = (self.sending_config(host), Losses::new(self.scenario.hosts[host].loss));
        let image = (self.scenario.geometry, (*self.data).clone());
        let mut session = Session::new(now, (host, id), image, config, losses, &mut self.rng);
        for &to in self.lacking.keys().filter(|&&to| is_reached(self.scenario, host, to)) {
            session.sender.handle_candidate(peer_id(to));
        }
        self.session = Some(session);
    }

    fn sending_config(&self, host: usize) -> SenderConfig {
        let link_bytes_per_s = self.takings.on_the_wire(self.scenario.hosts[host].access.up);
        SenderConfig { link_bytes_per_s, ..SenderConfig::default() }
    }

    fn say(&mut self, now: Instant, from: usize, to: usize, message: MulticastMessage) {
        let frame = PeerMessage::Multicast { image: IMAGE, message: message.clone() };
        let bytes = codec::encode(&frame).map_or(0, |frame| frame.len() as u64);
        self.actions.push_back(Action::Said { host: from, bytes });
        let life = self.lives[to];
        self.push(now + self.scenario.latency_between(from, to), Event::Message { from, to, life, message });
    }

    /// Something goes between a host and the tracker, which stands beside the publisher.
    fn after_control(&mut self, now: Instant, host: usize, event: Event) {
        self.push(now + self.scenario.latency_between(host, 0), event);
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), event);
    }
}

fn slow_disks(scenario: &Scenario) -> BTreeMap<usize, Disk> {
    let slow = scenario.hosts.iter().enumerate().filter(|(_, plan)| plan.access.down < plan.wire.down);
    slow.map(|(host, plan)| (host, Disk::new(plan.access.down))).collect()
}

/// So often is considered whether to send.
const CONSIDERED_EVERY: Duration = Duration::from_millis(250);

fn is_due(session: &Session, now: Instant) -> bool {
    session.sender.poll_timeout().is_some_and(|at| at <= now)
}

/// Whether one host's multicast comes to another.
fn is_reached(scenario: &Scenario, from: usize, to: usize) -> bool {
    scenario.site_latency.is_none() || scenario.hosts[from].rack == scenario.hosts[to].rack
}
