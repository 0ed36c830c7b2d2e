//! When neighbours are told what came to be held: at once while little comes, bundled while much does.
//!
//! The first piece after a pause is announced at once, since somebody may be waiting for it. After that there is at
//! most one delta per interval, or, if a lot came in less, one per so many bytes: on a fast network an interval alone
//! would keep half an image a secret.

use core::time::Duration;

use crate::geometry::PieceIndex;
use crate::time::Instant;

/// So many new bytes are worth a delta of their own.
const WORTH_A_DELTA: u64 = 4 << 20;
/// Least time between two deltas, whatever comes.
const LEAST: Duration = Duration::from_millis(5);

/// Pieces that came to be held and were not announced yet.
#[derive(Debug)]
pub(super) struct Announcer {
    interval: Duration,
    pending: Vec<PieceIndex>,
    pending_bytes: u64,
    last: Option<Instant>,
}

impl Announcer {
    /// Nothing to announce; later on at most one delta per `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Announcer { interval, pending: Vec::new(), pending_bytes: 0, last: None }
    }

    /// A piece of `bytes` came to be held.
    pub(super) fn add(&mut self, piece: PieceIndex, bytes: u64) {
        self.pending.push(piece);
        self.pending_bytes += bytes;
    }

    /// What is to be announced now, in rising order.
    pub(super) fn take(&mut self, now: Instant) -> Option<Vec<PieceIndex>> {
        self.due_at().filter(|&due| due <= now)?;
        self.last = Some(now);
        self.pending_bytes = 0;
        let mut pieces = core::mem::take(&mut self.pending);
        pieces.sort_unstable();
        pieces.dedup();
        Some(pieces)
    }

    /// Drops what is pending: everybody was told everything.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }

    /// When something is to be announced.
    pub(super) fn due_at(&self) -> Option<Instant> {
        if self.pending.is_empty() {
            return None;
        }
        let wait = if self.pending_bytes >= WORTH_A_DELTA { LEAST.min(self.interval) } else { self.interval };
        Some(self.last.map_or(Instant::START, |last| last + wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    #[test]
    fn the_first_is_told_at_once_and_the_next_after_the_interval() {
        let geometry = Geometry::of_len(64 << 20).unwrap();
        let piece = |number| geometry.piece(number).unwrap();
        let mut announcer = Announcer::new(Duration::from_millis(50));
        let now = Instant::from_millis(1000);
        announcer.add(piece(7), 256 << 10);
        assert_eq!(announcer.take(now), Some(vec![piece(7)]));
        announcer.add(piece(9), 256 << 10);
        announcer.add(piece(8), 256 << 10);
        assert_eq!(announcer.take(now + Duration::from_millis(49)), None);
        assert_eq!(announcer.due_at(), Some(now + Duration::from_millis(50)));
        assert_eq!(announcer.take(now + Duration::from_millis(50)), Some(vec![piece(8), piece(9)]));
        assert_eq!(announcer.due_at(), None);
    }

    #[test]
    fn a_lot_is_told_sooner() {
        let geometry = Geometry::of_len(64 << 20).unwrap();
        let mut announcer = Announcer::new(Duration::from_millis(50));
        let now = Instant::from_millis(1000);
        announcer.add(geometry.piece(0).unwrap(), 1);
        announcer.take(now);
        for piece in geometry.pieces().take(16) {
            announcer.add(piece, 256 << 10);
        }
        assert_eq!(announcer.due_at(), Some(now + LEAST));
    }
}
