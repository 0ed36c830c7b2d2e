//! Neighbours: who becomes one, who stays one, and what they are told.
//!
//! Either side may begin. A join is always answered with everything that is held, also if both sides join at the same
//! moment or one of them forgot the other, so whoever speaks last heals whatever went wrong before.

use core::time::Duration;

use super::Swarm;
use super::availability::meet;
use super::event::{Misdeed, Output, Refusal};
use super::peer::Peer;
use super::racks::Place;
use crate::geometry::PieceIndex;
use crate::have::{HaveError, PieceSet, WireDelta, WireHave};
use crate::hints::Source;
use crate::id::PeerId;
use crate::message::{LeaveReason, SwarmMessage};
use crate::time::Instant;

/// How often neighbours are told about each other.
pub(super) const EXCHANGE_INTERVAL: Duration = Duration::from_secs(60);
/// How many peers one peer is told about at once.
const TOLD_MOST: usize = 32;
/// How long a peer may leave a join unanswered.
const ANSWER_MOST: Duration = Duration::from_secs(8);
/// How long a peer is left alone whose connection was lost, that had no room, and that is of no use.
const LOST_FOR: Duration = Duration::from_secs(1);
const FULL_FOR: Duration = Duration::from_secs(10);
const USELESS_FOR: Duration = Duration::from_secs(60);
/// How long a peer is left alone that thinks that we lie.
const BANNED_FOR: Duration = Duration::from_secs(600);
/// How many useless neighbours are dropped at once.
const DROPPED_AT_ONCE: usize = 4;
/// A complete host reconsiders its neighbours so many times less often.
const COMPLETE_SLOWER: u32 = 6;
/// More new pieces than this are told as the whole set: it is shorter, and a frame is bounded.
const DELTA_MOST: usize = 1024;

impl Swarm {
    /// A connection to `peer` stands: asks it to be a neighbour, if there is room.
    pub(super) fn meet(&mut self, now: Instant, peer: PeerId) {
        self.candidates.reached(now, peer);
        if peer == self.me || self.ledger.is_banned(&peer) {
            return;
        }
        if !self.peers.contains_key(&peer) {
            if self.peers.len() >= self.config.neighbours_most {
                self.candidates.postpone(now, peer, FULL_FOR);
                self.slots.forget(peer);
                self.outputs.push_back(Output::Dropped { peer });
                return;
            }
            self.peers.insert(peer, Peer::new(now, &self.geometry));
        }
        if let Some(neighbour) = self.peers.get_mut(&peer) {
            neighbour.told = None;
        }
        let have = WireHave::of(self.progress.held_pieces());
        self.outputs.push_back(Output::Send { peer, message: SwarmMessage::Join { have } });
        self.tell_rack(peer);
    }

    pub(super) fn hear_join(&mut self, now: Instant, peer: PeerId, have: &WireHave) {
        if peer == self.me {
            return;
        }
        if self.ledger.is_banned(&peer) {
            self.refuse_peer(peer, LeaveReason::Banned);
            return;
        }
        self.candidates.add(now, Source::DialledHere, peer);
        self.candidates.reached(now, peer);
        if !self.peers.contains_key(&peer) {
            if self.peers.len() >= self.config.neighbours_most && !self.make_room(now) {
                self.refuse_peer(peer, LeaveReason::Full);
                return;
            }
            self.peers.insert(peer, Peer::new(now, &self.geometry));
        }
        // The answer goes first, so that it comes before anything that is asked.
        self.tell_have(peer);
        self.tell_rack(peer);
        self.tell_about_others(peer);
        self.hear_have(now, peer, have);
    }

    pub(super) fn hear_have(&mut self, now: Instant, peer: PeerId, have: &WireHave) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        match have.to_set(&self.geometry) {
            Ok(have) => self.set_have(now, peer, have),
            Err(HaveError::Run | HaveError::Bitmap | HaveError::TooManyRuns) => self.ban(now, peer, Misdeed::BadHave),
        }
    }

    pub(super) fn hear_delta(&mut self, now: Instant, peer: PeerId, delta: &WireDelta) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        match delta.pieces(&self.geometry) {
            Ok(pieces) => {
                self.hear_pieces(peer, &pieces, 0);
                self.fill(now, peer);
            }
            Err(_) => self.ban(now, peer, Misdeed::BadHave),
        }
    }

    /// A neighbour came to hold pieces. Returns its place, to begin with when one after it is looked for.
    pub(super) fn hear_pieces(&mut self, peer: PeerId, pieces: &[PieceIndex], from: usize) -> usize {
        let Some((at, neighbour)) = self.peers.find_from(from, &peer) else { return from };
        // It goes on by itself; if it is stuck once more, it says so.
        neighbour.is_stuck = false;
        let is_near = neighbour.place == Place::Near && !neighbour.came_complete;
        for &piece in pieces {
            if !neighbour.have.insert(piece) {
                continue;
            }
            neighbour.parts.remove(piece);
            self.availability.add_holder(piece);
            if is_near {
                self.racks.add_held(piece);
            }
            self.handouts.found_elsewhere(piece);
        }
        if neighbour.is_seeder() {
            self.most_of_leechers = self.count_most_of_leechers();
        } else if neighbour.has_answered {
            self.most_of_leechers = self.most_of_leechers.max(neighbour.have.count());
        }
        at
    }

    pub(super) fn hear_leave(&mut self, now: Instant, peer: PeerId, reason: LeaveReason) {
        let alone_for = match reason {
            LeaveReason::Full | LeaveReason::NotHere => FULL_FOR,
            LeaveReason::Useless => USELESS_FOR,
            LeaveReason::Banned => BANNED_FOR,
        };
        if self.part(now, peer, true) {
            self.candidates.postpone(now, peer, alone_for);
            self.outputs.push_back(Output::Dropped { peer });
            self.dial(now);
        }
    }

    /// The connection to a peer is gone.
    pub(super) fn lose_peer(&mut self, now: Instant, peer: PeerId) {
        if self.part(now, peer, false) {
            self.candidates.postpone(now, peer, LOST_FOR);
        }
        self.dial(now);
    }

    pub(super) fn ban(&mut self, now: Instant, peer: PeerId, misdeed: Misdeed) {
        let is_new = self.ledger.ban(peer, misdeed);
        self.part(now, peer, true);
        self.candidates.remove(&peer);
        if is_new {
            self.outputs.push_back(Output::Ban { peer, misdeed });
        }
        self.dial(now);
    }

    /// Dials candidates until as many neighbours are there or on their way as are sought.
    pub(super) fn dial(&mut self, now: Instant) {
        let (peers, places) = (&self.peers, self.places());
        while let Some(peer) = self.candidates.dial(now, &mut self.rng, places, |peer| peers.contains_key(peer)) {
            self.outputs.push_back(Output::Connect { peer });
        }
    }

    /// When to dial again, or to give up a dial.
    pub(super) fn next_dial(&self) -> Option<Instant> {
        let places = self.places();
        if places == 0 {
            return None;
        }
        let next = self.candidates.next_dial_at(self.now, places, |peer| self.peers.contains_key(peer));
        next.into_iter().chain(self.candidates.give_up_at()).min()
    }

    /// How many neighbours it lacks.
    fn places(&self) -> usize {
        self.config.neighbours_sought.saturating_sub(self.peers.len())
    }

    /// Reconsiders the neighbours.
    pub(super) fn refresh(&mut self, now: Instant) {
        let slower = if self.is_complete() { COMPLETE_SLOWER } else { 1 };
        self.next_refresh = now + self.config.refresh_interval * slower;
        let silent = |neighbour: &Peer| !neighbour.has_answered && now.since(neighbour.joined_at) >= ANSWER_MOST;
        let silent: Vec<PeerId> =
            self.peers.iter().filter(|(_, neighbour)| silent(neighbour)).map(|(peer, _)| *peer).collect();
        for peer in silent {
            self.drop_useless(now, peer, FULL_FOR);
        }
        if !self.is_complete() && self.peers.len() >= self.config.neighbours_sought {
            for peer in self.useless().into_iter().take(DROPPED_AT_ONCE) {
                self.drop_useless(now, peer, USELESS_FOR);
            }
        }
        for neighbour in self.peers.values_mut() {
            neighbour.exchanged = 0;
        }
        if self.next_exchange <= now {
            self.next_exchange = now + EXCHANGE_INTERVAL;
            let peers: Vec<PeerId> = self.peers.keys().copied().collect();
            for peer in peers {
                self.tell_about_others(peer);
            }
        }
    }

    /// Tells every neighbour what came to be held, if it is time to.
    pub(super) fn announce(&mut self, now: Instant) {
        let Some(pieces) = self.announcer.take(now) else { return };
        if pieces.len() > DELTA_MOST {
            self.tell_have_to_all();
            return;
        }
        let held = pieces.into_iter().filter(|piece| self.progress.held_pieces().contains(*piece));
        let delta = WireDelta::of(held);
        if !delta.0.is_empty() {
            debug_assert!(self.news.is_none(), "a driver polls after every input");
            self.news = Some(delta);
        }
    }

    /// Tells a neighbour all that is held, as if for the first time.
    pub(super) fn tell_have(&mut self, peer: PeerId) {
        if let Some(neighbour) = self.peers.get_mut(&peer) {
            neighbour.told = None;
        }
        let have = WireHave::of(self.progress.held_pieces());
        self.outputs.push_back(Output::Send { peer, message: SwarmMessage::Have { have } });
    }

    pub(super) fn tell_have_to_all(&mut self) {
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.tell_have(peer);
        }
    }

    /// Takes over what a neighbour says it holds.
    fn set_have(&mut self, now: Instant, peer: PeerId, have: PieceSet) {
        let Some(neighbour) = self.peers.get_mut(&peer) else { return };
        neighbour.has_answered = true;
        neighbour.is_stuck = false;
        neighbour.parts.clear();
        self.racks.uncount(neighbour);
        neighbour.came_complete = have.is_full();
        let old = core::mem::replace(&mut neighbour.have, have.clone());
        self.racks.count(neighbour);
        self.racks.has_changed |= neighbour.place == Place::Near;
        self.most_of_leechers = self.count_most_of_leechers();
        for piece in have.iter().filter(|piece| !old.contains(*piece)) {
            self.availability.add_holder(piece);
            self.note_piece(piece);
        }
        for piece in old.iter().filter(|piece| !have.contains(*piece)) {
            self.availability.remove_holder(piece);
            self.note_piece(piece);
        }
        self.fill(now, peer);
    }

    /// Forgets a neighbour and what is under way with it; says whether it was one. Without a connection there is
    /// nothing to cancel or refuse.
    fn part(&mut self, now: Instant, peer: PeerId, connected: bool) -> bool {
        self.cancel_peer(now, peer, connected);
        for serve in self.slots.forget(peer) {
            if connected {
                let refusal = Refusal::Busy { retry_after: FULL_FOR, instead: None };
                self.outputs.push_back(Output::Refuse { peer, serve, refusal });
            }
        }
        for piece in self.handouts.forget(peer) {
            self.note_piece(piece);
        }
        let Some(neighbour) = self.peers.remove(&peer) else { return false };
        self.racks.uncount(&neighbour);
        self.racks.has_changed |= neighbour.place == Place::Near;
        self.most_of_leechers = self.count_most_of_leechers();
        for piece in neighbour.have.iter() {
            self.availability.remove_holder(piece);
            self.note_piece(piece);
        }
        self.fill_all(now);
        true
    }

    /// Drops a neighbour of no use, for one that may be of more. Says whether there was one.
    ///
    /// Only a complete host does: at the start of a fleet nobody has anything, and all would push each other out.
    fn make_room(&mut self, now: Instant) -> bool {
        if !self.is_complete() {
            return false;
        }
        let Some(peer) = self.useless().into_iter().next() else { return false };
        self.drop_useless(now, peer, USELESS_FOR);
        true
    }

    /// Neighbours with whom nothing was exchanged lately and nothing can be.
    fn useless(&self) -> Vec<PeerId> {
        let held = self.progress.held_pieces();
        let idle = self.peers.iter().filter(|(_, neighbour)| neighbour.exchanged == 0 && neighbour.has_answered);
        let useless = idle.filter(|(_, neighbour)| neighbour.have == *held && !self.is_interesting(neighbour));
        useless.map(|(peer, _)| *peer).collect()
    }

    fn drop_useless(&mut self, now: Instant, peer: PeerId, alone_for: Duration) {
        self.part(now, peer, true);
        self.candidates.postpone(now, peer, alone_for);
        self.refuse_peer(peer, LeaveReason::Useless);
    }

    /// Tells a peer that it is no neighbour. What it asked for is forgotten with it.
    fn refuse_peer(&mut self, peer: PeerId, reason: LeaveReason) {
        self.slots.forget(peer);
        self.outputs.push_back(Output::Send { peer, message: SwarmMessage::Leave { reason } });
        self.outputs.push_back(Output::Dropped { peer });
    }

    /// Tells a neighbour about some of the others.
    fn tell_about_others(&mut self, peer: PeerId) {
        let answered = self.peers.iter().filter(|(other, neighbour)| **other != peer && neighbour.has_answered);
        let mut others: Vec<PeerId> = answered.map(|(other, _)| *other).collect();
        self.rng.shuffle(&mut others);
        others.truncate(TOLD_MOST);
        if !others.is_empty() {
            self.outputs.push_back(Output::SendPeers { peer, about: others });
        }
    }

    /// Whether a neighbour holds something that is missing here and asked for of nobody.
    pub(super) fn is_interesting(&self, neighbour: &Peer) -> bool {
        meet(&neighbour.have, self.availability.open()) || self.wanted_parts(neighbour).next().is_some()
    }
}
