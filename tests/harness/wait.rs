//! Waiting for a condition, never for a time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// A deadline for what moves masters: far beyond what it takes on a loaded two-core machine.
pub const LONG: Duration = Duration::from_secs(180);

/// Polls `look` until it gives something, and gives that. Fails after `deadline`, naming `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Polls `look` until `good` holds of what it gives. Fails after `deadline`, showing what was seen last.
#[track_caller]
pub fn wait_until<T: Debug>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> T,
    good: impl Fn(&T) -> bool,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        let seen = look();
        if good(&seen) {
            return seen;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain for: {what}; last seen: {seen:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
