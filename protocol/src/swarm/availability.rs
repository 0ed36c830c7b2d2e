//! How many neighbours hold each piece, and which pieces are open, by how rare they are.
//!
//! A piece is *open* while it has chunks that are missing and not asked for. Open pieces lie in one bit set per number
//! of holders. So the rarest open piece that a peer holds is found by and-ing words, 64 pieces at a time: some hundred
//! words at 10,000 pieces, where a sorted list would have to be walked piece by piece, or resorted at every have.

use crate::geometry::{Geometry, PieceIndex};
use crate::have::PieceSet;
use crate::rng::Rng;

/// Holders and openness of every piece.
#[derive(Debug)]
pub(super) struct Availability {
    geometry: Geometry,
    holders: Vec<u16>,
    open: PieceSet,
    /// `levels[n]` are the open pieces that `n` neighbours hold.
    levels: Vec<PieceSet>,
}

impl Availability {
    /// Of an image that no neighbour holds, with no piece open.
    pub(super) fn new(geometry: Geometry) -> Self {
        let open = PieceSet::empty(&geometry);
        Availability { geometry, holders: vec![0; geometry.piece_count() as usize], levels: vec![open.clone()], open }
    }

    /// One more neighbour holds `piece`.
    pub(super) fn add_holder(&mut self, piece: PieceIndex) {
        self.move_to(piece, self.holders(piece) + 1);
    }

    /// One neighbour less holds `piece`.
    pub(super) fn remove_holder(&mut self, piece: PieceIndex) {
        let holders = self.holders(piece);
        debug_assert!(holders > 0, "a holder is removed once");
        self.move_to(piece, holders.saturating_sub(1));
    }

    /// Opens or closes a piece.
    pub(super) fn set_open(&mut self, piece: PieceIndex, open: bool) {
        let level = usize::from(self.holders(piece));
        if open && self.open.insert(piece) {
            self.levels[level].insert(piece);
        } else if !open && self.open.remove(piece) {
            self.levels[level].remove(piece);
        }
    }

    /// How many neighbours hold `piece`.
    pub(super) fn holders(&self, piece: PieceIndex) -> u16 {
        self.holders[piece.number() as usize]
    }

    /// All open pieces.
    pub(super) fn open(&self) -> &PieceSet {
        &self.open
    }

    /// Open pieces with exactly so many holders.
    pub(super) fn level(&self, holders: usize) -> Option<&PieceSet> {
        self.levels.get(holders)
    }

    /// The rarest open piece among `have` without `except`, ties broken at random.
    pub(super) fn rarest(&self, have: &PieceSet, except: &[&PieceSet], rng: &mut Rng) -> Option<PieceIndex> {
        let is_any = |level: &&PieceSet| {
            (0..level.words().len()).any(|at| common(at, level, have, except) != 0)
        };
        let rarest = self.levels.iter().skip(1).find(is_any)?;
        any_of(rarest, have, except, &self.geometry, rng)
    }

    fn move_to(&mut self, piece: PieceIndex, holders: u16) {
        let old = usize::from(self.holders(piece));
        while self.levels.len() <= usize::from(holders) {
            self.levels.push(PieceSet::empty(&self.geometry));
        }
        self.holders[piece.number() as usize] = holders;
        if self.open.contains(piece) {
            self.levels[old].remove(piece);
            self.levels[usize::from(holders)].insert(piece);
        }
    }
}

/// A random piece that is in `among` and in `have` and in none of `except`.
pub(super) fn any_of(
    among: &PieceSet,
    have: &PieceSet,
    except: &[&PieceSet],
    geometry: &Geometry,
    rng: &mut Rng,
) -> Option<PieceIndex> {
    any_in(among.words().len(), |at| common(at, among, have, except), geometry, rng)
}

/// A random piece of those whose bits are in so many words.
///
/// The search begins at a random word and takes a random bit of the first word that has one. That is not quite
/// uniform (pieces after a gap are likelier), but no two hosts agree on it, which is what matters.
fn any_in(words: usize, word_at: impl Fn(usize) -> u64, geometry: &Geometry, rng: &mut Rng) -> Option<PieceIndex> {
    let start = rng.below(words as u32) as usize;
    let (at, mut word) = (start..words).chain(0..start).map(|at| (at, word_at(at))).find(|&(_, word)| word != 0)?;
    for _ in 0..rng.below(word.count_ones()) {
        word &= word - 1;
    }
    geometry.piece(at as u32 * 64 + word.trailing_zeros())
}

/// A word of the pieces that are in both sets and in none of `except`.
fn common(at: usize, one: &PieceSet, other: &PieceSet, except: &[&PieceSet]) -> u64 {
    except.iter().fold(one.words()[at] & other.words()[at], |word, except| word & !except.words()[at])
}

/// Whether two sets have a member in common.
pub(super) fn meet(a: &PieceSet, b: &PieceSet) -> bool {
    a.words().iter().zip(b.words()).any(|(a, b)| a & b != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Geometry {
        Geometry::new(200 << 20, 1 << 20).unwrap()
    }

    #[test]
    fn the_rarest_open_piece_is_found_among_what_a_peer_holds() {
        let (geometry, mut rng) = (image(), Rng::seeded(1));
        let mut availability = Availability::new(geometry);
        let (all, mut one) = (PieceSet::full(&geometry), PieceSet::empty(&geometry));
        for piece in geometry.pieces() {
            availability.set_open(piece, true);
            for _ in 0..3 + piece.number() % 5 {
                availability.add_holder(piece);
            }
        }
        let rare = geometry.piece(77).unwrap();
        for _ in 0..4 {
            availability.remove_holder(rare);
        }
        assert_eq!(availability.holders(rare), 1);
        assert_eq!(availability.rarest(&all, &[], &mut rng), Some(rare));
        availability.set_open(rare, false);
        let next = availability.rarest(&all, &[], &mut rng).unwrap();
        assert_eq!(availability.holders(next), 3);
        one.insert(geometry.piece(4).unwrap());
        assert_eq!(availability.rarest(&one, &[], &mut rng), geometry.piece(4));
        assert_eq!(availability.rarest(&one, &[&one], &mut rng), None);
    }

    #[test]
    fn ties_are_broken_at_random() {
        let (geometry, mut rng) = (image(), Rng::seeded(2));
        let mut availability = Availability::new(geometry);
        for piece in geometry.pieces() {
            availability.set_open(piece, true);
            availability.add_holder(piece);
        }
        let all = PieceSet::full(&geometry);
        let mut picked = PieceSet::empty(&geometry);
        for _ in 0..400 {
            picked.insert(availability.rarest(&all, &[], &mut rng).unwrap());
        }
        assert!(picked.count() > 120, "{} of 200 pieces came up in 400 draws", picked.count());
    }
}
