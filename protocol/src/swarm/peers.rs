//! The neighbours, by who they are, in the order of their ids.
//!
//! A swarm has some tens of them and looks at all of them many times a second. So the ids lie in a row, to be found by
//! bisection, and the neighbours in another, to be walked through; a tree would be neither shorter nor faster.

use crate::id::PeerId;

use super::peer::Peer;

/// All neighbours.
#[derive(Debug, Default)]
pub(super) struct Peers {
    ids: Vec<PeerId>,
    neighbours: Vec<Peer>,
}

impl Peers {
    /// Adds a neighbour, or replaces it.
    pub(super) fn insert(&mut self, peer: PeerId, neighbour: Peer) {
        match self.ids.binary_search(&peer) {
            Ok(at) => self.neighbours[at] = neighbour,
            Err(at) => {
                self.ids.insert(at, peer);
                self.neighbours.insert(at, neighbour);
            }
        }
    }

    /// Takes a neighbour out.
    pub(super) fn remove(&mut self, peer: &PeerId) -> Option<Peer> {
        let at = self.ids.binary_search(peer).ok()?;
        self.ids.remove(at);
        Some(self.neighbours.remove(at))
    }

    /// A neighbour.
    pub(super) fn get(&self, peer: &PeerId) -> Option<&Peer> {
        self.ids.binary_search(peer).ok().map(|at| &self.neighbours[at])
    }

    /// A neighbour.
    pub(super) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Peer> {
        self.ids.binary_search(peer).ok().map(|at| &mut self.neighbours[at])
    }

    /// Whether somebody is a neighbour.
    pub(super) fn contains_key(&self, peer: &PeerId) -> bool {
        self.ids.binary_search(peer).is_ok()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Who they are.
    pub(super) fn keys(&self) -> impl Iterator<Item = &PeerId> {
        self.ids.iter()
    }

    /// What is known of them.
    pub(super) fn values(&self) -> impl Iterator<Item = &Peer> {
        self.neighbours.iter()
    }

    /// What is known of them.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.neighbours.iter_mut()
    }

    /// Both.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.ids.iter().zip(&self.neighbours)
    }
}
