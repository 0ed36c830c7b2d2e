//! A clone as something that a load can be put on: an NBD export or a file.
//!
//! qemu's storage daemon serves what qemu reads over NBD on a Unix socket, which fio speaks, and libnbd's `nbdfuse` makes a
//! file of, which a loop device can be made of. (The daemon's own FUSE export, as of 10.0.2, mixes up the data of writes
//! that are in flight together.) All its files are opened with O_DIRECT (`cache=none`), clone and master alike, so both are
//! cold all the time. A differencing VHD and its parent are shown as files by `vhdimount`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::filesystem::unmount;
use super::technique::Technique;
use super::workshop::{Clone, Workshop};
use crate::contenders::{ContenderError, Guard, poll};

/// How qemu hands reads and writes to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Aio {
    /// Linux' own asynchronous IO, usual with `cache=none`
    Native,
    /// A pool of threads, qemu's default
    Threads,
    /// What Proxmox takes
    IoUring,
}

/// A served clone. When dropped, what serves it is ended, by its id.
pub(super) struct Export {
    /// Where it is.
    pub(super) place: Place,
    /// What has to be unmounted.
    mounted: Option<PathBuf>,
    servers: Vec<Guard>,
}

/// Where a served clone is found. Paths are within the folder of the study, which all programs run in: one of a socket must
/// be short.
pub(super) enum Place {
    /// An export of this name at a Unix socket.
    Nbd {
        /// The socket.
        socket: PathBuf,
    },
    /// A file.
    File(PathBuf),
}

/// What serves clones, and where it may put its sockets and mount points.
pub(super) struct Server<'a> {
    pub(super) folder: &'a Path,
    pub(super) workshop: &'a Workshop,
    pub(super) aio: Aio,
}

impl Server<'_> {
    /// Serves a clone as its technique can be: by NBD if qemu reads it.
    pub(super) fn serve(&self, technique: Technique, clone: &Clone<'_>) -> Result<Export, Box<dyn Error>> {
        if technique.is_served_by_qemu() { self.nbd(technique, clone) } else { self.vhdimount(technique, clone) }
    }

    fn nbd(&self, technique: Technique, clone: &Clone<'_>) -> Result<Export, Box<dyn Error>> {
        let socket = PathBuf::from("nbd.sock");
        let server = json!({ "addr": { "type": "unix", "path": socket } });
        let export = json!({ "type": "nbd", "id": NODE, "node-name": NODE, "name": NODE, "writable": true });
        let mut arguments = vec!["--nbd-server".to_owned(), server.to_string()];
        arguments.extend(["--export".to_owned(), export.to_string()]);
        let guard = self.qemu(technique, clone, &arguments)?;
        Ok(Export { place: Place::Nbd { socket }, mounted: None, servers: vec![guard] })
    }

    /// Serves a clone that qemu reads as a file.
    pub(super) fn fuse(&self, technique: Technique, clone: &Clone<'_>) -> Result<Export, Box<dyn Error>> {
        let mut export = self.nbd(technique, clone)?;
        let Place::Nbd { socket } = &export.place else { return Err("it was to be served by NBD".into()) };
        let (file, ready) = (self.folder.join("disk"), self.fresh("nbdfuse.pid"));
        // It is mounted on a file.
        std::fs::write(&file, [])?;
        let mut mount = Command::new("nbdfuse");
        mount.current_dir(self.folder).arg("-P").arg(&ready).arg(&file).arg(uri(socket));
        export.servers.push(Guard::start("nbdfuse", &mut mount, &self.folder.join("nbdfuse.log"))?);
        export.mounted = Some(file.clone());
        wait_for_id(&ready, &mut export.servers[1])?;
        export.place = Place::File(file);
        Ok(export)
    }

    fn qemu(&self, technique: Technique, clone: &Clone<'_>, export: &[String]) -> Result<Guard, Box<dyn Error>> {
        let ready = self.fresh("qemu.pid");
        let mut qemu = Command::new("qemu-storage-daemon");
        qemu.current_dir(self.folder).arg("--pidfile").arg(&ready).arg("--blockdev");
        qemu.arg(self.node(technique, clone).to_string()).args(export);
        let mut guard = Guard::start("qemu-storage-daemon", &mut qemu, &self.folder.join("qemu.log"))?;
        wait_for_id(&ready, &mut guard)?;
        Ok(guard)
    }

    /// A file that is not there.
    fn fresh(&self, name: &str) -> PathBuf {
        let file = self.folder.join(name);
        let _ = std::fs::remove_file(&file);
        file
    }

    /// How qemu is to open a clone: with every format named, and nothing in the page cache.
    fn node(&self, technique: Technique, clone: &Clone<'_>) -> Value {
        let aio = self.aio.to_possible_value().map(|value| value.get_name().to_owned());
        let file = |path: &Path, read_only: bool| json!({ "driver": "file", "filename": path, "aio": aio, "cache": { "direct": true }, "read-only": read_only });
        let (driver, own) = match technique {
            Technique::Qcow2Compat | Technique::Qcow2Fast => ("qcow2", file(&clone.path, false)),
            Technique::VhdDynamic => ("vpc", file(&clone.path, false)),
            _ => ("raw", file(&clone.path, false)),
        };
        let mut node = json!({ "driver": driver, "node-name": NODE, "file": own });
        if driver == "qcow2" {
            node["backing"] = json!({ "driver": "raw", "read-only": true, "file": file(self.workshop.master(), true) });
        }
        node
    }

    fn vhdimount(&self, technique: Technique, clone: &Clone<'_>) -> Result<Export, Box<dyn Error>> {
        let root = self.folder.join("vhd");
        std::fs::create_dir_all(&root)?;
        // -v keeps it in the foreground, where it can be ended by its id.
        let mut mount = Command::new("vhdimount");
        mount.current_dir(self.folder).arg("-v").arg(&clone.path).arg(&root);
        let guard = Guard::start("vhdimount", &mut mount, &self.folder.join("vhdimount.log"))?;
        // It shows the parent as the first file, and the child, which is the last, as the second.
        let file = root.join(if technique == Technique::Vhd { "vhdi2" } else { "vhdi1" });
        let mut export = Export { place: Place::File(file.clone()), mounted: Some(root), servers: vec![guard] };
        poll("vhdimount to show a clone", PATIENCE, || {
            export.servers[0].must_run()?;
            Ok(file.exists().then_some(()))
        })?;
        Ok(export)
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Some(mounted) = &self.mounted {
            unmount(mounted);
        }
    }
}

/// Where an export is.
pub(super) fn uri(socket: &Path) -> String {
    format!("nbd+unix:///{NODE}?socket={}", socket.display())
}

/// Waits until a program has written its id, which it does when everything is there.
fn wait_for_id(file: &Path, program: &mut Guard) -> Result<(), ContenderError> {
    poll("a clone to be served", PATIENCE, || {
        program.must_run()?;
        Ok(std::fs::read_to_string(file).is_ok_and(|id| !id.is_empty()).then_some(()))
    })
}

/// What the served disk is called.
const NODE: &str = "disk";
/// For what takes moments on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
