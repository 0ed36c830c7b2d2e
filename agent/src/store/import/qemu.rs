//! `qemu-img`, which reads the formats that are not raw. It is always told the format.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::ImportError;
use super::format::{Format, FormatError};
use crate::store::disk_error::{DiskError, Doing};

/// Why `qemu-img` did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// It is not installed.
    #[error(
        "{format} images are read by qemu-img, which is not installed here; install it (apt-get install qemu-utils), \
         or convert the image to raw elsewhere"
    )]
    Missing {
        /// The format that needs it.
        format: Format,
    },
    /// It failed.
    #[error(
        "qemu-img can't {doing} {} as {format}: {message}; see whether the file is whole and of that format",
        path.display()
    )]
    Failed {
        /// What it was to do.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The format that it was told.
        format: Format,
        /// What it said.
        message: String,
    },
    /// It is damaged or cut off.
    #[error(
        "{} is a damaged or cut off {format} image: {reason}; copy or download it again, or mend it with qemu-img check",
        path.display()
    )]
    Damaged {
        /// The image.
        path: PathBuf,
        /// Its format.
        format: Format,
        /// What is wrong with it.
        reason: String,
    },
    /// It could not be started or talked to.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What is known of an image before it is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Bytes that the raw content takes on the disk, about.
    pub(super) data_len: u64,
}

/// The program.
pub(super) struct QemuImg {
    pub(super) program: PathBuf,
}

impl Default for QemuImg {
    fn default() -> Self {
        QemuImg { program: "qemu-img".into() }
    }
}

/// What `qemu-img info` says, as far as it matters.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "virtual-size")]
    virtual_size: u64,
    #[serde(rename = "backing-filename")]
    backing_filename: Option<String>,
    #[serde(default)]
    encrypted: bool,
    #[serde(rename = "format-specific")]
    format_specific: Option<FormatSpecific>,
}

#[derive(Deserialize)]
struct FormatSpecific {
    data: Option<FormatData>,
}

#[derive(Deserialize)]
struct FormatData {
    #[serde(rename = "data-file")]
    data_file: Option<String>,
}

/// What `qemu-img measure` says.
#[derive(Deserialize)]
struct Measure {
    required: u64,
}

impl QemuImg {
    /// Looks at an image, and refuses one that is not whole in itself: the second look, by qemu's own eyes.
    pub(super) fn inspect(&self, format: Format, path: &Path) -> Result<Facts, ImportError> {
        let info: Info = self.json("read", "info", format, path)?;
        let not_whole = |what| Err(FormatError::NotWhole { path: path.to_owned(), what }.into());
        if info.backing_filename.is_some() {
            return not_whole("a backing file");
        }
        let data = info.format_specific.and_then(|specific| specific.data);
        if data.is_some_and(|data| data.data_file.is_some()) {
            return not_whole("an external data file");
        }
        if info.encrypted {
            return Err(FormatError::Encrypted(path.to_owned()).into());
        }
        // Not every format can be measured; then all of it may be data.
        let measured: Result<Measure, QemuError> = self.json_with("measure", "measure", format, path, &["-O", "raw"]);
        let data_len = measured.map_or(info.virtual_size, |measure| measure.required);
        Ok(Facts { data_len })
    }

    /// Writes the raw content of an image to `disk`, zeros left out; calls `progress` with the bytes written so far.
    pub(super) fn convert(
        &self,
        format: Format,
        path: &Path,
        disk: (&File, &Path),
        cancel: &AtomicBool,
        progress: &dyn Fn(u64),
    ) -> Result<(), ImportError> {
        let (disk, disk_path) = disk;
        let mut said = tempfile::tempfile().doing("open", &std::env::temp_dir())?;
        let mut command = self.command("convert");
        command.args(["-f", format.qemu_name(), "-O", "raw", "-S", "64k"]).args([path, disk_path]);
        command.stdout(Stdio::null()).stderr(said.try_clone().doing("open", disk_path)?);
        let mut child = command.spawn().map_err(|error| self.not_started(format, error))?;
        let written = || disk.metadata().map_or(0, |metadata| metadata.blocks() * 512);
        let status = self.end_of(&mut child, cancel, || progress(written()))?;
        let message = read_text(&mut said).doing("read", disk_path)?;
        if !status.success() && message.contains("No space left on device") {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(DiskError { doing: "write", path: disk_path.to_owned(), source: full }.into());
        }
        Ok(check(status, "convert", format, path, message)?)
    }

    /// Waits until a child has ended, or ends it when the import is cancelled; `look` is called meanwhile.
    pub(super) fn end_of(
        &self,
        child: &mut Child,
        cancel: &AtomicBool,
        look: impl Fn(),
    ) -> Result<ExitStatus, ImportError> {
        loop {
            if let Some(status) = child.try_wait().doing("wait for", &self.program)? {
                return Ok(status);
            }
            if cancel.load(Ordering::Relaxed) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(ImportError::Cancelled);
            }
            look();
            thread::sleep(POLL);
        }
    }

    pub(super) fn json<T: for<'de> Deserialize<'de>>(
        &self,
        doing: &'static str,
        command: &str,
        format: Format,
        path: &Path,
    ) -> Result<T, QemuError> {
        self.json_with(doing, command, format, path, &[])
    }

    fn json_with<T: for<'de> Deserialize<'de>>(
        &self,
        doing: &'static str,
        command: &str,
        format: Format,
        path: &Path,
        options: &[&str],
    ) -> Result<T, QemuError> {
        let mut command = self.command(command);
        command.args(["--output=json", "-f", format.qemu_name()]).args(options).arg(path);
        let output = command.output().map_err(|error| self.not_started(format, error))?;
        let message = first_lines(&String::from_utf8_lossy(&output.stderr));
        check(output.status, doing, format, path, message)?;
        serde_json::from_slice(&output.stdout).map_err(|error| QemuError::Failed {
            doing,
            path: path.to_owned(),
            format,
            message: format!("its answer can't be understood: {error}"),
        })
    }

    pub(super) fn command(&self, command: impl AsRef<OsStr>) -> Command {
        let mut program = Command::new(&self.program);
        program.arg(command).env("LC_ALL", "C").stdin(Stdio::null());
        program
    }

    pub(super) fn not_started(&self, format: Format, source: io::Error) -> QemuError {
        match source.kind() {
            io::ErrorKind::NotFound => QemuError::Missing { format },
            _ => DiskError { doing: "run", path: self.program.clone(), source }.into(),
        }
    }
}

fn check(
    status: ExitStatus,
    doing: &'static str,
    format: Format,
    path: &Path,
    message: String,
) -> Result<(), QemuError> {
    if status.success() {
        return Ok(());
    }
    let message = if message.is_empty() { status.to_string() } else { message };
    Err(QemuError::Failed { doing, path: path.to_owned(), format, message })
}

fn read_text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MESSAGE_LEN).read_to_end(&mut bytes)?;
    Ok(first_lines(&String::from_utf8_lossy(&bytes)))
}

/// What a person wants of an error message, on one line.
pub(super) fn first_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    lines.join("; ").chars().take(MESSAGE_LEN as usize).collect()
}

pub(super) const MESSAGE_LEN: u64 = 2048;
/// How often progress is shown and a cancel is noticed.
const POLL: Duration = Duration::from_millis(50);
