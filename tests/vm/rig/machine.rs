//! A virtual machine: a QEMU process whose serial console goes to a file.
//!
//! A machine takes about one CPU. So no more than two run at a time; who wants a third waits until one has ended.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use drover_harness::Process;

use super::initramfs::Initramfs;
use super::parts::Parts;

/// How many run at a time.
const MOST: usize = 2;
/// Far beyond what any machine here needs to boot, also beside others on a loaded host.
const PATIENCE: Duration = Duration::from_secs(180);

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// What a machine is started with.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) parts: &'a Parts,
    pub(crate) initramfs: &'a Initramfs,
    /// Where its files are put, and what they are called.
    pub(crate) folder: &'a Path,
    pub(crate) name: &'a str,
    /// Words for the guest on the kernel's command line.
    pub(crate) words: &'a str,
    /// QEMU's arguments for disks and the like. The first disk is the guest's root.
    pub(crate) devices: Vec<String>,
}

/// A machine that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Machine {
    name: String,
    process: Process,
    serial: PathBuf,
    _place: Place,
}

/// One of the places for machines that run.
#[derive(Debug)]
struct Place(());

impl Machine {
    /// Starts a machine as soon as there is a place for it.
    #[track_caller]
    pub(crate) fn start(setup: Setup<'_>) -> Machine {
        let place = Place::take();
        let serial = setup.folder.join(format!("{}.serial", setup.name));
        let mut qemu = setup.parts.qemu();
        qemu.args(["-accel", "tcg", "-m", "768", "-display", "none", "-no-reboot", "-nodefaults", "-serial"]);
        qemu.arg(format!("file:{}", serial.display()));
        qemu.arg("-kernel").arg(setup.parts.kernel()).arg("-initrd").arg(&setup.initramfs.path);
        qemu.args(["-append", &format!("console=ttyS0 quiet panic=-1 mitigations=off {}", setup.words)])
            .args(&setup.devices);
        let process = Process::start(&mut qemu, &setup.folder.join(format!("{}.qemu", setup.name)));
        Machine { name: setup.name.to_owned(), process, serial, _place: place }
    }

    /// Waits until it has ended, and gives all that it printed.
    #[track_caller]
    pub(crate) fn ended(mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while self.process.runs() {
            assert!(Instant::now() < deadline, "{} does not end:\n{}", self.name, self.printed());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.printed()
    }

    /// Fails if it has ended, with what it printed.
    #[track_caller]
    pub(crate) fn must_run(&mut self) {
        assert!(self.process.runs(), "{} has ended:\n{}", self.name, self.printed());
    }

    /// What it printed so far, QEMU's own words first.
    pub(crate) fn printed(&self) -> String {
        let serial = std::fs::read(&self.serial).unwrap_or_default();
        format!("{}{}", self.process.log(), String::from_utf8_lossy(&serial))
    }
}

impl Place {
    fn take() -> Place {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = ENDED.wait_while(running, |running| *running >= MOST).unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Place(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}
