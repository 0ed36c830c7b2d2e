//! Clones as hypervisors are told of them.

use super::world::{Mounted, World, run, text};
use crate::handover::{DriverName, qemu_arguments, xen_disk, xml_disk};

#[test]
fn libvirt_is_told_every_format() {
    let world = World::new();
    let record = world.make("web", DriverName::Qcow2).record;
    let xml = xml_disk(&record, "vda").expect("an element");
    let (clone, master) = (record.path.display(), world.master.path.display());
    assert_eq!(
        xml,
        format!(
            "<disk type='file' device='disk'>\n  <driver name='qemu' type='qcow2' discard='unmap'/>\n  <source \
             file='{clone}'/>\n  <backingStore type='file'>\n    <format type='raw'/>\n    <source file='{master}'/>\n    \
             <backingStore/>\n  </backingStore>\n  <target dev='vda' bus='virtio'/>\n</disk>"
        )
    );
    let copy = world.make("whole", DriverName::Copy).record;
    let xml = xml_disk(&copy, "sda").expect("an element");
    assert!(xml.contains("type='raw'") && xml.contains("<backingStore/>") && xml.contains("bus='scsi'"), "{xml}");

    for (target, bus) in [("vdb", "virtio"), ("xvda", "xen"), ("hda", "ide")] {
        let xml = xml_disk(&copy, target).expect("an element");
        assert!(xml.contains(&format!("<target dev='{target}' bus='{bus}'/>")), "{xml}");
    }
    let refused = xml_disk(&copy, "disk0").expect_err("libvirt would not know its bus");
    assert!(refused.to_string().contains("disk0"), "{refused}");

    let mut odd = copy;
    odd.path = "/srv/a&b/<'x\">.img".into();
    let xml = xml_disk(&odd, "vda").expect("an element");
    assert!(xml.contains("file='/srv/a&amp;b/&lt;&apos;x&quot;&gt;.img'"), "{xml}");
}

#[test]
fn qemu_takes_the_arguments_and_reads_the_master_through_them() {
    let world = World::new();
    for (name, driver) in [("a-clone-with-quite-a-long-name-for-a-node", DriverName::Qcow2), ("1", DriverName::Copy)] {
        let record = world.make(name, driver).record;
        let arguments = qemu_arguments(&record).expect("arguments");
        let node: serde_json::Value = serde_json::from_str(&arguments[1]).expect("JSON");
        assert!(node["node-name"].as_str().is_some_and(|node| node.len() <= 31));
        assert_eq!(arguments[3], format!("virtio-blk-pci,drive={}", node["node-name"].as_str().expect("a name")));
        // The storage daemon takes the same graph, and an export of it must be the master.
        let folder = tempfile::tempdir().expect("a folder");
        let (socket, pid) = (folder.path().join("nbd"), folder.path().join("pid"));
        let export = format!("type=nbd,id=e,node-name={},name=disk", node["node-name"].as_str().expect("a name"));
        let server = format!("addr.type=unix,addr.path={}", text(&socket));
        run(
            "qemu-storage-daemon",
            &[
                "--blockdev",
                &arguments[1],
                "--nbd-server",
                &server,
                "--export",
                &export,
                "--pidfile",
                text(&pid),
                "--daemonize",
            ],
        );
        let compared = std::process::Command::new("qemu-img")
            .args(["compare", "-f", "raw", "-F", "raw", &format!("nbd+unix:///disk?socket={}", text(&socket))])
            .arg(&world.master.path)
            .output();
        let pid: i32 = std::fs::read_to_string(&pid).expect("a pid").trim().parse().expect("a number");
        let daemon = rustix::process::Pid::from_raw(pid).expect("a process");
        rustix::process::kill_process(daemon, rustix::process::Signal::TERM).expect("ended");
        let compared = compared.expect("qemu-img");
        assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stderr));
    }
}

#[test]
fn vhds_are_for_xen_and_not_for_qemu() {
    let Some(mounted) = Mounted::filesystem("xfs", 320) else { return };
    let world = World::in_folder(&mounted.root, super::world::MASTER_LEN);
    let record = world.make("x", DriverName::Vhd).record;
    for refused in [xml_disk(&record, "vda").map(drop), qemu_arguments(&record).map(drop)] {
        assert!(refused.expect_err("never").to_string().contains("reads zeros"));
    }
    let target = record.path.display();
    assert_eq!(
        xen_disk(&record, "xvda").expect("an entry"),
        format!("'format=vhd, vdev=xvda, access=w, backendtype=tap, target={target}'")
    );
}
