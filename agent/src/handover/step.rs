//! The moments in a clone's life after which a crash must leave it whole or gone.
//!
//! Builds with debug assertions end themselves by SIGKILL at the step that `DROVER_KILL_AT` names, which is how tests
//! see what a crash leaves, of this process's own work and of the programs that it runs. `STEP:N` is the Nth time that the
//! step is reached. In release builds reaching a step does nothing.

/// A moment after which a crash may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The records are durable, nothing else is there.
    Recorded,
    /// What several clones rest on exists, not yet under its own name.
    BaseMade,
    /// What several clones rest on has its name.
    BasePlaced,
    /// A clone exists under its temporary name.
    Made,
    /// All clones of a batch are said to be whole.
    Committed,
    /// The records say that the clones are whole.
    Ready,
    /// A clone has its own name.
    Placed,
    /// A loop device shows one of a clone's files.
    Attached,
    /// A clone's device is there.
    Activated,
    /// A clone that is being undone has its temporary name again.
    Unplaced,
    /// The records of clones that are being undone no longer say that they are whole.
    Unready,
    /// Nor does what said so of their batch.
    Uncommitted,
    /// Nothing is left of a clone that was not finished.
    Discarded,
    /// A clone's device is gone, its file or volume is not.
    Deactivated,
    /// A clone is gone, its record is not.
    Removed,
    /// A clone has taken from its old master what the new one lacks.
    Taken,
    /// A clone rests on its new master, its record says on the old one.
    Moved,
}

impl Step {
    /// The word for it in `DROVER_KILL_AT`.
    #[cfg(any(test, debug_assertions))]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Step::Recorded => "recorded",
            Step::BaseMade => "base-made",
            Step::BasePlaced => "base-placed",
            Step::Made => "made",
            Step::Committed => "committed",
            Step::Ready => "ready",
            Step::Placed => "placed",
            Step::Attached => "attached",
            Step::Activated => "activated",
            Step::Unplaced => "unplaced",
            Step::Unready => "unready",
            Step::Uncommitted => "uncommitted",
            Step::Discarded => "discarded",
            Step::Deactivated => "deactivated",
            Step::Removed => "removed",
            Step::Taken => "taken",
            Step::Moved => "moved",
        }
    }
}

#[cfg(not(debug_assertions))]
#[inline]
pub(super) const fn reach(_step: Step) {}

#[cfg(debug_assertions)]
pub(super) use deadly::reach;

#[cfg(debug_assertions)]
mod deadly {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::Step;

    /// Ends this process, if it is to end here.
    pub(in crate::handover) fn reach(step: Step) {
        static REACHED: AtomicU32 = AtomicU32::new(0);
        let Ok(wanted) = std::env::var("DROVER_KILL_AT") else { return };
        let (name, time) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        if name == step.as_str() && (REACHED.fetch_add(1, Ordering::Relaxed) + 1).to_string() == time {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}
