//! Releases as items of the cluster's hash table: those that this host can put there, and those that it looks for.
//!
//! With a release its publisher signs the item that holds it (see `drover_protocol::item`). This host keeps these
//! signatures, those given here as well as those found, in `STATE/items.json`, so that it can put an item anew when the
//! table has lost it; the releases themselves are in the store. Nothing depends on the file: one that is missing or damaged is
//! as good as an empty one, and a signature that does not fit the release is not used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_link::{durable, kept};
use drover_protocol::id::PublisherKey;
use drover_protocol::item::{Item, ItemSignature};
use drover_protocol::lookup::ClusterSecret;
use drover_protocol::release::Name;
use serde::{Deserialize, Serialize};

use crate::store::Catalog;

/// Most names whose items are kept: as many as a cluster has.
const HELD_MOST: usize = 1024;
/// A file of ours is no longer.
const LONGEST: u64 = 1 << 20;

/// What is known of items. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Items(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    publishers: Vec<PublisherKey>,
    names: Vec<Name>,
    held: BTreeMap<Name, Held>,
    /// Names whose items were given here and are not in the table yet.
    fresh: BTreeSet<Name>,
}

/// What makes an item of a release.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) version: u64,
    pub(crate) publisher: PublisherKey,
    pub(crate) signature: ItemSignature,
}

/// Whose releases of which name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Wanted {
    pub(crate) publisher: PublisherKey,
    pub(crate) name: Name,
}

impl Items {
    /// As the file at `path` has them.
    pub(crate) fn load(path: PathBuf) -> Self {
        let held: BTreeMap<String, Held> = kept::load(&path, LONGEST).unwrap_or_default();
        let held = held.into_iter().take(HELD_MOST);
        let held = held.filter_map(|(name, held)| Some((name.parse().ok()?, held))).collect();
        Items(Arc::new(Inner { path, state: Mutex::new(State { held, ..State::default() }) }))
    }

    /// Replaces the file. Blocks.
    pub(crate) fn save(&self) -> Result<(), durable::WriteError> {
        let held: BTreeMap<String, Held> =
            self.state().held.iter().map(|(name, held)| (name.to_string(), *held)).collect();
        let json = serde_json::to_vec(&held).expect("names, numbers and keys are plain JSON");
        durable::replace(&self.0.path, &json, durable::PRIVATE)
    }

    /// From now on, releases of these names by these publishers are looked for, and no others.
    pub(crate) fn seek(&self, publishers: Vec<PublisherKey>, names: Vec<Name>) {
        let mut state = self.state();
        (state.publishers, state.names) = (publishers, names);
    }

    /// Keeps what a publisher gave here, which the table does not have yet.
    pub(crate) fn give(&self, name: &Name, held: Held) {
        self.hold(name, held);
        self.state().fresh.insert(name.clone());
    }

    /// Keeps what was found, unless that of a later version is kept; says whether it is news.
    pub(crate) fn hold(&self, name: &Name, found: Held) -> bool {
        let mut state = self.state();
        let has_room = state.held.len() < HELD_MOST;
        match state.held.get_mut(name) {
            Some(held) if *held == found || held.version > found.version => false,
            Some(held) => {
                *held = found;
                true
            }
            None if has_room => {
                state.held.insert(name.clone(), found);
                true
            }
            None => false,
        }
    }

    /// What is looked up: the names that are sought, by every trusted publisher, and what this host can put anew.
    pub(crate) fn wanted(&self) -> BTreeSet<Wanted> {
        let state = self.state();
        let wanted = |publisher: &PublisherKey, name: &Name| Wanted { publisher: *publisher, name: name.clone() };
        let by_all = |name| state.publishers.iter().map(move |publisher| wanted(publisher, name));
        let held = state.held.iter().filter(|(_, held)| state.publishers.contains(&held.publisher));
        state.names.iter().flat_map(by_all).chain(held.map(|(name, held)| wanted(&held.publisher, name))).collect()
    }

    /// Names whose items were given here since this was asked last.
    pub(crate) fn take_fresh(&self) -> BTreeSet<Name> {
        std::mem::take(&mut self.state().fresh)
    }

    /// The item that this host can put, of a release in `catalog`.
    pub(crate) fn item(&self, wanted: &Wanted, catalog: &Catalog, secret: &ClusterSecret) -> Option<Item> {
        let held = self.state().held.get(&wanted.name).copied().filter(|held| held.publisher == wanted.publisher)?;
        let signed = catalog.signed(&wanted.name, held.version)?;
        Item::with_signature(&signed, &secret.of_name(&wanted.name), held.signature).ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHER: PublisherKey = PublisherKey::from_bytes([1; 32]);

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn held(version: u64) -> Held {
        Held { version, publisher: PUBLISHER, signature: ItemSignature::from_bytes([version as u8; 64]) }
    }

    #[test]
    fn the_latest_of_each_name_is_kept_over_a_restart_and_damage_is_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("items.json");
        let items = Items::load(path.clone());
        assert!(items.hold(&name("golden"), held(3)));
        assert!(!items.hold(&name("golden"), held(2)), "an older one that is played back");
        assert!(!items.hold(&name("golden"), held(3)), "the same");
        assert!(items.hold(&name("golden"), held(4)));
        items.save().expect("written");
        let items = Items::load(path.clone());
        assert_eq!(items.state().held, BTreeMap::from([(name("golden"), held(4))]));
        for damage in [&b"{"[..], b"{\"../x\": 1}", &vec![b' '; LONGEST as usize + 1]] {
            std::fs::write(&path, damage).expect("written");
            assert!(Items::load(path.clone()).state().held.is_empty());
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let items = Items::load(PathBuf::new());
        let taken = (0..2 * HELD_MOST).filter(|number| items.hold(&name(&format!("n{number}")), held(1))).count();
        assert_eq!(taken, HELD_MOST);
        assert_eq!(items.state().held.len(), HELD_MOST);
        assert!(items.hold(&name("n0"), held(2)), "a later version takes no room");
    }

    #[test]
    fn what_trusted_publishers_release_is_looked_for_and_what_is_kept_too() {
        let items = Items::load(PathBuf::new());
        let (other, gone) = (PublisherKey::from_bytes([2; 32]), PublisherKey::from_bytes([3; 32]));
        items.hold(&name("kept"), held(1));
        items.hold(&name("by-one-trusted-no-more"), Held { publisher: gone, ..held(1) });
        assert!(items.wanted().is_empty(), "nobody is trusted yet");
        items.seek(vec![PUBLISHER, other], vec![name("golden")]);
        let wanted = |publisher, text| Wanted { publisher, name: name(text) };
        let expected = [wanted(PUBLISHER, "golden"), wanted(other, "golden"), wanted(PUBLISHER, "kept")];
        assert_eq!(items.wanted(), BTreeSet::from(expected));
    }
}
