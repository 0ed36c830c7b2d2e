//! Moving a clone to another master so that the guest's disk is the same after a crash or on a full disk.
//!
//! `qemu-img rebase` is not used for more than the header. It copies what differs and names the new master before it has
//! written the tables that say where the copies are, and ends well though they did not fit on the disk (seen with QEMU
//! 10.0): what it copied is then lost, and the guest sees the new master there. Here the clone first takes what differs
//! from the old master, by qemu's copy-on-read, which changes nothing that the guest sees. Then both disks are compared, the
//! clone as it is and on the new master. Only then its header is changed.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;

use rustix::fs::fstatvfs;
use serde::Deserialize;
use serde_json::json;

use super::Qcow2;
use crate::handover::driver::{Driver, MakeError};
use crate::handover::record::CloneRecord;
use crate::handover::step::{self, Step};
use crate::handover::target::sync_file;
use crate::handover::tool::{Tool, ToolError};
use crate::handover::verify::Severity;
use crate::quantity::Bytes;

/// As much is taken by one command, in bytes: qemu-io has it in memory.
const TAKEN_AT_ONCE: u64 = 8 << 20;
/// Commands to one qemu-io, so that they fit on its command line.
const COMMANDS_MOST: usize = 4096;
/// Room beside what is taken: this for what the file system needs, and for each part a cluster of a table. A table's cluster is for
/// 256 MiB of the disk at the least, so that parts that are near to each other share it.
const ROOM_LEN: u64 = 4 << 20;
const TABLE_LEN: u64 = 128 << 10;
const OF_ONE_TABLE: u64 = 256 << 20;
/// What `qemu-img compare` ends with if the disks differ.
const COMPARE_DIFFERS: i32 = 1;

/// A part of a disk, as `qemu-img map` has it.
#[derive(Debug, Deserialize)]
struct Extent {
    start: u64,
    length: u64,
    depth: u64,
    data: bool,
}

impl Qcow2 {
    /// Moves a clone whose master and `master` differ in these parts, in bytes and in their order, to `master`.
    pub(super) fn move_apart(
        &self,
        record: &CloneRecord,
        differing: &[Range<u64>],
        master: &Path,
        being_moved: &File,
    ) -> Result<(), MakeError> {
        self.check_sound(record)?;
        let disk_len = self.info(&record.path)?.virtual_size;
        let within = differing.iter().map(|part| part.start..part.end.min(disk_len)).filter(|part| !part.is_empty());
        let lacking = without(within, &self.own_parts(&record.path)?);
        check_room(&record.path, &lacking)?;
        self.take(&record.path, &lacking, being_moved)?;
        // From here on the clone is the same on either master, whatever becomes of the header.
        sync_file(&record.path)?;
        self.compare(&record.path, master, being_moved)?;
        step::reach(Step::Taken);
        let marked = marked(being_moved)?;
        self.tool().run(|command| {
            command.stdin(marked);
            command.args(["rebase", "-u", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(master).arg(&record.path);
        })?;
        self.check_names(&record.path, master)?;
        Ok(sync_file(&record.path)?)
    }

    /// What is written into a clone whose own tables are wrong may come to lie over what the guest wrote.
    fn check_sound(&self, record: &CloneRecord) -> Result<(), MakeError> {
        let inspection = self.verify(record);
        let Some(fault) = inspection.findings.iter().find(|finding| finding.severity == Severity::Fault) else {
            return Ok(());
        };
        Err(MakeError::Refused(format!(
            "{}; mend it first (`qemu-img check -r all` on a copy of its file), or save what is needed of it",
            fault.text
        )))
    }

    /// What a clone has of its own, in its order.
    fn own_parts(&self, path: &Path) -> Result<Vec<Range<u64>>, MakeError> {
        let answer = self.tool().run(|command| {
            command.args(["map", "-f", "qcow2", "--output=json"]).arg(path);
        })?;
        let extents: Vec<Extent> = serde_json::from_str(&answer).map_err(|e| self.tool().nonsense(e))?;
        let own = extents.into_iter().filter(|extent| extent.depth == 0 && extent.data);
        Ok(own.map(|extent| extent.start..extent.start + extent.length).collect())
    }

    /// Has a clone take these parts from what it rests on, except where it has its own.
    fn take(&self, path: &Path, parts: &[Range<u64>], being_moved: &File) -> Result<(), MakeError> {
        let io = Tool { program: &self.tools.qemu_io, ..self.tool() };
        for parts in in_pieces(parts).chunks(COMMANDS_MOST) {
            let marked = marked(being_moved)?;
            let taken = io.run(|command| {
                command.stdin(marked).args(["-C", "-f", "qcow2"]);
                for part in parts {
                    command.arg("-c").arg(format!("read -q {} {}", part.start, part.end - part.start));
                }
                command.args(["-c", "flush"]).arg(path);
            });
            taken.map_err(|e| match e {
                ToolError::Failed { said, .. } if said.contains("No space left on device") => MakeError::NoSpace,
                e => e.into(),
            })?;
        }
        Ok(())
    }

    /// Makes sure that a guest sees the same on the new master.
    fn compare(&self, path: &Path, master: &Path, being_moved: &File) -> Result<(), MakeError> {
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| {
                MakeError::Refused(format!("the path {} is no UTF-8, and qemu needs that", path.display()))
            })
        };
        let (path, master) = (text(path)?, text(master)?);
        let disk = json!({ "driver": "qcow2", "file": { "driver": "file", "filename": path } });
        let mut moved = disk.clone();
        moved["backing"] = json!({ "driver": "raw", "file": { "driver": "file", "filename": master } });
        let marked = marked(being_moved)?;
        let output = self.tool().output(|command| {
            // -U: it is one file, opened twice.
            command.stdin(marked).args(["compare", "-q", "-U"]).args([format!("json:{disk}"), format!("json:{moved}")]);
        })?;
        match output.status.code() {
            Some(0) => Ok(()),
            Some(COMPARE_DIFFERS) => Err(MakeError::Refused(
                "on the new master its disk would not be the same; nothing of it was changed. Please report this"
                    .to_owned(),
            )),
            _ => Err(self.tool().failure(&output).into()),
        }
    }
}

/// For a program that works on the clone to hold.
fn marked(being_moved: &File) -> Result<Stdio, MakeError> {
    being_moved.try_clone().map(Stdio::from).map_err(MakeError::io("mark the clone as being moved"))
}

/// Looks for room before anything is written: a host whose disk runs full stops other machines, too.
fn check_room(path: &Path, parts: &[Range<u64>]) -> Result<(), MakeError> {
    let file = File::open(path).map_err(MakeError::io("open the clone"))?;
    let room = fstatvfs(file.as_fd()).map_err(|e| MakeError::io("tell how much room there is")(e.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let taken: u64 = parts.iter().map(|part| part.end - part.start).sum();
    let tables = parts.iter().flat_map(|part| part.start / OF_ONE_TABLE..=(part.end - 1) / OF_ONE_TABLE);
    let tables = tables.collect::<BTreeSet<u64>>().len() as u64 * TABLE_LEN;
    if taken == 0 || taken + tables + ROOM_LEN <= free {
        return Ok(());
    }
    Err(MakeError::Refused(format!(
        "it would take {} from the old master in which the new one differs, and its file system has {} free",
        Bytes(taken),
        Bytes(free)
    )))
}

/// These parts, which come in their order, without those others.
fn without(parts: impl Iterator<Item = Range<u64>>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut others = others.iter().peekable();
    for part in parts {
        let mut start = part.start;
        while others.next_if(|other| other.end <= start).is_some() {}
        while let Some(other) = others.peek().filter(|other| other.start < part.end) {
            if start < other.start {
                left.push(start..other.start);
            }
            start = start.max(other.end);
            if other.end >= part.end {
                break;
            }
            others.next();
        }
        if start < part.end {
            left.push(start..part.end);
        }
    }
    left
}

/// The same in pieces of a length that one command takes.
fn in_pieces(parts: &[Range<u64>]) -> Vec<Range<u64>> {
    let pieces = |part: &Range<u64>| {
        let end = part.end;
        (part.start..end).step_by(TAKEN_AT_ONCE as usize).map(move |start| start..end.min(start + TAKEN_AT_ONCE))
    };
    parts.iter().flat_map(pieces).collect()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "they are parts of a disk")]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_parts_without_others() {
        let left = |parts: &[Range<u64>], others: &[Range<u64>]| without(parts.iter().cloned(), others);
        assert_eq!(left(&[0..10], &[]), [0..10]);
        assert_eq!(left(&[0..10, 20..30], &[5..25]), [0..5, 25..30]);
        assert_eq!(left(&[0..10], &[0..2, 4..6, 9..12]), [2..4, 6..9]);
        assert_eq!(left(&[10..20, 30..40], &[0..10, 20..30, 40..50]), [10..20, 30..40]);
        assert_eq!(left(&[10..20, 30..40], &[0..50]), []);
    }

    #[test]
    fn parts_are_taken_in_pieces_that_cover_them() {
        assert_eq!(
            in_pieces(&[0..1, 5..5 + 2 * TAKEN_AT_ONCE + 1]),
            [
                0..1,
                5..5 + TAKEN_AT_ONCE,
                5 + TAKEN_AT_ONCE..5 + 2 * TAKEN_AT_ONCE,
                5 + 2 * TAKEN_AT_ONCE..6 + 2 * TAKEN_AT_ONCE
            ]
        );
    }
}
