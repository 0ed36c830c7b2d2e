//! Clones as differencing VHDs: for Xen and Hyper-V.
//!
//! Their parent is a fixed VHD, which is the master with 512 bytes behind it. It lies in the same folder as its clones, a
//! reflink of the master where the file system has them and a sparse copy elsewhere, and is shared by all clones of that
//! master there. Its identity, its times and so all of its bytes follow from the image alone: every host makes the same,
//! and it can be checked like the master itself.
//!
//! qemu opens a differencing VHD without an error and reads zeros for all that the parent has, so such a clone is never
//! given to it.

pub(super) mod format;

use std::fs::{File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use drover_protocol::id::ImageId;
use rustix::fs::ioctl_ficlone;

use self::format::{EPOCH_UNIX_S, Footer, Kind, MAX_DISK_LEN, Parent, SECTOR_LEN, Uuid, child, parent_of};
use super::choice::DriverName;
use super::copy::{copy_data, refuse_full};
use super::driver::{
    Driver, Inspection, Job, Made, MakeError, Site, Unusable, refuse_pool, refuse_profile, refuse_room,
};
use super::open_files::OpenFiles;
use super::record::CloneRecord;
use super::reflink::can_share;
use super::step::{self, Step};
use super::target::{self, Target, TargetError, make_empty, place};
use super::verify::{Finding, in_use};

/// When all parents were made, as their bytes and file times say, in seconds since 2000.
const PARENT_TIME_S: u32 = 1;
const PARENT_MODE: u32 = 0o444;

/// Makes differencing VHDs.
#[derive(Debug)]
pub(super) struct Vhd;

impl Driver for Vhd {
    fn name(&self) -> DriverName {
        DriverName::Vhd
    }

    fn note(&self) -> &'static str {
        "differencing VHD beside a fixed VHD of the master in the same folder; for Xen and Hyper-V, never for qemu"
    }

    fn unmovable(&self) -> Option<&'static str> {
        Some("the parent of a differencing VHD can't be exchanged; make a new clone of the other version")
    }

    fn needs_master(&self) -> bool {
        false
    }

    fn available(&self, target: &Target) -> Result<(), Unusable> {
        target.folder()?;
        // Xen's programs read no other names.
        let path = target.path();
        if path.as_os_str().is_ascii() {
            return Ok(());
        }
        Err(Unusable(format!("the path of a VHD must be ASCII, {} is not; choose another path", path.display())))
    }

    fn probe(&self, job: &Job<'_>) -> Result<(), Unusable> {
        refuse_profile(self.name(), job)?;
        refuse_room(self.name(), job)?;
        refuse_pool(self.name(), job)?;
        self.available(job.target)?;
        if job.disk_len > MAX_DISK_LEN {
            let gib = job.disk_len.div_ceil(1 << 30);
            return Err(Unusable(format!("a VHD ends at 2040 GiB, this disk has {gib} GiB; use another driver")));
        }
        let folder = job.target.folder()?;
        let has_parent = self.base(job).is_some_and(|base| base.exists());
        if has_parent || (can_share(folder).is_ok() && on_one_disk(folder, &job.source.file)) {
            return Ok(());
        }
        refuse_full(folder, job.source.data_len)
    }

    fn base(&self, job: &Job<'_>) -> Option<PathBuf> {
        let uuid = parent_uuid(job.master.image, job.disk_len);
        Some(job.target.folder().ok()?.join(format!("{}.vhd", shown(uuid))))
    }

    fn create(&self, job: &Job<'_>, site: &Site<'_>) -> Result<Made, MakeError> {
        let base = site.base.ok_or_else(|| MakeError::Refused("it has no parent to rest on".to_owned()))?;
        let footer = parent_footer(job.master.image, job.disk_len);
        let copied = make_parent(job, base, &partial_base(site.temporary), &footer)?;
        make_empty(site.temporary)?;
        let parent = Parent {
            uuid: footer.uuid,
            time_s: footer.time_s,
            name: file_name(base),
            path: base.to_string_lossy().into_owned(),
        };
        let own = Footer { kind: Kind::Differencing, disk_len: job.disk_len, uuid: random_uuid(), time_s: now_s() };
        let file = OpenOptions::new().write(true).open(site.temporary).map_err(MakeError::io("open the new file"))?;
        file.write_all_at(&child(&own, &parent), 0).map_err(MakeError::io("write the new file"))?;
        file.sync_all().map_err(MakeError::io("sync the new file"))?;
        let warnings = copied
            .then(|| format!("{} is a copy of the master: XFS and btrfs would share its blocks", base.display()))
            .into_iter()
            .collect();
        Ok(Made { warnings, ..Made::default() })
    }

    fn verify(&self, record: &CloneRecord) -> Inspection {
        let mut findings = Vec::new();
        if let Err(text) = check_child(record) {
            findings.push(Finding::fault(text));
        }
        if let Some(base) = &record.base {
            findings.extend(check_parent(base, record));
        }
        Inspection { in_use: in_use(&record.path, &OpenFiles::default()), findings }
    }

    fn discard(&self, record: &CloneRecord) -> io::Result<()> {
        target::remove_file(&record.temporary)?;
        target::remove_file(&partial_base(&record.temporary)).map(drop)
    }
}

/// Makes the fixed VHD of the master, unless it is there. Says whether that took a copy.
fn make_parent(job: &Job<'_>, base: &Path, partial: &Path, footer: &Footer) -> Result<bool, MakeError> {
    if base.exists() {
        return is_parent(base, footer).map(|()| false);
    }
    make_empty(partial)?;
    let file = OpenOptions::new().write(true).open(partial).map_err(MakeError::io("open the new parent"))?;
    let shared = ioctl_ficlone(&file, &job.source.file).is_ok();
    if !shared {
        file.set_len(job.disk_len).map_err(MakeError::io("set the length of the new parent"))?;
        copy_data(&job.source.file, &file, job.source.identity.len)?;
    }
    let finish = || -> io::Result<()> {
        file.set_len(job.disk_len)?;
        file.write_all_at(&footer.bytes(), job.disk_len)?;
        file.set_permissions(Permissions::from_mode(PARENT_MODE))?;
        let time = UNIX_EPOCH + Duration::from_secs(EPOCH_UNIX_S + u64::from(PARENT_TIME_S));
        file.set_times(FileTimes::new().set_modified(time).set_accessed(time))?;
        file.sync_all()
    };
    finish().map_err(MakeError::io("finish the new parent"))?;
    step::reach(Step::BaseMade);
    match place(partial, base) {
        Ok(()) => {}
        // Another maker was quicker.
        Err(TargetError::Exists(_)) => {
            target::remove_file(partial).map_err(MakeError::io("remove a second parent"))?;
            is_parent(base, footer)?;
        }
        Err(e) => return Err(e.into()),
    }
    step::reach(Step::BasePlaced);
    Ok(!shared)
}

/// Whether the file has the footer that the parent must have.
fn is_parent(base: &Path, footer: &Footer) -> Result<(), MakeError> {
    let read = last_sector(base).map_err(MakeError::io("read the parent"))?;
    if read == (footer.bytes(), footer.disk_len) {
        return Ok(());
    }
    Err(MakeError::Refused(format!("{} is not the parent that it should be; move it away", base.display())))
}

fn check_child(record: &CloneRecord) -> Result<(), String> {
    let path = record.path.display();
    let unreadable = |e: io::Error| format!("can't read {path}: {e}");
    let file = File::open(&record.path).map_err(unreadable)?;
    let mut start = [0; 1536];
    file.read_exact_at(&mut start, 0).map_err(unreadable)?;
    let copy: &[u8; 512] = start[..512].try_into().expect("512 bytes");
    let footer = Footer::read(copy).ok_or_else(|| format!("{path} is no VHD, or its footer is damaged"))?;
    let (last, _) = last_sector(&record.path).map_err(unreadable)?;
    if Footer::read(&last) != Some(footer) {
        return Err(format!("the footer at the end of {path} is not the one at its beginning"));
    }
    if footer.kind != Kind::Differencing || footer.disk_len != record.disk_len {
        return Err(format!("{path} is not the differencing disk of {} bytes that was made", record.disk_len));
    }
    if parent_of(&start) != Some(parent_uuid(record.image, record.disk_len)) {
        return Err(format!("{path} names another parent, or its header is damaged"));
    }
    Ok(())
}

/// Looks at the parent without reading its content.
fn check_parent(base: &Path, record: &CloneRecord) -> Vec<Finding> {
    let shown = base.display();
    let footer = parent_footer(record.image, record.disk_len);
    let facts = match last_sector(base) {
        Ok(read) if read == (footer.bytes(), footer.disk_len) => base.metadata(),
        Ok(_) => return vec![Finding::fault(format!("its parent {shown} is not the one that was made"))],
        Err(e) => return vec![Finding::fault(format!("its parent {shown} can't be read: {e}"))],
    };
    let Ok(facts) = facts else { return Vec::new() };
    let mut findings = Vec::new();
    let time = UNIX_EPOCH + Duration::from_secs(EPOCH_UNIX_S + u64::from(PARENT_TIME_S));
    if facts.modified().ok() != Some(time) {
        findings.push(Finding::doubt(format!("its parent {shown} may have changed: it was written to")));
    }
    if facts.permissions().mode() & 0o222 != 0 {
        findings.push(Finding::doubt(format!("its parent {shown} can be written to")));
    }
    findings
}

/// The last 512 bytes of a file, and how many come before them.
fn last_sector(path: &Path) -> io::Result<([u8; 512], u64)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let before = len.checked_sub(SECTOR_LEN).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, before)?;
    Ok((sector, before))
}

fn parent_footer(image: ImageId, disk_len: u64) -> Footer {
    Footer { kind: Kind::Fixed, disk_len, uuid: parent_uuid(image, disk_len), time_s: PARENT_TIME_S }
}

/// The identity of the parent for an image, the same on every host. A custom UUID (version 8 of RFC 9562).
fn parent_uuid(image: ImageId, disk_len: u64) -> Uuid {
    let mut hasher = blake3::Hasher::new_derive_key("drover vhd parent v1");
    hasher.update(image.as_bytes()).update(&disk_len.to_le_bytes());
    let hash: Uuid = hasher.finalize().as_bytes()[..16].try_into().expect("16 bytes");
    marked(hash, 8)
}

fn random_uuid() -> Uuid {
    let mut bytes = [0; 16];
    // Without entropy a time tells clones apart as well.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos()).to_le_bytes();
    }
    marked(bytes, 4)
}

/// Random or derived bytes as a UUID of this version.
fn marked(mut bytes: Uuid, version: u8) -> Uuid {
    bytes[6] = (bytes[6] & 0x0f) | (version << 4);
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    bytes
}

fn shown(uuid: Uuid) -> String {
    let hex = uuid.map(|byte| format!("{byte:02x}")).concat();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn now_s() -> u32 {
    let unix_s = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    unix_s.saturating_sub(EPOCH_UNIX_S).try_into().unwrap_or(u32::MAX)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a parent is called while a maker fills it.
fn partial_base(temporary: &Path) -> PathBuf {
    temporary.with_extension("base")
}

/// Whether a file lies on the file system of a folder.
fn on_one_disk(folder: &Path, file: &File) -> bool {
    let device = |facts: std::fs::Metadata| facts.dev();
    folder.metadata().map(device).ok() == file.metadata().map(device).ok()
}

/// Reads any bytes as a differencing VHD. A footer is written back as it was read.
pub fn read_any(bytes: &[u8]) {
    if let Some(footer) = bytes.first_chunk().and_then(Footer::read) {
        assert_eq!(Footer::read(&footer.bytes()), Some(footer), "a footer that is read back as another");
    }
    let _ = parent_of(bytes);
}

/// Some differencing VHDs, to begin with.
pub fn some() -> Vec<Vec<u8>> {
    let made = |disk_len, name: &str| {
        let parent = Parent { uuid: [7; 16], time_s: 1, name: name.to_owned(), path: format!("./{name}") };
        child(&Footer { kind: Kind::Differencing, disk_len, uuid: [9; 16], time_s: 800_000_000 }, &parent)
    };
    vec![made(4 << 20, "parent.vhd"), made(1 << 20, "p")]
}
