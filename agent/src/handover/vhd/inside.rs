//! What a differencing VHD has inside besides its header: the table of its blocks, and the locators, by which programs find
//! its parent. Xen's and Hyper-V's programs write there; what they can't read again is damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::format::{BLOCK_LEN, Layout, Locator, MAX_DISK_LEN, SECTOR_LEN};

/// The longest locator that is read, in bytes: a path in UTF-16.
const LONGEST_LOCATOR: u32 = 64 << 10;
/// Entries of the table of the longest disk.
const ENTRIES_MOST: u32 = (MAX_DISK_LEN / BLOCK_LEN) as u32;
/// An entry of a block that the disk does not have of its own.
const ABSENT: u32 = u32::MAX;

/// What is wrong inside; nothing if all is well. `parent` is the name of the parent's file.
pub(super) fn fault(file: &File, layout: &Layout, parent: &str) -> io::Result<Option<String>> {
    let len = file.metadata()?.len();
    match fault_of_table(file, layout, len)? {
        Some(fault) => Ok(Some(fault)),
        None => fault_of_locators(file, layout, parent),
    }
}

/// Each block lies behind the table and before the footer, and none in another.
fn fault_of_table(file: &File, layout: &Layout, len: u64) -> io::Result<Option<String>> {
    if layout.entries > ENTRIES_MOST {
        return Ok(Some(format!("its table has {} entries, more than any disk", layout.entries)));
    }
    let mut table = vec![0; 4 * layout.entries as usize];
    file.read_exact_at(&mut table, layout.table_at)?;
    let first = layout.table_at + table.len() as u64;
    let entries = table.chunks_exact(4).map(|entry| u32::from_be_bytes(entry.try_into().expect("four bytes")));
    let mut blocks: Vec<(u64, usize)> = entries
        .enumerate()
        .filter(|(_, sector)| *sector != ABSENT)
        .map(|(number, sector)| (u64::from(sector) * SECTOR_LEN, number))
        .collect();
    blocks.sort_unstable();
    // A block has a sector before it that says which of its own are the disk's.
    let end = |start: u64| start + SECTOR_LEN + BLOCK_LEN;
    let outside = blocks.iter().find(|(start, _)| *start < first || end(*start) > len - SECTOR_LEN);
    if let Some((start, number)) = outside {
        return Ok(Some(format!("its table has block {number} at {start}, where none can be")));
    }
    let shared = blocks.windows(2).find(|two| end(two[0].0) > two[1].0);
    Ok(shared.map(|two| format!("its table has the blocks {} and {} in the same place", two[0].1, two[1].1)))
}

/// Each locator leads to a file of the parent's name.
fn fault_of_locators(file: &File, layout: &Layout, parent: &str) -> io::Result<Option<String>> {
    let mut known = 0;
    for locator in &layout.locators {
        let mut text = vec![0; locator.len.min(LONGEST_LOCATOR) as usize];
        match file.read_exact_at(&mut text, locator.at) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => text.clear(),
            read => read?,
        }
        let Some(path) = locator.decode(&text) else { continue };
        known += 1;
        if path.rsplit(['/', '\\']).next() != Some(parent) {
            let code = String::from_utf8_lossy(&locator.code);
            return Ok(Some(format!("its locator {code} leads to {path:?}, not to {parent}")));
        }
    }
    Ok((known == 0).then(|| format!("it has no locator that leads to {parent}")))
}

impl Locator {
    /// The path in it, if it is of a kind that has one.
    fn decode(&self, text: &[u8]) -> Option<String> {
        match &self.code {
            b"W2ru" | b"W2ku" => {
                let units: Vec<u16> = text.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
                Some(String::from_utf16_lossy(&units))
            }
            b"MacX" => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }
}
