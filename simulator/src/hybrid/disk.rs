//! A disk that is slower than its host's wire: what multicast brought waits to be written.

use core::ops::Range;
use core::time::Duration;

use drover_protocol::geometry::Geometry;
use drover_protocol::time::Instant;

/// A slow disk. While it has a backlog it takes nothing else.
#[derive(Debug)]
pub(super) struct Disk {
    bytes_per_s: u64,
    /// When all is written.
    free_at: Instant,
}

impl Disk {
    pub(super) fn new(bytes_per_s: u64) -> Self {
        Disk { bytes_per_s, free_at: Instant::START }
    }

    /// These chunks are to be written; says when they are.
    pub(super) fn write(&mut self, now: Instant, chunks: Range<u32>, geometry: &Geometry) -> Instant {
        let chunks = chunks.filter_map(|number| geometry.chunk(number));
        let len: u64 = chunks.map(|chunk| u64::from(geometry.chunk_len(chunk))).sum();
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(len as f64 / self.bytes_per_s as f64);
        self.free_at
    }

    /// Its host dies: what was not written never will be.
    pub(super) fn forget(&mut self) {
        self.free_at = Instant::START;
    }

    /// Whether something waits to be written.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        self.free_at > now
    }

    /// Bytes that wait, and bytes per second that are written.
    pub(super) fn backlog(&self, now: Instant) -> (u64, u64) {
        let waiting = self.free_at.since(now).as_nanos() * u128::from(self.bytes_per_s) / 1_000_000_000;
        (waiting as u64, self.bytes_per_s)
    }
}
