//! Files that others may have made: VHDs, disk images that are to be published, records of clones.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use drover_agent::fuzzing;
use drover_agent::handover::Handover;
use tempfile::{NamedTempFile, TempDir};

/// Any bytes as a differencing VHD: nothing, or a footer that is written back the same.
pub(crate) fn vhd(bytes: &[u8]) {
    fuzzing::read_vhd(bytes);
}

pub(crate) fn vhd_seeds() -> Vec<Vec<u8>> {
    fuzzing::vhds()
}

/// Any bytes as an image that is to be published: refused, or an image that needs no other file as far as its header says.
pub(crate) fn image_file(bytes: &[u8]) {
    let mut file = NamedTempFile::with_prefix_in("drover-fuzz-", memory()).expect("a file in memory");
    file.write_all(bytes).expect("a file in memory");
    let found = fuzzing::look_at_image(file.as_file(), file.path());
    if let Ok(format) = found
        && format == "qcow2"
    {
        assert!(bytes.get(8..16) == Some(&[0; 8]), "a backing file was let through");
    }
}

pub(crate) fn image_file_seeds() -> Vec<Vec<u8>> {
    let mut qcow2 = vec![0; 1024];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let mut backed = qcow2.clone();
    backed[15] = 104;
    let mut fixed = vec![0; 1024];
    fixed[512..520].copy_from_slice(b"conectix");
    fixed[575] = 2;
    let mut vmdk = vec![0; 512];
    vmdk[..4].copy_from_slice(b"KDMV");
    vmdk[12] = 1;
    vec![qcow2, backed, fixed, vmdk, b"# Disk DescriptorFile\nversion=1\n".to_vec(), b"vhdxfile".to_vec(), vec![0; 600]]
}

/// Any bytes as the record of a clone: unreadable, or a record with absolute paths and the name of its file.
pub(crate) fn clone_record(bytes: &[u8]) {
    thread_local! {
        static STATE: RefCell<Option<TempDir>> = const { RefCell::new(None) };
    }
    STATE.with_borrow_mut(|state| {
        let state = state.get_or_insert_with(|| {
            let state = TempDir::with_prefix_in("drover-fuzz-", memory()).expect("a folder in memory");
            fs::create_dir(state.path().join("clones")).expect("a folder in memory");
            state
        });
        fs::write(state.path().join("clones/vm1.json"), bytes).expect("a file in memory");
        let listing = Handover::new(state.path()).list().expect("the folder can be listed");
        assert_eq!(listing.records.len() + listing.unreadable.len(), 1);
        for record in listing.records {
            assert!(record.name.as_str() == "vm1" && record.path.is_absolute() && record.temporary.is_absolute());
            // What is printed for hypervisors must not break their languages.
            let xml = drover_agent::handover::xml_disk(&record, "vda").unwrap_or_default();
            assert!(!xml.chars().any(|c| c.is_control() && c != '\n'), "{xml:?}");
            let _ = drover_agent::handover::xen_disk(&record, "xvda");
            let _ = drover_agent::handover::qemu_arguments(&record);
        }
    });
}

pub(crate) fn clone_record_seeds() -> Vec<Vec<u8>> {
    let hash = "0".repeat(64);
    let record = |more: &str| {
        format!(
            "{{\"format\": 1, \"name\": \"vm1\", \"state\": \"ready\", \"image\": \"{hash}\", \"release\": \"debian@3\", \
             \"driver\": \"qcow2\", \"profile\": \"compat\", \"path\": \"/srv/vm1.img\", \"temporary\": \"/srv/.vm1.tmp\", \
             \"disk_len\": 4194304, \"needs_master\": true, {more} \"master\": {{\"path\": \"/m/disk.raw\", \
             \"content_hash\": \"{hash}\", \"in_place\": false, \"file\": {file}}}, \"created_unix_s\": 1800000000, \
             \"tools\": {{\"qemu-img\": \"10.0.2\"}}}}",
            file = "{\"len\": 4194304, \"inode\": 1, \"modified_unix_ns\": 1}",
        )
        .into_bytes()
    };
    vec![record(""), record("\"base\": \"/srv/base\", \"device\": \"/dev/mapper/drover-vm1\", \"batch\": 7,")]
}

fn memory() -> PathBuf {
    ["/dev/shm", "/tmp"]
        .map(PathBuf::from)
        .into_iter()
        .find(|folder| folder.is_dir())
        .unwrap_or_else(std::env::temp_dir)
}
