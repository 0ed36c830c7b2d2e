//! The made-up world: hosts with real machines, a tracker, a network, and events that happen in order.
//!
//! A driver like the agent, only that time is a number and bytes are counted instead of sent. It takes the next event,
//! calls the machine that it is for, does what the machine says, and sets its timer. After the last event all that
//! happened is in a hash, so that two runs can be compared.

mod serving;

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use drover_protocol::codec;
use drover_protocol::geometry::{Geometry, PieceIndex};
use drover_protocol::have::{ChunkSet, WireDelta};
use drover_protocol::hints::Source;
use drover_protocol::id::PeerId;
use drover_protocol::message::{PeerMessage, SwarmMessage};
use drover_protocol::rng::Rng;
use drover_protocol::swarm::{Output, ServeId, Swarm, SwarmConfig};
use drover_protocol::time::Instant;

use crate::checker;
use crate::event::Event;
use crate::fabric::{Fabric, FlowId, Racks};
use crate::host::{Host, host_of, peer_id};
use crate::hybrid::{Action, Air};
use crate::news::News;
use crate::queue::Queue;
use crate::report::{HostReport, Report};
use crate::scenario::{QUIC_GOODPUT, Scenario};
use crate::trace::Trace;
use crate::tracker::{IMAGE, Tracker, jittered};

/// After how long of silence a connection is lost: the idle time-out of a link.
const DEATH_NOTICED: Duration = Duration::from_secs(10);
/// Round trips until a dialled peer can be talked to: one for the handshake, one for the hellos.
const DIAL_ROUND_TRIPS: u32 = 2;
/// A flow tells how far it is at least so often: more often than any swarm becomes impatient. Where requests are long, and
/// many, only just: told each second, swarms took requests for late that were not (3.2 % of all bytes came twice).
const REPORT_INTERVAL: Duration = Duration::from_millis(200);
const COARSE_REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// The longest requests that are not long in this sense, in bytes.
const FINE_REQUEST: u64 = 1 << 20;
/// Bytes of a have-delta with its frame, and of each run in it.
const NEWS_LEN: u64 = 40;
const NEWS_RUN_LEN: u64 = 4;
/// Bytes of a request and of the reply to it, and of a peer with its addresses.
const REQUEST_LEN: u64 = 64;
const PEER_LEN: u64 = 64;
/// When a host that does not reach the tracker tries again: the longest that an agent waits.
const TRACKER_RETRY: Duration = Duration::from_secs(15);
/// Chunks of zeros come in runs of so many: 1 MiB, as file systems leave holes.
const ZERO_RUN: u32 = 16;

/// Why a run gives no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Not everybody was complete in time.
    #[error("{unfinished} of {hosts} hosts are not complete after {after:?} (the first of them: host {first})")]
    Unfinished {
        /// How many.
        unfinished: usize,
        /// Of how many that fetch.
        hosts: usize,
        /// When it was given up.
        after: Duration,
        /// Which host.
        first: usize,
    },
    /// A result that can't be: the model is wrong.
    #[error("the result is impossible, so the model is wrong: {0}")]
    Impossible(String),
}

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario) -> Result<Report, RunError> {
    match run_as_far(scenario)? {
        (report, None) => Ok(report),
        (_, Some(unfinished)) => Err(unfinished),
    }
}

/// The same as [`run_as_far`] with multicast beside the swarm. What must hold of the result is for the caller to check: hosts get
/// more than all of them send.
pub(crate) fn run_with_multicast(scenario: &Scenario) -> Result<(Report, Option<RunError>), RunError> {
    let mut world = World::new(scenario);
    world.air = Some(Air::new(scenario, Arc::clone(&world.data), world.rng.next_u64()));
    let ended = world.run_to_end().err();
    match ended {
        Some(impossible @ RunError::Impossible(_)) => Err(impossible),
        unfinished => Ok((world.report(), unfinished)),
    }
}

/// Runs a scenario to its end or as far as it goes. Gives the hosts that are complete, and why not all are.
pub fn run_as_far(scenario: &Scenario) -> Result<(Report, Option<RunError>), RunError> {
    let mut world = World::new(scenario);
    let unfinished = world.run_to_end().err();
    let report = world.report();
    if unfinished.is_none() {
        checker::check_report(scenario, &report).map_err(RunError::Impossible)?;
    }
    Ok((report, unfinished))
}

struct World<'a> {
    scenario: &'a Scenario,
    geometry: Geometry,
    data: Arc<ChunkSet>,
    now: Instant,
    queue: Queue<Event>,
    hosts: Vec<Host>,
    /// Hosts that can be waited for and are not complete yet.
    unfinished: usize,
    /// While it runs.
    tracker: Option<Tracker>,
    news: News,
    /// Which hosts' swarms want news at once.
    wants_news: Vec<bool>,
    fabric: Fabric,
    /// Multicast, if there is any; and whether what it says is being done.
    air: Option<Air<'a>>,
    obeys_air: bool,
    /// Who sends what by which flow, by the flow's place.
    flows: Vec<Option<(FlowId, usize, ServeId)>>,
    rng: Rng,
    serve_count: u64,
    /// Whose connections with whom are dead, as long as the first does not know.
    dead_links: BTreeSet<(usize, usize)>,
    trace: Trace,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut rng = Rng::seeded(scenario.seed);
        let geometry = scenario.geometry;
        let data = data_chunks(&geometry, scenario.data_share, &mut rng);
        let mut hosts: Vec<Host> = scenario.hosts.iter().map(|_| Host::new(ChunkSet::empty(&geometry))).collect();
        hosts[0].stored = Some(data.clone());
        let mut queue = Queue::default();
        for (host, plan) in scenario.hosts.iter().enumerate() {
            queue.push(Instant::START + plan.arrives, Event::Arrive { host });
            for absence in &plan.absences {
                queue.push(Instant::START + absence.from, Event::Die { host });
                absence.until.into_iter().for_each(|at| queue.push(Instant::START + at, Event::Arrive { host }));
            }
        }
        for absence in &scenario.tracker_absences {
            queue.push(Instant::START + absence.from, Event::TrackerDies);
            absence.until.into_iter().for_each(|at| queue.push(Instant::START + at, Event::TrackerIsBack));
        }
        let racks = scenario.uplink(QUIC_GOODPUT).map(|uplink| Racks {
            of_host: scenario.hosts.iter().map(|host| host.rack.unwrap_or(0)).collect(),
            uplink,
        });
        let is_coarse = scenario.swarm.request_len_least > FINE_REQUEST;
        let report_interval = if is_coarse { COARSE_REPORT_INTERVAL } else { REPORT_INTERVAL };
        let mut world = World {
            scenario,
            geometry,
            data: Arc::new(data),
            now: Instant::START,
            queue,
            unfinished: 0,
            tracker: Some(Tracker::new(rng.next_u64())),
            news: News::new(hosts.len()),
            wants_news: vec![false; hosts.len()],
            hosts,
            fabric: Fabric::new(&scenario.links(QUIC_GOODPUT), racks, scenario.quantum)
                .reporting_every(report_interval),
            air: None,
            obeys_air: false,
            flows: Vec::new(),
            rng,
            serve_count: 0,
            dead_links: BTreeSet::new(),
            trace: Trace::default(),
        };
        world.unfinished = world.expected().count();
        world
    }

    fn run_to_end(&mut self) -> Result<(), RunError> {
        let deadline = Instant::START + self.scenario.deadline;
        while self.unfinished > 0 {
            let network = self.fabric.poll_timeout();
            let air = self.air.as_ref().and_then(Air::poll_timeout);
            let all = network.into_iter().chain(air).chain(self.queue.next_at());
            let next = all.min().filter(|&next| next <= deadline);
            let Some(next) = next else { return Err(self.unfinished()) };
            assert!(next >= self.now, "time does not go back");
            self.now = next;
            if network == Some(next) {
                self.fabric.handle_timeout(next);
                while let Some(progress) = self.fabric.poll_progress() {
                    self.progressed(progress);
                }
            } else if air == Some(next) {
                self.tell_air(Air::handle_timeout);
            } else if let Some((_, event)) = self.queue.pop() {
                self.happen(event);
            }
        }
        self.fabric.violation().map_or(Ok(()), |what| Err(RunError::Impossible(what.to_owned())))
    }

    /// Hosts that fetch and don't die for good.
    fn expected(&self) -> impl Iterator<Item = usize> + '_ {
        (1..self.hosts.len()).filter(|&host| self.is_expected(host))
    }

    fn is_expected(&self, host: usize) -> bool {
        host != 0 && !self.scenario.hosts[host].stays_away()
    }

    fn unfinished(&self) -> RunError {
        let left: Vec<usize> = self.expected().filter(|&host| self.hosts[host].completed_at.is_none()).collect();
        let after = self.now.since(Instant::START);
        RunError::Unfinished { unfinished: left.len(), hosts: self.hosts.len() - 1, after, first: left[0] }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { host } => self.arrive(host),
            Event::Die { host } => self.die(host),
            Event::TrackerDies => {
                self.tracker = None;
                self.tell_air(|air, _| air.handle_tracker_died());
            }
            // It remembers nobody.
            Event::TrackerIsBack => {
                self.tracker = Some(Tracker::new(self.rng.next_u64()));
                self.tell_air(Air::handle_tracker_back);
            }
            Event::Timer { host, life } => self.ring(host, life),
            Event::Announce { host, life } => self.announce(host, life),
            Event::Told { host, life, peers, again } => {
                if self.lives(host, life) {
                    let peers: Vec<PeerId> = peers.iter().map(|&peer| peer_id(peer as usize)).collect();
                    self.tell(host, |swarm, now| swarm.handle_candidates(now, Source::Tracker(0), &peers));
                    let wait = jittered(again, &mut self.rng);
                    self.after(wait, Event::Announce { host, life });
                }
            }
            Event::Dialled { from, from_life, to } => self.dialled(from, from_life, to),
            Event::Say { from, from_life, to, to_life, message } => {
                if self.lives(to, to_life) && self.lives(from, from_life) && self.hosts[to].is_connected(from) {
                    self.tell(to, |swarm, now| swarm.handle_message(now, peer_id(from), *message));
                }
            }
            Event::News { host, life, len } => {
                if self.lives(host, life) {
                    self.spread(host, len);
                }
            }
            Event::Peers { from, to, life, about } => {
                if self.lives(to, life) {
                    let source = Source::PeerExchange(peer_id(from));
                    let about: Vec<PeerId> = about.iter().map(|&peer| peer_id(peer as usize)).collect();
                    self.tell(to, |swarm, now| swarm.handle_candidates(now, source, &about));
                }
            }
            Event::Ask { from, from_life, to, request, piece, chunks } => {
                self.asked((from, from_life), to, request, piece, chunks);
            }
            Event::Cancel { from, from_life, to, request } => self.cancelled((from, from_life), to, request),
            Event::Arrived { from, to, life, request, chunks, is_done } => {
                if self.lives(to, life) {
                    self.arrived(from, to, request, &chunks, is_done);
                }
            }
            Event::Refused { to, life, request, end } => {
                if self.lives(to, life) && self.hosts[to].end_request(request) {
                    self.tell(to, |swarm, now| swarm.handle_request_ended(now, request, end));
                }
            }
            Event::Lost { host, life, peer } => {
                if self.lives(host, life) && self.dead_links.remove(&(host, peer)) {
                    self.lose(host, peer);
                }
            }
        }
    }

    fn arrive(&mut self, host: usize) {
        let seed = self.rng.next_u64();
        let at = &mut self.hosts[host];
        let data = Arc::clone(&self.data);
        let held = at.stored.take().expect("who arrives does not run yet");
        let config = SwarmConfig { rack: self.scenario.rack_known(host), ..self.scenario.swarm.clone() };
        at.swarm = Some(Swarm::new(self.now, peer_id(host), self.geometry, data, held, config, seed));
        let life = at.life;
        let held_bytes = at.swarm.as_ref().map_or(0, Swarm::held_bytes);
        self.trace.note(self.now, "arrive", [host as u64, 0]);
        self.tell_air(|air, now| air.handle_arrived(now, host, held_bytes));
        self.drain(host);
        self.after(self.latency_to_tracker(host), Event::Announce { host, life });
    }

    fn die(&mut self, host: usize) {
        self.trace.note(self.now, "die", [host as u64, 0]);
        self.tell_air(|air, now| air.handle_died(now, host));
        let peers: Vec<usize> = self.hosts[host].links.iter().map(|link| link.host as usize).collect();
        for flow in self.hosts[host].die() {
            self.close(flow);
        }
        self.wants_news[host] = false;
        self.dead_links.retain(|&(who, _)| who != host);
        // Nobody acknowledges any more what is on its way here, so it is not sent on; the senders learn that later.
        for &peer in &peers {
            let to_it = self.hosts[peer].serves.iter_mut().filter(|serve| serve.to == host);
            let flows: Vec<FlowId> = to_it.filter_map(|serve| serve.flow.take()).collect();
            flows.into_iter().for_each(|flow| {
                self.close(flow);
            });
            self.dead_links.insert((peer, host));
            let life = self.hosts[peer].life;
            self.after(DEATH_NOTICED, Event::Lost { host: peer, life, peer: host });
        }
    }

    fn ring(&mut self, host: usize, life: u32) {
        if self.lives(host, life) && self.hosts[host].armed == Some(self.now) {
            self.hosts[host].armed = None;
            // The timer may have been put off since it was set.
            match self.hosts[host].swarm.as_ref().and_then(Swarm::poll_timeout) {
                Some(due) if due > self.now => self.arm(host),
                _ => self.tell(host, Swarm::handle_timeout),
            }
        }
    }

    /// A host's announce comes to the tracker.
    fn announce(&mut self, host: usize, life: u32) {
        let Some(swarm) = self.hosts[host].swarm.as_ref().filter(|_| self.hosts[host].life == life) else { return };
        let rack = self.scenario.rack_known(host);
        let progress = (swarm.held().count(), self.data.count());
        let Some(tracker) = &mut self.tracker else {
            let wait = jittered(TRACKER_RETRY, &mut self.rng);
            return self.after(wait, Event::Announce { host, life });
        };
        let (peers, again) = tracker.announce(self.now, host, rack.as_deref(), progress);
        self.after(self.latency_to_tracker(host), Event::Told { host, life, peers, again });
    }

    fn dialled(&mut self, from: usize, from_life: u32, to: usize) {
        if !self.lives(from, from_life) {
            return;
        }
        if self.hosts[to].swarm.is_some() {
            // Who was away and is back sooner than that was noticed.
            if self.dead_links.remove(&(to, from)) {
                self.lose(to, from);
            }
            self.dead_links.remove(&(from, to));
            self.hosts[from].connect(to, self.news.heard(to));
            self.hosts[to].connect(from, self.news.heard(from));
            self.tell(from, |swarm, now| swarm.handle_connected(now, peer_id(to)));
        } else {
            self.tell(from, |swarm, now| swarm.handle_connect_failed(now, peer_id(to)));
        }
    }

    /// A host closes a connection; the other learns it a latency later.
    fn hang_up(&mut self, host: usize, peer: usize) {
        if self.hosts[host].disconnect(peer) {
            self.dead_links.insert((peer, host));
            let life = self.hosts[peer].life;
            self.after(self.scenario.latency_between(host, peer), Event::Lost { host: peer, life, peer: host });
        }
    }

    /// A host learns that its connection with another is dead.
    fn lose(&mut self, host: usize, peer: usize) {
        if self.hosts[host].disconnect(peer) {
            self.tell(host, |swarm, now| swarm.handle_disconnected(now, peer_id(peer)));
        }
    }

    /// What a host said that it holds can be heard; who could make use of it hears it now.
    fn spread(&mut self, host: usize, len: u32) {
        self.news.arrive(host, len);
        for at in 0..self.hosts[host].links.len() {
            let Some(to) = self.hosts[host].links.get(at).map(|link| link.host as usize) else { return };
            if self.wants_news[to] {
                self.tell(to, |_, _| {});
            }
        }
    }

    /// Lets a host hear what its neighbours said.
    fn hear_news(&mut self, host: usize) {
        let Host { swarm: Some(swarm), links, .. } = &mut self.hosts[host] else { return };
        let logs = &self.news;
        let mut news = links.iter_mut().filter_map(|link| {
            let (from, heard) = (link.host as usize, logs.heard(link.host as usize));
            let news = logs.since(from, link.heard);
            link.heard = heard;
            (!news.is_empty()).then(|| (peer_id(from), news))
        });
        if let Some(first) = news.next() {
            swarm.handle_news(self.now, core::iter::once(first).chain(news));
        }
    }

    /// Calls a host's swarm, if it runs, and does what it says. Before that it hears the news.
    fn tell(&mut self, host: usize, call: impl FnOnce(&mut Swarm, Instant)) {
        self.hear_news(host);
        self.call(host, call);
    }

    /// The same when what it could hear makes no difference: nothing is asked of anybody, and nobody's request judged.
    fn call(&mut self, host: usize, call: impl FnOnce(&mut Swarm, Instant)) {
        if let Some(swarm) = &mut self.hosts[host].swarm {
            call(swarm, self.now);
            self.drain(host);
        }
    }

    /// Does what a swarm says, and sets its timer.
    fn drain(&mut self, host: usize) {
        if let Some(delta) = self.hosts[host].swarm.as_mut().and_then(Swarm::poll_news) {
            self.announce_pieces(host, &delta);
        }
        while let Some(output) = self.hosts[host].swarm.as_mut().and_then(Swarm::poll_output) {
            self.obey(host, output);
        }
        self.wants_news[host] = self.hosts[host].swarm.as_ref().is_some_and(Swarm::wants_news);
        self.arm(host);
    }

    /// Sets a host's timer, unless it is set for sooner already.
    fn arm(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        let Some(next) = at.swarm.as_ref().and_then(Swarm::poll_timeout).map(|next| next.max(self.now)) else { return };
        if at.armed.is_none_or(|armed| next < armed) {
            at.armed = Some(next);
            let life = at.life;
            self.queue.push(next, Event::Timer { host, life });
        }
    }

    /// A host tells all its neighbours what it came to hold.
    fn announce_pieces(&mut self, host: usize, delta: &WireDelta) {
        let pieces: Vec<PieceIndex> = delta.pieces(&self.geometry).expect("a swarm announces pieces of its image");
        let len = self.news.say(host, &pieces);
        let neighbours = self.hosts[host].links.len() as u64;
        self.charge(host, neighbours * (NEWS_LEN + NEWS_RUN_LEN * delta.0.len() as u64));
        self.trace.note(self.now, "news", [host as u64, u64::from(len)]);
        self.after(self.scenario.latency, Event::News { host, life: self.hosts[host].life, len });
    }

    /// So many bytes of messages leave a host; the next flow from it carries them.
    fn charge(&mut self, host: usize, bytes: u64) {
        self.hosts[host].unsent_control += bytes;
        self.hosts[host].counts.control += bytes;
    }

    fn obey(&mut self, host: usize, output: Output) {
        let (life, scenario) = (self.hosts[host].life, self.scenario);
        let latency = |peer| scenario.latency_between(host, host_of(peer));
        match output {
            Output::Connect { peer } => {
                let dialled = Event::Dialled { from: host, from_life: life, to: host_of(peer) };
                self.after(latency(peer) * 2 * DIAL_ROUND_TRIPS, dialled);
            }
            Output::Send { peer, message } => {
                let to = host_of(peer);
                let to_life = self.hosts[to].life;
                self.trace.note(self.now, "say", [flow_of(host, to), 0]);
                self.charge(host, frame_len(message.clone()));
                let message = Box::new(message);
                self.after(latency(peer), Event::Say { from: host, from_life: life, to, to_life, message });
            }
            Output::SendPeers { peer, about } => {
                let to = host_of(peer);
                self.charge(host, about.len() as u64 * PEER_LEN);
                let about = about.into_iter().map(|peer| host_of(peer) as u32).collect();
                self.after(latency(peer), Event::Peers { from: host, to, life: self.hosts[to].life, about });
            }
            Output::Request { peer, request, piece, chunks } => {
                self.hosts[host].requests.push(request);
                self.charge(host, REQUEST_LEN);
                let (to, piece) = (host_of(peer), piece.number());
                self.trace.note(self.now, "request", [flow_of(host, to), u64::from(piece)]);
                self.after(latency(peer), Event::Ask { from: host, from_life: life, to, request, piece, chunks });
            }
            Output::Cancel { peer, request } => {
                self.hosts[host].end_request(request);
                self.after(latency(peer), Event::Cancel { from: host, from_life: life, to: host_of(peer), request });
            }
            Output::Serve { serve, .. } => self.serve(host, serve),
            Output::Refuse { serve, refusal, .. } => self.refuse(host, serve, refusal),
            Output::Ban { peer, misdeed } => panic!("host {host} bans honest {peer:?}: {misdeed}"),
            Output::Dropped { peer } => self.hang_up(host, host_of(peer)),
            Output::Complete => {
                self.trace.note(self.now, "complete", [host as u64, 0]);
                if self.hosts[host].completed_at.is_none() {
                    self.hosts[host].completed_at = Some(self.now);
                    self.unfinished -= usize::from(self.is_expected(host));
                }
                self.after(self.latency_to_tracker(host), Event::Announce { host, life });
                self.tell_air(|air, now| air.handle_complete(now, host));
            }
        }
    }

    /// Calls multicast, if there is any, and does what it says.
    fn tell_air(&mut self, call: impl FnOnce(&mut Air<'a>, Instant)) {
        let Some(air) = &mut self.air else { return };
        call(air, self.now);
        // What is done can be heard by multicast in turn.
        if core::mem::replace(&mut self.obeys_air, true) {
            return;
        }
        while let Some(action) = self.air.as_mut().and_then(Air::poll_action) {
            self.obey_air(action);
        }
        self.obeys_air = false;
    }

    fn obey_air(&mut self, action: Action) {
        match action {
            Action::Offer { host, announcement } => {
                let Some(held) = self.hosts[host].swarm.as_ref().map(|swarm| swarm.held().clone()) else { return };
                self.tell_air(|air, now| air.take_part(now, host, held, &announcement));
            }
            Action::Stored { host, from, chunks } => {
                let Some(before) = self.hosts[host].swarm.as_ref().map(Swarm::held_bytes) else { return };
                self.trace.note(self.now, "multicast", [host as u64, u64::from(chunks[0].start)]);
                self.tell(host, |swarm, now| swarm.handle_chunks_stored(now, &chunks, None));
                let held = self.hosts[host].swarm.as_ref().map_or(0, Swarm::held_bytes);
                self.tell_air(|air, _| air.handle_held(host, held));
                let new = held - before;
                let counts = &mut self.hosts[host].counts;
                *(if from == 0 { &mut counts.from_publisher } else { &mut counts.from_peers }) += new;
            }
            Action::Carry { host, is_carried } => {
                self.tell(host, |swarm, now| swarm.set_carried(now, is_carried));
            }
            Action::Miss { host, chunks } => self.tell(host, |swarm, now| swarm.handle_missed(now, &chunks)),
            Action::Sent { host, bytes } => self.hosts[host].counts.sent += bytes,
            Action::Entered { host, bytes } => self.hosts[host].counts.from_other_racks += bytes,
            Action::Said { host, bytes } => self.charge(host, bytes),
            Action::Take { way, bytes_per_s } => self.fabric.take(self.now, way, bytes_per_s),
        }
    }

    /// The tracker stands beside the publisher.
    fn latency_to_tracker(&self, host: usize) -> Duration {
        self.scenario.latency_between(host, 0)
    }

    fn lives(&self, host: usize, life: u32) -> bool {
        self.hosts[host].swarm.is_some() && self.hosts[host].life == life
    }

    fn after(&mut self, wait: Duration, event: Event) {
        if wait == self.scenario.latency {
            self.queue.push_in_order(self.now + wait, event);
        } else {
            self.queue.push(self.now + wait, event);
        }
    }

    fn report(&self) -> Report {
        let data_len = self.data.iter().map(|chunk| u64::from(self.geometry.chunk_len(chunk))).sum();
        let finished = (1..self.hosts.len()).filter_map(|host| {
            let (at, plan) = (&self.hosts[host], &self.scenario.hosts[host]);
            let completed = at.completed_at?.since(Instant::START);
            let bound = checker::host_bound(self.scenario, host, data_len);
            Some(HostReport::new(host, plan.arrives, completed, bound, at.counts))
        });
        Report::new(
            self.scenario,
            data_len,
            finished.collect(),
            self.hosts.iter().map(|host| host.counts).collect(),
            self.fabric.crossed(),
            self.trace.hash(),
            (self.trace.count(), self.fabric.solutions()),
        )
    }
}

/// Which chunks are not zeros: runs of a mebibyte, so many that the share is right.
fn data_chunks(geometry: &Geometry, share: f64, rng: &mut Rng) -> ChunkSet {
    let runs = geometry.chunk_count().div_ceil(ZERO_RUN);
    let mut order: Vec<u32> = (0..runs).collect();
    rng.shuffle(&mut order);
    // An image of nothing but zeros is complete at once and shows nothing.
    let with_data = ((f64::from(runs) * share).round() as usize).max(1);
    let mut data = ChunkSet::empty(geometry);
    for run in order.into_iter().take(with_data) {
        data.insert_run(run * ZERO_RUN..((run + 1) * ZERO_RUN).min(geometry.chunk_count()));
    }
    data
}

/// Bytes of a message between two swarms, with its frame.
fn frame_len(message: SwarmMessage) -> u64 {
    codec::encode(&PeerMessage::Swarm { image: IMAGE, message }).map_or(0, |frame| frame.len() as u64)
}

fn flow_of(from: usize, to: usize) -> u64 {
    (from as u64) << 32 | to as u64
}
