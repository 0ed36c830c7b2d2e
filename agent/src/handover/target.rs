//! Where a clone goes: its path, the temporary name beside it, and the step from one to the other.
//!
//! Nothing that exists is ever overwritten, also not what comes into being while the clone is made: the last step is a
//! rename that fails if the name is taken.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use drover_protocol::release::Name;
use rustix::fs::{Access, AtFlags, CWD, RenameFlags, accessat, renameat_with};
use rustix::io::Errno;

use super::driver::Unusable;
use super::master::folder_of;

/// Where a clone can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A file that does not exist, in a folder that does and can be written.
    File {
        /// The folder.
        folder: PathBuf,
        /// The file.
        path: PathBuf,
    },
    /// A logical volume, by its path `/dev/GROUP/VOLUME`. Whether there is such a group is the drivers' to find out.
    Volume {
        /// The volume group.
        group: String,
        /// The volume.
        volume: String,
    },
}

/// Why no clone can be made at a path.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is relative.
    #[error("{} is no absolute path; name the clone's file from / on", .0.display())]
    NotAbsolute(PathBuf),
    /// It is no text.
    #[error("{} is no UTF-8 text; choose another path for the clone", .0.display())]
    NotText(PathBuf),
    /// It has control characters.
    #[error(
        "{0:?} has control characters, which neither people nor hypervisors can read; choose another path for the clone"
    )]
    Control(PathBuf),
    /// It goes up again.
    #[error("{} has `..` in it; name the path of the clone without", .0.display())]
    Upwards(PathBuf),
    /// It names a folder.
    #[error("{} is a folder; name a file in it for the clone, such as {}", .0.display(), .0.join("disk.img").display())]
    IsFolder(PathBuf),
    /// Something is there.
    #[error("{} exists already and is not overwritten; choose another path or remove it first", .0.display())]
    Exists(PathBuf),
    /// It is below `/dev` and no volume's path.
    #[error("{} is below /dev, where no files are kept; for a logical volume give /dev/GROUP/VOLUME", .0.display())]
    Device(PathBuf),
    /// It is in a folder that Drover keeps for itself.
    #[error("{} is in a folder of the daemon's, which may remove what is there; choose another folder", .0.display())]
    Ours(PathBuf),
    /// The folder is missing.
    #[error("there is no folder {}; create it first or choose another path", .0.display())]
    NoFolder(PathBuf),
    /// The folder can't be written.
    #[error("can't make files in {}: {source}; choose another folder or run this as a user who may", folder.display())]
    NotWritable {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused.
    #[error("can't {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Target {
    /// The target at `out`, if something can be made there now.
    pub(super) fn check(out: &Path) -> Result<Target, TargetError> {
        let given = || out.to_owned();
        if !out.is_absolute() {
            return Err(TargetError::NotAbsolute(given()));
        }
        let Some(text) = out.to_str() else { return Err(TargetError::NotText(given())) };
        if text.contains(char::is_control) {
            return Err(TargetError::Control(given()));
        }
        if out.components().any(|part| part == Component::ParentDir) {
            return Err(TargetError::Upwards(given()));
        }
        // Without `//` and `/./`, which lead around what is looked for below.
        let clean: PathBuf = out.components().collect();
        match clean.strip_prefix("/dev") {
            Ok(rest) if !rest.starts_with("shm") => {
                rest.to_str().and_then(Target::volume).ok_or_else(|| TargetError::Device(given()))
            }
            _ => Target::file(&clean, text.ends_with('/') || text.ends_with("/.")),
        }
    }

    /// The same, unless it is among what Drover itself keeps in a state folder. Folders beside that are anybody's.
    pub(super) fn check_beside(out: &Path, state: &Path) -> Result<Target, TargetError> {
        let target = Target::check(out)?;
        if let (Target::File { folder, path }, Ok(state)) = (&target, state.canonicalize()) {
            let below = folder.strip_prefix(&state).ok();
            if below.is_some_and(|below| OURS.iter().any(|ours| below.starts_with(ours))) {
                return Err(TargetError::Ours(path.clone()));
            }
        }
        Ok(target)
    }

    fn volume(below_dev: &str) -> Option<Target> {
        let (group, volume) = below_dev.split_once('/')?;
        // As lvm has it; a name that begins with a hyphen would be an option.
        let is_name = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte);
            !text.is_empty() && !text.starts_with(['-', '.']) && text.len() <= 127 && text.bytes().all(plain)
        };
        let fits = is_name(group) && is_name(volume) && !NO_GROUPS.contains(&group);
        fits.then(|| Target::Volume { group: group.to_owned(), volume: volume.to_owned() })
    }

    fn file(out: &Path, names_folder: bool) -> Result<Target, TargetError> {
        let given = || out.to_owned();
        let (Some(file_name), false) = (out.file_name(), names_folder) else {
            return Err(TargetError::IsFolder(given()));
        };
        let folder = folder_of(out).canonicalize().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => TargetError::NoFolder(folder_of(out).to_owned()),
            _ => TargetError::Io { doing: "look into", path: folder_of(out).to_owned(), source },
        })?;
        if !folder.is_dir() {
            return Err(TargetError::NoFolder(folder));
        }
        if folder.starts_with("/dev") && !folder.starts_with("/dev/shm") {
            return Err(TargetError::Device(given()));
        }
        let path = folder.join(file_name);
        if path.to_str().is_none() {
            return Err(TargetError::NotText(path));
        }
        match path.symlink_metadata() {
            Ok(_) if path.is_dir() => return Err(TargetError::IsFolder(path)),
            Ok(_) => return Err(TargetError::Exists(path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(TargetError::Io { doing: "look at", path, source }),
        }
        match accessat(CWD, &folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) => Ok(Target::File { folder, path }),
            Err(e) => Err(TargetError::NotWritable { folder, source: e.into() }),
        }
    }

    /// The clone's own path.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Target::File { path, .. } => path.clone(),
            Target::Volume { group, volume } => volume_path(group, volume),
        }
    }

    /// The folder, for drivers that make files.
    pub(super) fn folder(&self) -> Result<&Path, Unusable> {
        match self {
            Target::File { folder, .. } => Ok(folder),
            Target::Volume { .. } => Err(Unusable(format!(
                "it makes files, and {} is a logical volume's path; choose a path outside of /dev",
                self.path().display()
            ))),
        }
    }

    /// The volume group, for drivers that make volumes.
    pub(super) fn group(&self) -> Result<&str, Unusable> {
        match self {
            Target::Volume { group, .. } => Ok(group),
            Target::File { .. } => {
                Err(Unusable("it makes logical volumes: give the clone's path as /dev/GROUP/VOLUME".to_owned()))
            }
        }
    }

    /// What the clone is called while it is made.
    pub(super) fn temporary(&self, clone: &Name, random: u32) -> PathBuf {
        match self {
            Target::File { folder, .. } => folder.join(format!(".drover-{clone}-{random:08x}.part")),
            Target::Volume { group, .. } => volume_path(group, &format!("drover-{clone}-{random:08x}.part")),
        }
    }
}

/// The path of a logical volume.
pub(super) fn volume_path(group: &str, volume: &str) -> PathBuf {
    Path::new("/dev").join(group).join(volume)
}

/// Folders in a state folder that are Drover's.
const OURS: [&str; 5] = ["clones", "identity", "incoming", "masters", "releases"];
/// Folders below `/dev` that are no volume groups.
const NO_GROUPS: [&str; 6] = ["mapper", "disk", "block", "pts", "mqueue", "net"];

/// Makes the empty file that a driver fills. Only its owner may read it: the master may be nobody else's business.
pub(super) fn make_empty(temporary: &Path) -> Result<(), TargetError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary);
    made.map(drop).map_err(|source| TargetError::Io { doing: "create", path: temporary.to_owned(), source })
}

/// Removes a file, durably, or says `false` if there is none.
pub(super) fn remove_file(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(false),
        Err(e) => return Err(e),
    }
    match sync_folder(folder_of(path)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(true),
    }
}

/// Makes the content of a finished file durable.
pub(super) fn sync_file(path: &Path) -> Result<(), TargetError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| TargetError::Io { doing: "sync", path: path.to_owned(), source })
}

/// Gives a finished file its name, durably, unless something has that name.
pub(super) fn place(temporary: &Path, path: &Path) -> Result<(), TargetError> {
    take_name(temporary, path)?;
    sync_folder(folder_of(path)).map_err(|source| {
        // Who is told that it failed must find nothing there.
        let _ = renameat_with(CWD, path, CWD, temporary, RenameFlags::NOREPLACE);
        TargetError::Io { doing: "rename the finished file to", path: path.to_owned(), source }
    })
}

/// [`place`], but for its being durable, which is the caller's to see to.
pub(super) fn take_name(temporary: &Path, path: &Path) -> Result<(), TargetError> {
    let failed =
        |source: io::Error| TargetError::Io { doing: "rename the finished file to", path: path.into(), source };
    match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Err(TargetError::Exists(path.to_owned())),
        // Some file systems know no such rename. A hard link doesn't overwrite, either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            link_then_unlink(temporary, path).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => TargetError::Exists(path.to_owned()),
                _ => failed(source),
            })?;
        }
        Err(e) => return Err(failed(e.into())),
    }
    Ok(())
}

/// [`place`] without its rename.
pub(super) fn link_then_unlink(temporary: &Path, path: &Path) -> io::Result<()> {
    // A crash between these two leaves one file under both names.
    if !is_same_file(temporary, path) {
        std::fs::hard_link(temporary, path)?;
        sync_folder(folder_of(path))?;
    }
    std::fs::remove_file(temporary)
}

/// Whether both paths name one file.
pub(super) fn is_same_file(one: &Path, other: &Path) -> bool {
    match (one.symlink_metadata(), other.symlink_metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Makes names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
