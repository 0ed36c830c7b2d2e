//! Whether a clone is still what its record says, and its master still what the clone was made from.
//!
//! Cheap: no content is read but a clone's own metadata. A guest writes into its clone, so there is nothing to compare
//! its content with. Of what it rests on, the file's identity is looked at; a difference there is a doubt that only reading
//! all of it can settle ([`Verification::to_hash`]), and no other doubt is settled by that.

use std::cmp::Reverse;
use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use drover_protocol::id::ImageId;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use serde::Serialize;

use super::driver::Inspection;
use super::master::{FileIdentity, Master, NEVER_NOTED, is_one_file, is_sealed};
use super::open_files::OpenFiles;
use super::record::CloneRecord;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// It may be broken: the full check of the master tells.
    Doubt,
    /// It is broken.
    Fault,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum About {
    /// The clone itself: its file or device, and where what it rests on lies.
    Clone,
    /// The content of what it rests on: reading all of that settles a doubt.
    Content,
}

/// Something that was found at a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub about: About,
    /// What it is, for people.
    pub text: String,
}

/// What was found at a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// The clone's name.
    pub name: String,
    /// Whether a program has it open. Its inner consistency can't be checked then, and that is no fault.
    pub in_use: bool,
    /// What was found, worst first.
    pub findings: Vec<Finding>,
    /// What has the content that the clone rests on, for a full check.
    pub to_hash: ToHash,
}

/// Whose content a clone rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ToHash {
    /// Nobody's: it has all it needs.
    Nothing,
    /// The master's, which the store can hash.
    Master(ImageId),
    /// That of a file or volume of its own, which begins with the master: [`Handover::hash_base`](super::Handover::hash_base).
    Base(PathBuf),
}

impl Verification {
    pub(super) fn new(record: &CloneRecord, master: Option<&Master>, inspection: Inspection) -> Verification {
        let Inspection { in_use, mut findings } = inspection;
        inspect_master(record, master, &mut findings);
        findings.sort_by_key(|finding| Reverse(finding.severity));
        let to_hash = match &record.base {
            Some(base) => ToHash::Base(base.clone()),
            None if record.needs_master => ToHash::Master(record.image),
            None => ToHash::Nothing,
        };
        Verification { name: record.name.to_string(), in_use, findings, to_hash }
    }

    /// Takes note that what it rests on was read and is right. That settles what was found of the content before, and nothing else.
    pub fn content_is_right(&mut self) {
        self.findings.retain(|found| found.about != About::Content);
    }

    /// Takes note that what it rests on is not right, and how that was found.
    pub fn content_is_wrong(&mut self, text: String) {
        self.findings.insert(0, Finding { severity: Severity::Fault, about: About::Content, text });
    }

    /// Takes note that a full check had nothing to read beside what every check looks at.
    pub fn stands_alone(&mut self) {
        self.findings.push(Finding::note(
            "it stands alone: its file and that one's length were looked at, and no content was compared, since what guests \
             write to it is recorded nowhere"
                .to_owned(),
        ));
    }

    /// The worst finding, if there is any.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.first().map(|finding| finding.severity)
    }

    /// Whether nothing worse than a note was found.
    pub fn is_sound(&self) -> bool {
        self.worst() <= Some(Severity::Note)
    }
}

impl Finding {
    pub(super) fn note(text: String) -> Finding {
        Finding { severity: Severity::Note, about: About::Clone, text }
    }

    pub(super) fn doubt(text: String) -> Finding {
        Finding { severity: Severity::Doubt, about: About::Clone, text }
    }

    pub(super) fn doubt_of_content(text: String) -> Finding {
        Finding { about: About::Content, ..Finding::doubt(text) }
    }

    pub(super) fn fault_of_content(text: String) -> Finding {
        Finding { about: About::Content, ..Finding::fault(text) }
    }

    pub(super) fn fault(text: String) -> Finding {
        Finding { severity: Severity::Fault, about: About::Clone, text }
    }
}

/// Looks at the master: by what the store says of it today, and by its file.
fn inspect_master(record: &CloneRecord, master: Option<&Master>, findings: &mut Vec<Finding>) {
    let path = &record.master.path;
    let shown = path.display();
    // A reflink or copy has all it needs; what became of its master is news, not damage.
    let softened = |finding: Finding| if record.needs_master { finding } else { Finding::note(finding.text) };
    let mut found = |finding: Finding| findings.push(softened(finding));
    match master {
        None => {
            found(Finding::doubt(format!("the store does not hold the master {} (any more)", record.image.short())));
        }
        Some(master) if !is_one_file(&master.path, path) => {
            let now = master.path.display();
            found(Finding::doubt(format!("the store has the master at {now}, the clone was made from {shown}")));
        }
        Some(_) => {}
    }
    let facts = match path.metadata() {
        Ok(facts) => facts,
        Err(e) => return found(Finding::fault(format!("the master's file {shown} can't be reached: {e}"))),
    };
    if facts.len() != record.master.file.len {
        let (was, is) = (record.master.file.len, facts.len());
        found(Finding::fault(format!("the master's file {shown} was {was} bytes long and is {is}")));
    } else if let Some(what) = doubt_of(record, master, &FileIdentity::of(&facts)) {
        let text = format!("the master's file {shown} may have changed: {what}; hash it to be sure");
        // What the store hashes is what the store holds.
        let is_held = master.is_some_and(|master| is_one_file(&master.path, path));
        found(if is_held { Finding::doubt_of_content(text) } else { Finding::doubt(text) });
    }
    if !record.master.in_place && !is_sealed(&facts) {
        found(Finding::doubt(format!("the master's file {shown} is no longer sealed: it can be written to")));
    }
}

/// Why the bytes of the master's file may not be right: it is not the one that the store compared last, or, of a master that
/// the store does not hold there, not the one that the clone was made of.
fn doubt_of(record: &CloneRecord, master: Option<&Master>, now: &FileIdentity) -> Option<String> {
    match master.filter(|master| is_one_file(&master.path, &record.master.path)) {
        Some(Master { verified: Some(verified), .. }) => verified.difference(now),
        Some(_) => Some(NEVER_NOTED.to_owned()),
        None => record.master.file.difference(now),
    }
}

/// Looks at a clone that is a raw file.
pub(super) fn inspect_raw(record: &CloneRecord) -> Inspection {
    let path = record.path.display();
    let mut findings = Vec::new();
    match record.path.metadata() {
        Ok(facts) if !facts.is_file() => findings.push(Finding::fault(format!("{path} is no regular file"))),
        Ok(facts) if facts.len() < record.disk_len => {
            let (is, recorded) = (facts.len(), record.disk_len);
            findings.push(Finding::fault(format!("its disk is {is} bytes long, recorded are {recorded}")));
        }
        Ok(_) => {}
        Err(e) => findings.push(Finding::fault(format!("there is no file at {path}: {e}"))),
    }
    Inspection { in_use: in_use(&record.path, &OpenFiles::default()), findings }
}

/// Whether what has a raw clone's name is a file that is as long as its disk at least, if it can be looked at.
pub(super) fn is_raw_of(record: &CloneRecord) -> Option<bool> {
    record.path.metadata().ok().map(|facts| facts.is_file() && facts.len() >= record.disk_len)
}

/// Whether a program has locked the file, as qemu does with every disk that it has open, or a loop device shows it, or a
/// program has it open without a lock.
pub(super) fn in_use(path: &Path, opened: &OpenFiles) -> bool {
    is_shown_by_loop(path) || is_locked(path) || path.metadata().is_ok_and(|facts| opened.has(&facts))
}

/// Asked for by taking the lock and letting go at once. A file that we may not write is taken as not locked.
pub(super) fn is_locked(path: &Path) -> bool {
    let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return false };
    matches!(fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive), Err(Errno::AGAIN | Errno::ACCESS))
}

/// Whether a loop device shows the file, by whatever path, as Xen has it for raw disks. Those of a file that was removed do
/// not count.
fn is_shown_by_loop(path: &Path) -> bool {
    let Ok(file) = path.metadata() else { return false };
    let Ok(devices) = std::fs::read_dir("/sys/block") else { return false };
    let shows_it = |device: &Path| {
        let shown = std::fs::read_to_string(device.join("loop/backing_file")).ok()?;
        let shown = Path::new(shown.trim_end_matches('\n')).metadata().ok()?;
        Some((shown.dev(), shown.ino()) == (file.dev(), file.ino()))
    };
    devices.flatten().any(|device| shows_it(&device.path()).unwrap_or(false))
}
