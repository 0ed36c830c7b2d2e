//! The VHD format, as far as Drover writes it: the footer of a fixed disk, and a differencing disk that has nothing of
//! its own yet. All of it is bytes from numbers and texts; no file is opened here.
//!
//! After Microsoft's "Virtual Hard Disk Image Format Specification" (2006) and libvhdi's documentation of it. Numbers are
//! big-endian, parent names UTF-16BE, the Windows locators UTF-16LE. Two things that programs do otherwise than the
//! specification says: a locator's "data space" counts bytes, not sectors (Microsoft's and Xen's programs write that), and
//! a creator that qemu knows (`vpc `, `qemu`) would make it take the length from the geometry, which is rounded.

/// Length of a sector and of a footer, in bytes.
pub(in crate::handover) const SECTOR_LEN: u64 = 512;
/// Length of a block of a differencing disk, in bytes.
pub(in crate::handover) const BLOCK_LEN: u64 = 2 << 20;
/// Longest disk, in bytes: XenServer's programs refuse more; the format ends at 2 TiB.
pub(in crate::handover) const MAX_DISK_LEN: u64 = 2040 << 30;
/// Seconds from 1970 to 2000, where the format's time begins.
pub(in crate::handover) const EPOCH_UNIX_S: u64 = 946_684_800;

const FOOTER_LEN: usize = 512;
const HEADER_LEN: usize = 1024;
const NO_OFFSET: u64 = u64::MAX;
/// Locators in a header: where they begin, how many there are, how long each is.
const LOCATORS_AT: usize = 576;
const LOCATORS: usize = 8;
const LOCATOR_LEN: usize = 24;
/// Bytes of the field for the parent's name.
const PARENT_NAME_LEN: usize = 512;

/// A disk's identity.
pub(in crate::handover) type Uuid = [u8; 16];

/// What kind of disk a footer is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::handover) enum Kind {
    /// The content, then the footer.
    Fixed,
    /// Differences from a parent.
    Differencing,
}

/// What a footer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::handover) struct Footer {
    pub(in crate::handover) kind: Kind,
    /// Length of the disk in bytes.
    pub(in crate::handover) disk_len: u64,
    pub(in crate::handover) uuid: Uuid,
    /// Seconds since 2000.
    pub(in crate::handover) time_s: u32,
}

/// What a differencing disk says of its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::handover) struct Parent {
    pub(in crate::handover) uuid: Uuid,
    /// Seconds since 2000: when its file was last modified.
    pub(in crate::handover) time_s: u32,
    /// Its file's name, ASCII.
    pub(in crate::handover) name: String,
    /// Where its file is, from the root on, ASCII.
    pub(in crate::handover) path: String,
}

/// The geometry that a disk's length amounts to: cylinders, heads, sectors per track. It never holds more than the disk.
pub(in crate::handover) fn geometry(disk_len: u64) -> (u16, u8, u8) {
    let total = (disk_len / SECTOR_LEN).min(65_535 * 16 * 255);
    let (sectors, heads) = if total >= 65_535 * 16 * 63 {
        (255, 16)
    } else {
        let heads = (total / 17).div_ceil(1024).max(4);
        if heads > 16 || total / 17 >= heads * 1024 {
            if total / 31 >= 16 * 1024 { (63, 16) } else { (31, 16) }
        } else {
            (17, heads)
        }
    };
    let fits = "the total is bounded so that all three fit";
    let cylinders = u16::try_from(total / sectors / heads).expect(fits);
    (cylinders, u8::try_from(heads).expect(fits), u8::try_from(sectors).expect(fits))
}

impl Footer {
    /// The 512 bytes of it.
    pub(in crate::handover) fn bytes(&self) -> [u8; FOOTER_LEN] {
        let mut bytes = [0; FOOTER_LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        let (offset, kind): (u64, u32) = match self.kind {
            Kind::Fixed => (NO_OFFSET, 2),
            Kind::Differencing => (SECTOR_LEN, 4),
        };
        let (cylinders, heads, sectors) = geometry(self.disk_len);
        put(0, b"conectix");
        put(8, &2_u32.to_be_bytes());
        put(12, &0x0001_0000_u32.to_be_bytes());
        put(16, &offset.to_be_bytes());
        put(24, &self.time_s.to_be_bytes());
        put(28, b"win ");
        put(32, &0x0006_0001_u32.to_be_bytes());
        put(36, b"Wi2k");
        put(40, &self.disk_len.to_be_bytes());
        put(48, &self.disk_len.to_be_bytes());
        put(56, &cylinders.to_be_bytes());
        put(58, &[heads, sectors]);
        put(60, &kind.to_be_bytes());
        put(68, &self.uuid);
        let sum = checksum(&bytes, 64);
        bytes[64..68].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Reads one back, if that is what the bytes are.
    pub(in crate::handover) fn read(bytes: &[u8; FOOTER_LEN]) -> Option<Footer> {
        let kind = match be32(bytes, 60) {
            2 => Kind::Fixed,
            4 => Kind::Differencing,
            _ => return None,
        };
        let whole = bytes.starts_with(b"conectix") && be32(bytes, 64) == checksum(bytes, 64);
        let uuid = bytes[68..84].try_into().ok()?;
        let disk_len = u64::from_be_bytes(bytes[48..56].try_into().ok()?);
        whole.then_some(Footer { kind, disk_len, uuid, time_s: be32(bytes, 24) })
    }
}

/// A differencing disk without a block of its own: the whole file. `parent.name` must be at most 255 characters.
pub(in crate::handover) fn child(footer: &Footer, parent: &Parent) -> Vec<u8> {
    let footer = Footer { kind: Kind::Differencing, ..*footer };
    let blocks = footer.disk_len.div_ceil(BLOCK_LEN);
    let table_len = (blocks * 4).next_multiple_of(SECTOR_LEN) as usize;
    let table_at = FOOTER_LEN + HEADER_LEN;
    let locators = locators(parent);

    let mut file = footer.bytes().to_vec();
    file.resize(table_at, 0);
    file.resize(table_at + table_len, 0xff);
    let mut entries = Vec::new();
    for (code, text) in &locators {
        let space = text.len().next_multiple_of(SECTOR_LEN as usize);
        entries.push((*code, space as u32, text.len() as u32, file.len() as u64));
        file.extend_from_slice(text);
        file.resize(file.len().next_multiple_of(SECTOR_LEN as usize), 0);
    }
    let header = header(blocks as u32, table_at as u64, parent, &entries);
    file[FOOTER_LEN..table_at].copy_from_slice(&header);
    file.extend_from_slice(&footer.bytes());
    file
}

/// The parent's identity in a differencing disk's first 1,536 bytes, if that is what they are.
pub(in crate::handover) fn parent_of(bytes: &[u8]) -> Option<Uuid> {
    let header = bytes.get(FOOTER_LEN..FOOTER_LEN + HEADER_LEN)?;
    let whole = header.starts_with(b"cxsparse") && be32(header, 36) == checksum(header, 36);
    whole.then(|| header[40..56].try_into().ok()).flatten()
}

/// Where a differencing disk has what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::handover) struct Layout {
    /// Where its table of blocks begins, in bytes, and of how many.
    pub(in crate::handover) table_at: u64,
    pub(in crate::handover) entries: u32,
    /// Those that are not empty.
    pub(in crate::handover) locators: Vec<Locator>,
}

/// Where a text is by which programs find the parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::handover) struct Locator {
    /// What kind of text it is.
    pub(in crate::handover) code: [u8; 4],
    /// Its length and place, in bytes.
    pub(in crate::handover) len: u32,
    pub(in crate::handover) at: u64,
}

impl Layout {
    /// Reads it from a differencing disk's first 1,536 bytes, if that is what they are.
    pub(in crate::handover) fn read(bytes: &[u8]) -> Option<Layout> {
        parent_of(bytes)?;
        let header = &bytes[FOOTER_LEN..FOOTER_LEN + HEADER_LEN];
        let be64 = |at: usize| header[at..at + 8].try_into().ok().map(u64::from_be_bytes);
        let locator = |index: usize| {
            let entry = LOCATORS_AT + index * LOCATOR_LEN;
            let code = header[entry..entry + 4].try_into().ok()?;
            Some(Locator { code, len: be32(header, entry + 8), at: be64(entry + 16)? })
        };
        let locators = (0..LOCATORS).filter_map(locator).filter(|locator| locator.code != [0; 4]).collect();
        Some(Layout { table_at: be64(16)?, entries: be32(header, 28), locators })
    }

    /// The least that the disk is long, in bytes: its table, and a footer behind it.
    pub(in crate::handover) fn shortest(&self) -> u64 {
        self.table_at.saturating_add(4 * u64::from(self.entries)).saturating_add(SECTOR_LEN)
    }
}

/// Whether a file that begins so is a differencing disk, or was one before it was damaged.
pub(in crate::handover) fn seems_differencing(bytes: &[u8]) -> bool {
    let is = |at: usize, cookie: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(cookie));
    is(FOOTER_LEN, b"cxsparse") || (is(0, b"conectix") && bytes.len() >= FOOTER_LEN && be32(bytes, 60) == 4)
}

fn header(blocks: u32, table_at: u64, parent: &Parent, locators: &[([u8; 4], u32, u32, u64)]) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"cxsparse");
    put(8, &NO_OFFSET.to_be_bytes());
    put(16, &table_at.to_be_bytes());
    put(24, &0x0001_0000_u32.to_be_bytes());
    put(28, &blocks.to_be_bytes());
    put(32, &(BLOCK_LEN as u32).to_be_bytes());
    put(40, &parent.uuid);
    put(56, &parent.time_s.to_be_bytes());
    let name: Vec<u8> = parent.name.encode_utf16().flat_map(u16::to_be_bytes).take(PARENT_NAME_LEN - 2).collect();
    put(64, &name);
    for (index, (code, space, len, at)) in locators.iter().enumerate() {
        let entry = LOCATORS_AT + index * LOCATOR_LEN;
        put(entry, code);
        put(entry + 4, &space.to_be_bytes());
        put(entry + 8, &len.to_be_bytes());
        put(entry + 16, &at.to_be_bytes());
    }
    let sum = checksum(&bytes, 36);
    bytes[36..40].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Where the parent is, in three ways: from the child's folder and from the root as Windows has it, and as a URL.
fn locators(parent: &Parent) -> [([u8; 4], Vec<u8>); 3] {
    let windows = |path: &str| path.replace('/', "\\").encode_utf16().flat_map(u16::to_le_bytes).collect();
    [
        (*b"W2ru", windows(&format!("./{}", parent.name))),
        (*b"W2ku", windows(&parent.path)),
        (*b"MacX", format!("file://{}", parent.path).into_bytes()),
    ]
}

/// One's complement of the sum of all bytes but the sum's own four at `own`.
fn checksum(bytes: &[u8], own: usize) -> u32 {
    let others = bytes.iter().enumerate().filter(|(at, _)| !(own..own + 4).contains(at));
    !others.map(|(_, &byte)| u32::from(byte)).sum::<u32>()
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer(disk_len: u64) -> Footer {
        Footer { kind: Kind::Fixed, disk_len, uuid: [7; 16], time_s: 1 }
    }

    fn parent() -> Parent {
        Parent { uuid: [7; 16], time_s: 1, name: "p.vhd".to_owned(), path: "/srv/vm/p.vhd".to_owned() }
    }

    #[test]
    fn geometries_are_those_of_the_specification() {
        for mib in [1, 3, 64, 127, 504, 1024, 8 << 10, 40 << 10, 127 << 10, 128 << 10, 2040 << 10] {
            let (cylinders, heads, sectors) = geometry(mib << 20);
            let held = u64::from(cylinders) * u64::from(heads) * u64::from(sectors) * SECTOR_LEN;
            assert!(held <= mib << 20, "{mib} MiB hold more than the disk");
            assert!(mib > 127 << 10 || held > (mib << 20) - (mib << 20) / 50, "{mib} MiB lose {held}");
        }
        // One for each branch, by hand from the specification's appendix.
        assert_eq!(geometry(64 << 20), (963, 8, 17));
        assert_eq!(geometry(200 << 20), (825, 16, 31));
        assert_eq!(geometry(1 << 30), (2080, 16, 63));
        assert_eq!(geometry(2040 << 30), (65_535, 16, 255));
    }

    #[test]
    fn a_footer_reads_back_and_a_flipped_bit_is_noticed() {
        let footer = footer(64 << 20);
        let mut bytes = footer.bytes();
        assert_eq!(Footer::read(&bytes), Some(footer));
        for at in [0, 50, 70] {
            bytes[at] ^= 1;
            assert_eq!(Footer::read(&bytes), None, "byte {at}");
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn a_child_has_its_parts_where_they_belong() {
        let file = child(&footer(5 << 20), &parent());
        assert_eq!(file[..512], file[file.len() - 512..], "both footers are the same");
        assert_eq!(be32(&file, 60), 4);
        assert_eq!(parent_of(&file), Some([7; 16]));
        let header = &file[512..1536];
        assert_eq!((be32(header, 28), be32(header, 32)), (3, 2 << 20));
        // Three blocks, none of them the child's own; the rest of the sector is padding.
        assert!(file[1536..2048].chunks(4).all(|entry| be32(entry, 0) == u32::MAX));
        assert_eq!(&header[64..74], b"\0p\0.\0v\0h\0d");
        let texts: Vec<String> = (0..3)
            .map(|index| {
                let entry = &header[576 + index * 24..];
                let (len, at) = (be32(entry, 8) as usize, be32(entry, 20) as usize);
                assert_eq!((be32(entry, 4), at % 512), (512, 0));
                let text = &file[at..at + len];
                match &entry[..4] {
                    b"MacX" => String::from_utf8(text.to_vec()).expect("UTF-8"),
                    b"W2ru" | b"W2ku" => {
                        let units: Vec<u16> = text.chunks(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
                        String::from_utf16(&units).expect("UTF-16")
                    }
                    other => panic!("{other:?} is no locator"),
                }
            })
            .collect();
        assert_eq!(texts, [".\\p.vhd", "\\srv\\vm\\p.vhd", "file:///srv/vm/p.vhd"]);
    }
}
