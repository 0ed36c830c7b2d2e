//! What is said of where peers are, by whom, and what of it is worth a try.
//!
//! Trackers, other peers, the cluster's hash table, the settings and former days name peers and addresses. All of that is
//! hints, and each source may lie: name the wrong addresses, dead ones, thousands at a time, or what was true yesterday.
//! Whoever answers proves by certificate who it is, so that a lie costs time and nothing else. How much time, is decided
//! here: every list is bounded, no source takes more of one than the others leave it, what dialling showed outranks what
//! was said, and what waits for an answer holds up nothing else.
//!
//! [`Candidates`] are peers that may have to do with an image, [`AddressBook`] knows where peers are, [`Strangers`] are
//! addresses without a name. Each is a part of a driver or of a machine, and asks for nothing by itself.

use core::time::Duration;

mod addresses;
mod candidates;
mod source;
mod strangers;

pub use addresses::{AddressBook, BOOK_MOST, DIAL_STAGGER, KnownAddress, KnownHost};
pub use candidates::{CANDIDATES_MOST, Candidates, DIALS_MOST};
pub use source::Source;
pub use strangers::{FIND_LEAST, FIND_MOST, FOUND_MOST, LookupPace, STRANGERS_MOST, Strangers, TRACKERS_FIRST};

/// Neighbours below which a swarm is helped by whatever else may name some.
pub const FEW_NEIGHBOURS: usize = 4;
/// Candidates that are asked for the manifest at the same time: one of them may be slow or lie.
pub const MANIFEST_ASKED_AT_ONCE: usize = 3;
/// One that does not have it may have it soon, and is asked again after this time.
pub const MANIFEST_ASK_AGAIN: Duration = Duration::from_secs(1);
