//! Parts of pieces: told and asked for when nothing else helps, so that no chunk is lost that any host still holds.
//!
//! Pieces are announced whole. When the last seeder dies, what hosts hold of the pieces that none of them holds whole
//! must be shared, too. A host is *stuck* when it lacks something, has nothing on its way, and no neighbour is known to
//! hold what it lacks. Once it has been so for a moment, it says so to every neighbour, with its own parts; who is told
//! so answers with its parts, stuck or not, and goes on telling when they change, until the other announces pieces again.
//!
//! In a healthy swarm nobody is stuck and nobody says anything of this. Afterwards all are quiet as well: the parts
//! have a version, every version is told to a neighbour once, and versions end when nothing comes any more. Then all who
//! are connected, over whatever neighbours, lack the same chunks: those that nobody has.
//!
//! A `Join` or `Have` begins anew: who hears it forgets the parts and the plight of its sender, who tells them again if
//! there is reason to. Parts are told only when no pieces wait to be announced, so that an announcement heard later than
//! a `Partial` is news of what came since.

use core::time::Duration;

use super::Swarm;
use super::event::{Misdeed, Output};
use super::mask::ChunkMask;
use super::peer::Peer;
use super::picker::Pick;
use crate::geometry::PieceIndex;
use crate::id::PeerId;
use crate::message::{MAX_RANGES, SwarmMessage};
use crate::parts::{Parts, WireParts};
use crate::time::Instant;

/// How long a host is stuck before it says so. In a healthy swarm the next announcement comes sooner.
const STUCK_FOR: Duration = Duration::from_secs(1);

/// What a neighbour was told of our parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Told {
    version: u64,
    was_stuck: bool,
}

/// When parts are told.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Grows with every chunk that comes or goes.
    version: u64,
    stuck_since: Option<Instant>,
    /// Whether a neighbour may be stuck: it said so, and nobody looked since whether it still is.
    is_anybody_stuck: bool,
    told_at: Option<Instant>,
}

impl Sharing {
    /// What is held has changed.
    pub(super) fn change(&mut self) {
        self.version += 1;
    }
}

impl Swarm {
    pub(super) fn hear_partial(&mut self, now: Instant, peer: PeerId, is_stuck: bool, parts: &WireParts) {
        let Some(neighbour) = self.peers.get_mut(&peer) else { return };
        let Ok(mut parts) = parts.to_parts(&self.geometry) else {
            self.ban(now, peer, Misdeed::BadHave);
            return;
        };
        parts.retain(|piece| !neighbour.have.contains(piece));
        (neighbour.parts, neighbour.is_stuck) = (parts, is_stuck);
        self.sharing.is_anybody_stuck |= is_stuck;
        self.fill(now, peer);
    }

    /// Tells parts to whom they are due.
    pub(super) fn share(&mut self, now: Instant) {
        if self.sharing.is_anybody_stuck {
            self.sharing.is_anybody_stuck = self.peers.values().any(|neighbour| neighbour.is_stuck);
        }
        self.sharing.stuck_since = self.is_stuck().then(|| self.sharing.stuck_since.unwrap_or(now));
        if self.next_share().is_none_or(|due| due > now) {
            return;
        }
        self.sharing.told_at = Some(now);
        let message = SwarmMessage::Partial { is_stuck: self.is_stuck_since(now), parts: self.our_parts() };
        let told = Told { version: self.sharing.version, was_stuck: self.is_stuck_since(now) };
        let owed: Vec<PeerId> =
            self.peers.iter().filter(|(_, neighbour)| self.owes(neighbour, told)).map(|(peer, _)| *peer).collect();
        for peer in owed {
            if let Some(neighbour) = self.peers.get_mut(&peer) {
                neighbour.told = Some(told);
            }
            self.outputs.push_back(Output::Send { peer, message: message.clone() });
        }
    }

    /// When parts are to be told, if they are.
    pub(super) fn next_share(&self) -> Option<Instant> {
        let is_news_waiting = self.announcer.due_at().is_some();
        let is_nobody_stuck = self.sharing.stuck_since.is_none() && !self.sharing.is_anybody_stuck;
        if is_news_waiting || is_nobody_stuck {
            return None;
        }
        let may = self.sharing.told_at.map_or(Instant::START, |at| at + self.config.have_interval);
        let owes = |was_stuck| {
            let told = Told { version: self.sharing.version, was_stuck };
            self.peers.values().any(|neighbour| self.owes(neighbour, told))
        };
        if owes(false) {
            return Some(may);
        }
        let says_so = self.sharing.stuck_since? + STUCK_FOR;
        owes(true).then(|| may.max(says_so))
    }

    /// Takes back what was told of parts after chunks were lost, where it was told.
    pub(super) fn take_parts_back(&mut self) {
        let told = self.peers.iter().filter(|(_, neighbour)| neighbour.told.is_some());
        let told: Vec<PeerId> = told.map(|(peer, _)| *peer).collect();
        for peer in told {
            self.tell_have(peer);
        }
    }

    /// What to ask of a peer of the pieces that it holds in part.
    pub(super) fn pick_part(&mut self, peer: PeerId, len: u64) -> Option<Pick> {
        let neighbour = self.peers.get(&peer)?;
        let is_declined = |piece| neighbour.declined().is_some_and(|declined| declined.contains(piece));
        let wanted = self.wanted_parts(neighbour).filter(|&piece| !is_declined(piece));
        let wanted: Vec<PieceIndex> = wanted.collect();
        let piece = *self.rng.pick(&wanted)?;
        let told = ChunkMask::of_parts(&neighbour.parts, piece);
        Some((piece, self.progress.askable_among(piece, told).front(&self.geometry, piece, len, MAX_RANGES)))
    }

    /// Pieces of which a neighbour holds chunks that may be asked for.
    pub(super) fn wanted_parts<'a>(&'a self, neighbour: &'a Peer) -> impl Iterator<Item = PieceIndex> + 'a {
        let open = neighbour.parts.pieces().filter(|&piece| self.progress.is_open(piece));
        open.filter(|&piece| {
            !self.progress.askable_among(piece, ChunkMask::of_parts(&neighbour.parts, piece)).is_empty()
        })
    }

    /// Whether a neighbour is to be told our parts, as `now` stands for what it would be told.
    fn owes(&self, neighbour: &Peer, now: Told) -> bool {
        if !neighbour.has_answered || neighbour.told == Some(now) {
            return false;
        }
        let is_new = neighbour.told.is_none_or(|told| told.version != now.version);
        now.was_stuck || (is_new && neighbour.is_stuck && !self.progress.partial().is_empty())
    }

    /// Whether something is lacking that can be asked of nobody, and nothing is on its way.
    fn is_stuck(&self) -> bool {
        let no_parts = || self.peers.values().all(|neighbour| self.wanted_parts(neighbour).next().is_none());
        let is_lacking = !self.availability.open().is_empty() && !self.availability.is_any_held();
        is_lacking && !self.paused && self.requests.is_empty() && no_parts()
    }

    fn is_stuck_since(&self, now: Instant) -> bool {
        self.sharing.stuck_since.is_some_and(|since| since + STUCK_FOR <= now)
    }

    /// Our parts, those first that no neighbour holds whole, as many as fit a message.
    fn our_parts(&self) -> WireParts {
        let of_holders = |wanted: bool| {
            let pieces = self.progress.partial().iter();
            pieces.filter(move |piece| (self.availability.holders(*piece) == 0) == wanted)
        };
        let mut parts = Parts::default();
        for piece in of_holders(true).chain(of_holders(false)).take(WireParts::most(&self.geometry)) {
            for chunk in self.geometry.chunks_of(piece).filter(|&chunk| self.progress.held().contains(chunk)) {
                parts.insert(&self.geometry, chunk);
            }
        }
        WireParts::of(&parts, &self.geometry)
    }
}
