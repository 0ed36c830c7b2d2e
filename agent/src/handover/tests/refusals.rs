//! Every way of asking for a clone that can't be: refused with what, why and what to do, and nothing left behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::rebase::second_master;
use super::world::{MASTER_LEN, Mounted, World, described, name, sealed_master, text, write_into};
use crate::handover::copy::Copy;
use crate::handover::driver::{Driver, Job, Site};
use crate::handover::master::MasterFile;
use crate::handover::target::{Target, link_then_unlink, place};
use crate::handover::{
    Choice, CloneSpec, CreateError, DriverName, Hypervisor, MakeError, Master, MasterError, Profile, TargetError, Tools,
};

fn refused(world: &World, change: impl FnOnce(&mut CloneSpec)) -> CreateError {
    let mut spec = world.spec("c", DriverName::Qcow2);
    change(&mut spec);
    let error = world.handover.create(&world.master, &spec).expect_err("it can't be made");
    assert!(world.handover.list().expect("records").records.is_empty());
    error
}

#[test]
fn bad_targets_are_refused() {
    let world = World::new();
    let error = refused(&world, |spec| spec.out = "clone.qcow2".into());
    assert!(matches!(error, CreateError::Target(TargetError::NotAbsolute(_))), "{error}");
    let error = refused(&world, |spec| spec.out = world.out.join("none/c.qcow2"));
    assert!(error.to_string().contains("create it first"), "{error}");
    let error = refused(&world, |spec| spec.out = world.out.clone());
    assert!(error.to_string().contains("is a folder; name a file in it"), "{error}");
    let error = refused(&world, |spec| spec.out = world.out.join("new/"));
    assert!(matches!(error, CreateError::Target(TargetError::IsFolder(_))), "{error}");
    world.assert_nothing_left();

    let taken = world.out.join("taken");
    fs::write(&taken, "mine").expect("a file");
    let error = refused(&world, |spec| spec.out = taken.clone());
    assert!(error.to_string().contains("exists already and is not overwritten"), "{error}");
    assert_eq!(fs::read(&taken).expect("a file"), b"mine");
    std::os::unix::fs::symlink("/nowhere", world.out.join("link")).expect("a link");
    let error = refused(&world, |spec| spec.out = world.out.join("link"));
    assert!(matches!(error, CreateError::Target(TargetError::Exists(_))), "{error}");
    let error = refused(&world, |spec| spec.out = taken.join("c"));
    assert!(matches!(error, CreateError::Target(TargetError::NoFolder(_))), "{error}");
}

#[test]
fn the_way_to_dev_is_seen_however_it_is_written() {
    let world = World::new();
    std::os::unix::fs::symlink("/dev", world.out.join("link")).expect("a link");
    for out in ["//dev/c", "/dev//c", "/./dev/c", "/dev/./c", text(&world.out.join("link/c"))] {
        let error = refused(&world, |spec| spec.out = out.into());
        assert!(matches!(error, CreateError::Target(TargetError::Device(_))), "{out}: {error}");
    }
    for out in ["/tmp/../dev/c", "/dev/vg0/../c", "/tmp/.."] {
        let error = refused(&world, |spec| spec.out = out.into());
        assert!(matches!(error, CreateError::Target(TargetError::Upwards(_))), "{out}: {error}");
    }
    assert_eq!(Target::check(Path::new("//dev/vg0//c")).expect("a volume").path(), Path::new("/dev/vg0/c"));
}

#[test]
fn what_comes_into_being_meanwhile_is_not_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let (temporary, path) = (folder.path().join("t"), folder.path().join("p"));
    fs::write(&temporary, "clone").expect("a file");
    fs::write(&path, "mine").expect("a file");
    let refused = place(&temporary, &path);
    assert!(matches!(refused, Err(TargetError::Exists(_))), "{refused:?}");
    let refused = link_then_unlink(&temporary, &path).expect_err("the name is taken");
    assert_eq!(refused.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).expect("a file"), b"mine");
    assert_eq!(fs::read(&temporary).expect("a file"), b"clone");

    link_then_unlink(&temporary, &folder.path().join("free")).expect("the name is free");
    assert_eq!(fs::read(folder.path().join("free")).expect("a file"), b"clone");
    assert!(!temporary.exists());
}

#[test]
fn folders_without_permission_are_refused() {
    let world = World::new();
    let closed = if rustix::process::geteuid().is_root() {
        let Some(mounted) = Mounted::memory("ro") else { return };
        let error = refused(&world, |spec| spec.out = mounted.root.join("c"));
        error.to_string()
    } else {
        fs::set_permissions(&world.out, Permissions::from_mode(0o555)).expect("closed");
        refused(&world, |_| {}).to_string()
    };
    assert!(closed.contains("can't make files in") && closed.contains("choose another folder"), "{closed}");
    world.assert_nothing_left();
}

#[test]
fn bad_sizes_and_profiles_are_refused() {
    let world = World::new();
    let error = refused(&world, |spec| spec.disk_len = Some(MASTER_LEN - 512));
    assert!(error.to_string().contains("a clone can only be made larger"), "{error}");
    let error = refused(&world, |spec| spec.disk_len = Some(MASTER_LEN + 100));
    assert!(error.to_string().ends_with("use 4194816"), "{error}");
    for driver in [DriverName::Qcow2, DriverName::Copy] {
        for beyond_all_bounds in [u64::MAX, u64::MAX - 511, 1 << 62] {
            refused(&world, |spec| {
                spec.driver = Choice::Named(driver);
                spec.disk_len = Some(beyond_all_bounds);
            });
        }
    }
    let error = refused(&world, |spec| {
        spec.driver = Choice::Named(DriverName::Copy);
        spec.profile = Some(Profile::Fast);
    });
    assert!(error.to_string().contains("knows no profile such as fast"), "{error}");
    for driver in [DriverName::Copy, DriverName::Qcow2, DriverName::Vhd, DriverName::Reflink] {
        let error = refused(&world, |spec| {
            spec.driver = Choice::Named(driver);
            spec.pool = Some("pool0".to_owned());
        });
        assert!(error.to_string().contains("knows no pool such as pool0; only lvm-thin does"), "{error}");
    }
    assert_eq!("zfs".parse::<Choice>().expect_err("unknown").to_string().matches("auto, reflink").count(), 1);
    assert!("vmware".parse::<Hypervisor>().is_err());
    assert!("slow".parse::<Profile>().is_err());
    world.assert_nothing_left();
}

#[test]
fn a_missing_or_broken_qemu_img_is_told_with_what_to_do() {
    let world = World::new().with_tools(Tools { qemu_img: "/nowhere/qemu-img".into(), ..Tools::default() });
    let error = refused(&world, |_| {});
    assert!(error.to_string().contains("apt-get install qemu-utils) or choose --driver copy"), "{error}");
    let world = World::new().with_tools(Tools { qemu_img: "false".into(), ..Tools::default() });
    let error = refused(&world, |_| {});
    assert!(error.to_string().contains("false failed"), "{error}");
    let world = World::new().with_tools(Tools { qemu_img: "true".into(), ..Tools::default() });
    let error = refused(&world, |_| {});
    assert!(error.to_string().contains("can't be understood"), "{error}");
    let old = world.folder().join("qemu-img");
    fs::write(&old, "#!/bin/sh\necho qemu-img version 2.9.1 '(Debian)'\n").expect("a program");
    fs::set_permissions(&old, Permissions::from_mode(0o755)).expect("it may be run");
    let world = world.with_tools(Tools { qemu_img: old, ..Tools::default() });
    let error = refused(&world, |_| {});
    assert!(error.to_string().contains("qemu-img 2.9.1 is too old"), "{error}");
    world.assert_nothing_left();
}

#[test]
fn a_tool_that_is_missing_later_is_to_be_installed_and_no_other_driver_chosen() {
    let world = World::new();
    world.make("c", DriverName::Qcow2);
    let second = second_master(&world);
    let world = world.with_tools(Tools { qemu_img: "/nowhere/qemu-img".into(), ..Tools::default() });
    let found = world.handover.verify(&name("c"), Some(&world.master)).expect("a clone");
    let error = world.handover.rebase(&name("c"), &second).expect_err("there is no qemu-img");
    for text in [found.findings[0].text.clone(), error.to_string()] {
        assert!(text.contains("apt-get install qemu-utils") && !text.contains("--driver"), "{text}");
    }
}

#[test]
fn a_vhd_whose_name_is_not_ascii_is_refused_by_its_name() {
    let world = World::new();
    let error = refused(&world, |spec| {
        spec.driver = Choice::Named(DriverName::Vhd);
        spec.out = world.out.join("größe.vhd");
    });
    assert!(error.to_string().contains("größe.vhd is not"), "{error}");
    world.assert_nothing_left();
}

#[test]
fn bad_masters_are_refused() {
    let mut world = World::new();
    let path = world.master.path.clone();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("unsealed");
    let error = refused(&world, |_| {});
    assert!(error.to_string().contains("is not sealed"), "{error}");

    // Published in place it needs no seal, but then nothing may rest on it.
    world.master.in_place = true;
    let error = refused(&world, |_| {});
    assert!(error.to_string().contains("published in place"), "{error}");
    world.make("copy", DriverName::Copy);
    world.handover.remove(&name("copy")).expect("removed");

    world.master.in_place = false;
    world.master.content_len += 1;
    let error = refused(&world, |_| {});
    assert!(matches!(error, CreateError::Master(MasterError::Changed { .. })), "{error}");
    assert_eq!(error.bad_master(), Some(world.master.image));
    fs::remove_file(&path).expect("gone");
    let error = refused(&world, |_| {});
    assert!(error.to_string().contains("removed or withdrawn; fetch it again"), "{error}");
    world.assert_nothing_left();
}

#[test]
fn a_master_whose_file_is_not_the_one_that_was_compared_is_refused() {
    let mut world = World::new();
    let path = world.master.path.clone();
    let compared = world.master.verified.expect("an identity");
    let unsettled = |world: &World| {
        for driver in [DriverName::Qcow2, DriverName::Copy, DriverName::Vhd] {
            let error = refused(world, |spec| spec.driver = Choice::Named(driver));
            assert!(matches!(error, CreateError::Master(MasterError::Changed { .. })), "{error}");
            assert!(error.to_string().contains("`drover verify "), "{error}");
        }
    };
    // Sealed again after that, so that only its time tells.
    write_into(&path, 77, b"!");
    unsettled(&world);
    world.master.in_place = true;
    let error = refused(&world, |spec| spec.driver = Choice::Named(DriverName::Copy));
    assert!(error.to_string().contains("it was written to"), "{error}");
    world.master.in_place = false;

    // The right bytes in another file, as from a backup, have to be compared again.
    let restored = path.with_extension("new");
    let Master { content_hash, .. } = sealed_master(&restored, MASTER_LEN);
    assert_eq!(content_hash, world.master.content_hash);
    fs::rename(&restored, &path).expect("in its place");
    unsettled(&world);
    world.master.verified = None;
    unsettled(&world);
    world.assert_nothing_left();
    world.master.verified = described(&path).verified;
    assert_ne!(world.master.verified, Some(compared));
    world.make("c", DriverName::Qcow2);
}

#[test]
fn names_that_are_taken_are_refused() {
    let world = World::new();
    world.make("c", DriverName::Copy);
    let mut spec = world.spec("c", DriverName::Copy);
    spec.out = world.out.join("other");
    let error = world.handover.create(&world.master, &spec).expect_err("taken");
    assert!(error.to_string().contains("there is a clone c already"), "{error}");
    assert!(!spec.out.exists() && world.leftovers().len() == 2);
}

#[test]
fn a_full_disk_leaves_nothing() {
    let world = World::new();
    let Some(full) = Mounted::memory("size=64k") else { return };
    let empty = |folder: &Path| fs::read_dir(folder).expect("a folder").count() == 0;
    let error = refused(&world, |spec| spec.out = full.root.join("c"));
    assert!(matches!(error, CreateError::Make { source: MakeError::NoSpace, .. }), "{error}");
    assert!(empty(&full.root));
    let error = refused(&world, |spec| {
        spec.out = full.root.join("c");
        spec.driver = Choice::Named(DriverName::Copy);
    });
    assert!(error.to_string().contains("free some or choose another folder"), "{error}");
    assert!(empty(&full.root));

    // The room may go while the copy is made.
    let source = MasterFile::open(&world.master).expect("the master");
    let (master, disk_len) = (&world.master, MASTER_LEN);
    let target = Target::check(&full.root.join("t")).expect("a target");
    let (room_len, pool, profile) = (None, None, None);
    let job = Job { master, source: &source, target: &target, disk_len, room_len, pool, profile, count: 1 };
    let site = Site { temporary: &full.root.join("t"), base: None, being_made: &source.file };
    let failed = Copy.create(&job, &site);
    assert!(matches!(failed, Err(MakeError::NoSpace)), "{failed:?}");
}

#[test]
fn a_state_folder_without_room_for_records_leaves_no_file() {
    let Some(full) = Mounted::memory("size=4k,nr_inodes=3") else { return };
    let world = World::new();
    fs::create_dir(full.root.join("clones")).expect("a folder");
    let handover = crate::handover::Handover::new(&full.root);
    let error = handover.create(&world.master, &world.spec("c", DriverName::Copy)).expect_err("no room");
    assert!(matches!(error, CreateError::Record(_)), "{error}");
    world.assert_nothing_left();
}

#[test]
fn the_path_of_a_clone_is_its_own_also_while_its_file_is_not_there() {
    let world = World::new();
    let first = world.make("first", DriverName::Copy).record;
    let away = first.path.with_extension("away");
    fs::rename(&first.path, &away).expect("moved by hand");
    let mut second = world.spec("second", DriverName::Copy);
    second.out = first.path.clone();
    let refused = world.handover.create(&world.master, &second).expect_err("it is the first one's");
    assert!(matches!(&refused, CreateError::PathTaken { name, .. } if *name == first.name), "{refused}");
    assert!(refused.to_string().contains("drover clone rm first"), "{refused}");
    world.handover.forget(&first.name).expect("removed");
    let second = world.handover.create(&world.master, &second).expect("free now").record;
    assert!(second.path.exists() && away.exists());
}

#[test]
fn a_full_disk_is_not_taken_for_one_without_reflinks() {
    let Some(full) = Mounted::memory("size=16k") else { return };
    fs::write(full.root.join("all"), [1; 16 << 10]).expect("it fits");
    let world = World::new();
    let reports = world.handover.reports(None, &full.root.join("c"), Hypervisor::Any).expect("reports");
    let reflink = reports.iter().find(|report| report.driver == DriverName::Reflink).expect("all are reported");
    let why = reflink.unusable.as_deref().unwrap_or_default();
    assert!(why.contains("there is no space left in"), "{why}");
}

#[test]
fn no_clone_is_made_among_what_the_daemon_keeps() {
    let world = World::new();
    for folder in ["masters", "clones"] {
        let out = world.state.join(folder).join("c.img");
        fs::create_dir_all(out.parent().expect("a folder")).expect("there");
        let spec = CloneSpec { out: out.clone(), ..world.spec("c", DriverName::Copy) };
        let refused = world.handover.create(&world.master, &spec).expect_err("it would go with the master");
        assert!(refused.to_string().contains("choose another folder"), "{refused}");
        assert!(!out.exists());
    }
    fs::create_dir(world.state.join("vms")).expect("a folder of somebody's");
    let spec = CloneSpec { out: world.state.join("vms/c.img"), ..world.spec("c", DriverName::Copy) };
    world.handover.create(&world.master, &spec).expect("beside them is fine");
}

#[test]
fn disks_that_are_too_large_are_refused_with_the_most_that_can_be() {
    let world = World::new();
    let Some(ext4) = Mounted::filesystem("ext4", 32) else { return };
    let refused = |driver: DriverName, profile: Option<Profile>, disk_len: u64| {
        let change = |spec: &mut CloneSpec| {
            *spec = CloneSpec { driver: Choice::Named(driver), profile, disk_len: Some(disk_len), ..spec.clone() };
            spec.out = ext4.root.join("c");
        };
        refused(&world, change).to_string()
    };
    let error = refused(DriverName::Copy, None, 17 << 40);
    assert!(error.contains("a file of 17.0 TiB is too large") && error.contains("TiB at the most"), "{error}");
    for (profile, most, shown) in [(Profile::Compat, 2 << 50, "2.0 PiB"), (Profile::Fast, 4 << 50, "4.0 PiB")] {
        let error = refused(DriverName::Qcow2, Some(profile), most + 512);
        assert!(error.contains("is too large") && error.contains(&format!("ends at {shown}")), "{error}");
        let spec = CloneSpec { profile: Some(profile), disk_len: Some(most), ..world.spec("c", DriverName::Qcow2) };
        world.handover.create(&world.master, &spec).expect("the most that can be");
        world.handover.remove(&spec.name).expect("removed");
    }
    world.assert_nothing_left();
}

#[test]
fn a_vhd_whose_parent_finds_no_room_says_why_that_takes_any() {
    let world = World::new();
    let Some(small) = Mounted::memory("size=320k") else { return };
    let error = refused(&world, |spec| {
        spec.driver = Choice::Named(DriverName::Vhd);
        spec.out = small.root.join("c.vhd");
    });
    assert!(error.to_string().contains("has no reflinks, so its parent would be a copy of the master"), "{error}");
}

#[test]
fn a_clone_for_hyperv_is_told_the_name_that_it_opens() {
    let world = World::new();
    let make = |clone: &str, out: &str| {
        let spec = CloneSpec {
            hypervisor: Hypervisor::HyperV,
            out: world.out.join(out),
            ..world.spec(clone, DriverName::Vhd)
        };
        world.handover.create(&world.master, &spec).expect("a clone").warnings
    };
    let hint = |warnings: &[String]| warnings.iter().any(|warning| warning.contains("end in .vhd"));
    assert!(hint(&make("a", "a.img")) && hint(&make("b", "b")) && !hint(&make("c", "c.VHD")));
}
