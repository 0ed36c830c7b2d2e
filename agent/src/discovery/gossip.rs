//! Releases from host to host, so that a new one is heard of while no tracker answers.
//!
//! When a link begins, each side tells the other the newest releases that it knows; each release that is new here is told
//! to everybody who is connected. What peers tell takes the way of what trackers tell, and is believed no more: the
//! publishers' signatures decide. What was heard before is dropped before anything is computed for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_protocol::discovery::{DiscoveryMessage, MAX_RELEASES_TOLD};
use drover_protocol::message::PeerMessage;
use drover_protocol::release::{Name, SignedRelease};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::store::Store;
use crate::transfer::workers::Workers;
use crate::transport::Link;

/// Releases that one peer may tell at once: every name that a tracker keeps.
const BURST: u32 = 1024;
/// And one more each so often.
const ONE_MORE: Duration = Duration::from_secs(1);
/// Releases that are remembered as heard, twice: the latest, and those before them.
const HEARD_MOST: usize = 2048;

/// What is known of releases, and who is told. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Gossip(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    workers: Workers,
    releases: broadcast::Sender<SignedRelease>,
    heard: Mutex<Heard>,
}

/// What was heard lately.
#[derive(Debug, Default)]
struct Heard {
    now: BTreeSet<[u8; 32]>,
    before: BTreeSet<[u8; 32]>,
}

/// How many releases a peer may still tell.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: u32,
    counted: Instant,
}

impl Gossip {
    /// Of the releases in `store`; what peers tell goes to `releases`.
    pub(crate) fn new(store: Store, workers: Workers, releases: broadcast::Sender<SignedRelease>) -> Self {
        Gossip(Arc::new(Inner { store, workers, releases, heard: Mutex::default() }))
    }

    /// Tells a peer what is known.
    pub(crate) async fn greet(&self, link: &Link) {
        if !link.knows_discovery() {
            return;
        }
        let store = self.0.store.clone();
        let known = self.0.workers.run(move || newest_of_each_name(&store)).await;
        for releases in known.chunks(MAX_RELEASES_TOLD) {
            link.send(about(releases.to_vec()));
        }
    }

    /// Tells peers of a release that is new here.
    pub(crate) fn spread(&self, links: &[Link], signed: &SignedRelease) {
        self.heard(signed);
        for link in links.iter().filter(|link| link.knows_discovery()) {
            link.send(about(vec![signed.clone()]));
        }
    }

    /// A peer told of these.
    pub(crate) fn hear(&self, releases: Vec<SignedRelease>, allowance: &mut Allowance) {
        for signed in releases {
            if allowance.take(Instant::now()) && self.heard(&signed) {
                // Nobody listens yet, or any more.
                let _ = self.0.releases.send(signed);
            }
        }
    }

    /// A release was found in the hash table; says whether it was not heard of before.
    pub(crate) fn found(&self, signed: SignedRelease) -> bool {
        let news = self.heard(&signed);
        if news {
            // Nobody listens yet, or any more.
            let _ = self.0.releases.send(signed);
        }
        news
    }

    /// Notes a release as heard; says whether it was not before.
    fn heard(&self, signed: &SignedRelease) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(signed.publisher.as_bytes()).update(&signed.signatures).update(&signed.body);
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(hasher.finalize().into())
    }
}

impl Heard {
    fn insert(&mut self, hash: [u8; 32]) -> bool {
        if self.before.contains(&hash) || !self.now.insert(hash) {
            return false;
        }
        if self.now.len() >= HEARD_MOST {
            self.before = std::mem::take(&mut self.now);
        }
        true
    }
}

impl Allowance {
    /// A full one.
    pub(crate) fn full(now: Instant) -> Self {
        Allowance { left: BURST, counted: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let more = (now - self.counted).as_secs() / ONE_MORE.as_secs();
        if more > 0 {
            self.left = self.left.saturating_add(more.min(u64::from(BURST)) as u32).min(BURST);
            self.counted = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

fn about(releases: Vec<SignedRelease>) -> PeerMessage {
    PeerMessage::Discovery(DiscoveryMessage::Releases { releases })
}

/// The newest release of each name that this host has accepted.
pub(crate) fn newest_of_each_name(store: &Store) -> Vec<SignedRelease> {
    let mut newest: BTreeMap<Name, u64> = BTreeMap::new();
    for release in store.catalog().all() {
        let version = newest.entry(release.name).or_default();
        *version = release.version.max(*version);
    }
    newest.iter().filter_map(|(name, &version)| store.catalog().signed(name, version)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_known_for_long_and_never_takes_more_than_its_bound() {
        let mut heard = Heard::default();
        let hash = |number: usize| *blake3::hash(&number.to_le_bytes()).as_bytes();
        for number in 0..10 * HEARD_MOST {
            assert!(heard.insert(hash(number)), "{number} is new");
            assert!(!heard.insert(hash(number)), "{number} is known");
            assert!(!heard.insert(hash(number.saturating_sub(HEARD_MOST - 1))), "an old one is still known");
            assert!(heard.now.len() + heard.before.len() <= 2 * HEARD_MOST);
        }
    }

    #[test]
    fn a_peer_may_tell_all_that_it_knows_at_once_and_then_little_more() {
        let start = Instant::now();
        let mut allowance = Allowance::full(start);
        let told = (0..3000).filter(|_| allowance.take(start)).count();
        assert_eq!(told, 1024);
        let told = (0..3000).filter(|_| allowance.take(start + Duration::from_secs(10))).count();
        assert_eq!(told, 10);
    }
}
