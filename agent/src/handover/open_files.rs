//! Which files other programs have open, whether they lock them or not.
//!
//! Of the programs that have a disk open only qemu locks it. The kernel tells of the others in `/proc/PID/fd`: to root of
//! all of them, to anybody else of their own. What only the kernel itself has open is not there; of what loop devices show,
//! as Xen has it for raw disks, `losetup` tells, by the file itself and not by a path, which may lead nowhere from here by
//! now. Programs of this very executable do not count: a child of ours that has not become another yet has a copy of all
//! that we have open.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs::{Metadata, read_dir, read_link};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};

use super::tool::{Tool, Tools};

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
        let look = || look().unwrap_or_default().into_iter().chain(shown_by_loops()).collect();
        self.seen.get_or_init(look).contains(&(facts.dev(), facts.ino()))
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

/// The files that loop devices show, as far as this process may ask for them.
fn shown_by_loops() -> BTreeSet<(u64, u64)> {
    let losetup = Tool { program: &Tools::default().losetup, advice: "" };
    let listed = losetup.run(|command| {
        command.args(["--list", "--noheadings", "--output", "BACK-INO,BACK-MAJ:MIN"]);
    });
    listed.unwrap_or_default().lines().filter_map(shown_file).collect()
}

/// The file in a line such as `10010743 254:0`.
fn shown_file(line: &str) -> Option<(u64, u64)> {
    let (inode, device) = line.trim().split_once(char::is_whitespace)?;
    let (major, minor) = device.trim().split_once(':')?;
    Some((makedev(major.parse().ok()?, minor.parse().ok()?), inode.parse().ok()?))
}

/// The file that an entry of `/proc/PID/fd` leads to. A server that does not answer is not waited for.
fn identity(opened: &Path) -> Option<(u64, u64)> {
    let facts = statx(CWD, opened, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    Some((makedev(facts.stx_dev_major, facts.stx_dev_minor), facts.stx_ino))
}
