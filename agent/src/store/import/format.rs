//! Which format a disk image has, and whether it is one that needs other files.
//!
//! The format is decided here, by fixed bytes, or by the user; qemu is always told and never guesses, because a guest
//! can write any header into its own raw disk. For the same reason everything that would make qemu open a second file
//! (a backing file, a data file, extents) is looked for here, before qemu sees the image at all: an image must not be
//! able to publish `/etc/shadow`.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::store::disk_error::{DiskError, Doing};

/// A format of disk images.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes of the disk.
    Raw,
    /// QEMU's.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// Hyper-V's first and Xen's; qemu calls it vpc.
    Vhd,
    /// Hyper-V's second.
    Vhdx,
}

/// A text that is no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no format that drover reads: use raw, qcow2, vmdk, vhd or vhdx")]
pub struct ParseFormatError(String);

/// Why an image is refused for its format.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It is not of the format that it should be.
    #[error("{} is no {format} image: {reason}; name its format with --format", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The format.
        format: Format,
        /// Why.
        reason: &'static str,
    },
    /// Its content is partly in other files.
    #[error(
        "{} has {what}, and a master must be whole in itself; flatten it first: qemu-img convert -O raw {} master.raw",
        path.display(), path.display()
    )]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// What makes it depend on another file.
        what: &'static str,
    },
    /// Its content is encrypted.
    #[error("{} is encrypted; decrypt it first with qemu-img convert and its secret", .0.display())]
    Encrypted(PathBuf),
    /// It is something that drover doesn't read.
    #[error("{} is {what}, which drover doesn't read; {advice}, or give --format raw to take it as it is", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// It can't be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Format {
    /// What a file's first and last bytes say; raw, if they say nothing. One that is something else that drover knows,
    /// but doesn't read, is refused: no VM would boot from it.
    pub(super) fn detect(file: &File, path: &Path, len: u64) -> Result<Self, FormatError> {
        let mut head = [0; 512];
        let head_len = head.len().min(len as usize);
        file.read_exact_at(&mut head[..head_len], 0).doing("read", path)?;
        if head.starts_with(b"QFI\xfb") {
            return Ok(Format::Qcow2);
        }
        if head.starts_with(b"KDMV") || head.starts_with(b"COWD") || head.starts_with(VMDK_DESCRIPTOR) {
            return Ok(Format::Vmdk);
        }
        if head.starts_with(b"vhdxfile") {
            return Ok(Format::Vhdx);
        }
        if vhd_footer(file, len).doing("read", path)?.is_some() {
            return Ok(Format::Vhd);
        }
        match FOREIGN.iter().find(|foreign| head[foreign.at..].starts_with(foreign.magic)) {
            Some(&Foreign { what, advice, .. }) => Err(FormatError::Foreign { path: path.to_owned(), what, advice }),
            None => Ok(Format::Raw),
        }
    }

    /// Refuses an image of this format whose content is not all in this file, or is encrypted.
    pub(super) fn refuse_references(self, file: &File, path: &Path, len: u64) -> Result<(), FormatError> {
        let malformed = |reason| FormatError::Malformed { path: path.to_owned(), format: self, reason };
        let not_whole = |what| Err(FormatError::NotWhole { path: path.to_owned(), what });
        let mut head = [0; 512];
        let head_len = head.len().min(len as usize);
        file.read_exact_at(&mut head[..head_len], 0).doing("read", path)?;
        match self {
            Format::Raw => Ok(()),
            Format::Qcow2 => {
                if !head.starts_with(b"QFI\xfb") {
                    return Err(malformed("it does not begin with QFI\\xfb"));
                }
                if len < QCOW2_HEADER_LEAST {
                    return Err(malformed("it ends within its header"));
                }
                let (version, backing, crypt) = (be32(&head, 4), be64(&head, 8), be32(&head, 32));
                if version < 2 {
                    return Err(malformed("it is of the first qcow version"));
                }
                if backing != 0 {
                    return not_whole("a backing file");
                }
                if version >= 3 && be64(&head, 72) & QCOW2_DATA_FILE != 0 {
                    return not_whole("an external data file");
                }
                if crypt != 0 { Err(FormatError::Encrypted(path.to_owned())) } else { Ok(()) }
            }
            Format::Vmdk if head.starts_with(b"KDMV") => {
                let capacity = u64::from_le_bytes(head[12..20].try_into().expect("eight bytes"));
                // Then the descriptor inside counts, and that may name any file.
                if capacity == 0 { not_whole("extents in other files") } else { Ok(()) }
            }
            Format::Vmdk if head.starts_with(VMDK_DESCRIPTOR) => not_whole("extents in other files"),
            Format::Vmdk => Err(malformed("it does not begin with KDMV")),
            Format::Vhd => match vhd_footer(file, len).doing("read", path)? {
                None => Err(malformed("it has no footer that begins with conectix")),
                // qemu would open it without a word and read zeros for whatever the parent holds.
                Some(footer) if be32(&footer, 60) == VHD_DIFFERENCING => not_whole("a parent"),
                Some(_) => Ok(()),
            },
            Format::Vhdx if head.starts_with(b"vhdxfile") => Ok(()),
            Format::Vhdx => Err(malformed("it does not begin with vhdxfile")),
        }
    }

    /// What qemu calls it.
    pub(super) const fn qemu_name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Vhd => "vpc",
            Format::Vhdx => "vhdx",
        }
    }
}

impl FromStr for Format {
    type Err = ParseFormatError;
    fn from_str(text: &str) -> Result<Self, ParseFormatError> {
        match text {
            "raw" => Ok(Format::Raw),
            "qcow2" => Ok(Format::Qcow2),
            "vmdk" => Ok(Format::Vmdk),
            "vhd" | "vpc" => Ok(Format::Vhd),
            "vhdx" => Ok(Format::Vhdx),
            _ => Err(ParseFormatError(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Vhd => "vhd",
            other => other.qemu_name(),
        })
    }
}

/// A dynamic VHD has its footer at both ends, a fixed one only at the end.
fn vhd_footer(file: &File, len: u64) -> io::Result<Option<[u8; 512]>> {
    let mut footer = [0; 512];
    for offset in [Some(0), len.checked_sub(512)].into_iter().flatten().filter(|_| len >= 512) {
        file.read_exact_at(&mut footer, offset)?;
        if footer.starts_with(b"conectix") {
            return Ok(Some(footer));
        }
    }
    Ok(None)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// What would be taken for raw, but surely is not meant so.
struct Foreign {
    at: usize,
    magic: &'static [u8],
    what: &'static str,
    advice: &'static str,
}

const fn foreign(at: usize, magic: &'static [u8], what: &'static str, advice: &'static str) -> Foreign {
    Foreign { at, magic, what, advice }
}

const FOREIGN: [Foreign; 12] = [
    foreign(64, b"\x7f\x10\xda\xbe", "a VirtualBox image (vdi)", "convert it first (qemu-img convert -f vdi -O qcow2)"),
    foreign(0, b"QED\0", "a QED image", "convert it first (qemu-img convert -f qed -O qcow2)"),
    foreign(0, b"WithoutFreeSpace", "a Parallels image", "convert it first (qemu-img convert -f parallels -O qcow2)"),
    foreign(0, b"WithouFreSpacExt", "a Parallels image", "convert it first (qemu-img convert -f parallels -O qcow2)"),
    foreign(0, b"\x1f\x8b\x08", "a gzip file", "unpack it first (gunzip)"),
    foreign(0, b"\xfd7zXZ\0", "an xz file", "unpack it first (unxz)"),
    foreign(0, b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it first (unzstd)"),
    foreign(0, b"\x04\x22\x4d\x18", "an lz4 file", "unpack it first (unlz4)"),
    foreign(0, b"BZh", "a bzip2 file", "unpack it first (bunzip2)"),
    foreign(0, b"PK\x03\x04", "a zip archive", "unpack it first (unzip)"),
    foreign(0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first (7z x)"),
    foreign(257, b"ustar", "a tar archive (an OVA is one)", "unpack it first (tar -xf)"),
];

const VMDK_DESCRIPTOR: &[u8] = b"# Disk DescriptorFile";
/// What all versions of the header have.
const QCOW2_HEADER_LEAST: u64 = 72;
/// The incompatible feature "external data file".
const QCOW2_DATA_FILE: u64 = 1 << 2;
const VHD_DIFFERENCING: u32 = 4;
