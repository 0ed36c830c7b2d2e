//! Readers of files that others may have made, for the fuzzer in `fuzz`, which has no other way to them. Not for use.

use std::fs::File;
use std::path::Path;

pub use crate::handover::vhd::{read_any as read_vhd, some as vhds};

/// Looks at a disk image as at one that is to be published; gives its format if that is fit to be published as far as its
/// header says.
pub fn look_at_image(file: &File, path: &Path) -> Result<String, crate::store::import::ImportError> {
    Ok(crate::store::import::look_at(file, path)?.to_string())
}
