//! Which members are shut out before their certificates end.
//!
//! A revocation names a key, not a certificate: it holds for every certificate that was ever given for the key, and for
//! those that a tracker which has not heard of it gives out afterwards. It ends by itself once the last of them has; the
//! machine behind the key comes back with a new one. So a list only grows and forgets, and lists of several trackers are
//! joined in any order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::PeerId;

/// The first version of the protocol in which trackers tell of revocations. To a side of an older one nothing is said.
pub const REVOCATION_SINCE: u16 = 3;
/// Most revocations that a list has at a time: a fleet of ten thousand hosts that shuts out forty of them every day.
pub const MAX_REVOKED: usize = 4096;
/// How long a revocation is to hold, in seconds: a certificate lives for 90 days at the most, and a tracker that has not
/// heard may give one out for a day more.
pub const REVOKED_FOR_S: u64 = 91 * 24 * 3600;

/// A key that no member has any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Revocation {
    /// Whose key it was.
    pub peer: PeerId,
    /// Until when this holds, in seconds since 1970 (UTC).
    pub until_unix_s: u64,
}

/// The revocations that hold, at most [`MAX_REVOKED`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RevocationList {
    until: BTreeMap<PeerId, u64>,
}

impl RevocationList {
    /// Takes in what a tracker or a file says at the time `now_unix_s` (seconds since 1970, UTC). Gives those that are new
    /// or hold for longer than before, as they are taken: none of them for longer than [`REVOKED_FOR_S`] from now.
    ///
    /// If there are too many, those that end first make room.
    pub fn learn(&mut self, now_unix_s: u64, told: &[Revocation]) -> Vec<Revocation> {
        self.until.retain(|_, until| *until > now_unix_s);
        let mut news = Vec::new();
        for revocation in told.iter().take(MAX_REVOKED) {
            let until_unix_s = revocation.until_unix_s.min(now_unix_s.saturating_add(REVOKED_FOR_S));
            let before = self.until.get(&revocation.peer).copied().unwrap_or(now_unix_s);
            if until_unix_s > before {
                self.until.insert(revocation.peer, until_unix_s);
                news.push(Revocation { peer: revocation.peer, until_unix_s });
            }
        }
        while self.until.len() > MAX_REVOKED
            && let Some((&first, _)) = self.until.iter().min_by_key(|&(_, until)| *until)
        {
            self.until.remove(&first);
        }
        news
    }

    /// Whether nobody with this key is a member, at the time `now_unix_s`.
    pub fn is_revoked(&self, now_unix_s: u64, peer: PeerId) -> bool {
        self.until.get(&peer).is_some_and(|&until| until > now_unix_s)
    }

    /// All of them, by key.
    pub fn all(&self) -> Vec<Revocation> {
        self.until.iter().map(|(&peer, &until_unix_s)| Revocation { peer, until_unix_s }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn peer(number: u32) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    fn revoked(number: u32, for_s: u64) -> Revocation {
        Revocation { peer: peer(number), until_unix_s: NOW + for_s }
    }

    #[test]
    fn what_is_told_holds_until_its_end_and_is_news_once() {
        let mut list = RevocationList::default();
        assert_eq!(list.learn(NOW, &[revoked(1, 60), revoked(2, 0)]), [revoked(1, 60)], "what is over is nothing");
        assert!(list.is_revoked(NOW + 59, peer(1)) && !list.is_revoked(NOW + 60, peer(1)));
        assert!(!list.is_revoked(NOW, peer(2)));
        assert_eq!(list.learn(NOW, &[revoked(1, 60), revoked(1, 30)]), []);
        assert_eq!(list.learn(NOW, &[revoked(1, 90)]), [revoked(1, 90)], "another tracker says that it is for longer");
        assert_eq!(list.all(), [revoked(1, 90)]);
        assert_eq!(list.learn(NOW + 90, &[]), []);
        assert_eq!(list, RevocationList::default(), "what is over takes no room");
    }

    #[test]
    fn two_lists_are_joined_in_any_order() {
        let (ours, theirs) = ([revoked(1, 60), revoked(2, 90)], [revoked(2, 60), revoked(3, 60)]);
        let joined = |first: &[Revocation], second: &[Revocation]| {
            let mut list = RevocationList::default();
            list.learn(NOW, first);
            list.learn(NOW, second);
            list
        };
        assert_eq!(joined(&ours, &theirs), joined(&theirs, &ours));
        assert_eq!(joined(&ours, &theirs).all(), [revoked(1, 60), revoked(2, 90), revoked(3, 60)]);
    }

    #[test]
    fn a_tracker_that_lies_fills_no_memory_and_shuts_nobody_out_for_ever() {
        let mut list = RevocationList::default();
        let most = MAX_REVOKED as u32;
        let flood: Vec<Revocation> = (0..2 * most).map(|number| revoked(number, 1000 + u64::from(number))).collect();
        for part in flood.chunks(MAX_REVOKED) {
            list.learn(NOW, part);
        }
        assert_eq!(list.all().len(), MAX_REVOKED);
        assert!(!list.is_revoked(NOW, peer(0)) && list.is_revoked(NOW, peer(most)), "those that end first make room");
        let for_ever = Revocation { peer: peer(2 * most), until_unix_s: u64::MAX };
        assert_eq!(list.learn(NOW, &[for_ever]), [revoked(2 * most, REVOKED_FOR_S)]);
    }
}
