//! The asking side: keeps requests on their way to the peers that serve best, and mends what goes wrong with them.
//!
//! `fill` is the heart: it asks one peer for more until its window is full. It runs for a peer when that peer brought or
//! announced something, and for all of them at every look, some ten times a second, so that no change that nobody
//! thought of can leave a peer idle for long.

use core::time::Duration;

use super::Swarm;
use super::event::{Output, RequestEnd, RequestId};
use super::mask::ChunkMask;
use super::peer::Peer;
use super::picker::{Offer, Pick};
use super::racks::STARVED_AFTER;
use super::requests::Request;
use crate::geometry::{CHUNK_LEN, PieceIndex};
use crate::have::PieceSet;
use crate::id::PeerId;
use crate::message::MAX_RANGES;
use crate::time::Instant;

/// Most bytes on their way from everybody together; and least, however slow this host is.
const IN_FLIGHT_MOST: u64 = 128 << 20;
const IN_FLIGHT_LEAST: u64 = 1 << 20;
/// Most bytes on their way before anything came.
const IN_FLIGHT_FIRST: u64 = 16 << 20;
/// So few requests on their way may all be to leechers.
const FEW_REQUESTS: u64 = 8;
/// So many of the shortest requests may always be on their way: with four of 16 MiB, a host of 100 waits for each of them.
const REQUESTS_LEAST: u64 = 8;
/// So many times more often it is looked whether more can be asked when everything is asked for.
const LOOKS_IN_ENDGAME: u32 = 5;
/// A request that is expected sooner than this is not worth asking for elsewhere.
const WORTH_STEALING: Duration = Duration::from_millis(100);
/// The same while there is still something that was asked of nobody: then only what stands still is worth it.
const WORTH_STEALING_EARLY: Duration = Duration::from_secs(1);
/// Added to what is expected of a peer that would take over a request: a round trip and a disk.
const TAKING_OVER: Duration = Duration::from_millis(20);
/// What is assumed of a peer's rate if nobody's is known, in bytes per second.
const RATE_ASSUMED: u64 = 1 << 20;
/// When several peers fall silent at once it is this host's disk rather than they: it is given so many times as long.
const OWN_STALL: u32 = 3;
/// A host is hungry when, for [`HUNGRY_AFTER`], it got less than `STARVING` percent of the most that it got lately, or
/// less than `WANTING` percent while other leechers had nothing more to give; then it asks seeders also for what others
/// have. Both conditions keep a publisher from sending copies that others could: a rate that only jitters, as on a
/// machine that is short of processor, is neither low for long nor met by slow peers.
const STARVING: u64 = 50;
const WANTING: u64 = 90;
const HUNGRY_AFTER: Duration = Duration::from_millis(200);
/// How long a host that was found hungry counts as hungry: what it then asks of seeders stills the hunger at once, and
/// it would have to starve anew for every request.
const HUNGRY_FOR: Duration = Duration::from_secs(1);
/// A leecher has nothing more to give when what was asked of it takes longer than this.
const SLOW_TO_GIVE: Duration = Duration::from_millis(100);

/// So many hosts that became complete spare one that came so: with fewer it would be missed.
const SPARED_BY: usize = 3;

impl Swarm {
    /// Looks whether more can be asked of anybody, and whether something is better asked of somebody else.
    pub(super) fn look(&mut self, now: Instant) {
        self.settle_carrier(now);
        self.intake.roll(now);
        // While nothing comes, nothing new is known of the link.
        if now.since(self.intake_at) < self.config.no_progress {
            self.intake_peak = (self.intake_peak - self.intake_peak / 128).max(self.intake.rate());
        }
        self.forget_declined(now);
        self.note_hunger(now);
        self.forget_imports(now);
        self.next_look = None;
        self.is_looking = true;
        self.fill_all(now);
        self.is_looking = false;
        if self.is_asking() && !self.requests.is_empty() {
            for peer in self.in_order_of_preference(now) {
                self.steal_for(now, peer);
            }
        }
        self.plan_look(now);
    }

    fn forget_declined(&mut self, now: Instant) {
        if core::mem::take(&mut self.has_declined) {
            for peer in self.peers.values_mut() {
                self.has_declined |= !peer.forget_declined(now);
            }
        }
    }

    /// Asks everybody for as much as fits.
    pub(super) fn fill_all(&mut self, now: Instant) {
        for peer in self.in_order_of_preference(now) {
            if !self.has_room_for_any(now) {
                break;
            }
            self.fill(now, peer);
        }
        self.plan_look(now);
    }

    /// Asks a peer for as much as fits.
    pub(super) fn fill(&mut self, now: Instant, peer: PeerId) {
        self.share_out();
        while let Some((piece, chunks)) = self.next_for(now, peer) {
            self.ask(now, peer, piece, chunks);
        }
        if self.next_look.is_none() {
            self.plan_look(now);
        }
    }

    /// Chunks of `len` bytes came by a request. Returns who sent them.
    pub(super) fn hear_chunks(&mut self, now: Instant, request: RequestId, len: u64) -> Option<PeerId> {
        self.requests.progress(now, request);
        self.intake.add(now, len);
        self.intake_at = now;
        self.intake_peak = self.intake_peak.max(self.intake.rate());
        let sender = self.requests.sender(request)?;
        if let Some(neighbour) = self.peers.get_mut(&sender) {
            neighbour.progress(now, len);
        }
        Some(sender)
    }

    /// Chunks are held now: nobody need send them any more.
    pub(super) fn settle_chunks(&mut self, piece: PieceIndex, chunks: ChunkMask, brought_by: Option<RequestId>) {
        for request in self.requests.of_piece(piece) {
            let (settled, is_empty) = self.requests.settle(request, chunks, &self.geometry);
            if settled && is_empty {
                if brought_by == Some(request) {
                    self.requests.close(request);
                } else if let Some(Request { peer, .. }) = self.requests.close(request) {
                    self.outputs.push_back(Output::Cancel { peer, request });
                }
            }
        }
    }

    pub(super) fn end_request(&mut self, now: Instant, id: RequestId, end: RequestEnd) {
        let Some(request) = self.take_back(id) else { return };
        let Request { peer, piece, ref left, .. } = request;
        let Some(neighbour) = self.peers.get_mut(&peer) else { return };
        match end {
            RequestEnd::Done => {}
            RequestEnd::Busy { retry_after, instead } => {
                let advice = instead.and_then(|number| self.geometry.piece(number));
                match advice.filter(|_| neighbour.advise(now, &self.config)) {
                    None => neighbour.busy(now, retry_after, &self.config, &mut self.rng),
                    Some(advice) => {
                        neighbour.decline(now, piece, &self.geometry);
                        self.has_declined = true;
                        self.follow_advice(now, peer, advice);
                    }
                }
            }
            RequestEnd::NotHeld => {
                neighbour.parts.remove(piece);
                neighbour.decline(now, piece, &self.geometry);
                self.has_declined = true;
                neighbour.fail(now, &self.config);
            }
            RequestEnd::Failed => neighbour.fail(now, &self.config),
        }
        self.note_askable(peer);
        if left.is_empty() {
            self.fill(now, peer);
        } else {
            self.fill_all(now);
        }
    }

    /// Takes requests back from peers that have been silent for too long.
    pub(super) fn give_up_stalled(&mut self, now: Instant) {
        let silence = now.since(self.intake_at);
        let is_ours = self.requests.asked_peers().len() > 1 && silence >= self.config.no_progress / 2;
        if is_ours && silence < self.config.no_progress * OWN_STALL {
            return;
        }
        // A peer's bytes may wait for this host's link behind all the others'.
        let own_queue = match self.intake_peak {
            0 => Duration::ZERO,
            peak => time_of(self.requests.in_flight() * 2, peak),
        };
        let is_stalled = |peer: &&PeerId| {
            self.peers.get(peer).is_some_and(|neighbour| {
                neighbour.stalls_at(&self.config) <= now && neighbour.silence(now) >= own_queue
            })
        };
        let stalled: Vec<PeerId> = self.requests.asked_peers().filter(is_stalled).copied().collect();
        for peer in stalled {
            if let Some(neighbour) = self.peers.get_mut(&peer) {
                neighbour.snub(now, &self.config);
            }
            self.note_askable(peer);
            self.cancel_peer(now, peer, true);
        }
        // A peer that serves others of our requests may still have lost one of them.
        let late = self.config.no_progress * 5;
        let is_lost = |request: &Request| {
            let silence = now.since(request.progress_at);
            let rate = || self.peers.get(&request.peer).map_or(0, Peer::rate);
            let queue = || time_of(self.requests.in_flight_of(request.peer), rate().max(1));
            silence > late && silence > queue() * 4
        };
        let lost: Vec<RequestId> =
            self.requests.iter().filter(|(_, request)| is_lost(request)).map(|(id, _)| id).collect();
        for id in lost {
            self.cancel(id);
        }
    }

    /// Takes back whatever a peer was asked for.
    pub(super) fn cancel_peer(&mut self, _now: Instant, peer: PeerId, connected: bool) {
        let requests: Vec<RequestId> = self.requests.of_peer(peer).map(|(id, _)| id).collect();
        for id in requests {
            if connected {
                self.cancel(id);
            } else {
                self.take_back(id);
            }
        }
    }

    /// Takes back whatever anybody was asked for.
    pub(super) fn cancel_all(&mut self, _now: Instant) {
        let requests: Vec<RequestId> = self.requests.iter().map(|(id, _)| id).collect();
        for id in requests {
            self.cancel(id);
        }
    }

    /// When something about requests is to be looked at.
    pub(super) fn next_ask(&self) -> Option<Instant> {
        let look = self.next_look.filter(|_| self.is_asking())?;
        let ready = Some(self.download.ready_at()).filter(|&at| at > self.now);
        ready.into_iter().chain(self.next_stall).chain(self.next_askable).chain([look]).min()
    }

    /// Whether to hear what a peer came to hold could make it ask for something at once. If not, a driver may keep such
    /// news back until it has something else to say to this swarm.
    pub fn wants_news(&self) -> bool {
        self.is_asking() && (self.next_look.is_none() || self.has_room_for_any(self.now))
    }

    /// Finds anew when the next peer may be asked again, if that time has come, and when the next one has been silent for too
    /// long.
    pub(super) fn plan_waits(&mut self, now: Instant) {
        if self.next_askable.is_some_and(|at| at <= now) {
            self.next_askable = self.peers.values().map(Peer::askable_at).filter(|&at| at > now).min();
        }
        let asked = self.requests.asked_peers().filter_map(|peer| self.peers.get(peer));
        self.next_stall = asked.map(|neighbour| neighbour.stalls_at(&self.config)).filter(|&at| at > now).min();
    }

    fn note_askable(&mut self, peer: PeerId) {
        let at = self.peers.get(&peer).map(Peer::askable_at).filter(|&at| at > self.now);
        self.next_askable = self.next_askable.into_iter().chain(at).min();
    }

    /// Whether anybody may be asked for more.
    fn has_room_for_all(&self, now: Instant) -> bool {
        self.is_asking() && self.download.is_ready(now) && self.requests.in_flight() < self.in_flight_most()
    }

    /// Whether there may be somebody who may be asked for more.
    fn has_room_for_any(&self, now: Instant) -> bool {
        let has_room = |peer: &PeerId| self.room(now, *peer).is_some();
        self.has_room_for_all(now) && (self.has_place_for_source() || self.requests.asked_peers().any(has_room))
    }

    /// Whether there may be something to ask for.
    fn is_asking(&self) -> bool {
        let is_carried =
            || self.progress.is_only_missed() && self.availability.open().is_empty() && !self.picker.has_readers();
        !self.paused && !self.is_complete() && !is_carried()
    }

    /// Plans the next look, if there is anything that time could change.
    fn plan_look(&mut self, now: Instant) {
        let is_endgame = self.progress.unasked_chunks() == 0;
        let in_time = self.config.look_interval / if is_endgame { LOOKS_IN_ENDGAME } else { 1 };
        let has_work =
            || !self.requests.is_empty() || self.peers.values().any(|neighbour| self.is_interesting(neighbour));
        self.next_look = match self.next_look {
            Some(at) if at <= now + in_time => Some(at),
            _ => (self.is_asking() && has_work()).then_some(now + in_time),
        };
    }

    /// Peers that may be asked: leechers at random, then seeders at random. What a leecher can give, a seeder need not.
    ///
    /// Where only few requests are on their way at a time, leechers would fill them all, and a publisher would stand idle
    /// with what only it can give: there it is the other way round, except for who is hungry and asks seeders for everything.
    fn in_order_of_preference(&mut self, now: Instant) -> Vec<PeerId> {
        if !self.has_room_for_any(now) {
            return Vec::new();
        }
        let askable = self.peers.iter().filter(|(_, neighbour)| neighbour.is_askable(now));
        let mut order: Vec<(bool, PeerId)> = askable.map(|(peer, neighbour)| (neighbour.is_seeder(), *peer)).collect();
        self.rng.shuffle(&mut order);
        let are_few = self.in_flight_most() / self.config.request_len_least.max(1) <= FEW_REQUESTS;
        let is_seeder_last = !are_few || self.is_hungry();
        order.sort_by_key(|(is_seeder, _)| *is_seeder == is_seeder_last);
        order.into_iter().map(|(_, peer)| peer).collect()
    }

    /// What to ask of a peer now, if anything.
    fn next_for(&mut self, now: Instant, peer: PeerId) -> Option<Pick> {
        let len = self.room(now, peer)?;
        let is_urgent = self.picker.has_readers();
        let neighbour = self.peers.get(&peer)?;
        if self.is_out_of_the_way(neighbour) || self.is_spared(neighbour) {
            return None;
        }
        let restrict = neighbour.is_publisher() && !self.is_hungry();
        let seeders = restrict.then(|| self.peers.values().filter(|neighbour| neighbour.is_publisher()).count());
        let imports = [self.racks.nearby(), self.racks.late()];
        let imports = imports.into_iter().take(match self.asks_only_imports(neighbour) {
            false => 0,
            true if self.is_looking => 1,
            true => 2,
        });
        let except: Vec<&PieceSet> = neighbour.declined().into_iter().chain(imports).collect();
        let offer = Offer { have: &neighbour.have, except: &except, only_with_seeders: seeders, len };
        if let Some(pick) = self.picker.pick_for_reader(&self.progress, &offer).filter(|_| is_urgent) {
            return Some(pick);
        }
        let pick = self.picker.pick(&self.progress, &self.availability, &offer, &mut self.rng);
        pick.or_else(|| self.pick_part(peer, len))
    }

    /// Whether a peer that had everything from the first is left alone, since most others have it by now, too. It gave more
    /// than they did (a publisher with one laggard would give that, too, its share: measured 1.14 copies instead of 1.01).
    fn is_spared(&self, neighbour: &Peer) -> bool {
        if !neighbour.came_complete || self.is_hungry() {
            return false;
        }
        let (mut from_the_first, mut done, mut leechers) = (0, 0, 0);
        for other in self.peers.values() {
            match (other.is_seeder(), other.came_complete) {
                (true, true) => from_the_first += 1,
                (true, false) => done += 1,
                (false, _) => leechers += 1,
            }
        }
        done > leechers && done >= SPARED_BY * from_the_first
    }

    /// How much may be asked of a peer at once now, if anything.
    fn room(&self, now: Instant, peer: PeerId) -> Option<u64> {
        if !self.has_room_for_all(now) {
            return None;
        }
        let in_flight = self.requests.in_flight_of(peer);
        let limited = self.download.rate().map_or(u64::MAX, |rate| (rate / 10).max(u64::from(CHUNK_LEN)));
        // This is asked for every peer at every turn, so what needs no look at the peer comes first.
        let may_fit = match in_flight {
            0 => self.has_place_for_source(),
            _ => in_flight + self.config.shortest_request().min(limited) <= self.config.widest_window(),
        };
        if !may_fit {
            return None;
        }
        let neighbour = self.peers.get(&peer).filter(|neighbour| neighbour.is_askable(now))?;
        let len = neighbour.request_len(&self.config).min(limited);
        (in_flight == 0 || in_flight + len <= neighbour.window(&self.config)).then_some(len)
    }

    /// Most bytes on their way from everybody: about what comes in a second. More would only queue up at the peers, and
    /// each of them would seem to stall.
    fn in_flight_most(&self) -> u64 {
        let most = match self.intake_peak {
            0 => IN_FLIGHT_FIRST,
            peak => peak.clamp(IN_FLIGHT_LEAST, IN_FLIGHT_MOST),
        };
        most.max(self.config.request_len_least * REQUESTS_LEAST)
    }

    /// Whether one more peer may be asked at the same time.
    fn has_place_for_source(&self) -> bool {
        let sources = self.requests.asked_peers().len();
        sources < self.config.sources_most || (sources < self.config.sources_most * 2 && self.is_hungry())
    }

    /// Whether much less comes in than could, for longer than by chance.
    pub(super) fn is_hungry(&self) -> bool {
        self.now < self.hungry_until
    }

    /// Whether nearly nothing came in for long.
    pub(super) fn is_starved(&self) -> bool {
        self.starving_since.is_some_and(|since| self.now.since(since) >= STARVED_AFTER)
    }

    fn note_hunger(&mut self, now: Instant) {
        let share = |percent| self.intake_peak / 100 * percent;
        let rate = self.intake.rate();
        let is_starving = self.requests.is_empty() || rate < share(STARVING);
        self.starving_since = is_starving.then(|| self.starving_since.unwrap_or(now));
        if is_starving || (rate < share(WANTING) && self.leechers_give_all(now)) {
            let since = *self.wanting_since.get_or_insert(now);
            if now.since(since) >= HUNGRY_AFTER {
                self.hungry_until = now + HUNGRY_FOR;
            }
        } else {
            self.wanting_since = None;
        }
    }

    /// Whether no leecher that holds what we lack would give it soon.
    fn leechers_give_all(&self, now: Instant) -> bool {
        let mut leechers = self.peers.iter().filter(|(_, neighbour)| !neighbour.is_seeder());
        leechers.all(|(peer, neighbour)| {
            let in_flight = self.requests.in_flight_of(*peer);
            let is_slow = in_flight > 0 && time_of(in_flight, neighbour.rate().max(1)) > SLOW_TO_GIVE;
            is_slow || !neighbour.is_askable(now) || !self.is_interesting(neighbour)
        })
    }

    fn ask(&mut self, now: Instant, peer: PeerId, piece: PieceIndex, chunks: ChunkMask) {
        let Some(neighbour) = self.peers.get_mut(&peer) else { return };
        if self.requests.is_empty() {
            self.intake.resume(now, self.intake_at);
            self.intake_at = now;
        }
        if !self.requests.is_asked(peer) {
            neighbour.begin(now);
            // Until it is found anew this is never later than it should be: silence only begins later.
            let stalls_at = neighbour.stalls_at(&self.config);
            self.next_stall = Some(self.next_stall.map_or(stalls_at, |at| at.min(stalls_at)));
        }
        self.progress.ask(piece, chunks);
        self.download.spend(now, chunks.bytes(&self.geometry, piece));
        let ranges = chunks.runs(&self.geometry, piece).collect();
        let request = self.requests.open(now, peer, piece, chunks, &self.geometry);
        self.outputs.push_back(Output::Request { peer, request, piece, chunks: ranges });
        self.racks.is_stale = true;
        self.note_piece(piece);
    }

    /// Asks a peer for the piece that it would rather hand out.
    fn follow_advice(&mut self, now: Instant, peer: PeerId, piece: PieceIndex) {
        let holds = self.peers.get(&peer).is_some_and(|neighbour| neighbour.have.contains(piece));
        if !holds || !self.progress.is_open(piece) || !self.is_asking() {
            return;
        }
        let Some(len) = self.peers.get(&peer).map(|neighbour| neighbour.request_len(&self.config)) else { return };
        let chunks = self.progress.askable(piece).front(&self.geometry, piece, len, MAX_RANGES);
        if !chunks.is_empty() {
            self.ask(now, peer, piece, chunks);
        }
    }

    /// Cancels a request at the peer; what is left of it can be asked for again.
    fn cancel(&mut self, id: RequestId) {
        if let Some(request) = self.take_back(id) {
            self.outputs.push_back(Output::Cancel { peer: request.peer, request: id });
        }
    }

    /// Closes a request; what is left of it can be asked for again.
    fn take_back(&mut self, id: RequestId) -> Option<Request> {
        let request = self.requests.close(id)?;
        self.progress.unask(request.piece, request.left);
        self.download.refund(request.left_bytes);
        self.racks.is_stale = true;
        self.note_piece(request.piece);
        Some(request)
    }

    /// Takes over a request from a much slower peer, for one that has nothing else to do.
    ///
    /// A request that was not begun is taken away, so that nothing comes twice; of one that was, the rest is asked for
    /// a second time, and who is first wins.
    fn steal_for(&mut self, now: Instant, thief: PeerId) {
        let Some(len) = self.room(now, thief) else { return };
        let Some(neighbour) = self.peers.get(&thief) else { return };
        if neighbour.is_publisher() && !self.is_hungry() && self.progress.unasked_chunks() > 0 {
            return;
        }
        let rate = if neighbour.rate() > 0 { neighbour.rate() } else { self.usual_rate() / 2 };
        let in_flight = self.requests.in_flight_of(thief);
        let victim = self.slowest_request(now, thief, |left| {
            (TAKING_OVER + time_of(in_flight + left.min(len), rate)) * self.config.steal_factor
        });
        let Some((id, is_waiting)) = victim else { return };
        let Some(request) = self.requests.get(id) else { return };
        let (piece, left) = (request.piece, request.left);
        if is_waiting {
            self.cancel(id);
        }
        let fit = (len / u64::from(CHUNK_LEN)).max(1) as u32;
        // The other side works from the front: the thief takes the rear.
        let chunks = left.rear(fit).without(self.progress.doubled(piece));
        if !chunks.is_empty() {
            self.ask(now, thief, piece, chunks);
        }
    }

    /// The request that is expected last, if later than `limit` of its bytes allows; and whether it waits behind others.
    fn slowest_request(
        &self,
        now: Instant,
        thief: PeerId,
        limit: impl Fn(u64) -> Duration,
    ) -> Option<(RequestId, bool)> {
        let neighbour = self.peers.get(&thief)?;
        let (have, only_imports) = (&neighbour.have, self.asks_only_imports(neighbour));
        let worth = if self.progress.unasked_chunks() == 0 { WORTH_STEALING } else { WORTH_STEALING_EARLY };
        let usual_rate = self.usual_rate();
        let mut slowest: Option<(Duration, RequestId, bool)> = None;
        for peer in self.requests.asked_peers().filter(|peer| **peer != thief) {
            let Some(neighbour) = self.peers.get(peer) else { continue };
            let rate = if neighbour.rate() > 0 { neighbour.rate() } else { usual_rate };
            let (mut ahead, silence) = (0, neighbour.silence(now));
            for (id, request) in self.requests.of_peer(*peer) {
                let is_waiting = ahead > 0 && request.untouched;
                ahead += request.left_bytes;
                let expected = time_of(ahead, rate) + silence * 2;
                let is_late = expected > limit(request.left_bytes).max(worth);
                if is_late
                    && have.contains(request.piece)
                    && !(only_imports && self.racks.nearby().contains(request.piece))
                    && slowest.is_none_or(|(slowest, ..)| expected > slowest)
                    && self.progress.doubled(request.piece).and(request.left).is_empty()
                {
                    slowest = Some((expected, id, is_waiting));
                }
            }
        }
        slowest.map(|(_, id, is_waiting)| (id, is_waiting))
    }

    /// The mean rate of the peers whose rate is known.
    fn usual_rate(&self) -> u64 {
        let rates = self.peers.values().map(Peer::rate).filter(|&rate| rate > 0);
        let (sum, count) = rates.fold((0, 0), |(sum, count), rate| (sum + rate, count + 1));
        u64::checked_div(sum, count).unwrap_or(RATE_ASSUMED).max(1)
    }
}

/// How long so many bytes take at this rate.
fn time_of(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos(u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX / 64))
}
