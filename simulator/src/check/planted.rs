//! The check is checked: bugs are planted one by one, and must be found.

use drover_protocol::planted::{Bug, plant};

use super::run_seed;

/// How a planted bug was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Which.
    pub bug: Bug,
    /// How many seeds it took; `None` if none of them found it.
    pub seeds: Option<u64>,
    /// What was found wrong.
    pub violation: String,
}

/// Runs seeds from `first` on with a bug planted, until one finds it, but at most so many.
pub fn find(bug: Bug, first: u64, most: u64) -> Found {
    plant(Some(bug));
    let found = (0..most).find_map(|count| {
        let outcome = run_seed(first + count, false);
        outcome.violation.map(|violation| (count + 1, violation))
    });
    plant(None);
    match found {
        Some((seeds, violation)) => Found { bug, seeds: Some(seeds), violation },
        None => Found { bug, seeds: None, violation: String::new() },
    }
}
