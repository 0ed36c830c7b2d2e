//! What happened, as one hash: two runs of the same scenario must give the same.

use drover_protocol::time::Instant;

/// Bytes that are hashed at once.
const BATCH: usize = 16 << 10;

/// A hash over all that was noted, in order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    /// Noted and not hashed yet.
    noted: Vec<u8>,
    count: u64,
}

impl Trace {
    /// Notes that something happened.
    pub(crate) fn note(&mut self, now: Instant, what: &'static str, numbers: [u64; 2]) {
        self.count += 1;
        self.noted.extend_from_slice(&now.as_nanos().to_le_bytes());
        self.noted.extend_from_slice(what.as_bytes());
        for number in numbers {
            self.noted.extend_from_slice(&number.to_le_bytes());
        }
        if self.noted.len() >= BATCH {
            self.hasher.update(&self.noted);
            self.noted.clear();
        }
    }

    /// How much was noted.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The hash of everything so far, as text.
    pub(crate) fn hash(&self) -> String {
        self.hasher.clone().update(&self.noted).finalize().to_hex()[..16].to_owned()
    }
}
