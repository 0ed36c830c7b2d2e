//! Where the clones are made: an XFS of the study's own in a file, with a sealed master, and Drover's own drivers.
//!
//! Every technique lies on this one file system. A clone exists only while it is measured, so each finds the same room.

use std::error::Error;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use drover_agent::handover::{Choice, CloneSpec, DriverName, FileIdentity, Handover, Master, Profile};
use drover_harness::{TestImage, random_bytes};
use drover_protocol::id::{ContentHash, ImageId};
use drover_protocol::release::Name;
use rustix::fs::{Advice, fadvise};

use super::filesystem::Filesystem;
use super::technique::Technique;
use crate::contenders::program;

/// A master and what makes clones of it.
pub(super) struct Workshop {
    handover: Handover,
    master: Master,
    name: Name,
    // Dropped last: everything above lies on it.
    filesystem: Filesystem,
}

/// A clone, removed when dropped.
pub(super) struct Clone<'a> {
    /// Its file.
    pub(super) path: PathBuf,
    workshop: &'a Workshop,
    /// Whether one of Drover's drivers made it, which then also removes it.
    recorded: bool,
}

impl Workshop {
    /// Makes the file system and a master of `mib` MiB in it, all of it random, in a folder.
    pub(super) fn build(folder: &Path, mib: u64, seed: u64) -> Result<Workshop, Box<dyn Error>> {
        let image = folder.join("xfs.img");
        // The master, a clone that was written from end to end, and as much again for what formats add and for XFS.
        fill(&image, 3 * mib + SPARE_MIB, seed)?;
        let filesystem = Filesystem::xfs(&image, &folder.join("xfs"))?;
        let state = filesystem.root.join("state");
        std::fs::create_dir_all(state.join("masters"))?;
        std::fs::create_dir(filesystem.root.join("clones"))?;
        let image = TestImage::make(&state.join("masters/disk.raw"), mib << 20, mib << 20, seed);
        std::fs::set_permissions(&image.path, Permissions::from_mode(0o444))?;
        let hash = hash(&image.path)?;
        let verified = Some(FileIdentity::of(&image.path.metadata()?));
        let master = Master {
            image: ImageId::from_bytes(hash),
            release: None,
            path: image.path,
            content_len: image.len,
            content_hash: ContentHash::from_bytes(hash),
            in_place: false,
            verified,
        };
        Ok(Workshop { handover: Handover::new(&state), master, name: "clone".parse()?, filesystem })
    }

    /// The master's file.
    pub(super) fn master(&self) -> &Path {
        &self.master.path
    }

    /// Length of every disk in bytes.
    pub(super) fn disk_len(&self) -> u64 {
        self.master.content_len
    }

    /// Makes a fresh clone, durable and out of the page cache like the master. `to_write` says whether it is to be written
    /// first: a dynamic VHD has no parent, so it is then made without content.
    pub(super) fn make(&self, technique: Technique, to_write: bool) -> Result<Clone<'_>, Box<dyn Error>> {
        let path = self.filesystem.root.join("clones/clone.img");
        let recorded = technique != Technique::VhdDynamic;
        match Workshop::driver(technique) {
            Some((driver, profile)) => {
                let driver = Choice::Named(driver);
                let spec = CloneSpec { driver, profile, ..CloneSpec::new(self.name.clone(), path.clone()) };
                self.handover.create(&self.master, &spec)?;
            }
            None if technique == Technique::VhdDynamic => self.make_dynamic_vhd(&path, to_write)?,
            None => return Err(format!("no {technique} is made on a file system").into()),
        }
        let clone = Clone { path, workshop: self, recorded };
        self.settle(&clone.path)?;
        Ok(clone)
    }

    /// Which of Drover's drivers makes it, if one does.
    fn driver(technique: Technique) -> Option<(DriverName, Option<Profile>)> {
        match technique {
            Technique::Plain => Some((DriverName::Copy, None)),
            Technique::Reflink => Some((DriverName::Reflink, None)),
            Technique::Qcow2Compat => Some((DriverName::Qcow2, Some(Profile::Compat))),
            Technique::Qcow2Fast => Some((DriverName::Qcow2, Some(Profile::Fast))),
            Technique::VhdFixed | Technique::Vhd => Some((DriverName::Vhd, None)),
            _ => None,
        }
    }

    /// Fails if the master is not what it was: nothing that was measured may have written to it.
    pub(super) fn check_master(&self) -> Result<(), Box<dyn Error>> {
        let unchanged = hash(&self.master.path)? == *self.master.content_hash.as_bytes();
        if unchanged { Ok(()) } else { Err("the master has changed: a clone wrote to it".into()) }
    }

    fn make_dynamic_vhd(&self, path: &Path, empty: bool) -> Result<(), Box<dyn Error>> {
        // Sizes by cylinders, heads and sectors, which it would use otherwise, are not the master's.
        let options = "subformat=dynamic,force_size=on";
        let mut make = Command::new("qemu-img");
        if empty {
            make.args(["create", "-q", "-f", "vpc", "-o", options]).arg(path).arg(self.disk_len().to_string());
        } else {
            make.args(["convert", "-f", "raw", "-O", "vpc", "-o", options]).arg(self.master()).arg(path);
        }
        program::output(&mut make)?;
        Ok(())
    }

    /// Nothing waits to be written, and neither file is in the page cache.
    fn settle(&self, clone: &Path) -> Result<(), Box<dyn Error>> {
        for path in [clone, self.master()] {
            let file = File::open(path)?;
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }
}

impl Drop for Clone<'_> {
    fn drop(&mut self) {
        let removed = if self.recorded {
            self.workshop.handover.remove(&self.workshop.name).map(drop).map_err(|error| error.to_string())
        } else {
            std::fs::remove_file(&self.path).map_err(|error| error.to_string())
        };
        if let Err(error) = removed {
            eprintln!("lab: {} stays: {error}", self.path.display());
        }
    }
}

/// A file whose blocks all exist on the disk below.
fn fill(path: &Path, mib: u64, seed: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let bytes = random_bytes(seed, 1 << 20);
    for _ in 0..mib {
        file.write_all(&bytes)?;
    }
    file.sync_all()?;
    fadvise(&file, 0, None, Advice::DontNeed).map_err(Into::into)
}

fn hash(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(*hasher.finalize().as_bytes())
}

/// For XFS' own log and maps; below 300 MiB it makes no file system at all.
const SPARE_MIB: u64 = 512;
