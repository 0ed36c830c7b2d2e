//! Which files other programs have open, whether they lock them or not.
//!
//! Of the programs that have a disk open only qemu locks it. The kernel tells of the others in `/proc/PID/fd`: to root of
//! all of them, to anybody else of their own. What only the kernel itself has open, such as what a loop device shows, is
//! not there. Programs of this very executable do not count: a child of ours that has not become another yet has a copy of
//! all that we have open.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs::{Metadata, read_dir, read_link};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};

/// What other programs have open: looked for when it is first asked for, once, since that takes a moment where there are
/// many of them.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    /// By device and inode number.
    seen: OnceCell<BTreeSet<(u64, u64)>>,
}

impl OpenFiles {
    /// Whether another program has the file of these facts open.
    pub(super) fn has(&self, facts: &Metadata) -> bool {
        self.seen.get_or_init(|| look().unwrap_or_default()).contains(&(facts.dev(), facts.ino()))
    }
}

fn look() -> io::Result<BTreeSet<(u64, u64)>> {
    let own = read_link("/proc/self/exe")?;
    let processes = read_dir("/proc")?.flatten().map(|process| process.path());
    // What is no process, ends meanwhile, or is somebody else's, has nothing open that can be seen.
    let others = processes.filter(|process| read_link(process.join("exe")).is_ok_and(|program| program != own));
    let opened = others.filter_map(|process| read_dir(process.join("fd")).ok()).flatten().flatten();
    Ok(opened.filter_map(|opened| identity(&opened.path())).collect())
}

/// The file that an entry of `/proc/PID/fd` leads to. A server that does not answer is not waited for.
fn identity(opened: &Path) -> Option<(u64, u64)> {
    let facts = statx(CWD, opened, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    Some((makedev(facts.stx_dev_major, facts.stx_dev_minor), facts.stx_ino))
}
