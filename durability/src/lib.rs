//! In which order an incoming master, and the releases that name masters, become durable; on any disk.
//!
//! The agent runs this on the host's file systems, the simulator on disks that tear, lose and refuse, so that what is tried
//! a million times there is what runs here. A [`Disk`] does single operations on files and names; every order of two of them
//! that matters is in this crate:
//! - write data, sync it, append a record, sync that ([`Image::checkpoint`], [`Journal::append`]);
//! - what a failed sync may have lost is given up, never believed again ([`Image::checkpoint`]);
//! - a file is written whole under another name, synced, renamed, and its folder synced ([`write_file`]);
//! - a folder gets its lasting name when everything in it is durable ([`begin`], [`NewFolder::place_at`]);
//! - a complete master is synced, moved, both folders are synced, and then its journal goes ([`move_to_masters`]);
//! - a release is durable before it counts ([`Catalog::accept`]).
//!
//! Everything here blocks and may be called from any thread. What is left to the driver: threads, the room on the disk, modes
//! and flags of sealed files, clones, and which images there are.

mod catalog;
mod disk;
mod disk_error;
mod image;
mod incoming;
mod journal;
mod layout;
mod seal;

pub use catalog::{AcceptError, Accepted, Catalog};
pub use disk::{Access, Disk, DiskFile, Step};
pub use disk_error::{DiskError, Doing, Trouble};
pub use image::{
    CHECKPOINT_AFTER, CHECKPOINT_AFTER_BYTES, CheckpointError, Image, ReadError, Stored, Verified, WriteError,
};
pub use incoming::{LoadError, begin, check_len, load_incoming, load_manifest};
pub use journal::Journal;
pub use layout::{
    DISK, JOURNAL, Layout, MANIFEST, NewFolder, make_folder, sweep_files, sync_folder, sync_parent, write_file,
};
pub use seal::{NotDurable, drop_journal, make_durable, move_to_masters, undo_move};
