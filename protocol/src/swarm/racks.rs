//! Racks: a piece crosses the link between two racks about once, whatever the number of hosts behind it.
//!
//! Who knows its rack tells its neighbours. A piece is *nearby* when a neighbour in the same rack holds it or is bringing it
//! in; then it is not asked of anybody *far*, in another rack: it will be had from near soon. Who asks for a piece over the link
//! says so to the neighbours in its rack. That alone is not enough: when a far host announces a piece, all hosts of the
//! rack hear of it in the same moment and would all ask at once (measured: 1.5 copies of an image crossed the link, with
//! what follows here 1.03). So the pieces are shared out by a hash among the hosts of the rack; what is another's is asked for
//! only at a look, some ten times a second and at another moment on each host, if nobody has begun by then.
//!
//! A seeder that was one when it came does not make pieces nearby: what it gave to a far host first may as well come back
//! from there as cost it a second copy. Nor are far seeders asked while other hosts of their rack serve: what a seeder gives
//! to a host beside it, that host can pass on over the link; what it gives over the link, somebody has to bring back.
//!
//! All this is advice to oneself and cannot starve anybody: who gets nearly nothing for [`STARVED_AFTER`] asks everybody for
//! everything, and what a neighbour says that it brings in counts for [`IMPORT_MOST`] only. Hosts whose rack is not known
//! are neither near nor far. Neighbours in other racks are kept: the tracker hands out a quarter of them.

use core::time::Duration;

use super::Swarm;
use super::event::{Misdeed, Output};
use super::peer::Peer;
use crate::geometry::{Geometry, PieceIndex};
use crate::have::{PieceSet, WireDelta};
use crate::id::PeerId;
use crate::message::SwarmMessage;
use crate::time::Instant;

/// How long nearly nothing has to come in until racks do not matter.
pub(super) const STARVED_AFTER: Duration = Duration::from_secs(2);
/// How long it counts that a neighbour brings a piece in, unless it says so again.
const IMPORT_MOST: Duration = Duration::from_secs(5);
/// Pieces that one neighbour may say that it brings in: more than can be on their way.
const IMPORTS_MOST: usize = 1024;

/// Where a neighbour stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Place {
    /// It did not say, or this host does not know its own rack.
    #[default]
    Unknown,
    /// In this host's rack.
    Near,
    /// In another rack.
    Far,
}

/// What is in this rack.
#[derive(Debug)]
pub(super) struct Racks {
    mine: Option<String>,
    /// How many near neighbours hold each piece, and how many bring it in.
    held: Vec<u16>,
    imported: Vec<u16>,
    /// Pieces that another in this rack should bring in rather than this host.
    of_others: PieceSet,
    /// Whether other hosts are in the rack than when the pieces were shared out.
    pub(super) has_changed: bool,
    /// Pieces that this host brings in, as it told its rack.
    told: PieceSet,
    /// Whether requests over the link have changed since.
    pub(super) is_stale: bool,
    /// Pieces that are nearby. What this host has begun to bring in is that only once somebody near holds it: two who began
    /// at the same time would else wait for each other.
    nearby: PieceSet,
    /// Pieces that are another's to bring in, and that this host has not begun.
    late: PieceSet,
}

impl Racks {
    /// Of an image of which nothing is nearby.
    pub(super) fn new(geometry: &Geometry, mine: Option<String>) -> Self {
        let (none, counts) = (PieceSet::empty(geometry), vec![0; geometry.piece_count() as usize]);
        Racks {
            mine,
            held: counts.clone(),
            imported: counts,
            of_others: none.clone(),
            has_changed: false,
            told: none.clone(),
            is_stale: false,
            nearby: none.clone(),
            late: none,
        }
    }

    /// Pieces that are had from near.
    pub(super) fn nearby(&self) -> &PieceSet {
        &self.nearby
    }

    /// Pieces that are asked for over the link only if others did not.
    pub(super) fn late(&self) -> &PieceSet {
        &self.late
    }

    /// One more near neighbour holds a piece.
    pub(super) fn add_held(&mut self, piece: PieceIndex) {
        self.held[piece.number() as usize] += 1;
        self.note(piece);
    }

    /// Counts what a neighbour holds and brings in, if it is near.
    pub(super) fn count(&mut self, neighbour: &Peer) {
        self.change(neighbour, |count| *count += 1);
    }

    /// Takes back what was counted.
    pub(super) fn uncount(&mut self, neighbour: &Peer) {
        self.change(neighbour, |count| *count -= 1);
    }

    /// Takes over what this host brings in now.
    fn bring_in(&mut self, pieces: &PieceSet) {
        let changed: Vec<PieceIndex> = self.told.difference(pieces).chain(pieces.difference(&self.told)).collect();
        self.told.clone_from(pieces);
        changed.iter().for_each(|&piece| self.note(piece));
    }

    fn change(&mut self, neighbour: &Peer, change: impl Fn(&mut u16)) {
        if neighbour.place != Place::Near {
            return;
        }
        self.change_imported(&neighbour.imports, &change);
        for piece in neighbour.have.iter().filter(|_| !neighbour.came_complete) {
            change(&mut self.held[piece.number() as usize]);
            self.note(piece);
        }
    }

    /// Takes over what a near neighbour brings in now.
    fn replace_imports(&mut self, neighbour: &mut Peer, imports: Vec<PieceIndex>) {
        self.change_imported(&neighbour.imports, |count| *count -= 1);
        self.change_imported(&imports, |count| *count += 1);
        neighbour.imports = imports;
    }

    fn change_imported(&mut self, imports: &[PieceIndex], change: impl Fn(&mut u16)) {
        for &piece in imports {
            change(&mut self.imported[piece.number() as usize]);
            self.note(piece);
        }
    }

    /// Brings the sets in line for one piece.
    fn note(&mut self, piece: PieceIndex) {
        let (at, is_ours) = (piece.number() as usize, self.told.contains(piece));
        if self.held[at] > 0 || (self.imported[at] > 0 && !is_ours) {
            self.nearby.insert(piece);
        } else {
            self.nearby.remove(piece);
        }
        if self.of_others.contains(piece) && !is_ours {
            self.late.insert(piece);
        } else {
            self.late.remove(piece);
        }
    }

    /// Counts everything anew and compares, for tests.
    #[cfg(test)]
    pub(super) fn check<'a>(&self, geometry: &Geometry, peers: impl Iterator<Item = &'a Peer>) {
        let mut anew =
            Racks { held: vec![0; self.held.len()], imported: vec![0; self.held.len()], ..Racks::new(geometry, None) };
        (anew.told, anew.of_others) = (self.told.clone(), self.of_others.clone());
        peers.for_each(|peer| anew.count(peer));
        geometry.pieces().for_each(|piece| anew.note(piece));
        assert_eq!((anew.held, anew.imported), (self.held.clone(), self.imported.clone()));
        assert_eq!((anew.nearby, anew.late), (self.nearby.clone(), self.late.clone()));
    }
}

impl Swarm {
    /// Tells a neighbour in which rack this host stands, if it knows.
    pub(super) fn tell_rack(&mut self, peer: PeerId) {
        if let Some(rack) = &self.racks.mine {
            let message = SwarmMessage::Rack { rack: rack.clone() };
            self.outputs.push_back(Output::Send { peer, message });
        }
    }

    pub(super) fn hear_rack(&mut self, peer: PeerId, rack: &str) {
        let Some(mine) = &self.racks.mine else { return };
        let place = if mine == rack { Place::Near } else { Place::Far };
        let Some(neighbour) = self.peers.get_mut(&peer) else { return };
        self.racks.uncount(neighbour);
        neighbour.place = place;
        self.racks.count(neighbour);
        self.racks.has_changed = true;
    }

    pub(super) fn hear_importing(&mut self, now: Instant, peer: PeerId, pieces: &WireDelta) {
        let Some(neighbour) = self.peers.get_mut(&peer).filter(|neighbour| neighbour.place == Place::Near) else {
            return;
        };
        let Ok(mut pieces) = pieces.pieces(&self.geometry) else {
            self.ban(now, peer, Misdeed::BadHave);
            return;
        };
        pieces.truncate(IMPORTS_MOST);
        self.racks.replace_imports(neighbour, pieces);
        neighbour.imports_until = now + IMPORT_MOST;
    }

    /// Shares the pieces out among the hosts of this rack, each piece to one, so that all do not ask for the same piece when a
    /// host far away announces it to all of them in the same moment. Who is given which follows from a hash of both, so that all
    /// who know of each other agree.
    pub(super) fn share_out(&mut self) {
        if !core::mem::take(&mut self.racks.has_changed) {
            return;
        }
        let importers = self.peers.iter().filter(|(_, peer)| peer.place == Place::Near && !peer.is_seeder());
        let importers: Vec<u64> = importers.map(|(peer, _)| seed_of(peer)).collect();
        let mine = seed_of(&self.me);
        let mut of_others = PieceSet::empty(&self.geometry);
        for piece in self.geometry.pieces() {
            let own = weight(mine, piece);
            if importers.iter().any(|&other| weight(other, piece) > own) {
                of_others.insert(piece);
            }
        }
        self.racks.of_others = of_others;
        self.geometry.pieces().for_each(|piece| self.racks.note(piece));
    }

    /// Forgets what neighbours said long ago that they bring in.
    pub(super) fn forget_imports(&mut self, now: Instant) {
        if self.racks.mine.is_none() {
            return;
        }
        for neighbour in self.peers.values_mut() {
            if !neighbour.imports.is_empty() && neighbour.imports_until <= now {
                match neighbour.place {
                    Place::Near => self.racks.replace_imports(neighbour, Vec::new()),
                    Place::Far | Place::Unknown => neighbour.imports.clear(),
                }
            }
        }
    }

    /// Tells near neighbours what this host brings in, if that is news.
    pub(super) fn tell_imports(&mut self) {
        if !core::mem::take(&mut self.racks.is_stale) || self.racks.mine.is_none() {
            return;
        }
        let is_far = |peer| self.peers.get(peer).is_some_and(|neighbour| neighbour.place == Place::Far);
        let far = self.requests.iter().filter(|(_, request)| is_far(&request.peer)).map(|(_, request)| request.piece);
        // Between two requests for a piece nothing of it is on its way. That it is here is told as of every piece.
        let under_way = self.racks.told.iter().filter(|&piece| self.progress.is_begun(piece));
        let mut imports = PieceSet::empty(&self.geometry);
        far.chain(under_way).for_each(|piece| {
            imports.insert(piece);
        });
        let is_done = |piece: PieceIndex| self.progress.held_pieces().contains(piece);
        let is_news = imports.difference(&self.racks.told).next().is_some()
            || self.racks.told.difference(&imports).any(|piece| !is_done(piece));
        self.racks.bring_in(&imports);
        if !is_news {
            return;
        }
        let delta = WireDelta::of(imports.iter());
        for (peer, _) in self.peers.iter().filter(|(_, neighbour)| neighbour.place == Place::Near) {
            let message = SwarmMessage::Importing { pieces: delta.clone() };
            self.outputs.push_back(Output::Send { peer: *peer, message });
        }
    }

    /// Whether nothing should be asked of a far peer, since others stand nearer to what it has.
    pub(super) fn is_out_of_the_way(&self, neighbour: &Peer) -> bool {
        if neighbour.place != Place::Far || !neighbour.is_seeder() || self.is_hungry() {
            return false;
        }
        // One rack is told from another only by being this host's or not: any far leecher that has something counts.
        self.peers.values().any(|other| match other.place {
            Place::Near => other.is_seeder(),
            Place::Far => !other.is_seeder() && other.have.count() > self.zero_pieces,
            Place::Unknown => false,
        })
    }

    /// Whether only what is not nearby should be asked of a peer.
    pub(super) fn asks_only_imports(&self, neighbour: &Peer) -> bool {
        neighbour.place == Place::Far && !self.is_starved()
    }
}

fn seed_of(peer: &PeerId) -> u64 {
    peer.as_bytes().chunks_exact(8).fold(0, |seed, bytes| {
        let word = bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        mixed(seed ^ word)
    })
}

fn weight(seed: u64, piece: PieceIndex) -> u64 {
    mixed(seed ^ u64::from(piece.number()))
}

/// The finisher of SplitMix64: every bit of the result depends on every bit of the word.
fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}
