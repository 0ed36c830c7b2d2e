//! Clones as qcow2 files that hold the differences, with the master as their backing file: `qemu-img`.
//!
//! Formats are always named, of the clone and of its backing file, never guessed: a guest can write anything into its
//! disk, also what looks like a header. qemu's own check is blind to a changed master; that is looked at elsewhere. A
//! clone that a virtual machine has open is locked by qemu, which makes its check fail: that is told apart from damage.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::Deserialize;

use super::choice::{DriverName, Profile};
use super::copy::write_sparse;
use super::driver::{
    Driver, Inspection, Job, Made, MakeError, Site, Unusable, refuse_in_place, refuse_pool, refuse_room,
};
use super::master::is_one_file;
use super::open_files::OpenFiles;
use super::record::CloneRecord;
use super::target::{self, Target, make_empty, sync_file};
use super::tool::{Tool, ToolError, Tools, said};
use super::verify::{Finding, in_use, is_locked};
use crate::quantity::Bytes;

mod moving;

const ADVICE: &str = "install it (Debian and Ubuntu: apt-get install qemu-utils)";
const INSTEAD: &str = "choose --driver copy";
/// The first version that looks into a file which a machine has open (`info -U`). It also knows all else that is asked of
/// it, such as naming the format of a backing file.
const FIRST_USABLE: (u32, u32) = (2, 10);
/// The first version of qemu that reads and writes subclusters.
const FIRST_WITH_SUBCLUSTERS: (u32, u32) = (5, 2);
/// The longest name of a backing file, in bytes, as qcow2 has it.
const LONGEST_NAME: u32 = 1023;
/// Where a qcow2 header has the number of snapshots inside.
const SNAPSHOT_COUNT_AT: u64 = 60;
/// What `qemu-img check` ends with.
const CHECK_DAMAGED: i32 = 2;
const CHECK_LEAKS: i32 = 3;

/// Makes clones by `qemu-img`.
#[derive(Debug)]
pub(super) struct Qcow2 {
    tools: Tools,
    /// Asked for once: starting a program costs more than a clone.
    version: OnceLock<String>,
    /// The last clone as it was made. A fresh one has nothing of its own in it, so the next with the same master, layout and
    /// length has the same bytes.
    fresh: Mutex<Option<Fresh>>,
}

/// What a clone is before anybody wrote to it.
#[derive(Debug)]
struct Fresh {
    master: PathBuf,
    disk_len: u64,
    profile: Profile,
    bytes: Vec<u8>,
}

impl Fresh {
    fn is_like(&self, other: &Fresh) -> bool {
        (&self.master, self.disk_len, self.profile) == (&other.master, other.disk_len, other.profile)
    }
}

/// What `qemu-img info` says of an image, as far as it is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    format: String,
    virtual_size: u64,
    full_backing_filename: Option<String>,
    backing_filename_format: Option<String>,
    format_specific: Option<FormatSpecific>,
}

#[derive(Debug, Deserialize)]
struct FormatSpecific {
    data: Qcow2Data,
}

#[derive(Debug, Deserialize)]
struct Qcow2Data {
    #[serde(default)]
    corrupt: bool,
}

/// What `qemu-img check` counts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Check {
    corruptions: u64,
    leaks: u64,
}

impl Qcow2 {
    pub(super) fn new(tools: Tools) -> Qcow2 {
        Qcow2 { tools, version: OnceLock::new(), fresh: Mutex::default() }
    }

    fn tool(&self) -> Tool<'_> {
        Tool { program: &self.tools.qemu_img, advice: ADVICE }
    }

    /// The version of qemu-img, as `10.0.2`.
    fn version(&self) -> Result<String, ToolError> {
        if let Some(version) = self.version.get() {
            return Ok(version.clone());
        }
        let answer = self.tool().run(|command| {
            command.arg("--version");
        })?;
        let version = answer.strip_prefix("qemu-img version ").and_then(|rest| rest.split_whitespace().next());
        let version = version.ok_or_else(|| self.tool().nonsense("its --version names none"))?;
        Ok(self.version.get_or_init(|| version.to_owned()).clone())
    }

    fn create_by_tool(&self, job: &Job<'_>, site: &Site<'_>, profile: Profile) -> Result<(), MakeError> {
        let options = match profile {
            Profile::Compat => "cluster_size=64k",
            Profile::Fast => "extended_l2=on,cluster_size=128k",
        };
        let being_made = site.being_made.try_clone().map_err(MakeError::io("mark the clone as being made"))?;
        let arguments = |command: &mut Command| {
            command.stdin(being_made);
            command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-o", options, "-b"]);
            command.arg(&job.master.path).arg(site.temporary).arg(job.disk_len.to_string());
        };
        self.tool().run(arguments).map(drop).map_err(|e| match e {
            ToolError::Failed { said, .. } if said.contains("No space left on device") => MakeError::NoSpace,
            e => e.into(),
        })
    }

    /// Makes sure that the program did what it says that it did.
    fn check_names(&self, path: &Path, master: &Path) -> Result<(), MakeError> {
        let named = backing_of(path).map_err(MakeError::io("read the header that qemu-img wrote"))?;
        if named.as_deref() == Some(master.as_os_str().as_bytes()) {
            return Ok(());
        }
        Err(self.tool().nonsense("it says that all went well, and the file does not name the master").into())
    }

    fn info(&self, path: &Path) -> Result<Info, ToolError> {
        // -U: a running machine's lock is no reason not to read the header.
        let answer = self.tool().run(|command| {
            command.args(["info", "-U", "-f", "qcow2", "--output=json"]).arg(path);
        })?;
        serde_json::from_str(&answer).map_err(|e| self.tool().nonsense(e))
    }

    fn inspect_header(&self, record: &CloneRecord, findings: &mut Vec<Finding>) {
        let info = match self.info(&record.path) {
            Ok(info) => info,
            Err(e @ ToolError::Failed { .. }) => return findings.push(Finding::fault(format!("no qcow2 file: {e}"))),
            Err(e) => return findings.push(Finding::doubt(format!("the clone could not be looked into: {e}"))),
        };
        if info.format != "qcow2" {
            findings.push(Finding::fault(format!("its format is {}, recorded is qcow2", info.format)));
        }
        let moving_to = record.moving_to.as_ref().map(|moving_to| &moving_to.master.path);
        let masters = || moving_to.into_iter().chain([&record.master.path]);
        let is_its = |backing: &String| masters().any(|master| is_one_file(Path::new(backing), master));
        if !info.full_backing_filename.as_ref().is_some_and(is_its) {
            let backing = info.full_backing_filename.as_deref().unwrap_or("none");
            let recorded = record.master.path.display();
            findings.push(Finding::fault(format!("its backing file is {backing}, recorded is {recorded}")));
        }
        if info.backing_filename_format.as_deref() != Some("raw") {
            let format = info.backing_filename_format.as_deref().unwrap_or("not named");
            findings.push(Finding::fault(format!("the format of its backing file is {format}, it must be raw")));
        }
        if info.virtual_size < record.disk_len {
            let (now, recorded) = (info.virtual_size, record.disk_len);
            findings.push(Finding::fault(format!("its disk is {now} bytes long, recorded are {recorded}")));
        }
        if info.format_specific.is_some_and(|specific| specific.data.corrupt) {
            findings.push(Finding::fault("qemu has marked it corrupt".to_owned()));
        }
    }

    /// Checks the clone's inner consistency, or says that it can't because the clone is in use.
    fn inspect_clusters(&self, path: &Path, findings: &mut Vec<Finding>) -> bool {
        let output = self.tool().output(|command| {
            command.args(["check", "-f", "qcow2", "--output=json"]).arg(path);
        });
        let unchecked = |e: ToolError| Finding::doubt(format!("its clusters could not be checked: {e}"));
        let output = match output {
            Ok(output) => output,
            Err(e) => {
                findings.push(unchecked(e));
                return false;
            }
        };
        let counts: Result<Check, _> = serde_json::from_slice(&output.stdout);
        findings.extend(match (output.status.code(), counts) {
            (Some(0), Ok(_)) => None,
            (Some(CHECK_DAMAGED), Ok(Check { corruptions, .. })) => {
                Some(Finding::fault(format!("qemu-img check finds {corruptions} corruptions in it")))
            }
            (Some(CHECK_LEAKS), Ok(Check { leaks, .. })) => Some(Finding::note(format!(
                "{leaks} clusters are allocated but not used; `qemu-img check -r leaks` frees them"
            ))),
            (Some(0 | CHECK_DAMAGED | CHECK_LEAKS), Err(e)) => Some(unchecked(self.tool().nonsense(e))),
            // Started a moment ago, after the look at the lock.
            _ if said(&output).contains("Is another process using the image") => return true,
            _ => Some(match self.tool().failure(&output) {
                ToolError::Failed { said, .. } => Finding::fault(format!("qemu-img check fails: {said}")),
                e => unchecked(e),
            }),
        });
        false
    }
}

impl Driver for Qcow2 {
    fn name(&self) -> DriverName {
        DriverName::Qcow2
    }

    fn note(&self) -> &'static str {
        "qcow2 file of differences with the master as backing file; for KVM, and Xen where it reads qcow2"
    }

    fn needs_master(&self) -> bool {
        true
    }

    fn unmovable(&self) -> Option<&'static str> {
        None
    }

    fn move_to(
        &self,
        record: &CloneRecord,
        differing: &[Range<u64>],
        master: &Path,
        being_moved: &File,
    ) -> Result<(), MakeError> {
        let snapshots = snapshots_in(&record.path).map_err(MakeError::io("look for snapshots in it"))?;
        if snapshots > 0 {
            return Err(MakeError::Refused(format!(
                "it has {snapshots} snapshots inside, and the disk would be moved from under them without taking them along; remove them (`qemu-img snapshot -l` names them, `-d` removes one) or keep the clone where it is"
            )));
        }
        self.move_apart(record, differing, master, being_moved)
    }

    fn names_base(&self, record: &CloneRecord) -> Option<bool> {
        let backing = backing_of(&record.path).ok()?;
        let moving_to = record.moving_to.as_ref().map(|moving_to| &moving_to.master);
        let mut masters = moving_to.into_iter().chain([&record.master]).map(|master| &master.path);
        let is_one = |backing: &[u8]| masters.any(|master| is_one_file(Path::new(OsStr::from_bytes(backing)), master));
        Some(backing.as_deref().is_some_and(is_one))
    }

    fn is_long_enough(&self, record: &CloneRecord) -> Option<bool> {
        let file = File::open(&record.path).ok()?;
        let len = file.metadata().ok()?.len();
        let header = Header::read(&file).ok()?;
        Some(header.is_none_or(|header| header.tables_end <= len && record.disk_len <= header.disk_len))
    }

    fn rests_on(&self, record: &CloneRecord) -> Result<PathBuf, MakeError> {
        let info = self.info(&record.path)?;
        let backing = info.full_backing_filename.ok_or_else(|| self.tool().nonsense("it names no backing file"))?;
        Ok(PathBuf::from(backing))
    }

    fn available(&self, target: &Target) -> Result<(), Unusable> {
        target.folder()?;
        let version = self.version().map_err(|e| e.unusable(INSTEAD))?;
        if major_minor(&version) < Some(FIRST_USABLE) {
            return Err(Unusable(format!(
                "qemu-img {version} is too old, 2.10 is the first that will do; install a newer one or {INSTEAD}"
            )));
        }
        Ok(())
    }

    fn probe(&self, job: &Job<'_>) -> Result<(), Unusable> {
        self.available(job.target)?;
        refuse_in_place(job, INSTEAD)?;
        refuse_room(self.name(), job)?;
        refuse_pool(self.name(), job)?;
        if job.master.path.to_str().is_none() {
            let master = job.master.path.display();
            return Err(Unusable(format!("the master's path ({master}) is no UTF-8 text, which qcow2 needs")));
        }
        let profile = job.profile.unwrap_or_default();
        if job.disk_len > longest(profile) {
            let (wanted, most) = (Bytes(job.disk_len), Bytes(longest(profile)));
            return Err(Unusable(format!(
                "a disk of {wanted} is too large: qcow2 of profile {profile} ends at {most}"
            )));
        }
        let version = self.version().map_err(|e| Unusable(e.to_string()))?;
        if job.profile == Some(Profile::Fast) && major_minor(&version) < Some(FIRST_WITH_SUBCLUSTERS) {
            return Err(Unusable(format!("profile fast needs qemu-img 5.2, this is {version}; use profile compat")));
        }
        Ok(())
    }

    fn create(&self, job: &Job<'_>, site: &Site<'_>) -> Result<Made, MakeError> {
        make_empty(site.temporary)?;
        let profile = job.profile.unwrap_or_default();
        let version = self.version()?;
        let wanted = Fresh { master: job.master.path.clone(), disk_len: job.disk_len, profile, bytes: Vec::new() };
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if !fresh.as_ref().is_some_and(|fresh| fresh.is_like(&wanted)) {
            self.create_by_tool(job, site, profile)?;
            self.check_names(site.temporary, &job.master.path)?;
            let bytes = std::fs::read(site.temporary).map_err(MakeError::io("read the new file"))?;
            // Another file: on XFS the program has its own take room by the megabyte.
            target::remove_file(site.temporary).map_err(MakeError::io("remove a file"))?;
            make_empty(site.temporary)?;
            *fresh = Some(Fresh { bytes, ..wanted });
        }
        // Also the one that the program made: most of what it wrote is zeros, which take room on the disk.
        if let Some(fresh) = &*fresh {
            let file = OpenOptions::new().write(true).truncate(true).open(site.temporary);
            let written = file.and_then(|file| write_sparse(&file, &fresh.bytes));
            written.map_err(MakeError::io("write the new file"))?;
        }
        drop(fresh);
        sync_file(site.temporary)?;
        Ok(Made { profile: Some(profile), tools: [("qemu-img".to_owned(), version)].into(), warnings: Vec::new() })
    }

    fn verify(&self, record: &CloneRecord) -> Inspection {
        let mut findings = Vec::new();
        if !record.path.is_file() {
            findings.push(Finding::fault(format!("there is no file at {}", record.path.display())));
            return Inspection { in_use: false, findings };
        }
        self.inspect_header(record, &mut findings);
        let locked = is_locked(&record.path) || self.inspect_clusters(&record.path, &mut findings);
        let in_use = locked || in_use(&record.path, &OpenFiles::default());
        Inspection { in_use, findings }
    }
}

/// The backing file that a file names in its header, if it is a qcow2 file and names one; without a program, since many may
/// be asked for.
fn backing_of(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    let mut header = [0; 20];
    match file.read_exact_at(&mut header, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    // Its magic number, the version, then where the name lies and how long it is.
    let at = u64::from_be_bytes(header[8..16].try_into().expect("eight bytes"));
    let len = u32::from_be_bytes(header[16..].try_into().expect("four bytes"));
    if !header.starts_with(b"QFI\xfb") || at == 0 || len > LONGEST_NAME {
        return Ok(None);
    }
    let mut name = vec![0; len as usize];
    file.read_exact_at(&mut name, at)?;
    Ok(Some(name))
}

/// What the header of a qcow2 file says of lengths, in bytes.
struct Header {
    /// The disk's.
    disk_len: u64,
    /// Where the tables end: the file can't be shorter.
    tables_end: u64,
}

impl Header {
    /// The header of a file, if it is a qcow2 file.
    fn read(file: &File) -> io::Result<Option<Header>> {
        let mut header = [0; 60];
        match file.read_exact_at(&mut header, 0) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let be32 = |at: usize| u64::from(u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes")));
        let be64 = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        // Of the first level: entries and offset. Of the counts: clusters, as a power of two, and offset.
        let first_level = be64(40).saturating_add(be32(36) * 8);
        let counts = be64(48).saturating_add(be32(56) << be32(20).min(31));
        let lens = Header { disk_len: be64(24), tables_end: first_level.max(counts) };
        Ok(header.starts_with(b"QFI\xfb").then_some(lens))
    }
}

/// How many snapshots a qcow2 file has inside, as its header says.
fn snapshots_in(path: &Path) -> io::Result<u32> {
    let mut count = [0; 4];
    File::open(path)?.read_exact_at(&mut count, SNAPSHOT_COUNT_AT)?;
    Ok(u32::from_be_bytes(count))
}

/// The longest disk in bytes: qemu takes 32 MiB of first-level table, and each of its 8-byte entries stands for a cluster of
/// second-level entries, of 8 bytes, or of 16 with subclusters, that stand for a cluster each.
const fn longest(profile: Profile) -> u64 {
    match profile {
        Profile::Compat => (4 << 20) * (64 << 10) / 8 * (64 << 10),
        Profile::Fast => (4 << 20) * (128 << 10) / 16 * (128 << 10),
    }
}

/// The first two numbers of a version.
fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}
