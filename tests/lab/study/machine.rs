//! What needs a device-mapper, inside a virtual machine that has one, whatever this machine's kernel has.
//!
//! Drover itself runs in there and makes the clones, in the machine's own ext4 and volume group; fio loads their devices.
//! A plain file is loaded through a loop device, as the store of a dm-snapshot is; volumes are compared with a volume. The
//! processor is emulated: that slows the kernel's and fio's work alike and the disk's not at all, so only ratios within
//! the machine say anything, and they make more of what costs the processor than a real one would.

use std::error::Error;

use super::figures::Sample;
use super::fio::{self, Load};
use super::operation::{Operation, PHASES, Part};
use super::technique::Technique;

#[path = "../../vm/rig/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests of virtual machines use all of it")]
mod rig;

/// A running machine with a master called `study`.
pub(super) struct Machine {
    host: rig::GuestHost,
    load: Load,
}

/// Says what to do if the parts of virtual machines are not here.
pub(super) fn check_brought() -> Result<(), String> {
    rig::Parts::look()
        .map(drop)
        .ok_or_else(|| "what the machine is made of is missing: tests/vm/fetch target/vm".to_owned())
}

impl Machine {
    /// Starts one, publishes a master in it and makes a thin pool.
    pub(super) fn start(seconds: u32, seed: u64) -> Result<Machine, Box<dyn Error>> {
        let fio = rig::Parts::look().ok_or("the parts of virtual machines are missing")?.program("fio");
        let mut host = rig::GuestHost::start_with("study", RIG_MASTER_LEN, seed, |tree| tree.add_tool(&fio, "fio"));
        host.sh(&format!("dd if=/dev/urandom of={SOURCE} bs=1M count={MIB}")).ok();
        host.drover(&format!("publish {SOURCE} --name study --key /var/tracker/publisher.key")).ok();
        host.make_pool("pool", &format!("{}m", MIB + 32));
        Ok(Machine { host, load: Load { seconds, disk_len: MIB << 20, seed } })
    }

    /// All operations with each technique.
    pub(super) fn measure(&mut self, techniques: &[Technique], round: usize) -> Result<Vec<Sample>, Box<dyn Error>> {
        let mut samples = Vec::new();
        for phase in PHASES {
            for &technique in techniques {
                let device = self.make(technique);
                for operation in phase {
                    let per_s = self.run(operation, &device)?;
                    samples.push(Sample { part: Part::Machine, operation, technique, round, per_s });
                }
                self.remove(technique, &device);
            }
        }
        Ok(samples)
    }

    /// Makes a fresh clone and gives its device.
    fn make(&mut self, technique: Technique) -> String {
        let mut create = |driver: &str, out: &str| {
            self.host.drover(&format!("clone create study study --driver {driver} --out {out}")).ok().trim().to_owned()
        };
        match technique {
            Technique::Dm => create("dm", "/clones/study.store"),
            Technique::LvmThick => create("lvm-thick", "/dev/vg/study"),
            Technique::LvmThin => create("lvm-thin", "/dev/vg/study"),
            Technique::Volume => {
                self.host.sh(&format!("lvm lvcreate -y -Wn -Zn -L {MIB}m -n study vg")).ok();
                self.host.sh(&format!("dd if={SOURCE} of=/dev/vg/study bs=1M conv=fsync")).ok();
                "/dev/vg/study".to_owned()
            }
            _ => {
                let file = create("copy", "/clones/study.img");
                self.host.sh(&format!("/tools/losetup --direct-io=on --find --show {file}")).ok().trim().to_owned()
            }
        }
    }

    fn remove(&mut self, technique: Technique, device: &str) {
        match technique {
            Technique::Volume => {
                self.host.sh("lvm lvremove -y vg/study").ok();
                return;
            }
            Technique::Plain => {
                self.host.sh(&format!("/tools/losetup --detach {device}")).ok();
            }
            _ => {}
        }
        self.host.drover("clone rm study").ok();
    }

    fn run(&mut self, operation: Operation, device: &str) -> Result<f64, Box<dyn Error>> {
        // What was copied to make the clone is neither waited for nor remembered.
        self.host.sh("sync; echo 3 >/proc/sys/vm/drop_caches").ok();
        let mut words = vec![format!("fio --name=study --ioengine=libaio --direct=1 --thread --filename={device}")];
        words.push("--output-format=json --output=/tmp/fio.json".to_owned());
        words.extend(self.load.arguments(operation));
        let report = self.host.sh(&format!("{} && cat /tmp/fio.json", words.join(" "))).ok();
        let json = &report[report.find('{').unwrap_or_default()..];
        Ok(fio::speed(json, operation)?)
    }
}

/// Length of the master that the rig makes by itself, which is not used here.
const RIG_MASTER_LEN: u64 = 10 << 20;
/// What the master is published from.
const SOURCE: &str = "/study.raw";
/// Length of the master in MiB: what fits into the rig's machine with its copies.
const MIB: u64 = 64;
