//! Disk images of other formats come in by what a guest would see, and none may reach for another file.

use std::process::Command;

use super::importing::import_as;
use super::*;
use crate::store::import::{Format, FormatError, ImportError, ImportMethod, ImportMode, ImportSource, import};

/// Runs `qemu-img`; whether it is there.
fn qemu_img(arguments: &[&str]) -> bool {
    match Command::new("qemu-img").args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(error) => {
            eprintln!("no qemu-img here ({error}): not tested");
            false
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A sparse raw disk of 16 MiB.
fn raw_disk(state: &TestState) -> (PathBuf, Vec<u8>) {
    let path = state.file("source.raw");
    let mut whole = vec![0; 16 << 20];
    whole[1 << 20..3 << 20].copy_from_slice(&content(1, 2 << 20));
    whole[(9 << 20) + 4096..(9 << 20) + 8192].fill(7);
    fs::write(&path, &whole).unwrap();
    (path, whole)
}

#[test]
fn each_format_comes_in_by_its_guest_visible_content() {
    let state = TestState::new();
    let (raw, whole) = raw_disk(&state);
    let cases = [
        (Format::Qcow2, "qcow2", ""),
        (Format::Qcow2, "qcow2", "compat=0.10"),
        (Format::Vmdk, "vmdk", "subformat=monolithicSparse"),
        (Format::Vmdk, "vmdk", "subformat=streamOptimized"),
        (Format::Vhd, "vpc", "subformat=dynamic,force_size=on"),
        (Format::Vhd, "vpc", "subformat=fixed,force_size=on"),
        (Format::Vhdx, "vhdx", "subformat=dynamic"),
    ];
    for (format, qemu, options) in cases {
        let path = state.file(&format!("source.{qemu}"));
        let mut arguments = vec!["convert", "-f", "raw", "-O", qemu];
        if !options.is_empty() {
            arguments.extend(["-o", options]);
        }
        arguments.extend([text(&raw), text(&path)]);
        if !qemu_img(&arguments) {
            return;
        }
        let fresh = TestState::new();
        let store = fresh.open();
        let imported = import_as(&store, &path, ImportMode::Auto).unwrap();
        assert_eq!((imported.format, imported.method), (format, ImportMethod::Converted), "{options}");
        assert!(fs::read(&imported.master.path).unwrap() == whole, "{format} {options}");
        assert_eq!(imported.image, manifest_of(&whole).image_id(), "{format} {options}");
        let in_place = import_as(&store, &path, ImportMode::InPlace).unwrap_err();
        assert!(in_place.to_string().contains("--in-place"), "{in_place}");
    }
}

#[test]
fn an_image_that_needs_another_file_is_refused() {
    let state = TestState::new();
    let (raw, _) = raw_disk(&state);
    let [overlay, outside, vmdk] = ["overlay.qcow2", "outside.qcow2", "flat.vmdk"].map(|name| state.file(name));
    let data_file = format!("data_file={},data_file_raw=on", text(&state.file("data.raw")));
    if !qemu_img(&["create", "-f", "qcow2", "-F", "raw", "-b", text(&raw), text(&overlay)]) {
        return;
    }
    qemu_img(&["create", "-f", "qcow2", "-o", &data_file, text(&outside), "4M"]);
    qemu_img(&["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", text(&raw), text(&vmdk)]);
    let store = state.open();
    for (path, expected) in [(&overlay, "a backing file"), (&outside, "data file"), (&vmdk, "other files")] {
        let error = import_as(&store, path, ImportMode::Auto).unwrap_err();
        assert!(matches!(error, ImportError::Format(FormatError::NotWhole { .. })), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(store.masters().is_empty());
    assert_eq!(fs::read_dir(state.path().join("incoming")).unwrap().count(), 0);
}

#[test]
fn headers_that_point_outside_are_refused_before_qemu_sees_them() {
    let state = TestState::new();
    let store = state.open();
    let mut differencing_vhd = vec![0; 2048];
    differencing_vhd[..8].copy_from_slice(b"conectix");
    differencing_vhd[60..64].copy_from_slice(&4u32.to_be_bytes());
    let mut empty_vmdk = vec![0; 2048];
    empty_vmdk[..4].copy_from_slice(b"KDMV");
    let mut encrypted = vec![0; 2048];
    encrypted[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    encrypted[35] = 2;
    let short = b"QFI\xfb\0\0\0\x03\0\0\0".to_vec();
    let descriptor = b"# Disk DescriptorFile\nversion=1\nRW 1 FLAT \"/etc/shadow\" 0\n".to_vec();
    for (content, expected) in [
        (differencing_vhd, "a parent"),
        (empty_vmdk, "other files"),
        (encrypted, "encrypted"),
        (short, "ends within its header"),
        (descriptor, "other files"),
    ] {
        let path = state.file("hostile");
        fs::write(&path, content).unwrap();
        let error = import_as(&store, &path, ImportMode::Auto).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_raw_disk_that_looks_like_something_else_is_raw_when_the_user_says_so() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    let mut whole = content(1, 300_032);
    whole[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    fs::write(&path, &whole).unwrap();
    let error = import_as(&store, &path, ImportMode::Auto).unwrap_err();
    assert!(error.to_string().contains("qcow2") || error.to_string().contains("backing file"), "{error}");
    let imported =
        import(&store, &ImportSource { format: Some(Format::Raw), ..ImportSource::new(&path) }, &|_| {}).unwrap();
    assert_eq!((imported.format, imported.image), (Format::Raw, manifest_of(&whole).image_id()));
    let wrong = import(&store, &ImportSource { format: Some(Format::Vhdx), ..ImportSource::new(&path) }, &|_| {});
    assert!(wrong.unwrap_err().to_string().contains("no vhdx image"));
}

#[test]
fn a_broken_image_and_a_missing_qemu_img_are_told() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.vhdx");
    fs::write(&path, [&b"vhdxfile"[..], &[0; 4096]].concat()).unwrap();
    if qemu_img(&["--version"]) {
        let error = import_as(&store, &path, ImportMode::Auto).unwrap_err();
        assert!(matches!(error, ImportError::Qemu(_)), "{error}");
    }
    let error = crate::store::import::import_without_qemu(&store, &ImportSource::new(&path)).unwrap_err();
    assert!(error.to_string().contains("apt-get install qemu-utils"), "{error}");
    assert_eq!(fs::read_dir(state.path().join("incoming")).unwrap().count(), 0);
}

#[test]
fn an_image_that_was_cut_off_is_refused() {
    let state = TestState::new();
    let (raw, whole) = raw_disk(&state);
    let store = state.open();
    for format in ["qcow2", "vmdk", "vhdx", "vpc"] {
        let path = state.file(&format!("whole.{format}"));
        if !qemu_img(&["convert", "-f", "raw", "-O", format, text(&raw), text(&path)]) {
            return;
        }
        let image = fs::read(&path).unwrap();
        // A VHD ends with a copy of its footer, and a VHDX with unused room of its last block.
        let tail = if format == "vpc" { 4096 } else { 9000 };
        let kept = if format == "vhdx" { image.len() - (8 << 20) } else { image.len() - tail };
        for len in [3000, 70_000, 300_000, image.len() / 2, kept] {
            let cut = state.file(&format!("cut.{format}"));
            fs::write(&cut, &image[..len]).unwrap();
            let error = import_as(&store, &cut, ImportMode::Auto).unwrap_err();
            assert!(matches!(error, ImportError::Qemu(_)), "{format} of {len} bytes: {error}");
            assert!(error.to_string().contains("whole") || error.to_string().contains("cut off"), "{error}");
        }
    }
    assert!(store.masters().is_empty());

    // Compressed, its last cluster is short by right.
    let compressed = state.file("compressed.qcow2");
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", text(&raw), text(&compressed)]);
    let imported = import_as(&store, &compressed, ImportMode::Auto).unwrap();
    assert!(fs::read(&imported.master.path).unwrap() == whole);
}

#[test]
fn clusters_that_are_merely_leaked_do_no_harm() {
    let state = TestState::new();
    let (raw, whole) = raw_disk(&state);
    let path = state.file("leaky.qcow2");
    if !qemu_img(&["convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&path)]) {
        return;
    }
    // The first refcount block is named by the table at the offset in the header's bytes 48 to 55. Clusters behind the
    // end count as used.
    let mut image = fs::read(&path).unwrap();
    let number = |image: &[u8], at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap()) as usize;
    let block = number(&image, number(&image, 48));
    let next = image.len().div_ceil(65_536);
    image[block + 2 * next + 1] = 1;
    image.resize((next + 1) * 65_536, 0);
    fs::write(&path, image).unwrap();
    let checked = Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(&path).output().unwrap();
    assert_eq!(checked.status.code(), Some(3), "the image leaks: {checked:?}");
    let imported = import_as(&state.open(), &path, ImportMode::Auto).unwrap();
    assert!(fs::read(&imported.master.path).unwrap() == whole);
}

#[test]
fn what_is_surely_no_raw_disk_is_taken_for_one_only_if_the_user_says_so() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk");
    for (at, magic, expected) in [
        (64, &b"\x7f\x10\xda\xbe"[..], "-f vdi"),
        (0, b"QED\0", "-f qed"),
        (0, b"WithoutFreeSpace", "-f parallels"),
        (0, b"\x1f\x8b\x08", "gunzip"),
        (0, b"\xfd7zXZ\0", "unxz"),
        (0, b"\x28\xb5\x2f\xfd", "unzstd"),
        (257, b"ustar", "tar"),
    ] {
        let mut whole = content(1, 300_032);
        whole[at..at + magic.len()].copy_from_slice(magic);
        fs::write(&path, &whole).unwrap();
        let error = import_as(&store, &path, ImportMode::Auto).unwrap_err();
        assert!(matches!(error, ImportError::Format(FormatError::Foreign { .. })), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        let source = ImportSource { format: Some(Format::Raw), ..ImportSource::new(&path) };
        assert_eq!(import(&store, &source, &|_| {}).unwrap().format, Format::Raw);
    }
}
