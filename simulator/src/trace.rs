//! What happened, as one hash: two runs of the same scenario must give the same.

use drover_protocol::time::Instant;

/// A hash over all that was noted, in order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    count: u64,
}

impl Trace {
    /// Notes that something happened.
    pub(crate) fn note(&mut self, now: Instant, what: &'static str, numbers: [u64; 2]) {
        self.count += 1;
        self.hasher.update(&now.as_nanos().to_le_bytes());
        self.hasher.update(what.as_bytes());
        for number in numbers {
            self.hasher.update(&number.to_le_bytes());
        }
    }

    /// How much was noted.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The hash of everything so far, as text.
    pub(crate) fn hash(&self) -> String {
        self.hasher.finalize().to_hex()[..16].to_owned()
    }
}
