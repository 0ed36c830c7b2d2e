//! Clones as device-mapper snapshots: the master's file, read-only, as the origin, and a store file of differences.
//!
//! The clone's path is that of its store, and what a guest uses is `/dev/mapper/drover-CLONE`. The store is a sparse file
//! as large as it can ever get, so by default a clone can't overflow; how full the disk under it is, is the disk's matter.
//! The snapshot is persistent with overflow (`PO`): should a smaller store fill up all the same, reads go on and nothing
//! that was written before is lost, while with plain `P` the whole clone would be. Parameters and status words:
//! docs.kernel.org/admin-guide/device-mapper/snapshot.html.
//!
//! Both files are shown as block devices by loop devices that are told to go away by themselves once nobody has them open.
//! So they live exactly as long as the snapshot does, also if we are killed. What is left of a maker that was killed before
//! it told them so is known by its size limit, which is the length of the file: nobody else says what goes without saying. So
//! a device that somebody else shows the master by is left alone.
//!
//! A disk that is longer than the master gets a second mapping below: the master, and zeros behind it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::choice::DriverName;
use super::copy::refuse_long;
use super::driver::{
    Activity, Driver, Inspection, Job, Made, MakeError, Site, Unusable, refuse_in_place, refuse_pool, refuse_profile,
};
use super::open_files::OpenFiles;
use super::record::CloneRecord;
use super::step::{self, Step};
use super::target::{Target, make_empty};
use super::tool::{Tool, ToolError, Tools};
use super::usage::Usage;
use super::verify::Finding;

const ADVICE_DMSETUP: &str = "install it (Debian and Ubuntu: apt-get install dmsetup)";
const ADVICE_LOSETUP: &str = "install it (Debian and Ubuntu: apt-get install mount)";
const INSTEAD: &str = "choose another driver";
const SECTOR_LEN: u64 = 512;
/// Unit of copying on write, in sectors: what most guests' file systems write at least, so that nothing is copied that is
/// overwritten at once.
const CHUNK_SECTORS: u64 = 8;
const CHUNK_LEN: u64 = CHUNK_SECTORS * SECTOR_LEN;
/// Bytes of the store's books for each chunk.
const EXCEPTION_LEN: u64 = 16;
/// Where the kernel's interface is; there is none without device-mapper.
const CONTROL: &str = "/dev/mapper/control";

/// Makes clones by `dmsetup` and `losetup`.
#[derive(Debug)]
pub(super) struct Dm {
    tools: Tools,
}

impl Dm {
    pub(super) fn new(tools: Tools) -> Dm {
        Dm { tools }
    }

    fn dmsetup(&self) -> Tool<'_> {
        Tool { program: &self.tools.dmsetup, advice: ADVICE_DMSETUP }
    }

    fn losetup(&self) -> Tool<'_> {
        Tool { program: &self.tools.losetup, advice: ADVICE_LOSETUP }
    }

    /// Runs `dmsetup`; where no udev runs, nobody else would make the nodes.
    fn dm(&self, arguments: &[&str]) -> Result<String, ToolError> {
        self.dmsetup().run(|command: &mut Command| {
            command.args(arguments);
            if !Path::new("/run/udev/control").exists() {
                command.arg("--noudevsync").env("DM_DISABLE_UDEV", "1");
            }
        })
    }

    /// A device that shows a file, from now until [`Dm::let_go`] and for as long as it is open.
    fn attach(&self, file: &Path, read_only: bool) -> Result<PathBuf, ToolError> {
        let shown = self.losetup().run(|command| {
            command.args(["--find", "--show", "--sizelimit", &len_of(file).to_string()]);
            command.args(read_only.then_some("--read-only")).arg(file);
        })?;
        step::reach(Step::Attached);
        Ok(PathBuf::from(shown.trim()))
    }

    /// Has loop devices vanish once nobody has them open, which may be now.
    fn let_go(&self, devices: &[PathBuf]) -> Result<(), ToolError> {
        if devices.is_empty() {
            return Ok(());
        }
        let detach = |command: &mut Command| {
            command.arg("--detach").args(devices);
        };
        self.losetup().run(detach).map(drop)
    }

    /// Has the devices that show a file vanish, which a maker that was killed may have left. The others do so by themselves.
    fn let_go_of(&self, file: &Path) -> Result<(), ToolError> {
        let listed = self.losetup().run(|command| {
            command.args(["--noheadings", "--output", "NAME,AUTOCLEAR,SIZELIMIT", "--associated"]).arg(file);
        })?;
        self.let_go(&left_of_ours(&listed, len_of(file)))
    }

    /// The same of both files of a clone.
    fn let_go_of_files(&self, record: &CloneRecord) -> Result<(), ToolError> {
        for file in [&record.path, &record.master.path] {
            if file.exists() {
                self.let_go_of(file)?;
            }
        }
        Ok(())
    }

    /// The devices of all snapshots with what `dmsetup status` says of each.
    fn statuses(&self) -> BTreeMap<String, String> {
        let listed = self.dm(&["status", "--target", "snapshot"]).unwrap_or_default();
        let each = listed.lines().filter_map(|line| line.split_once(": "));
        each.map(|(name, status)| (name.to_owned(), status.to_owned())).collect()
    }

    fn is_there(&self, name: &str) -> Result<bool, ToolError> {
        let listed = self.dm(&["info", "--columns", "--noheadings", "--options", "name"])?;
        Ok(listed.lines().any(|line| line.trim() == name))
    }

    /// Whose device it is that has the clone's name. Another state folder may have a clone of the same name.
    fn holder(&self, record: &CloneRecord) -> Result<Holder, ToolError> {
        let name = device_name(record);
        if !self.is_there(&name)? {
            return Ok(Holder::Nobody);
        }
        // `0 LENGTH snapshot ORIGIN STORE PO 8`, devices by their numbers.
        let table = self.dm(&["table", &name])?;
        let store = table.split_whitespace().nth(4).unwrap_or_default();
        let shown = fs::read_to_string(format!("/sys/dev/block/{store}/loop/backing_file")).unwrap_or_default();
        let is_own = Path::new(shown.trim_end_matches('\n')) == record.path;
        Ok(if is_own { Holder::Clone } else { Holder::Other })
    }

    fn remove_device(&self, name: &str) -> Result<(), ToolError> {
        self.dm(&["remove", "--retry", name]).map(drop)
    }

    fn build(&self, record: &CloneRecord) -> Result<(), MakeError> {
        let name = device_name(record);
        let master = self.attach(&record.master.path, true)?;
        let store = match self.attach(&record.path, false) {
            Ok(store) => store,
            Err(e) => return self.give_up(&[master], e),
        };
        let attached = [master.clone(), store.clone()];
        let origin = if record.disk_len == record.master.file.len {
            master
        } else {
            let table = enlarged(&master, record.master.file.len, record.disk_len);
            if let Err(e) = self.dm(&["create", &origin_name(record), "--readonly", "--table", &table]) {
                return self.give_up(&attached, e);
            }
            Path::new("/dev/mapper").join(origin_name(record))
        };
        let table = format!(
            "0 {} snapshot {} {} PO {CHUNK_SECTORS}",
            record.disk_len / SECTOR_LEN,
            origin.display(),
            store.display()
        );
        if let Err(e) = self.dm(&["create", &name, "--table", &table]) {
            if self.is_there(&origin_name(record)).unwrap_or(false) {
                let _ = self.remove_device(&origin_name(record));
            }
            return self.give_up(&attached, e);
        }
        self.let_go(&attached)?;
        // Without udev nobody else makes the node.
        if !Path::new("/dev/mapper").join(&name).exists() {
            self.dm(&["mknodes", &name])?;
        }
        Ok(())
    }

    fn give_up(&self, attached: &[PathBuf], error: ToolError) -> Result<(), MakeError> {
        let _ = self.let_go(attached);
        Err(error.into())
    }
}

impl Driver for Dm {
    fn name(&self) -> DriverName {
        DriverName::Dm
    }

    fn note(&self) -> &'static str {
        "device-mapper snapshot: a block device without a format, with a store file of differences; needs root, and \
         `drover clone activate` after a reboot"
    }

    fn unmovable(&self) -> Option<&'static str> {
        Some("a snapshot is bound to its origin block by block; make a new clone of the other version")
    }

    fn needs_master(&self) -> bool {
        true
    }

    fn available(&self, target: &Target) -> Result<(), Unusable> {
        target.folder()?;
        if !Path::new(CONTROL).exists() {
            return Err(Unusable(format!(
                "this kernel has no device-mapper ({CONTROL} is not there): modprobe dm_mod"
            )));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Unusable("only root may make devices".to_owned()));
        }
        let unusable = |e: ToolError| e.unusable(INSTEAD);
        let version = |command: &mut Command| {
            command.arg("--version");
        };
        self.losetup().run(version).map_err(unusable)?;
        let targets = self.dm(&["targets"]).map_err(unusable)?;
        if targets.lines().any(|line| line.split_whitespace().next() == Some("snapshot")) {
            return Ok(());
        }
        // The kernel loads the target when it is first used, if it can.
        let loaded = Command::new("modprobe").args(["-q", "dm_snapshot"]).status();
        match loaded {
            Ok(status) if status.success() => Ok(()),
            _ => Err(Unusable("this kernel has no snapshot target: modprobe dm_snapshot".to_owned())),
        }
    }

    fn probe(&self, job: &Job<'_>) -> Result<(), Unusable> {
        refuse_profile(self.name(), job)?;
        refuse_pool(self.name(), job)?;
        refuse_in_place(job, "choose --driver copy")?;
        self.available(job.target)?;
        if !job.master.content_len.is_multiple_of(SECTOR_LEN) {
            return Err(Unusable(format!(
                "the master's {} bytes are no whole number of 512-byte sectors, and a block device would cut the last off",
                job.master.content_len
            )));
        }
        if job.room_len.is_some_and(|room| room < CHUNK_LEN) {
            return Err(Unusable(format!("a store with room for less than {CHUNK_LEN} bytes holds nothing")));
        }
        refuse_long(job.target.folder()?, store_len(room_len(job)))
    }

    fn device(&self, spec: &super::CloneSpec) -> Option<PathBuf> {
        Some(Path::new("/dev/mapper").join(format!("drover-{}", spec.name)))
    }

    fn create(&self, job: &Job<'_>, site: &Site<'_>) -> Result<Made, MakeError> {
        make_empty(site.temporary)?;
        let store = OpenOptions::new().write(true).open(site.temporary).map_err(MakeError::io("open the new file"))?;
        // Zeros, as a new file has them, are what the kernel takes for a store without differences.
        store.set_len(store_len(room_len(job))).map_err(MakeError::io("set the length of the new file"))?;
        store.sync_all().map_err(MakeError::io("sync the new file"))?;
        let version = self.dm(&["version"])?;
        let version = version.lines().find_map(|line| line.split_once(':')).map_or("", |(_, version)| version.trim());
        Ok(Made { tools: [("dmsetup".to_owned(), version.to_owned())].into(), ..Made::default() })
    }

    fn verify(&self, record: &CloneRecord) -> Inspection {
        let mut findings = Vec::new();
        if !record.path.is_file() {
            findings.push(Finding::fault(format!("there is no store at {}", record.path.display())));
            return Inspection { in_use: false, findings };
        }
        match self.activity(record) {
            Ok(Activity::Active) => {
                let name = device_name(record);
                let table = self.dm(&["table", &name]).unwrap_or_default();
                // The chunk length in the store wins over the table's.
                let fields: Vec<&str> = table.split_whitespace().collect();
                if fields.get(2) != Some(&"snapshot") || fields.get(5) != Some(&"PO") {
                    findings.push(Finding::fault(format!("its device is not the snapshot that was made: {table}")));
                }
                if let Some(usage) = self.statuses().get(&name).and_then(|status| usage_of(status)) {
                    findings.extend(usage.finding());
                }
            }
            Ok(_) => findings
                .push(Finding::note(format!("it has no device now: `drover clone activate {}` makes it", record.name))),
            Err(e) => findings.push(Finding::doubt(format!("its device could not be looked at: {e}"))),
        }
        Inspection { in_use: self.in_use(record, &OpenFiles::default()), findings }
    }

    fn in_use(&self, record: &CloneRecord, _opened: &OpenFiles) -> bool {
        let opens = self.dm(&["info", "--columns", "--noheadings", "--options", "open", &device_name(record)]);
        let is_open = opens.is_ok_and(|count| count.trim().parse::<u32>().is_ok_and(|count| count > 0));
        is_open && matches!(self.holder(record), Ok(Holder::Clone))
    }

    fn activity(&self, record: &CloneRecord) -> Result<Activity, MakeError> {
        match self.holder(record)? {
            Holder::Clone => Ok(Activity::Active),
            Holder::Nobody => Ok(Activity::Inactive),
            Holder::Other => Err(MakeError::Refused(format!(
                "there is a device {} that is not this clone's; choose another name for the clone",
                device_name(record)
            ))),
        }
    }

    fn activate(&self, record: &CloneRecord) -> Result<(), MakeError> {
        if self.activity(record)? == Activity::Active {
            return Ok(());
        }
        if !record.path.is_file() {
            return Err(MakeError::Refused(format!("there is no store at {}", record.path.display())));
        }
        // What one that was killed half-way left.
        if self.is_there(&origin_name(record))? {
            self.remove_device(&origin_name(record))?;
        }
        self.let_go_of_files(record)?;
        self.build(record)
    }

    fn deactivate(&self, record: &CloneRecord) -> Result<(), MakeError> {
        match self.holder(record)? {
            Holder::Clone => self.remove_device(&device_name(record))?,
            Holder::Nobody => {}
            // Nothing of it is this clone's.
            Holder::Other => return Ok(()),
        }
        if self.is_there(&origin_name(record))? {
            self.remove_device(&origin_name(record))?;
        }
        Ok(self.let_go_of_files(record)?)
    }

    fn usage(&self, records: &[&CloneRecord]) -> BTreeMap<String, Usage> {
        let statuses = self.statuses();
        let of =
            |record: &&CloneRecord| Some((record.name.to_string(), usage_of(statuses.get(&device_name(record))?)?));
        records.iter().filter_map(of).collect()
    }
}

/// The devices among those that `losetup` lists for a file of this length that we made and that stay.
fn left_of_ours(listed: &str, len: u64) -> Vec<PathBuf> {
    let is_left = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, autoclear, limit] = words[..] else { return None };
        (autoclear == "0" && limit == len.to_string()).then(|| PathBuf::from(name))
    };
    listed.lines().filter_map(is_left).collect()
}

/// How much of a clone can be written.
fn room_len(job: &Job<'_>) -> u64 {
    job.room_len.unwrap_or(job.disk_len).min(job.disk_len)
}

fn len_of(file: &Path) -> u64 {
    file.metadata().map_or(0, |facts| facts.len())
}

/// Whose a device is.
enum Holder {
    Nobody,
    Clone,
    Other,
}

fn device_name(record: &CloneRecord) -> String {
    format!("drover-{}", record.name)
}

fn origin_name(record: &CloneRecord) -> String {
    // No clone's name has a plus.
    format!("drover-{}+origin", record.name)
}

/// The table of a master with zeros behind it.
fn enlarged(master: &Path, master_len: u64, disk_len: u64) -> String {
    let (own, all) = (master_len / SECTOR_LEN, disk_len / SECTOR_LEN);
    format!("0 {own} linear {} 0\n{own} {} zero", master.display(), all - own)
}

/// How long a store must be for so many bytes of differences: a header, the chunks, their books, and one chunk more that the
/// kernel wants to see free.
pub(super) fn store_len(room_len: u64) -> u64 {
    let chunks = room_len.div_ceil(CHUNK_LEN);
    let books = (chunks * EXCEPTION_LEN).div_ceil(CHUNK_LEN).max(1);
    (1 + chunks + books + 1) * CHUNK_LEN
}

/// What a line of `dmsetup status` says of a snapshot: `START LENGTH snapshot USED/TOTAL METADATA`, or a word.
pub(super) fn usage_of(status: &str) -> Option<Usage> {
    let after = status.split_once(" snapshot ")?.1.trim();
    let fault = ["Invalid", "Overflow", "Merge failed"].into_iter().find(|word| after.starts_with(word));
    if fault.is_some() {
        return Some(Usage { of: "room", percent: 100.0, fault });
    }
    let (used, total) = after.split_whitespace().next()?.split_once('/')?;
    let (used, total): (f64, f64) = (used.parse().ok()?, total.parse().ok()?);
    (total > 0.0).then(|| Usage { of: "room", percent: used * 100.0 / total, fault: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_room_for_every_chunk_of_the_disk() {
        // 64 MiB are 16,384 chunks and 64 chunks of books.
        assert_eq!(store_len(64 << 20), (1 + 16_384 + 64 + 1) * 4096);
        assert_eq!(store_len(1), 4 * 4096);
    }

    #[test]
    fn only_devices_that_are_ours_and_stay_are_let_go() {
        let listed = "/dev/loop0       0 0\n/dev/loop1       1 4096\n/dev/loop12      0 4096\n/dev/loop3 0 512\n";
        assert_eq!(left_of_ours(listed, 4096), [Path::new("/dev/loop12")]);
    }

    #[test]
    fn status_lines_are_understood() {
        let usage = usage_of("0 131072 snapshot 24/32768 16").expect("numbers");
        assert!((usage.percent - 24.0 * 100.0 / 32768.0).abs() < 1e-9 && usage.fault.is_none());
        for word in ["Invalid", "Overflow", "Merge failed"] {
            assert_eq!(usage_of(&format!("0 131072 snapshot {word}")).expect("a word").fault, Some(word));
        }
        assert_eq!(usage_of("0 131072 linear 7:0 0"), None);
    }

    #[test]
    fn a_longer_disk_is_the_master_and_zeros() {
        let table = enlarged(Path::new("/dev/loop7"), 1 << 20, 4 << 20);
        assert_eq!(table, "0 2048 linear /dev/loop7 0\n2048 6144 zero");
    }
}
