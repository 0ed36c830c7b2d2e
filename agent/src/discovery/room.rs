//! Room for who comes: a host all of whose places for connections are taken would turn away a newcomer that knows nobody else,
//! as long as two hosts that have all that they exchange stay connected with each other.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_protocol::id::PeerId;
use drover_protocol::rng::Rng;
use tokio::time::Instant;

use crate::transport::{Link, Links};

/// One place in so many is kept free, and one at the least.
const SPARE_PART: usize = 8;
/// A link that carried less than so many bytes in this time is idle: keep-alives and a few words.
const WATCHED_FOR: Duration = Duration::from_secs(5);
const IDLE_LEN: u64 = 16 << 10;

/// Watches links while there is too little room.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// What each link had carried when it was looked last.
    watched: Option<(Instant, BTreeMap<PeerId, u64>)>,
}

impl Room {
    /// Closes links that are idle, but for those to keep, while too few places are free.
    pub(super) fn make(&mut self, now: Instant, rng: &mut Rng, links: &Links, keep: &[Link]) {
        let (taken, places) = links.places();
        let too_many = too_many(taken, places);
        if too_many == 0 {
            self.watched = None;
            return;
        }
        let all = links.all();
        let carried = || all.iter().map(|link| (link.peer(), link.carried_bytes())).collect();
        let Some((since, before)) = &self.watched else {
            self.watched = Some((now, carried()));
            return;
        };
        if now < *since + WATCHED_FOR {
            return;
        }
        let is_idle = |link: &&Link| {
            before.get(&link.peer()).is_some_and(|bytes| link.carried_bytes().saturating_sub(*bytes) < IDLE_LEN)
        };
        let mut idle: Vec<&Link> = all.iter().filter(|link| !keep.contains(link)).filter(is_idle).collect();
        rng.shuffle(&mut idle);
        for link in idle.into_iter().take(too_many) {
            tracing::debug!(peer = %link.peer().short(), "closed to make room for others");
            link.make_way();
        }
        self.watched = Some((now, carried()));
    }
}

/// How many of a host's places, of which there is one at the least, are kept free.
pub(super) fn spare(places: usize) -> usize {
    (places / SPARE_PART).max(1)
}

/// How many of the places that are taken should be free.
fn too_many(taken: usize, places: usize) -> usize {
    (taken + spare(places)).saturating_sub(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_places_are_free_of_few_and_of_many() {
        assert_eq!((too_many(3, 4), too_many(4, 4)), (0, 1));
        assert_eq!((too_many(56, 64), too_many(57, 64), too_many(64, 64)), (0, 1, 8));
    }
}
