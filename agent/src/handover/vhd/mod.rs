//! Clones as differencing VHDs: for Xen and Hyper-V.
//!
//! Their parent is a fixed VHD, which is the master with 512 bytes behind it. It lies in the same folder as its clones, a
//! reflink of the master where the file system has them and a sparse copy elsewhere, and is shared by all clones of that
//! master and size there. Its identity, its times and so all of its bytes follow from the image and the size alone: every host
//! makes the same, and it can be checked like the master itself. Where disks rest on one that was made of a file of the master
//! that has since been replaced, new clones get the next generation of it: the same content by another identity.
//!
//! qemu opens a differencing VHD without an error and reads zeros for all that the parent has, so such a clone is never
//! given to it.

pub(super) mod format;
mod inside;
mod parent;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use drover_protocol::id::ImageId;
use rustix::fs::ioctl_ficlone;
use rustix::io::Errno;

use self::format::{EPOCH_UNIX_S, Footer, Kind, Layout, MAX_DISK_LEN, Parent, SECTOR_LEN, Uuid, child, parent_of};
use self::parent::{Flaw, Held, MasterAt, PARENT_TIME_S};
use super::base::{BadBase, THE_CLONE, is_absence};
use super::choice::DriverName;
use super::copy::{copy_master, refuse_full};
use super::disk::Lost;
use super::driver::{
    Driver, Inspection, Job, Made, MakeError, Site, Unusable, refuse_pool, refuse_profile, refuse_room,
};
use super::master::folder_of;
use super::open_files::OpenFiles;
use super::record::CloneRecord;
use super::reflink::{can_share, differs_in_nocow, is_full, try_clone};
use super::step::{self, Step};
use super::target::{self, Target, TargetError, make_empty, place};
use super::verify::{Finding, in_use};
use crate::store::folder_of_master;

/// How many parents for one image and size there can be in a folder: one more each time that the master was mended while disks
/// rest on all that there are.
const GENERATIONS: u32 = 64;

/// Makes differencing VHDs.
#[derive(Debug)]
pub(super) struct Vhd {
    /// The state folder.
    state: PathBuf,
}

impl Vhd {
    pub(super) fn new(state: &Path) -> Vhd {
        Vhd { state: state.to_owned() }
    }

    /// Where the master of a job is, also when another file will have taken the place of its own.
    fn master_at(&self, job: &Job<'_>) -> MasterAt {
        let path = job.master.path.clone();
        let folder = if job.master.in_place {
            let folder = folder_of_master(&self.state, job.master.image);
            std::path::absolute(&folder).unwrap_or(folder)
        } else {
            folder_of(&path).to_owned()
        };
        MasterAt { path, folder }
    }
}

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
        if self.base(job).is_some_and(|base| base.exists()) {
            return Ok(());
        }
        let shown = folder.display();
        let why = match can_share(folder).and_then(|()| try_clone(folder, &job.source.file)) {
            Ok(()) => return Ok(()),
            Err(e) if Errno::from_io_error(&e) == Some(Errno::XDEV) => {
                format!("{shown} is on another file system than the master")
            }
            Err(e) if is_full(&e) => format!("there is no space left in {shown} to try reflinks"),
            Err(_) => differs_in_nocow(folder, &job.source.file)
                .unwrap_or_else(|| format!("the file system of {shown} has no reflinks")),
        };
        refuse_full(folder, job.source.data_len)
            .map_err(|full| Unusable(format!("{why}, so its parent would be a copy of the master: {full}")))
    }

    fn base(&self, job: &Job<'_>) -> Option<PathBuf> {
        let folder = job.target.folder().ok()?;
        let uuids = parent_uuids(job.master.image, job.disk_len);
        let mut parents = uuids.map(|uuid| folder.join(format!("{}.vhd", shown(uuid))));
        parents.find(|base| !parent::is_left_to_others(base))
    }

    fn create(&self, job: &Job<'_>, site: &Site<'_>) -> Result<Made, MakeError> {
        let base = site.base.ok_or_else(|| MakeError::Refused("it has no parent to rest on".to_owned()))?;
        let footer = parent_footer(base, job.master.image, job.disk_len);
        let (held, copied) = hold_parent(job, base, &partial_base(site.temporary), &footer, &self.master_at(job))?;
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
        // From here on the clone's file keeps it.
        drop(held);
        let warnings = copied
            .then(|| format!("{} is a copy of the master: XFS and btrfs would share its blocks", base.display()))
            .into_iter()
            .collect();
        Ok(Made { warnings, ..Made::default() })
    }

    fn verify(&self, record: &CloneRecord) -> Inspection {
        let in_use = in_use(&record.path, &OpenFiles::default());
        let mut findings = Vec::new();
        if let Err(text) = check_child(record, in_use) {
            findings.push(Finding::fault(text));
        }
        if let Some(base) = &record.base {
            findings.extend(check_parent(base, record));
        }
        Inspection { in_use, findings }
    }

    fn names_base(&self, record: &CloneRecord) -> Option<bool> {
        let file = File::open(&record.path).ok()?;
        let mut start = [0; 1536];
        let is_whole = file.read_exact_at(&mut start, 0).is_ok();
        Some(is_whole && parent_of(&start) == Some(recorded_parent(record)))
    }

    fn is_long_enough(&self, record: &CloneRecord) -> Option<bool> {
        let file = File::open(&record.path).ok()?;
        let mut start = [0; 1536];
        file.read_exact_at(&mut start, 0).ok()?;
        let len = file.metadata().ok()?.len();
        Some(Layout::read(&start).is_none_or(|layout| layout.shortest() <= len))
    }

    fn lost_base(&self, record: &CloneRecord) -> Option<Lost> {
        let base = record.base.clone()?;
        match File::open(&base).and_then(|parent| parent::flaw(&parent)) {
            Ok(flaw) => {
                let flaw = flaw?;
                let (path, what) = (base, flaw.to_string());
                Some(match flaw {
                    Flaw::Damaged => Lost::Broken(BadBase { path, what, todo: to_mend(&record.master_label()) }),
                    Flaw::Doubt(_) => {
                        let todo = format!("`drover clone verify {THE_CLONE} --full` reads it and settles that");
                        Lost::Doubted(BadBase { path, what, todo })
                    }
                })
            }
            Err(e) if is_absence(&e) => {
                let todo =
                    "bring it back, or make a clone of the same master and size in that folder, which makes it anew";
                Some(Lost::Broken(BadBase { path: base, what: "is gone".to_owned(), todo: todo.to_owned() }))
            }
            // Of what can't be looked at nobody knows that it is.
            Err(_) => None,
        }
    }

    fn discard(&self, record: &CloneRecord) -> io::Result<()> {
        target::remove_file(&record.temporary)?;
        target::remove_file(&partial_base(&record.temporary)).map(drop)
    }

    fn remove_base(&self, base: &Path, record: &CloneRecord) -> io::Result<Option<String>> {
        parent::remove(base, &parent_footer(base, record.image, record.disk_len))
    }

    fn is_base_formed(&self, base: &Path, record: &CloneRecord) -> io::Result<bool> {
        ends_with(&File::open(base)?, &parent_footer(base, record.image, record.disk_len))
    }

    fn note_base(&self, base: &Path, is_right: bool) -> Result<(), MakeError> {
        parent::note(base, is_right).map_err(MakeError::io("mark the parent by its time"))
    }
}

/// Keeps the parent from being removed while a clone is made on it, and makes it first if need be. Says whether that took a
/// copy.
fn hold_parent(
    job: &Job<'_>,
    base: &Path,
    partial: &Path,
    footer: &Footer,
    master: &MasterAt,
) -> Result<(Held, bool), MakeError> {
    loop {
        match Held::shared(base).map_err(MakeError::io("open the parent"))? {
            Some(held) => match check_held(&held, base, footer)? {
                None => return Ok((held, false)),
                Some(flaw) => {
                    drop(held);
                    discard_flawed(job, base, footer, flaw)?;
                }
            },
            None => {
                if let Some(made) = make_parent(job, base, partial, footer, master)? {
                    return Ok(made);
                }
            }
        }
    }
}

/// Makes the fixed VHD of the master, and says whether that took a copy; nothing if another maker was quicker.
fn make_parent(
    job: &Job<'_>,
    base: &Path,
    partial: &Path,
    footer: &Footer,
    master: &MasterAt,
) -> Result<Option<(Held, bool)>, MakeError> {
    make_empty(partial)?;
    let opened = OpenOptions::new().read(true).write(true).open(partial);
    let file = opened.map_err(MakeError::io("open the new parent"))?;
    let shared = ioctl_ficlone(&file, &job.source.file).is_ok();
    if !shared {
        file.set_len(job.disk_len).map_err(MakeError::io("set the length of the new parent"))?;
        copy_master(job, &file)?;
    }
    let finished = file
        .set_len(job.disk_len)
        .and_then(|()| file.write_all_at(&footer.bytes(), job.disk_len))
        .and_then(|()| parent::seal(&file, master));
    finished.map_err(MakeError::io("finish the new parent"))?;
    let held = Held::made(file);
    step::reach(Step::BaseMade);
    match place(partial, base) {
        Ok(()) => {}
        Err(TargetError::Exists(_)) => {
            target::remove_file(partial).map_err(MakeError::io("remove a second parent"))?;
            return Ok(None);
        }
        Err(e) => return Err(e.into()),
    }
    step::reach(Step::BasePlaced);
    Ok(Some((held, !shared)))
}

/// Whether the file has the footer that the parent must have, and what is wrong with it all the same.
fn check_held(held: &Held, base: &Path, footer: &Footer) -> Result<Option<Flaw>, MakeError> {
    if !held.is_parent(base, footer).map_err(MakeError::io("read the parent"))? {
        return Err(MakeError::Refused(format!(
            "{} is not the parent that it should be; move it away",
            base.display()
        )));
    }
    parent::flaw(&held.file).map_err(MakeError::io("look at the parent"))
}

/// Removes a parent that is or may be damaged, so that it is made anew; one that disks rest on is only named.
fn discard_flawed(job: &Job<'_>, base: &Path, footer: &Footer, flaw: Flaw) -> Result<(), MakeError> {
    let Some(why) = parent::remove(base, footer).map_err(MakeError::io("remove a parent that may be damaged"))? else {
        return Ok(());
    };
    let todo = to_mend(&job.master.label());
    let todo = match flaw {
        Flaw::Damaged => todo,
        Flaw::Doubt(_) => {
            format!("`drover clone verify CLONE --full` of one of them settles it. If it is damaged, {todo}")
        }
    };
    Err(MakeError::Refused(format!("{} {flaw}. {why}. {todo}", base.display())))
}

/// What to do about a parent that is damaged and that disks rest on. It may share the damage with the master.
fn to_mend(label: &str) -> String {
    format!(
        "`drover verify {label}` tells whether the master is damaged, too; then `drover fetch {label}` mends that, and new \
         clones get another parent. To mend this one for those that rest on it, stop their machines, move it away and make a \
         clone of that master and size in that folder: that makes it anew"
    )
}

/// The footer at the end and the table are looked at only while nobody writes: Xen's tapdisk puts blocks in the footer's place
/// as they come, and writes it when it closes the file.
fn check_child(record: &CloneRecord, in_use: bool) -> Result<(), String> {
    let path = record.path.display();
    let unreadable = |e: io::Error| format!("can't read {path}: {e}");
    let file = File::open(&record.path).map_err(unreadable)?;
    let mut start = [0; 1536];
    file.read_exact_at(&mut start, 0).map_err(unreadable)?;
    let copy: &[u8; 512] = start[..512].try_into().expect("512 bytes");
    let footer = Footer::read(copy).ok_or_else(|| format!("{path} is no VHD, or its footer is damaged"))?;
    if !in_use && Footer::read(&last_sector(&file).map_err(unreadable)?) != Some(footer) {
        return Err(format!("the footer at the end of {path} is not the one at its beginning"));
    }
    if footer.kind != Kind::Differencing || footer.disk_len != record.disk_len {
        return Err(format!("{path} is not the differencing disk of {} bytes that was made", record.disk_len));
    }
    if parent_of(&start) != Some(recorded_parent(record)) {
        return Err(format!("{path} names another parent, or its header is damaged"));
    }
    let (Some(layout), Some(base), false) = (Layout::read(&start), &record.base, in_use) else { return Ok(()) };
    match inside::fault(&file, &layout, &file_name(base)).map_err(unreadable)? {
        Some(fault) => Err(format!("{path} is damaged: {fault}")),
        None => Ok(()),
    }
}

/// Looks at the parent without reading its content.
fn check_parent(base: &Path, record: &CloneRecord) -> Option<Finding> {
    let shown = base.display();
    let footer = parent_footer(base, record.image, record.disk_len);
    let look = || -> io::Result<Option<Finding>> {
        let parent = File::open(base)?;
        if !ends_with(&parent, &footer)? {
            return Ok(Some(Finding::fault(format!("its parent {shown} is not the one that was made"))));
        }
        let found = |flaw| {
            let text = format!("its parent {shown} {flaw}");
            match flaw {
                Flaw::Damaged => Finding::fault_of_content(format!("{text}; {}", to_mend(&record.master_label()))),
                Flaw::Doubt(_) => Finding::doubt_of_content(text),
            }
        };
        Ok(parent::flaw(&parent)?.map(found))
    };
    look().unwrap_or_else(|e| Some(Finding::fault(format!("its parent {shown} can't be read: {e}"))))
}

/// The last 512 bytes of a file.
fn last_sector(file: &File) -> io::Result<[u8; 512]> {
    let before = file.metadata()?.len().checked_sub(SECTOR_LEN).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, before)?;
    Ok(sector)
}

/// Whether a file is a disk of the footer's length, and the footer.
fn ends_with(file: &File, footer: &Footer) -> io::Result<bool> {
    let is_its_len = file.metadata()?.len() == footer.disk_len + SECTOR_LEN;
    Ok(is_its_len && last_sector(file)? == footer.bytes())
}

fn parent_footer(base: &Path, image: ImageId, disk_len: u64) -> Footer {
    let uuid = uuid_named(Some(base), image, disk_len);
    Footer { kind: Kind::Fixed, disk_len, uuid, time_s: PARENT_TIME_S }
}

/// The identity of the parent that a clone was made on.
fn recorded_parent(record: &CloneRecord) -> Uuid {
    uuid_named(record.base.as_deref(), record.image, record.disk_len)
}

/// The identity that a parent's name goes with; of another name, that of the first generation.
fn uuid_named(base: Option<&Path>, image: ImageId, disk_len: u64) -> Uuid {
    let is_its = |uuid: &Uuid| base.is_some_and(|base| parent::is_name_of(base, *uuid));
    parent_uuids(image, disk_len).find(is_its).unwrap_or_else(|| parent_uuid(image, disk_len, 0))
}

/// The identities of the parents for an image, generation by generation.
fn parent_uuids(image: ImageId, disk_len: u64) -> impl Iterator<Item = Uuid> {
    (0..GENERATIONS).map(move |generation| parent_uuid(image, disk_len, generation))
}

/// The identity of a parent for an image, the same on every host. A custom UUID (version 8 of RFC 9562).
fn parent_uuid(image: ImageId, disk_len: u64, generation: u32) -> Uuid {
    let mut hasher = blake3::Hasher::new_derive_key("drover vhd parent v1");
    hasher.update(image.as_bytes()).update(&disk_len.to_le_bytes());
    if generation > 0 {
        hasher.update(&generation.to_le_bytes());
    }
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

/// Reads any bytes as a differencing VHD. A footer is written back as it was read.
pub fn read_any(bytes: &[u8]) {
    if let Some(footer) = bytes.first_chunk().and_then(Footer::read) {
        assert_eq!(Footer::read(&footer.bytes()), Some(footer), "a footer that is read back as another");
    }
    let _ = (parent_of(bytes), Layout::read(bytes).map(|layout| layout.shortest()));
}

/// Some differencing VHDs, to begin with.
pub fn some() -> Vec<Vec<u8>> {
    let made = |disk_len, name: &str| {
        let parent = Parent { uuid: [7; 16], time_s: 1, name: name.to_owned(), path: format!("./{name}") };
        child(&Footer { kind: Kind::Differencing, disk_len, uuid: [9; 16], time_s: 800_000_000 }, &parent)
    };
    vec![made(4 << 20, "parent.vhd"), made(1 << 20, "p")]
}
