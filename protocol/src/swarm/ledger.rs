//! Bytes taken, given and wasted, peer by peer; and who is banned for what.
//!
//! A ban holds for an identity, not for an address or a connection, and for as long as this swarm lives.

use core::time::Duration;
use std::collections::BTreeMap;

use super::event::Misdeed;
use super::peer_map::PeerMap;
use crate::id::PeerId;
use crate::time::Instant;

/// Most peers whose bytes are counted; beyond that the one with the least is forgotten.
const COUNTED_MOST: usize = 1024;
/// Most bans. Identities are issued by the cluster's authority, so that nobody fills this by inventing new ones.
const BANNED_MOST: usize = 4096;
/// Time in which a peer can be expected to tell that it holds what it was given.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// What was exchanged with one peer, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Account {
    pub(super) taken: u64,
    pub(super) given: u64,
    /// What had been given at a time at least [`TOLD_AFTER`] ago.
    pub(super) given_before: u64,
    /// What had been given at a later time, and when.
    sampled: (Instant, u64),
}

/// The accounts of all peers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: PeerMap<Account>,
    banned: BTreeMap<PeerId, Misdeed>,
    wasted: u64,
}

impl Ledger {
    /// A peer gave us bytes that were stored.
    pub(super) fn taken(&mut self, peer: PeerId, bytes: u64) {
        self.account(peer).taken += bytes;
    }

    /// We gave a peer bytes.
    pub(super) fn given(&mut self, now: Instant, peer: PeerId, bytes: u64) {
        let account = self.account(peer);
        account.given = account.given.saturating_add(bytes);
        if now.since(account.sampled.0) >= TOLD_AFTER {
            account.given_before = account.sampled.1;
            account.sampled = (now, account.given);
        }
    }

    /// Bytes came for nothing.
    pub(super) fn wasted(&mut self, bytes: u64) {
        self.wasted += bytes;
    }

    /// Bans a peer; says whether it was not banned before.
    pub(super) fn ban(&mut self, peer: PeerId, misdeed: Misdeed) -> bool {
        if self.banned.contains_key(&peer) {
            return false;
        }
        if self.banned.len() == BANNED_MOST {
            self.banned.pop_first();
        }
        self.banned.insert(peer, misdeed).is_none()
    }

    /// Whether a peer is banned.
    pub(super) fn is_banned(&self, peer: &PeerId) -> bool {
        self.banned.contains_key(peer)
    }

    /// Everybody who is banned.
    pub(super) fn banned(&self) -> Vec<(PeerId, Misdeed)> {
        self.banned.iter().map(|(peer, misdeed)| (*peer, *misdeed)).collect()
    }

    /// What was exchanged with a peer.
    pub(super) fn of(&self, peer: &PeerId) -> Account {
        self.accounts.get(peer).copied().unwrap_or_default()
    }

    /// Everybody with whom something was exchanged.
    pub(super) fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.accounts.keys()
    }

    /// Bytes that came twice or for nothing.
    pub(super) fn wasted_bytes(&self) -> u64 {
        self.wasted
    }

    fn account(&mut self, peer: PeerId) -> &mut Account {
        if self.accounts.len() >= COUNTED_MOST && !self.accounts.contains_key(&peer) {
            let least = self.accounts.iter().min_by_key(|(_, account)| account.taken + account.given);
            if let Some(least) = least.map(|(peer, _)| *peer) {
                self.accounts.remove(&least);
            }
        }
        self.accounts.get_or_default(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    #[test]
    fn accounts_stay_bounded_and_keep_the_big_ones() {
        let mut ledger = Ledger::default();
        ledger.taken(peer(0), 1 << 30);
        for number in 1..5000 {
            ledger.given(Instant::from_millis(0), peer(number), 10);
        }
        assert_eq!(ledger.peers().count(), COUNTED_MOST);
        assert_eq!(ledger.of(&peer(0)).taken, 1 << 30);
    }

    #[test]
    fn a_ban_is_told_once_and_holds() {
        let mut ledger = Ledger::default();
        assert!(ledger.ban(peer(1), Misdeed::WrongBytes { chunk: 3 }));
        assert!(!ledger.ban(peer(1), Misdeed::BadHave));
        assert_eq!(ledger.banned(), [(peer(1), Misdeed::WrongBytes { chunk: 3 })]);
    }
}
