//! Whether an image is all there. `qemu-img convert` says nothing of a file that was cut off: it reads zeros behind the
//! end. So each image is checked before it is converted.

use std::io::{self, Read};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;

use serde::Deserialize;

use super::ImportError;
use super::format::Format;
use super::qemu::{MESSAGE_LEN, QemuError, QemuImg, first_lines};

/// What `qemu-img check` says, as far as it matters.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Check {
    corruptions: u64,
    check_errors: u64,
    leaks: u64,
    image_end_offset: Option<u64>,
}

/// A run of the guest's disk, as `qemu-img map` tells it.
#[derive(Deserialize)]
struct Extent {
    length: u64,
    /// Where it is in the file; not given if it is nowhere or compressed.
    offset: Option<u64>,
}

impl QemuImg {
    /// Refuses an image that is damaged or cut off. `len` is the length of the file in bytes.
    pub(super) fn check_sound(
        &self,
        format: Format,
        path: &Path,
        len: u64,
        cancel: &AtomicBool,
    ) -> Result<(), ImportError> {
        // Of a VHD qemu has no check, but it doesn't open one that was cut off.
        if matches!(format, Format::Raw | Format::Vhd) {
            return Ok(());
        }
        let damaged = |reason| Err(QemuError::Damaged { path: path.to_owned(), format, reason }.into());
        let (status, check, message) = self.check(format, path, cancel)?;
        let unsound = !matches!(status.code(), Some(0 | LEAKS_ONLY));
        if unsound || check.corruptions > 0 || check.check_errors > 0 {
            let reason = if message.is_empty() { status.to_string() } else { message };
            return damaged(reason);
        }
        // The check lets the last cluster be short, because a compressed one may be. What it lost shows otherwise: data
        // lies there, or a table did, without which its clusters seem leaked.
        let short = check.image_end_offset.is_some_and(|end| end > len);
        if short && check.leaks > 0 {
            return damaged(format!("its tables don't end within its {len} bytes"));
        }
        if short || format == Format::Vmdk {
            let extents: Vec<Extent> = self.json("read", "map", format, path)?;
            let end = extents.iter().filter_map(|extent| extent.offset?.checked_add(extent.length)).max();
            if let Some(end) = end.filter(|end| *end > len) {
                return damaged(format!("it has {len} bytes, and its data ends at {end}"));
            }
        }
        Ok(())
    }

    fn check(
        &self,
        format: Format,
        path: &Path,
        cancel: &AtomicBool,
    ) -> Result<(ExitStatus, Check, String), ImportError> {
        let mut command = self.command("check");
        command.args(["--output=json", "-f", format.qemu_name()]).arg(path);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| self.not_started(format, error))?;
        let (answer, said) = (child.stdout.take(), child.stderr.take());
        // A line for each bad cluster may be gigabytes in all, of which the beginning is kept.
        let answer = thread::spawn(move || read_beginning(answer));
        let said = thread::spawn(move || read_beginning(said));
        let status = self.end_of(&mut child, cancel, || ())?;
        let [answer, said] = [answer, said].map(|reader| reader.join().unwrap_or_default());
        let check = serde_json::from_slice(&answer).unwrap_or_default();
        Ok((status, check, first_lines(&String::from_utf8_lossy(&said))))
    }
}

fn read_beginning(from: Option<impl Read>) -> Vec<u8> {
    let mut beginning = Vec::new();
    if let Some(mut from) = from {
        let _ = from.by_ref().take(MESSAGE_LEN).read_to_end(&mut beginning);
        let _ = io::copy(&mut from, &mut io::sink());
    }
    beginning
}

/// The exit code that says that clusters are lost to the image, but nothing of its content is.
const LEAKS_ONLY: i32 = 3;
