//! Bugs that can be switched on, to see whether `drover-sim check` finds them.
//!
//! Only with the cargo feature `planted`, which no daemon has and nothing turns on by default: without it [`is_planted`] is
//! the constant `false`, and the compiler takes every planted bug out. With it a thread plants one bug at a time, for
//! itself only.

/// A bug. Each says what goes wrong, and is planted where its name is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bug {
    /// A checkpoint does not sync the data.
    SkipDataSync,
    /// A record is not synced.
    SkipJournalSync,
    /// A record is written before its data is synced.
    RecordBeforeSync,
    /// Chunks are kept after a sync that failed.
    KeepAfterFailedSync,
    /// A record whose tag is wrong is believed.
    IgnoreTag,
    /// The folder is not synced after a file was renamed in it.
    SkipRenameSync,
    /// A file is renamed before its bytes are synced.
    RenameBeforeSync,
    /// A master is sealed without syncing the folders that it moved between.
    SealUnsynced,
    /// A chunk that can't be read any more is still claimed by the journal.
    ForgetRevoke,
    /// A chunk is held though the disk did not take it.
    HoldUnwritten,
    /// The length of a new file is not synced.
    ForgetLength,
    /// A release with a lower version is accepted.
    VersionGoesBack,
    /// A release counts though it could not be kept.
    UseBeforeKept,
    /// A delta begins one piece too late.
    DeltaOffByOne,
    /// A manifest is taken whatever its id is.
    SkipManifestId,
    /// Two hosts talk though they have no version in common.
    IgnoreVersions,
    /// A chunk is stored without being verified.
    SkipVerify,
    /// A chunk is sent without asking whether it is held.
    ServeUnheld,
    /// A wrong chunk is dropped without telling who sent it.
    ForgetStrike,
    /// The end of a serve is not told.
    NeverReleaseSlot,
    /// A cancelled request is served all the same.
    IgnoreCancel,
    /// The end of a connection is not told.
    ForgetDisconnect,
    /// Chunks that the disk lost are not told.
    ForgetLost,
    /// A chunk counts as stored before it is written.
    AnnounceBeforeWrite,
    /// After a full disk has room again nothing is asked for.
    NeverResume,
    /// A peer that somebody names is kept though there is no room for it.
    KeepEveryHint,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 26] = [
        Bug::SkipDataSync,
        Bug::SkipJournalSync,
        Bug::RecordBeforeSync,
        Bug::KeepAfterFailedSync,
        Bug::IgnoreTag,
        Bug::SkipRenameSync,
        Bug::RenameBeforeSync,
        Bug::SealUnsynced,
        Bug::ForgetRevoke,
        Bug::HoldUnwritten,
        Bug::ForgetLength,
        Bug::VersionGoesBack,
        Bug::UseBeforeKept,
        Bug::DeltaOffByOne,
        Bug::SkipManifestId,
        Bug::IgnoreVersions,
        Bug::SkipVerify,
        Bug::ServeUnheld,
        Bug::ForgetStrike,
        Bug::NeverReleaseSlot,
        Bug::IgnoreCancel,
        Bug::ForgetDisconnect,
        Bug::ForgetLost,
        Bug::AnnounceBeforeWrite,
        Bug::NeverResume,
        Bug::KeepEveryHint,
    ];
}

#[cfg(feature = "planted")]
std::thread_local! {
    static PLANTED: core::cell::Cell<Option<Bug>> = const { core::cell::Cell::new(None) };
}

/// Plants a bug for this thread, or takes out the one that is planted.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this thread has this bug.
#[cfg(feature = "planted")]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Never.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}
