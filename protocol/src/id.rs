//! Names of things that are 32 bytes long, and their text form: 64 lower-case hexadecimal digits.
//!
//! Each kind is a type of its own, so that an image id can't be passed where a peer is meant.

use core::fmt;
use core::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is no id: it must be 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is 64 lower-case hexadecimal digits, this is {0:?}")]
pub struct ParseIdError(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id of these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                $name(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first ten digits: enough for a person to tell two apart, not enough to name one.
            pub fn short(&self) -> String {
                HEXLOWER.encode(&self.0[..5])
            }
        }

        impl Ord for $name {
            /// The order of the bytes, eight at a time: nearly always the first eight decide.
            fn cmp(&self, other: &Self) -> core::cmp::Ordering {
                for (mine, its) in self.0.as_chunks::<8>().0.iter().zip(other.0.as_chunks::<8>().0) {
                    let order = u64::from_be_bytes(*mine).cmp(&u64::from_be_bytes(*its));
                    if order.is_ne() {
                        return order;
                    }
                }
                core::cmp::Ordering::Equal
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let refuse = || ParseIdError(text.chars().take(80).collect());
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| refuse())?;
                Ok($name(bytes.try_into().map_err(|_| refuse())?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    String::deserialize(from)?.parse().map_err(de::Error::custom)
                } else {
                    <[u8; 32]>::deserialize(from).map($name)
                }
            }
        }
    };
}

id!(
    /// BLAKE3 of a manifest's canonical bytes: the name of an image by what it is.
    ImageId
);
id!(
    /// BLAKE3 of the public key (DER SubjectPublicKeyInfo) in a member's certificate: who a host is, wherever it is.
    PeerId
);
id!(
    /// BLAKE3 of a chunk's bytes.
    ChunkHash
);
id!(
    /// BLAKE3 of a whole master: what `b3sum disk.raw` prints.
    ContentHash
);
id!(
    /// A publisher's Ed25519 public key.
    PublisherKey
);
