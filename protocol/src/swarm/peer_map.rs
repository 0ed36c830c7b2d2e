//! Something about each of some peers, by who they are, in the order of their ids.
//!
//! A swarm has some tens of neighbours and looks at all of them many times a second. So they lie in a row, to be walked
//! through, or found by bisection; a tree would be neither shorter nor faster. What is bisected is a row of the ids' first
//! eight bytes, which nearly always decide: all of it fits a few lines of cache. An entry begins at a line. Rows grow by few
//! entries, since in a simulated fleet what is kept for growth is a good part of the memory.

use crate::id::PeerId;

/// How many entries are made room for at once.
const GROWTH: usize = 8;

/// Peers, and a `T` for each.
#[derive(Debug)]
pub(super) struct PeerMap<T> {
    heads: Vec<u64>,
    entries: Vec<Entry<T>>,
}

#[derive(Debug)]
#[repr(C, align(64))]
struct Entry<T> {
    id: PeerId,
    value: T,
}

impl<T> Default for PeerMap<T> {
    fn default() -> Self {
        PeerMap { heads: Vec::new(), entries: Vec::new() }
    }
}

impl<T> PeerMap<T> {
    /// Adds a peer, or replaces what is known of it.
    pub(super) fn insert(&mut self, peer: PeerId, value: T) {
        match self.place_of(&peer) {
            Ok(at) => self.entries[at].value = value,
            Err(at) => self.insert_at(at, peer, value),
        }
    }

    /// Takes a peer out.
    pub(super) fn remove(&mut self, peer: &PeerId) -> Option<T> {
        let at = self.place_of(peer).ok()?;
        self.heads.remove(at);
        Some(self.entries.remove(at).value)
    }

    /// What is known of a peer.
    pub(super) fn get(&self, peer: &PeerId) -> Option<&T> {
        self.place_of(peer).ok().map(|at| &self.entries[at].value)
    }

    /// What is known of a peer.
    pub(super) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut T> {
        self.place_of(peer).ok().map(|at| &mut self.entries[at].value)
    }

    /// What is known of a peer, and its place. The search begins at a place: who goes through peers in order gives that of the
    /// one before.
    pub(super) fn find_from(&mut self, from: usize, peer: &PeerId) -> Option<(usize, &mut T)> {
        let head = head_of(peer);
        let is_before = |at: usize| self.heads.get(at).is_some_and(|&other| other < head);
        let mut at = from;
        while is_before(at) {
            at += 1;
        }
        if self.entries.get(at).is_none_or(|entry| entry.id != *peer) {
            at = self.place_of(peer).ok()?;
        }
        Some((at, &mut self.entries[at].value))
    }

    /// What is known of a peer, which is added if it is not there.
    pub(super) fn get_or_default(&mut self, peer: PeerId) -> &mut T
    where
        T: Default,
    {
        let at = self.place_of(&peer).unwrap_or_else(|at| {
            self.insert_at(at, peer, T::default());
            at
        });
        &mut self.entries[at].value
    }

    /// Whether a peer is there.
    pub(super) fn contains_key(&self, peer: &PeerId) -> bool {
        self.place_of(peer).is_ok()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Who they are.
    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = &PeerId> {
        self.entries.iter().map(|entry| &entry.id)
    }

    /// What is known of them.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|entry| &entry.value)
    }

    /// What is known of them.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|entry| &mut entry.value)
    }

    /// Both.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &T)> {
        self.entries.iter().map(|entry| (&entry.id, &entry.value))
    }

    fn insert_at(&mut self, at: usize, peer: PeerId, value: T) {
        if self.entries.len() == self.entries.capacity() {
            self.heads.reserve_exact(GROWTH);
            self.entries.reserve_exact(GROWTH);
        }
        self.heads.insert(at, head_of(&peer));
        self.entries.insert(at, Entry { id: peer, value });
    }

    /// Where a peer is, or where it would be.
    fn place_of(&self, peer: &PeerId) -> Result<usize, usize> {
        let head = head_of(peer);
        let first = self.heads.partition_point(|&other| other < head);
        let same = self.heads[first..].iter().take_while(|&&other| other == head).count();
        let found = self.entries[first..first + same].binary_search_by_key(peer, |entry| entry.id);
        found.map(|at| first + at).map_err(|at| first + at)
    }
}

/// The first eight bytes, which have the order of the ids.
fn head_of(peer: &PeerId) -> u64 {
    let (head, _) = peer.as_bytes().split_first_chunk().expect("an id is longer than a number");
    u64::from_be_bytes(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_found_and_stand_in_order_also_if_their_ids_begin_alike() {
        let peer = |first: u8, last: u8| {
            let mut bytes = [0; 32];
            (bytes[0], bytes[31]) = (first, last);
            PeerId::from_bytes(bytes)
        };
        let mut map = PeerMap::default();
        for (first, last) in [(2, 1), (1, 3), (1, 1), (3, 0), (1, 2)] {
            map.insert(peer(first, last), (first, last));
        }
        *map.get_or_default(peer(1, 2)) = (9, 9);
        assert_eq!(map.remove(&peer(1, 1)), Some((1, 1)));
        assert_eq!((map.get(&peer(1, 1)), map.get(&peer(1, 0)), map.contains_key(&peer(2, 1))), (None, None, true));
        assert_eq!(map.values().copied().collect::<Vec<_>>(), [(9, 9), (1, 3), (2, 1), (3, 0)]);
        assert!(map.keys().is_sorted() && map.len() == 4);
        let mut found_from = |from, first, last| map.find_from(from, &peer(first, last)).map(|(at, _)| at);
        assert_eq!([found_from(0, 2, 1), found_from(2, 3, 0), found_from(3, 1, 3)], [Some(2), Some(3), Some(1)]);
        assert_eq!((found_from(0, 2, 2), found_from(4, 1, 2)), (None, Some(0)));
    }
}
