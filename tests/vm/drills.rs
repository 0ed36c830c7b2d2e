//! Drover killed at every step of every driver that makes devices, in a machine that has them.
//!
//! Debug builds end themselves by SIGKILL at the step that `DROVER_KILL_AT` names. After each kill `drover clone activate
//! --all`, which a host runs when it starts, must leave the clones whole and usable, or nothing: no volume, no device, no
//! loop device, no file, no record. The step up to which clones are gone and from which on they are whole is known for each
//! driver, and is checked, too.

use drover_harness::seed;

use crate::rig::GuestHost;

/// Length of the master in bytes: whole sectors, and no whole number of pages, extents or chunks of a thin pool.
const MASTER_LEN: u64 = (2 << 20) + 3 * 512;

/// One driver's clones.
#[derive(Debug, Clone, Copy)]
struct Drill {
    driver: &'static str,
    /// Where they go, with `{}` for the number.
    out: &'static str,
    /// Steps of making one at which there is no clone yet, beside those of every driver.
    undone: &'static [&'static str],
    /// Steps of making one at which there is one already, beside those of every driver.
    done: &'static [&'static str],
    /// Steps of making the device of one that has none.
    activating: &'static [&'static str],
}

#[test]
fn killed_with_snapshots_of_the_masters_file() {
    const DRILL: Drill = Drill {
        driver: "dm",
        out: "/clones/c-{}",
        undone: &[],
        done: &["attached", "attached:2"],
        activating: &["attached", "attached:2"],
    };
    let mut host = GuestHost::start("dm-drills", MASTER_LEN, seed("killed_with_snapshots_of_the_masters_file"));
    DRILL.run(&mut host);
}

#[test]
fn killed_with_thin_volumes() {
    const DRILL: Drill = Drill {
        driver: "lvm-thin",
        out: "/dev/vg/c-{}",
        undone: &["base-made", "base-placed"],
        done: &[],
        activating: &[],
    };
    let mut host = GuestHost::start("thin-drills", MASTER_LEN, seed("killed_with_thin_volumes"));
    host.make_pool("pool", "24m");
    DRILL.run(&mut host);
}

#[test]
fn killed_with_thick_snapshots() {
    const DRILL: Drill = Drill {
        driver: "lvm-thick",
        out: "/dev/vg/c-{}",
        undone: &["base-made", "base-placed"],
        done: &[],
        activating: &[],
    };
    let mut host = GuestHost::start("thick-drills", MASTER_LEN, seed("killed_with_thick_snapshots"));
    DRILL.run(&mut host);
}

impl Drill {
    fn run(&self, host: &mut GuestHost) {
        for step in [&["recorded"], self.undone, &["made"]].concat() {
            self.killed_making(host, 1, step, 0);
        }
        for step in [&["ready", "placed"], self.done, &["activated"]].concat() {
            self.killed_making(host, 1, step, 1);
        }
        for (step, expected) in [("made:2", 0), ("committed", 2), ("placed", 2)] {
            self.killed_making(host, 2, step, expected);
        }
        for step in self.activating {
            self.killed_activating(host, step);
        }
        for step in ["deactivated", "removed"] {
            self.killed_removing(host, step);
        }
    }

    fn killed_making(&self, host: &mut GuestHost, count: usize, step: &str, expected: usize) {
        host.drover_killed(step, &self.create(count));
        host.drover("clone activate --all").ok();
        let list = host.drover("clone list --json").json();
        let clones = list.as_array().expect("a list");
        assert_eq!(clones.len(), expected, "{} was killed at {step} making {count}: {list:#}", self.driver);
        for clone in clones {
            let name = clone["name"].as_str().expect("a clone has a name");
            self.assert_usable(host, name, clone["device"].as_str().or(clone["path"].as_str()).expect("it has a path"));
            host.drover(&format!("clone rm {name}")).ok();
        }
        host.assert_nothing_left();
    }

    fn killed_activating(&self, host: &mut GuestHost, step: &str) {
        let device = host.drover(&self.create(1)).ok();
        host.write(device.trim(), 0, 64).ok();
        host.drover("clone deactivate c-1").ok();
        host.drover_killed(step, "clone activate c-1");
        host.drover("clone activate --all").ok();
        assert!(host.has_written(device.trim(), 0, 64), "{} was killed at {step}: data is lost", self.driver);
        host.drover("clone rm c-1").ok();
        host.assert_nothing_left();
    }

    /// Removal that has begun is brought to its end.
    fn killed_removing(&self, host: &mut GuestHost, step: &str) {
        host.drover(&self.create(1)).ok();
        host.drover_killed(step, "clone rm c-1");
        host.drover("clone activate --all").ok();
        assert!(host.clone("c-1").is_none(), "{} was killed at {step}", self.driver);
        host.assert_nothing_left();
    }

    fn create(&self, count: usize) -> String {
        let Drill { driver, out, .. } = self;
        format!("clone create golden c-{{}} --count {count} --driver {driver} --out {out}")
    }

    fn assert_usable(&self, host: &mut GuestHost, name: &str, device: &str) {
        host.assert_is_master(device);
        host.write(device, 100, 64).ok();
        assert!(host.has_written(device, 100, 64), "{name} can be written to");
        let verified = host.drover(&format!("clone verify {name}")).ok();
        assert!(!verified.contains("activate"), "{name} is active: {verified}");
    }
}
