//! How many neighbours hold each piece, and which pieces are open.
//!
//! A piece is *open* while it has chunks that may be asked for. Neighbours announce pieces far more often than
//! one is picked, so an announcement only counts, and the rarest are looked for when one is wanted: among the open pieces
//! that a peer holds, 64 at a time where there are none.

use crate::geometry::{Geometry, PieceIndex};
use crate::have::PieceSet;
use crate::rng::Rng;

/// Holders and openness of every piece.
#[derive(Debug)]
pub(super) struct Availability {
    geometry: Geometry,
    holders: Vec<u16>,
    open: PieceSet,
    /// Open pieces that nobody holds.
    unheld: u32,
}

impl Availability {
    /// Of an image that no neighbour holds, with no piece open.
    pub(super) fn new(geometry: Geometry) -> Self {
        let holders = vec![0; geometry.piece_count() as usize];
        Availability { geometry, holders, open: PieceSet::empty(&geometry), unheld: 0 }
    }

    /// One more neighbour holds `piece`.
    pub(super) fn add_holder(&mut self, piece: PieceIndex) {
        let holders = &mut self.holders[piece.number() as usize];
        *holders += 1;
        if *holders == 1 && self.open.contains(piece) {
            self.unheld -= 1;
        }
    }

    /// One neighbour less holds `piece`.
    pub(super) fn remove_holder(&mut self, piece: PieceIndex) {
        let holders = &mut self.holders[piece.number() as usize];
        debug_assert!(*holders > 0, "a holder is removed once");
        *holders = holders.saturating_sub(1);
        if *holders == 0 && self.open.contains(piece) {
            self.unheld += 1;
        }
    }

    /// Opens or closes a piece.
    pub(super) fn set_open(&mut self, piece: PieceIndex, open: bool) {
        let unheld = u32::from(self.holders(piece) == 0);
        if open && self.open.insert(piece) {
            self.unheld += unheld;
        } else if !open && self.open.remove(piece) {
            self.unheld -= unheld;
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

    /// Whether some open piece is held by a neighbour.
    pub(super) fn is_any_held(&self) -> bool {
        self.unheld < self.open.count()
    }

    /// A random one of the open pieces among `among` without `except` that have exactly so many holders.
    pub(super) fn any_with(
        &self,
        holders: usize,
        among: &PieceSet,
        except: &[&PieceSet],
        rng: &mut Rng,
    ) -> Option<PieceIndex> {
        let has_so_many = |at, word| self.only(at, word, |its| usize::from(its) == holders);
        let words = among.words().len();
        any_in(words, |at| has_so_many(at, common(at, &self.open, among, except)), &self.geometry, rng)
    }

    /// The rarest open piece among `have` without `except`, ties broken at random.
    pub(super) fn rarest(&self, have: &PieceSet, except: &[&PieceSet], rng: &mut Rng) -> Option<PieceIndex> {
        let mut fewest = None;
        for at in 0..have.words().len() {
            let mut word = common(at, &self.open, have, except);
            while word != 0 {
                let holders = self.holders[at * 64 + word.trailing_zeros() as usize];
                fewest = Some(fewest.unwrap_or(holders).min(holders));
                word &= word - 1;
            }
        }
        self.any_with(usize::from(fewest?), have, except, rng)
    }

    /// Those of a word's pieces whose number of holders is as wanted.
    fn only(&self, at: usize, word: u64, is_wanted: impl Fn(u16) -> bool) -> u64 {
        let (mut left, mut wanted) = (word, 0);
        while left != 0 {
            let bit = left & left.wrapping_neg();
            if is_wanted(self.holders[at * 64 + bit.trailing_zeros() as usize]) {
                wanted |= bit;
            }
            left ^= bit;
        }
        wanted
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
