//! Where peers come from: trackers, other peers, the cluster's hash table, the settings, and who was known before the
//! last restart. All of it is
//! hints; safety rests on certificates and hashes, and any one of them is enough to go on.
//!
//! Drivers note here what they exchange; each tracker's task reads it when it announces, and the [`finder`] when it
//! looks who lacks neighbours. Nobody waits for anybody.

pub(crate) mod dht;
pub(crate) mod elsewhere;
pub(crate) mod finder;
pub(crate) mod gossip;
pub(crate) mod items;
pub(crate) mod remembered;
mod retry;
pub(crate) mod revoked;
mod room;
pub(crate) mod secret;
pub(crate) mod statics;
pub(crate) mod talk;
pub(crate) mod tracker;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_protocol::announce::{Cohort, SwarmAnnounce};
use drover_protocol::id::ImageId;
use futures_util::future::join_all;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long it is waited for the addresses of a name.
const NAME_MOST: Duration = Duration::from_secs(2);
/// Swarms left that a tracker which was away may still be told about. What is forgotten expires at the tracker.
const LEFT_MOST: usize = 256;

/// Where trackers and hosts of the settings are. Names are looked up all at once and not waited for for long: who tells what they
/// mean may be gone with the trackers. One that leads nowhere now may do so later.
async fn addresses(named: &[String]) -> Vec<SocketAddr> {
    let found = join_all(named.iter().map(|text| timeout(NAME_MOST, lookup_host(text)))).await;
    found.into_iter().flatten().flatten().flatten().collect()
}

/// What this host exchanges, for trackers to be told. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Announcements {
    state: Arc<Mutex<State>>,
    /// Counts the changes that trackers should hear at once.
    urgent: watch::Sender<u64>,
    reachable: watch::Sender<u32>,
}

#[derive(Debug, Default)]
struct State {
    swarms: BTreeMap<ImageId, SwarmAnnounce>,
    /// Swarms left, with the count of urgent changes after it.
    left: VecDeque<(u64, ImageId)>,
    cohorts: BTreeMap<ImageId, Cohort>,
    /// Connected neighbours in each swarm.
    neighbours: BTreeMap<ImageId, usize>,
}

impl Default for Announcements {
    fn default() -> Self {
        let (urgent, reachable) = (watch::Sender::new(0), watch::Sender::new(0));
        Announcements { state: Arc::default(), urgent, reachable }
    }
}

impl Announcements {
    /// Notes how far an image is here. Trackers hear of it at once if it is new, has become known or complete, else with
    /// their next announce.
    pub(crate) fn set(&self, swarm: SwarmAnnounce) {
        let mut state = self.state();
        let stage = |swarm: &SwarmAnnounce| (swarm.data_chunks == 0, swarm.held_chunks == swarm.data_chunks);
        let before = state.swarms.get(&swarm.image).map(stage);
        let urgent = before != Some(stage(&swarm));
        state.swarms.insert(swarm.image, swarm);
        drop(state);
        if urgent {
            self.urgent.send_modify(|count| *count += 1);
        }
    }

    /// Notes that an image is not exchanged here any more.
    pub(crate) fn remove(&self, image: ImageId) {
        let mut state = self.state();
        state.cohorts.remove(&image);
        state.neighbours.remove(&image);
        if state.swarms.remove(&image).is_none() {
            return;
        }
        let count = *self.urgent.borrow() + 1;
        state.left.push_back((count, image));
        if state.left.len() > LEFT_MOST {
            state.left.pop_front();
        }
        drop(state);
        self.urgent.send_modify(|urgent| *urgent += 1);
    }

    /// Notes how many neighbours the swarm of an image has here.
    pub(crate) fn set_neighbours(&self, image: ImageId, count: usize) {
        self.state().neighbours.insert(image, count);
    }

    /// Images that are exchanged here.
    pub(crate) fn images(&self) -> Vec<ImageId> {
        self.state().swarms.keys().copied().collect()
    }

    /// Images that are not complete here and have fewer neighbours than `few`.
    pub(crate) fn lacking(&self, few: usize) -> Vec<ImageId> {
        let state = self.state();
        let is_complete = |swarm: &SwarmAnnounce| swarm.data_chunks > 0 && swarm.held_chunks == swarm.data_chunks;
        let open = state.swarms.values().filter(|swarm| !is_complete(swarm)).map(|swarm| swarm.image);
        open.filter(|image| state.neighbours.get(image).is_none_or(|&count| count < few)).collect()
    }

    /// How far all hosts are with an image, as a tracker said last.
    pub(crate) fn cohort(&self, image: ImageId) -> Cohort {
        self.state().cohorts.get(&image).copied().unwrap_or_default()
    }

    /// Trackers that can be reached now.
    pub(crate) fn trackers_reachable(&self) -> u32 {
        *self.reachable.borrow()
    }

    /// The count of trackers that can be reached, as it changes.
    pub(crate) fn watch_reachable(&self) -> watch::Receiver<u32> {
        self.reachable.subscribe()
    }

    /// Of an image that is not exchanged here nothing is kept.
    fn set_cohort(&self, image: ImageId, cohort: Cohort) {
        let mut state = self.state();
        if state.swarms.contains_key(&image) {
            state.cohorts.insert(image, cohort);
        }
    }

    fn note_reachable(&self, reachable: bool) {
        self.reachable.send_modify(|count| if reachable { *count += 1 } else { *count -= 1 });
    }

    /// Everything that is exchanged, and what was left since the count `since` of urgent changes; with the count now.
    fn announced_since(&self, since: u64) -> (Vec<SwarmAnnounce>, u64) {
        let state = self.state();
        let count = *self.urgent.borrow();
        let left = state.left.iter().filter(|&&(at, image)| at > since && !state.swarms.contains_key(&image));
        let left = left.map(|&(_, image)| SwarmAnnounce {
            image,
            held_chunks: 0,
            data_chunks: 0,
            want_peers: 0,
            leaving: true,
        });
        (left.chain(state.swarms.values().cloned()).collect(), count)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swarm(held_chunks: u32, data_chunks: u32) -> SwarmAnnounce {
        let image = ImageId::from_bytes([7; 32]);
        SwarmAnnounce { image, held_chunks, data_chunks, want_peers: 50, leaving: false }
    }

    #[test]
    fn only_what_changes_for_others_is_urgent() {
        let announcements = Announcements::default();
        let mut count = 0;
        for (held, data, urgent) in [(0, 0, true), (0, 9, true), (5, 9, false), (6, 9, false), (9, 9, true)] {
            announcements.set(swarm(held, data));
            count += u64::from(urgent);
            assert_eq!(announcements.announced_since(0).1, count, "{held} of {data}");
        }
    }

    #[test]
    fn only_what_is_not_complete_lacks_neighbours() {
        let announcements = Announcements::default();
        let image = swarm(0, 0).image;
        announcements.set(swarm(0, 0));
        assert_eq!(announcements.lacking(4), [image], "nobody was ever met");
        announcements.set_neighbours(image, 3);
        assert_eq!(announcements.lacking(4), [image]);
        announcements.set_neighbours(image, 4);
        assert_eq!(announcements.lacking(4), []);
        announcements.set_neighbours(image, 0);
        announcements.set(swarm(9, 9));
        assert_eq!(announcements.lacking(4), [], "whoever lacks it looks for this host");
    }

    #[test]
    fn a_swarm_that_was_left_is_named_once_to_each_tracker() {
        let announcements = Announcements::default();
        announcements.set(swarm(0, 9));
        let (_, before) = announcements.announced_since(0);
        announcements.remove(swarm(0, 0).image);
        let (swarms, after) = announcements.announced_since(before);
        assert!(swarms.len() == 1 && swarms[0].leaving);
        assert!(announcements.announced_since(after).0.is_empty());
        // Back again: nothing is said of the leave.
        announcements.set(swarm(0, 9));
        let (swarms, _) = announcements.announced_since(before);
        assert!(swarms.len() == 1 && !swarms[0].leaving);
    }
}
