//! Clones as logical volumes, by `lvm`: thin ones in a pool, or classic snapshots.
//!
//! Both rest on a volume in the same group that has the master's content, made with the first clone of a master and
//! removed with the last. A thin clone has it as its external origin, which must be read-only and not active; a classic
//! one, which is a snapshot of fixed size, as its origin.
//!
//! `lvremove` of an origin removes all that rest on it without a word. So dependants are asked for before any origin is
//! removed, also those that somebody made by hand.

mod report;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use drover_protocol::release::Name;
use rustix::fs::{FallocateFlags, fallocate};
use serde::Deserialize;

use self::report::{
    Answer, DAMAGED, FIELDS, GROUP_FIELDS, Group, Groups, Volume, Volumes, dependants, number, usage_of,
};

use crate::handover::choice::DriverName;
use crate::handover::copy::copy_master;
use crate::handover::disk::{DiskId, Lost};
use crate::handover::dm::store_len;
use crate::handover::driver::{
    Activity, Driver, Inspection, Job, Made, MakeError, Site, Unusable, refuse_pool, refuse_profile, unreachable,
};
use crate::handover::open_files::OpenFiles;
use crate::handover::record::CloneRecord;
use crate::handover::step::{self, Step};
use crate::handover::target::{Target, TargetError, volume_path};
use crate::handover::tool::{Tool, ToolError, Tools};
use crate::handover::usage::Usage;
use crate::handover::verify::Finding;

const ADVICE: &str = "install it (Debian and Ubuntu: apt-get install lvm2)";
const SECTOR_LEN: u64 = 512;
/// Marks what is ours, for people who look at `lvs -o +tags`.
const TAG: &str = "drover";

/// Makes logical volumes.
#[derive(Debug)]
pub(in crate::handover) struct Lvm {
    tools: Tools,
    kind: Kind,
}

/// Which of the two kinds of snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::handover) enum Kind {
    /// Thin, in a pool.
    Thin,
    /// Classic, with a fixed room for differences.
    Thick,
}

impl Lvm {
    pub(in crate::handover) fn new(tools: Tools, kind: Kind) -> Lvm {
        Lvm { tools, kind }
    }

    fn tool(&self) -> Tool<'_> {
        Tool { program: &self.tools.lvm, advice: ADVICE }
    }

    fn lvm<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Result<String, ToolError> {
        self.tool().run(|command| {
            command.args(arguments);
            // It complains about every file that is open beside these three.
            command.env("LVM_SUPPRESS_FD_WARNINGS", "1");
        })
    }

    fn ask<T: for<'de> Deserialize<'de>>(&self, command: &str, fields: &str, of: &str) -> Result<Vec<T>, ToolError> {
        let options = ["--all", "--reportformat", "json", "--units", "b", "--nosuffix", "--options"];
        let mut arguments = vec![command];
        arguments.extend(options.iter().filter(|option| command == "lvs" || **option != "--all"));
        // Whoever may write a record can name any group in it, also one that looks like an option.
        arguments.extend([fields, "--", of]);
        let answer = self.lvm(&arguments)?;
        serde_json::from_str::<Answer<T>>(&answer).map(|answer| answer.report).map_err(|e| self.tool().nonsense(e))
    }

    fn volumes(&self, group: &str) -> Result<Vec<Volume>, ToolError> {
        let reports: Vec<Volumes> = self.ask("lvs", FIELDS, group)?;
        Ok(reports.into_iter().flat_map(Volumes::bare).collect())
    }

    fn volume(&self, path: &Path) -> Result<Option<Volume>, ToolError> {
        let (group, name) = split(path);
        Ok(self.volumes(&group)?.into_iter().find(|volume| volume.lv_name == name))
    }

    fn own_len(&self, path: &Path) -> Result<u64, ToolError> {
        Ok(self.volume(path)?.map_or(0, |volume| number(&volume.lv_size)))
    }

    fn group(&self, group: &str) -> Result<Group, Unusable> {
        let reports: Vec<Groups> = self
            .ask("vgs", GROUP_FIELDS, group)
            .map_err(|e| Unusable(format!("there is no volume group {group} that can be used: {e}")))?;
        let found = reports.into_iter().flat_map(|report| report.vg).find(|found| found.vg_name == group);
        found.ok_or_else(|| Unusable(format!("there is no volume group {group}; `vgs` lists those that there are")))
    }

    /// The thin pool that clones of a job go to.
    fn pool(&self, job: &Job<'_>, volumes: &[Volume]) -> Result<String, Unusable> {
        let group = job.target.group()?;
        let pools: Vec<&str> = volumes.iter().filter(|v| v.is('t')).map(|pool| pool.lv_name.as_str()).collect();
        let listed = pools.join(", ");
        match (job.pool, &pools[..]) {
            (Some(wanted), _) if pools.contains(&wanted) => Ok(wanted.to_owned()),
            (Some(wanted), _) => Err(Unusable(format!("{group} has no thin pool {wanted}; it has: {listed}"))),
            (None, [only]) => Ok((*only).to_owned()),
            (None, []) => Err(Unusable(format!(
                "{group} has no thin pool: `lvcreate --type thin-pool -L SIZE -n pool {group}` makes one"
            ))),
            (None, _) => Err(Unusable(format!("{group} has more than one thin pool: say --pool and one of {listed}"))),
        }
    }

    /// Whether the group has room for what is to be made.
    fn check_room(&self, job: &Job<'_>, group: &Group, volumes: &[Volume]) -> Result<(), Unusable> {
        let extent = number(&group.vg_extent_size).max(1);
        let whole = |len: u64| len.div_ceil(extent) * extent;
        let base = self.base_name(job);
        let has_base = volumes.iter().any(|volume| volume.lv_name == base);
        let for_base = if has_base { 0 } else { whole(job.master.content_len) };
        let for_clones = if self.kind == Kind::Thick { whole(room_len(job)) * job.count } else { 0 };
        let (needed, free) = (for_base + for_clones, number(&group.vg_free));
        if needed <= free {
            return Ok(());
        }
        let smaller = if self.kind == Kind::Thick { ", or give a smaller --room" } else { "" };
        Err(Unusable(format!(
            "the volume group {} has {} MiB free and {} MiB are needed ({} for a copy of the master); add disks to it{smaller}",
            group.vg_name,
            free >> 20,
            needed.div_ceil(1 << 20),
            for_base.div_ceil(1 << 20)
        )))
    }

    fn base_name(&self, job: &Job<'_>) -> String {
        format!("drover-{}-{}", job.master.image.short(), self.kind.word())
    }

    /// Makes the volume with the master's content, unless it is there. One that may be damaged is made anew, if nothing rests
    /// on it.
    fn make_base(&self, job: &Job<'_>, base: &Path, partial: &Path) -> Result<(), MakeError> {
        let volume = self.volume(base)?;
        if volume.as_ref().is_some_and(|volume| !volume.has_tag(TAG)) {
            let shown = base.display();
            return Err(MakeError::Refused(format!(
                "{shown} is not the copy of the master that it should be; rename it"
            )));
        }
        match volume.map(|volume| volume.doubt()) {
            Some(None) => return Ok(()),
            Some(Some(what)) => self.discard_doubtful(base, what)?,
            None => {}
        }
        let (group, partial_name) = split(partial);
        let size = format!("{}b", job.master.content_len);
        self.lvm(&["lvcreate", "-y", "-Wn", "-Zn", "--addtag", TAG, "-L", &size, "-n", &partial_name, &group])?;
        fill(job, partial)?;
        let partial_id = format!("{group}/{partial_name}");
        self.lvm(&["lvchange", "-y", "--permission", "r", &partial_id])?;
        if self.kind == Kind::Thin {
            self.lvm(&["lvchange", "-y", "-an", &partial_id])?;
        }
        step::reach(Step::BaseMade);
        let renamed = self.lvm(&["lvrename", &group, &partial_name, &split(base).1]);
        // Another maker may have been quicker.
        if let Err(e) = renamed {
            self.remove(partial).map_err(MakeError::io("remove a second copy of the master"))?;
            if self.volume(base)?.is_none() {
                return Err(e.into());
            }
        }
        step::reach(Step::BasePlaced);
        Ok(())
    }

    fn discard_doubtful(&self, base: &Path, what: &str) -> Result<(), MakeError> {
        match self.remove_copy(base).map_err(MakeError::io("remove a copy of the master that may be damaged"))? {
            None => Ok(()),
            Some(why) => Err(MakeError::Refused(format!(
                "{} may be damaged: {what}. {why}. `drover clone verify CLONE --full` of one of them settles it, and then \
                 `lvchange --permission r` makes it read-only again. If it is damaged, they are, too, wherever they have \
                 nothing of their own: make clones by another driver or in another group",
                base.display()
            ))),
        }
    }

    /// Removes a copy of a master. Says why it stays if something rests on it, or it is none of ours.
    fn remove_copy(&self, base: &Path) -> io::Result<Option<String>> {
        let (group, name) = split(base);
        let volumes = self.volumes(&group).map_err(io::Error::other)?;
        let stays = |why: String| Ok(Some(format!("{} stays: {why}", base.display())));
        if volumes.iter().any(|volume| volume.lv_name == name && !volume.has_tag(TAG)) {
            return stays("it is not the copy of the master that was made".to_owned());
        }
        let dependants = dependants(&volumes, &name);
        if !dependants.is_empty() {
            return stays(format!("these volumes rest on it: {}", dependants.join(", ")));
        }
        self.remove(base).map(|_| None)
    }

    fn make_clone(&self, job: &Job<'_>, base: &Path, temporary: &Path) -> Result<(), MakeError> {
        let (group, name) = split(temporary);
        let origin = format!("{group}/{}", split(base).1);
        let mut arguments = ["lvcreate", "-y", "-s", "--addtag", TAG, "-n", &name].map(str::to_owned).to_vec();
        match self.kind {
            Kind::Thin => {
                let pool = self.pool(job, &self.volumes(&group)?).map_err(|e| MakeError::Refused(e.0))?;
                arguments.extend(["--thinpool", &pool, "--setactivationskip", "n"].map(str::to_owned));
            }
            Kind::Thick => arguments.extend(["-L".to_owned(), format!("{}b", room_len(job))]),
        }
        arguments.push(origin);
        self.lvm(&arguments)?;
        // A classic snapshot's own size is its room; its disk is as long as its origin.
        if self.kind == Kind::Thin && self.own_len(temporary)? < job.disk_len {
            self.lvm(&["lvextend", "-y", "-L", &format!("{}b", job.disk_len), &format!("{group}/{name}")])?;
        }
        Ok(())
    }
}

impl Driver for Lvm {
    fn name(&self) -> DriverName {
        match self.kind {
            Kind::Thin => DriverName::LvmThin,
            Kind::Thick => DriverName::LvmThick,
        }
    }

    fn note(&self) -> &'static str {
        match self.kind {
            Kind::Thin => "thin volume in a pool of the volume group, over a read-only copy of the master there",
            Kind::Thick => {
                "classic LVM snapshot of a copy of the master; its room is fixed, and it is lost when that is full"
            }
        }
    }

    fn unmovable(&self) -> Option<&'static str> {
        Some("a snapshot is bound to its origin block by block; make a new clone of the other version")
    }

    fn needs_master(&self) -> bool {
        false
    }

    fn available(&self, target: &Target) -> Result<(), Unusable> {
        let group = target.group()?;
        if !rustix::process::geteuid().is_root() {
            return Err(Unusable("only root may make logical volumes".to_owned()));
        }
        self.lvm(&["version"]).map_err(|e| e.unusable("choose another driver"))?;
        self.group(group).map(drop)
    }

    fn probe(&self, job: &Job<'_>) -> Result<(), Unusable> {
        refuse_profile(self.name(), job)?;
        self.available(job.target)?;
        let group = self.group(job.target.group()?)?;
        let volumes = self.volumes(&group.vg_name).map_err(|e| Unusable(e.to_string()))?;
        let path = job.target.path();
        if volumes.iter().any(|volume| volume.lv_name == split(&path).1) {
            return Err(Unusable(format!("the volume {} exists already and is not overwritten", path.display())));
        }
        match self.kind {
            Kind::Thin => {
                if job.room_len.is_some() {
                    return Err(Unusable(
                        "a thin volume has its pool's room; --room is for lvm-thick and dm".to_owned(),
                    ));
                }
                self.pool(job, &volumes)?;
            }
            Kind::Thick if job.disk_len > job.master.content_len.next_multiple_of(SECTOR_LEN) => {
                return Err(Unusable(
                    "a classic snapshot is as long as its master; --driver lvm-thin can be longer".into(),
                ));
            }
            Kind::Thick => refuse_pool(self.name(), job)?,
        }
        self.check_room(job, &group, &volumes)
    }

    fn base(&self, job: &Job<'_>) -> Option<PathBuf> {
        Some(volume_path(job.target.group().ok()?, &self.base_name(job)))
    }

    fn create(&self, job: &Job<'_>, site: &Site<'_>) -> Result<Made, MakeError> {
        let base = site.base.ok_or_else(|| MakeError::Refused("it has no base to rest on".to_owned()))?;
        self.make_base(job, base, &partial_base(site.temporary))?;
        self.make_clone(job, base, site.temporary)?;
        let version = self.lvm(&["version"])?;
        let version =
            version.lines().find_map(|line| line.split_once("LVM version:")).map_or("", |(_, rest)| rest.trim());
        let mut warnings = Vec::new();
        if self.kind == Kind::Thick && job.room_len.is_some() {
            warnings.push("when its room is full the clone is lost: watch `drover clone list`".to_owned());
        }
        Ok(Made { tools: [("lvm".to_owned(), version.to_owned())].into(), warnings, ..Made::default() })
    }

    fn verify(&self, record: &CloneRecord) -> Inspection {
        let mut findings = Vec::new();
        let (group, name) = split(&record.path);
        let volumes = match self.volumes(&group) {
            Ok(volumes) => volumes,
            Err(e) => {
                findings.push(Finding::doubt(format!("the volume group could not be looked at: {e}")));
                return Inspection { in_use: false, findings };
            }
        };
        let find = |name: &str| volumes.iter().find(|volume| volume.lv_name == name);
        let Some(volume) = find(&name) else {
            findings.push(Finding::fault(format!("there is no volume {}", record.path.display())));
            return Inspection { in_use: false, findings };
        };
        let base = record.base.as_deref().map(|base| split(base).1).unwrap_or_default();
        if volume.origin != base {
            findings.push(Finding::fault(format!("its origin is {:?}, recorded is {base:?}", volume.origin)));
        }
        match find(&base).map(|base| (base.is_damaged(), base.doubt())) {
            Some((true, _)) => findings.push(Finding::fault(format!("{base}, which it rests on, was found damaged"))),
            Some((false, Some(what))) => {
                findings.push(Finding::doubt(format!("{base}, which it rests on, may be damaged: {what}")));
            }
            _ => {}
        }
        if self.kind == Kind::Thin && number(&volume.lv_size) < record.disk_len {
            let (is, recorded) = (&volume.lv_size, record.disk_len);
            findings.push(Finding::fault(format!("its disk is {is} bytes long, recorded are {recorded}")));
        }
        findings.extend(usage_of(volume, find(&volume.pool_lv)).and_then(|usage| usage.finding()));
        if volume.lv_active != "active" {
            let text = format!("it is not active: `drover clone activate {}`", record.name);
            findings.push(Finding::note(text));
        }
        Inspection { in_use: volume.lv_device_open == "open", findings }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.volume(path).map(|volume| volume.is_some()).map_err(io::Error::other)
    }

    fn unnamed<'a>(&self, records: &[&'a CloneRecord]) -> Vec<&'a CloneRecord> {
        let mut groups: BTreeMap<String, Vec<Volume>> = BTreeMap::new();
        let is_unnamed = |record: &&CloneRecord| {
            let (group, name) = split(&record.temporary);
            let volumes = groups.entry(group.clone()).or_insert_with(|| self.volumes(&group).unwrap_or_default());
            volumes.iter().any(|volume| volume.lv_name == name)
        };
        records.iter().copied().filter(is_unnamed).collect()
    }

    fn disk_id(&self, path: &Path) -> Option<DiskId> {
        let volume = self.may_look().then(|| self.volume(path).ok()).flatten().flatten()?;
        Some(DiskId::Volume { uuid: volume.lv_uuid })
    }

    fn modified_unix_ns(&self, _path: &Path) -> Option<i64> {
        // What lvm counts as used is rounded, and a node of /dev has a time of its own.
        None
    }

    fn lost(&self, records: &[&CloneRecord]) -> BTreeMap<Name, Lost> {
        let mut groups: BTreeMap<String, Option<Vec<Volume>>> = BTreeMap::new();
        let look = |record: &&CloneRecord| {
            let (group, name) = split(&record.path);
            let volumes = groups.entry(group.clone()).or_insert_with(|| self.volumes(&group).ok());
            let Some(volumes) = volumes else {
                return Some((record.name.clone(), Lost::Unreachable(unreachable(record))));
            };
            let lost = match volumes.iter().find(|volume| volume.lv_name == name) {
                None => Lost::Gone(record.path.clone()),
                Some(volume) => {
                    let now = DiskId::Volume { uuid: volume.lv_uuid.clone() };
                    match &record.disk {
                        Some(made) if !made.is(&now) => Lost::Replaced(record.path.clone()),
                        _ => {
                            let base = record.base.clone()?;
                            volumes.iter().find(|volume| volume.lv_name == split(&base).1)?.lost(base)?
                        }
                    }
                }
            };
            Some((record.name.clone(), lost))
        };
        if self.may_look() { records.iter().filter_map(look).collect() } else { BTreeMap::new() }
    }

    fn may_look(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn is_reachable(&self, record: &CloneRecord) -> bool {
        self.group(&split(&record.path).0).is_ok()
    }

    fn place(&self, record: &CloneRecord) -> Result<(), TargetError> {
        let failed = |e: ToolError| TargetError::Io {
            doing: "rename the finished volume to",
            path: record.path.clone(),
            source: io::Error::other(e),
        };
        if self.volume(&record.path).map_err(failed)?.is_some() {
            return Err(TargetError::Exists(record.path.clone()));
        }
        let ((group, from), (_, to)) = (split(&record.temporary), split(&record.path));
        self.lvm(&["lvrename", &group, &from, &to]).map(drop).map_err(failed)
    }

    fn sync_names(&self, _records: &[CloneRecord]) -> Result<(), TargetError> {
        // lvm's metadata are durable when it returns.
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<bool> {
        let (group, name) = split(path);
        let volumes = self.volumes(&group).map_err(io::Error::other)?;
        if !volumes.iter().any(|volume| volume.lv_name == name) {
            return Ok(false);
        }
        let dependants = dependants(&volumes, &name);
        if !dependants.is_empty() {
            return Err(io::Error::other(format!("these rest on it and would go, too: {}", dependants.join(", "))));
        }
        self.lvm(&["lvremove", "-y", &format!("{group}/{name}")]).map_err(io::Error::other)?;
        Ok(true)
    }

    fn discard(&self, record: &CloneRecord) -> io::Result<()> {
        self.remove(&record.temporary)?;
        self.remove(&partial_base(&record.temporary)).map(drop)
    }

    fn remove_base(&self, base: &Path, _record: &CloneRecord) -> io::Result<Option<String>> {
        self.remove_copy(base)
    }

    fn note_base(&self, base: &Path, is_right: bool) -> Result<(), MakeError> {
        let marked = self.volume(base)?.is_some_and(|volume| volume.is_damaged());
        if marked == is_right {
            let (group, name) = split(base);
            let how = if is_right { "--deltag" } else { "--addtag" };
            self.lvm(&["lvchange", "-y", how, DAMAGED, &format!("{group}/{name}")])?;
        }
        Ok(())
    }

    /// An external origin need not be active, and mostly is not.
    fn show_base(&self, base: &Path) -> Result<bool, MakeError> {
        let shown = self.volume(base)?.is_some_and(|volume| volume.lv_active != "active");
        if shown {
            let (group, name) = split(base);
            self.lvm(&["lvchange", "-y", "-ay", "-K", &format!("{group}/{name}")])?;
        }
        Ok(shown)
    }

    fn hide_base(&self, base: &Path) -> Result<(), MakeError> {
        let (group, name) = split(base);
        self.lvm(&["lvchange", "-y", "-an", &format!("{group}/{name}")])?;
        Ok(())
    }

    fn in_use(&self, record: &CloneRecord, _opened: &OpenFiles) -> bool {
        self.volume(&record.path).is_ok_and(|volume| volume.is_some_and(|volume| volume.lv_device_open == "open"))
    }

    fn activity(&self, record: &CloneRecord) -> Result<Activity, MakeError> {
        let volume = self.volume(&record.path)?;
        let active = volume.is_some_and(|volume| volume.lv_active == "active");
        Ok(if active { Activity::Active } else { Activity::Inactive })
    }

    fn activate(&self, record: &CloneRecord) -> Result<(), MakeError> {
        let (group, name) = split(&record.path);
        self.lvm(&["lvchange", "-y", "-ay", "-K", &format!("{group}/{name}")])?;
        Ok(())
    }

    fn deactivate(&self, record: &CloneRecord) -> Result<(), MakeError> {
        if self.kind == Kind::Thick {
            // lvm takes an origin and all its snapshots down together.
            return Err(MakeError::Refused(
                "classic snapshots of one master are active all together or not".to_owned(),
            ));
        }
        let (group, name) = split(&record.path);
        self.lvm(&["lvchange", "-y", "-an", &format!("{group}/{name}")])?;
        Ok(())
    }

    fn release(&self, _record: &CloneRecord) -> Result<(), MakeError> {
        // lvremove does.
        Ok(())
    }

    fn usage(&self, records: &[&CloneRecord]) -> BTreeMap<String, Usage> {
        let mut groups: BTreeMap<String, Vec<Volume>> = BTreeMap::new();
        let of = |record: &&CloneRecord| {
            let (group, name) = split(&record.path);
            let volumes = groups.entry(group.clone()).or_insert_with(|| self.volumes(&group).unwrap_or_default());
            let find = |name: &str| volumes.iter().find(|volume| volume.lv_name == name);
            let volume = find(&name)?;
            Some((record.name.to_string(), usage_of(volume, find(&volume.pool_lv))?))
        };
        records.iter().filter_map(of).collect()
    }
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Kind::Thin => "thin",
            Kind::Thick => "thick",
        }
    }
}

/// How long a classic snapshot must be for what may be written to it.
fn room_len(job: &Job<'_>) -> u64 {
    store_len(job.room_len.unwrap_or(job.disk_len).min(job.disk_len))
}

/// The group and the name in `/dev/GROUP/VOLUME`.
fn split(path: &Path) -> (String, String) {
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    (part(path.parent().and_then(Path::file_name)), part(path.file_name()))
}

/// What the copy of the master is called while a maker fills it.
fn partial_base(temporary: &Path) -> PathBuf {
    temporary.with_extension("base")
}

/// Makes a volume, which has who knows what in it, zeros and the master's data, durably.
fn fill(job: &Job<'_>, volume: &Path) -> Result<(), MakeError> {
    let opened = OpenOptions::new().read(true).write(true).open(volume);
    let device = opened.map_err(MakeError::io("open the new volume"))?;
    let volume_len =
        io::Seek::seek(&mut &device, io::SeekFrom::End(0)).map_err(MakeError::io("measure the new volume"))?;
    let zeroed = fallocate(&device, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 0, volume_len);
    if zeroed.is_err() {
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < volume_len {
            let part = (volume_len - at).min(zeros.len() as u64);
            device.write_all_at(&zeros[..part as usize], at).map_err(MakeError::io("empty the new volume"))?;
            at += part;
        }
    }
    copy_master(job, &device)?;
    device.sync_all().map_err(MakeError::io("sync the new volume"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split() {
        assert_eq!(split(Path::new("/dev/vg0/web-1")), ("vg0".to_owned(), "web-1".to_owned()));
        let partial = partial_base(Path::new("/dev/vg0/drover-web-0001.part"));
        assert_eq!(split(&partial).1, "drover-web-0001.base");
    }
}
