//! A clone as hypervisors want it told: the whole backing chain, every format named, nothing left to be guessed.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::choice::DriverName;
use super::record::CloneRecord;

/// Why a clone can't be given to a hypervisor.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// qemu reads zeros from it.
    #[error(
        "{0} is a differencing VHD: qemu opens it and reads zeros where the parent has data; give it to Xen or Hyper-V"
    )]
    Vhd(drover_protocol::release::Name),
    /// libvirt tells the bus by the name.
    #[error("{0} is no name of a disk that libvirt knows; say vda (virtio), sda (SCSI), xvda (Xen) or hda (IDE)")]
    Target(String),
    /// Its path can't be written in the hypervisor's language.
    #[error("the path {0:?} has characters that an xl configuration can't hold; keep the clone under a plainer name")]
    Path(std::path::PathBuf),
}

/// The `<disk>` element of a libvirt domain that has the clone as `target`, such as `vda`.
pub fn xml_disk(record: &CloneRecord, target: &str) -> Result<String, MachineError> {
    refuse_vhd(record)?;
    let (kind, attribute) = if is_block(record) { ("block", "dev") } else { ("file", "file") };
    let (format, path) = (record.driver.format(), escaped(disk_of(record)));
    let backing = match backing_of(record) {
        None => "  <backingStore/>\n".to_owned(),
        Some(master) => format!(
            "  <backingStore type='file'>\n    <format type='raw'/>\n    <source file='{}'/>\n    <backingStore/>\n  \
             </backingStore>\n",
            escaped(master)
        ),
    };
    let bus = BUSES.iter().find(|(prefix, _)| target.starts_with(prefix));
    let (_, bus) = bus.ok_or_else(|| MachineError::Target(target.to_owned()))?;
    Ok(format!(
        "<disk type='{kind}' device='disk'>\n  <driver name='qemu' type='{format}' discard='unmap'/>\n  <source \
         {attribute}='{path}'/>\n{backing}  <target dev='{target}' bus='{bus}'/>\n</disk>"
    ))
}

/// Buses by the beginning of a disk's name, as libvirt has them.
const BUSES: [(&str, &str); 4] = [("vd", "virtio"), ("sd", "scsi"), ("xvd", "xen"), ("hd", "ide")];

/// Arguments for qemu: a graph of block nodes without a guessed format, and a virtio disk on it.
pub fn qemu_arguments(record: &CloneRecord) -> Result<Vec<String>, MachineError> {
    refuse_vhd(record)?;
    let node = node_name(record);
    let driver = if is_block(record) { "host_device" } else { "file" };
    let mut graph = json!({
        "driver": record.driver.format(),
        "node-name": node,
        "discard": "unmap",
        "file": { "driver": driver, "filename": disk_of(record), "discard": "unmap" },
    });
    if let Some(master) = backing_of(record) {
        let file = json!({ "driver": "file", "filename": master });
        graph["backing"] = json!({ "driver": "raw", "read-only": true, "file": file });
    }
    let device = format!("virtio-blk-pci,drive={node}");
    Ok(vec!["-blockdev".to_owned(), Value::to_string(&graph), "-device".to_owned(), device])
}

/// The entry in the `disk` list of an `xl` configuration that has the clone as `target`, such as `xvda`.
pub fn xen_disk(record: &CloneRecord, target: &str) -> Result<String, MachineError> {
    let path = disk_of(record);
    // Its strings have no way to say these.
    if path.to_string_lossy().contains(['\'', '"', '\\', '\n']) {
        return Err(MachineError::Path(path.to_owned()));
    }
    let backend = match record.driver {
        // Left to itself Xen takes qemu for it, which reads zeros where the clone has the master's.
        DriverName::Vhd => "backendtype=tap, ",
        _ if is_block(record) => "backendtype=phy, ",
        _ => "",
    };
    // What follows `target=` is taken as it is to the end.
    let format = record.driver.format();
    Ok(format!("'format={format}, vdev={target}, access=w, {backend}target={}'", path.display()))
}

fn refuse_vhd(record: &CloneRecord) -> Result<(), MachineError> {
    if record.driver == DriverName::Vhd { Err(MachineError::Vhd(record.name.clone())) } else { Ok(()) }
}

/// What a guest's disk is.
fn disk_of(record: &CloneRecord) -> &Path {
    record.device.as_deref().unwrap_or(&record.path)
}

/// What qemu reads below the clone.
fn backing_of(record: &CloneRecord) -> Option<&Path> {
    (record.driver == DriverName::Qcow2).then_some(&record.master.path)
}

fn is_block(record: &CloneRecord) -> bool {
    matches!(record.driver, DriverName::Dm | DriverName::LvmThin | DriverName::LvmThick)
}

/// A node's name: at most 31 characters, beginning with a letter.
fn node_name(record: &CloneRecord) -> String {
    let name = record.name.as_str();
    if name.len() <= 24 {
        return format!("drover-{name}");
    }
    format!("drover-{}", &blake3::hash(name.as_bytes()).to_hex()[..16])
}

fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '\'' => text.push_str("&apos;"),
            '"' => text.push_str("&quot;"),
            other if other.is_control() => drop(write!(text, "&#{};", other as u32)),
            other => text.push(other),
        }
    }
    text
}
