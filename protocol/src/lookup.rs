//! Under which keys hosts are found in the cluster's distributed hash table.
//!
//! A key is a keyed hash of what is sought, with a secret that only members of the cluster know: who listens to the
//! table, or stands in it, learns neither which images exist nor what they are called, and can't ask for one. Releases are
//! kept there as [items](crate::item), by a secret of their name.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::ImageId;
use crate::release::Name;

/// Length of a key, as BEP 5 has it.
pub const KEY_LEN: usize = 20;

/// Length of what questions to nodes begin with.
pub const PASS_LEN: usize = 8;

/// What all members of a cluster know and nobody else does. It protects no content: who has it can find hosts, not join
/// them.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSecret([u8; 32]);

/// What finds and opens the releases of one name in the table, and nothing else. Whoever is to sign one needs it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameSecret([u8; 32]);

impl ClusterSecret {
    /// The secret that these bytes are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        ClusterSecret(bytes)
    }

    /// As bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Where hosts that exchange an image are found.
    pub fn key_of_image(&self, image: ImageId) -> [u8; KEY_LEN] {
        self.key(b"image", image.as_bytes())
    }

    /// Where any host of the cluster is found.
    pub fn key_of_cluster(&self) -> [u8; KEY_LEN] {
        self.key(b"hosts", &[])
    }

    /// What questions to nodes of the table begin with: a node hears no others.
    pub fn pass(&self) -> [u8; PASS_LEN] {
        first(&keyed(&self.0, b"nodes", &[]))
    }

    /// By what the releases of a name are found.
    pub fn of_name(&self, name: &Name) -> NameSecret {
        NameSecret(keyed(&self.0, b"names", name.as_str().as_bytes()))
    }

    fn key(&self, kind: &[u8; 5], what: &[u8]) -> [u8; KEY_LEN] {
        first(&keyed(&self.0, kind, what))
    }
}

impl NameSecret {
    /// As bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Which of a publisher's items are of this name.
    pub fn salt(&self) -> [u8; KEY_LEN] {
        first(&keyed(&self.0, b"salt", &[]))
    }

    /// What the values of these items are sealed with.
    pub(crate) fn sealing_key(&self) -> [u8; 32] {
        keyed(&self.0, b"seal", &[])
    }

    /// The nonce that a release is sealed with.
    pub(crate) fn nonce(&self, release: &[u8]) -> [u8; 12] {
        first(&keyed(&self.0, b"nonce", release))
    }
}

fn keyed(key: &[u8; 32], kind: &[u8], what: &[u8]) -> [u8; 32] {
    blake3::Hasher::new_keyed(key).update(kind).update(what).finalize().into()
}

fn first<const LEN: usize>(hash: &[u8; 32]) -> [u8; LEN] {
    core::array::from_fn(|at| hash[at])
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

impl fmt::Debug for NameSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_image_by_kind_and_by_cluster_and_show_nothing_of_the_image() {
        let image = ImageId::from_bytes([7; 32]);
        let (ours, theirs) = (ClusterSecret::from_bytes([1; 32]), ClusterSecret::from_bytes([2; 32]));
        let keys = [
            ours.key_of_image(image),
            ours.key_of_image(ImageId::from_bytes([8; 32])),
            ours.key_of_cluster(),
            theirs.key_of_image(image),
            theirs.key_of_cluster(),
            ours.of_name(&"golden".parse().unwrap()).salt(),
            ours.of_name(&"silver".parse().unwrap()).salt(),
            theirs.of_name(&"golden".parse().unwrap()).salt(),
        ];
        assert_ne!(ours.pass(), theirs.pass());
        assert!(keys.iter().all(|key| key[..PASS_LEN] != ours.pass()));
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "key {at}");
        }
        assert_eq!(format!("{ours:?}"), "ClusterSecret(..)", "a log must not tell it");
        assert_eq!(format!("{:?}", ours.of_name(&"golden".parse().unwrap())), "NameSecret(..)");
    }
}
