//! Which chunks or pieces are held: compact sets, runs of them, and their form on the wire.
//!
//! A set knows how many members it has without counting. On the wire a set is a bitmap or a list of runs, whichever is
//! shorter, so a hostile list of runs can never be larger than the bitmap; a delta is a list of runs.

use core::marker::PhantomData;
use core::ops::Range;

use serde::{Deserialize, Serialize};

use crate::geometry::{ChunkIndex, Geometry, PieceIndex};
use crate::planted::{Bug, is_planted};

/// An index that a [`IndexSet`] may hold.
pub trait Index: Copy + Ord + private::Sealed {
    /// How many of them an image of this geometry has.
    fn count_in(geometry: &Geometry) -> u32;
    /// Its plain number.
    fn to_number(self) -> u32;
    #[doc(hidden)]
    fn from_number(number: u32) -> Self;
}

mod private {
    pub trait Sealed {}
    impl Sealed for super::ChunkIndex {}
    impl Sealed for super::PieceIndex {}
}

impl Index for ChunkIndex {
    fn count_in(geometry: &Geometry) -> u32 {
        geometry.chunk_count()
    }
    fn to_number(self) -> u32 {
        self.0
    }
    fn from_number(number: u32) -> Self {
        ChunkIndex(number)
    }
}

impl Index for PieceIndex {
    fn count_in(geometry: &Geometry) -> u32 {
        geometry.piece_count()
    }
    fn to_number(self) -> u32 {
        self.0
    }
    fn from_number(number: u32) -> Self {
        PieceIndex(number)
    }
}

/// A set of chunks or of pieces of one image: a bit each, and a count.
#[derive(Clone, PartialEq, Eq)]
pub struct IndexSet<I> {
    words: Vec<u64>,
    bound: u32,
    count: u32,
    kind: PhantomData<I>,
}

/// The chunks that are held, wanted, or whatever the name of the variable says.
pub type ChunkSet = IndexSet<ChunkIndex>;
/// The pieces that are held, wanted, or whatever the name of the variable says.
pub type PieceSet = IndexSet<PieceIndex>;

impl<I: Index> IndexSet<I> {
    /// The empty set.
    pub fn empty(geometry: &Geometry) -> Self {
        let bound = I::count_in(geometry);
        IndexSet { words: vec![0; bound.div_ceil(64) as usize], bound, count: 0, kind: PhantomData }
    }

    /// All of them.
    pub fn full(geometry: &Geometry) -> Self {
        let mut set = Self::empty(geometry);
        set.insert_run(0..set.bound);
        set
    }

    /// Adds `index`; says whether it was new.
    pub fn insert(&mut self, index: I) -> bool {
        let (word, bit) = self.place(index.to_number());
        let new = *word & bit == 0;
        *word |= bit;
        self.count += u32::from(new);
        new
    }

    /// Removes `index`; says whether it was there.
    pub fn remove(&mut self, index: I) -> bool {
        let (word, bit) = self.place(index.to_number());
        let was = *word & bit != 0;
        *word &= !bit;
        self.count -= u32::from(was);
        was
    }

    /// Adds every index whose number is in `run`, which must lie within the image.
    pub fn insert_run(&mut self, run: Range<u32>) {
        assert!(run.end <= self.bound, "a run ends within its image");
        let mut from = run.start;
        while from < run.end {
            let to = run.end.min((from | 63) + 1);
            let bits = u64::MAX >> (64 - (to - from)) << (from % 64);
            let word = &mut self.words[from as usize / 64];
            self.count += (bits & !*word).count_ones();
            *word |= bits;
            from = to;
        }
    }

    /// Whether `index` is a member.
    pub fn contains(&self, index: I) -> bool {
        let number = index.to_number();
        debug_assert!(number < self.bound, "an index belongs to its image");
        self.words[number as usize / 64] & (1 << (number % 64)) != 0
    }

    /// Number of members.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Number of indices there are, members or not.
    pub const fn bound(&self) -> u32 {
        self.bound
    }

    /// Whether nothing is a member.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether everything is a member.
    pub const fn is_full(&self) -> bool {
        self.count == self.bound
    }

    /// Members in rising order.
    pub fn iter(&self) -> impl Iterator<Item = I> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| members_of(at, word))
    }

    /// Members that `other`, a set of the same image, does not have, in rising order.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = I> + 'a {
        assert_eq!(self.bound, other.bound, "both sets are of one image");
        self.words.iter().zip(&other.words).enumerate().flat_map(|(at, (mine, its))| members_of(at, mine & !its))
    }

    /// Maximal runs of members, in rising order, as ranges of numbers.
    pub fn runs(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        let mut after = 0;
        core::iter::from_fn(move || {
            let start = self.next_where(after, 0)?;
            after = self.next_where(start, u64::MAX).unwrap_or(self.bound);
            Some(start..after)
        })
    }

    /// The bits, 64 to a word, the lowest number in the lowest bit; bits beyond the bound are zero.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The first number from `from` on whose bit, flipped by `flip`, is set.
    fn next_where(&self, from: u32, flip: u64) -> Option<u32> {
        let mut mask = u64::MAX << (from % 64);
        for (at, word) in self.words.iter().enumerate().skip(from as usize / 64) {
            let bits = (word ^ flip) & mask;
            if bits != 0 {
                return Some(at as u32 * 64 + bits.trailing_zeros()).filter(|&number| number < self.bound);
            }
            mask = u64::MAX;
        }
        None
    }

    fn place(&mut self, number: u32) -> (&mut u64, u64) {
        assert!(number < self.bound, "an index belongs to its image");
        (&mut self.words[number as usize / 64], 1 << (number % 64))
    }
}

impl<I: Index> core::fmt::Debug for IndexSet<I> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} of {}: ", self.count, self.bound)?;
        f.debug_list().entries(self.runs()).finish()
    }
}

fn members_of<I: Index>(word_at: usize, mut word: u64) -> impl Iterator<Item = I> {
    core::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros();
            word &= word - 1;
            I::from_number(word_at as u32 * 64 + bit)
        })
    })
}

/// Joins rising numbers into maximal runs.
pub fn runs_of(numbers: impl Iterator<Item = u32>) -> impl Iterator<Item = Range<u32>> {
    let mut numbers = numbers.peekable();
    core::iter::from_fn(move || {
        let start = numbers.next()?;
        let mut end = start + 1;
        while numbers.next_if_eq(&end).is_some() {
            end += 1;
        }
        Some(start..end)
    })
}

/// A set of pieces on the wire.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WireHave {
    /// Runs as (numbers skipped since the end of the last run, length); each length at least 1.
    Runs(Vec<(u32, u32)>),
    /// Bit `i` of byte `i / 8`, lowest bit first, for every piece; spare bits zero.
    Bitmap(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// Runs of pieces that came to be held, on the wire: (first piece, how many), rising and apart, so that reading one
/// costs no more than the image has pieces.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WireDelta(pub Vec<(u32, u32)>);

/// Why a set or delta from the wire does not fit the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HaveError {
    /// A run is empty, overlaps another or ends outside of the image.
    #[error("a run of pieces is empty or leaves the image")]
    Run,
    /// The bitmap's length is not that of the image's pieces, or spare bits are set.
    #[error("a bitmap of pieces has a length or bits that the image does not have")]
    Bitmap,
    /// The list of runs is longer than a bitmap would be.
    #[error("a list of runs is longer than the bitmap would be")]
    TooManyRuns,
}

impl WireHave {
    /// The shorter form of `set`.
    pub fn of(set: &PieceSet) -> Self {
        let bitmap_len = set.bound().div_ceil(8) as usize;
        let mut after = 0;
        let runs: Vec<(u32, u32)> = set
            .runs()
            .map(|run| {
                let gap = run.start - after;
                after = run.end;
                (gap, run.end - run.start)
            })
            .collect();
        if Self::runs_fit(&runs, bitmap_len) {
            return WireHave::Runs(runs);
        }
        let bytes = set.words().iter().flat_map(|word| word.to_le_bytes()).take(bitmap_len).collect();
        WireHave::Bitmap(bytes)
    }

    /// The set, if it fits the geometry.
    pub fn to_set(&self, geometry: &Geometry) -> Result<PieceSet, HaveError> {
        let mut set = PieceSet::empty(geometry);
        let bitmap_len = set.bound().div_ceil(8) as usize;
        match self {
            WireHave::Runs(runs) => {
                if !Self::runs_fit(runs, bitmap_len) {
                    return Err(HaveError::TooManyRuns);
                }
                let mut after = 0u32;
                for &(gap, len) in runs {
                    let start = after.checked_add(gap).ok_or(HaveError::Run)?;
                    let end = start.checked_add(len).ok_or(HaveError::Run)?;
                    if len == 0 || end > set.bound() {
                        return Err(HaveError::Run);
                    }
                    set.insert_run(start..end);
                    after = end;
                }
            }
            WireHave::Bitmap(bytes) => {
                if bytes.len() != bitmap_len {
                    return Err(HaveError::Bitmap);
                }
                for (at, &byte) in bytes.iter().enumerate() {
                    for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                        set.insert(geometry.piece(at as u32 * 8 + bit).ok_or(HaveError::Bitmap)?);
                    }
                }
            }
        }
        Ok(set)
    }

    /// A run costs at least two bytes; two runs are always allowed, so that tiny images need no rule of their own.
    fn runs_fit(runs: &[(u32, u32)], bitmap_len: usize) -> bool {
        runs.len() <= 2 || runs.len() * 4 <= bitmap_len
    }
}

impl WireDelta {
    /// The delta of these pieces, given in rising order.
    pub fn of(pieces: impl Iterator<Item = PieceIndex>) -> Self {
        let late = u32::from(is_planted(Bug::DeltaOffByOne));
        WireDelta(runs_of(pieces.map(PieceIndex::number)).map(|run| (run.start + late, run.end - run.start)).collect())
    }

    /// The pieces, if all of them are of this geometry.
    pub fn pieces(&self, geometry: &Geometry) -> Result<Vec<PieceIndex>, HaveError> {
        let mut pieces = Vec::new();
        let mut after = 0;
        for &(start, len) in &self.0 {
            let end = start.checked_add(len).filter(|&end| len > 0 && start >= after && end <= geometry.piece_count());
            let end = end.ok_or(HaveError::Run)?;
            pieces.extend((start..end).map(PieceIndex));
            after = end;
        }
        Ok(pieces)
    }
}
