//! The host's rate limits, shared out among the images that move.
//!
//! A swarm keeps its own limit. Images that nobody fetches must not hold a share back from one that everybody does, so
//! a share is the limit divided by the images that moved a byte lately; each driver asks for its own while it is busy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_protocol::id::ImageId;
use drover_protocol::time::Instant;

/// An image that did not move for so long has no share.
const LATELY: Duration = Duration::from_secs(3);

/// Upload and download, in bytes per second; `None` is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) upload: Option<u64>,
    pub(crate) download: Option<u64>,
}

/// The limits of this host. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    whole: Rates,
    moved: Arc<Mutex<BTreeMap<ImageId, Instant>>>,
}

impl Limits {
    pub(crate) fn new(whole: Rates) -> Self {
        Limits { whole, moved: Arc::default() }
    }

    /// The share of an image that moves now.
    pub(crate) fn share(&self, now: Instant, image: ImageId) -> Rates {
        if self.whole == Rates::default() {
            return self.whole;
        }
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.insert(image, now);
        moved.retain(|_, at| now.since(*at) < LATELY);
        let among = moved.len() as u64;
        let share = |limit: Option<u64>| limit.map(|limit| (limit / among).max(1));
        Rates { upload: share(self.whole.upload), download: share(self.whole.download) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_shared_by_the_images_that_move() {
        let limits = Limits::new(Rates { upload: Some(100), download: None });
        let image = |number| ImageId::from_bytes([number; 32]);
        let share = |millis, number| limits.share(Instant::from_millis(millis), image(number)).upload;
        assert_eq!(share(0, 1), Some(100));
        assert_eq!(share(1000, 2), Some(50));
        assert_eq!(share(2000, 1), Some(50));
        assert_eq!(share(4500, 1), Some(100));
    }
}
