//! What a run costs: bytes at each interface, CPU time of the whole machine, the disk's busy time, peak memory of
//! processes. Looked at ten times a second by a thread of its own, from when a contender says that its clock starts
//! until it says that the last host is done.
//!
//! CPU time and disk time are the machine's: everything that runs beside the lab counts, so nothing should.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{major, minor};
use serde::Serialize;

use crate::network::{Counters, Network, NetworkError, Wire};

/// Looks at a network and at processes while it lives.
#[derive(Debug)]
pub(crate) struct Meter {
    state: Arc<Mutex<State>>,
    network: Arc<Network>,
    disk: Option<Disk>,
    looking: Option<JoinHandle<()>>,
}

/// All that was seen between start and stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    /// One look after the other, the first at the start, the last at the stop.
    pub(crate) looks: Vec<Look>,
    /// Each host's wire, and the link between racks, between start and stop.
    pub(crate) passed: Passed,
    /// Every process that was watched.
    pub(crate) processes: Vec<Watched>,
}

/// What passed the wires, exactly.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Passed {
    /// Each host's wire.
    pub(crate) wires: Vec<Wire>,
    /// The link between the racks, if there are two.
    pub(crate) uplink: Option<Counters>,
}

/// The sums so far at one moment.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Look {
    /// When.
    #[serde(skip)]
    pub(crate) at: Instant,
    /// Seconds since the clock started.
    pub(crate) after_s: f64,
    /// Bytes at each host's interface.
    pub(crate) hosts: Vec<Counters>,
    /// Bytes between the racks, if there are two.
    pub(crate) uplink: Option<Counters>,
    /// CPU seconds that the machine spent on anything.
    pub(crate) cpu_s: f64,
    /// Seconds in which the disk under the hosts' folders had something to do.
    pub(crate) disk_s: f64,
}

/// A process and the peak of its memory.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Watched {
    /// On which host; none for what serves the whole network.
    pub(crate) host: Option<usize>,
    /// What it does, as in "agent" or "tracker".
    pub(crate) role: String,
    #[serde(skip)]
    pid: u32,
    /// Bytes resident at the most.
    pub(crate) peak_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    measured: Measured,
    stopped: bool,
    dropped: bool,
}

#[derive(Debug, Clone, Copy)]
struct Disk {
    major: u32,
    minor: u32,
}

impl Meter {
    /// Begins to watch processes. `folder` is where the hosts' files are.
    pub(crate) fn new(network: Arc<Network>, folder: &Path) -> Self {
        let disk = rustix::fs::stat(folder).ok();
        let disk = disk.map(|stat| Disk { major: major(stat.st_dev), minor: minor(stat.st_dev) });
        let mut meter = Meter { state: Arc::default(), network, disk, looking: None };
        let (state, network) = (Arc::clone(&meter.state), Arc::clone(&meter.network));
        meter.looking = Some(std::thread::spawn(move || keep_looking(&state, &network, disk)));
        meter
    }

    /// The clock starts now; gives the moment.
    pub(crate) fn start(&self) -> Result<Instant, NetworkError> {
        let passed = Passed::so_far(&self.network)?;
        let look = look(&self.network, self.disk)?;
        let mut state = lock(&self.state);
        let at = look.at;
        state.measured.looks = vec![look];
        state.measured.passed = passed;
        state.stopped = false;
        Ok(at)
    }

    /// The last host is done. Only the first call after a start counts.
    pub(crate) fn stop(&self) -> Result<(), NetworkError> {
        if lock(&self.state).stopped {
            return Ok(());
        }
        {
            // Locked before looking, as the other thread does, so that looks stay in their order.
            let mut state = lock(&self.state);
            let look = look(&self.network, self.disk)?;
            state.measured.add(look);
            state.stopped = true;
        }
        // After the time is taken, since it takes some.
        let passed = Passed::so_far(&self.network)?;
        let mut state = lock(&self.state);
        state.measured.passed = passed.since(&state.measured.passed);
        Ok(())
    }

    /// Watches a process until it is gone.
    pub(crate) fn watch(&self, host: Option<usize>, role: &str, pid: u32) {
        let watched = Watched { host, role: role.to_owned(), pid, peak_bytes: 0 };
        lock(&self.state).measured.processes.push(watched);
    }

    /// Ends the watch and gives what was seen.
    pub(crate) fn finish(mut self) -> Measured {
        self.end();
        std::mem::take(&mut lock(&self.state).measured)
    }

    fn end(&mut self) {
        lock(&self.state).dropped = true;
        if let Some(looking) = self.looking.take() {
            // It only panics if the clock of this machine does.
            let _ = looking.join();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end();
    }
}

impl Measured {
    fn add(&mut self, mut look: Look) {
        if let Some(first) = self.looks.first() {
            look.after_s = (look.at - first.at).as_secs_f64();
        }
        self.looks.push(look);
    }

    /// Seconds from start to stop.
    pub(crate) fn seconds(&self) -> f64 {
        self.ends().map_or(0.0, |(first, last)| (last.at - first.at).as_secs_f64())
    }

    /// CPU seconds of the whole machine.
    pub(crate) fn cpu_s(&self) -> f64 {
        self.ends().map_or(0.0, |(first, last)| last.cpu_s - first.cpu_s)
    }

    /// The largest process that has this role, in bytes.
    pub(crate) fn peak_bytes(&self, role: &str) -> Option<u64> {
        self.processes.iter().filter(|process| process.role == role).map(|process| process.peak_bytes).max()
    }

    fn ends(&self) -> Option<(&Look, &Look)> {
        Some((self.looks.first()?, self.looks.last()?))
    }
}

impl Passed {
    fn so_far(network: &Network) -> Result<Self, NetworkError> {
        Ok(Passed { wires: network.wires()?, uplink: network.uplink()? })
    }

    fn since(&self, earlier: &Passed) -> Self {
        let wires = self.wires.iter().zip(&earlier.wires).map(|(now, earlier)| now.since(*earlier)).collect();
        let uplink = self.uplink.zip(earlier.uplink).map(|(now, earlier)| now.since(earlier));
        Passed { wires, uplink }
    }
}

fn keep_looking(state: &Mutex<State>, network: &Network, disk: Option<Disk>) {
    loop {
        {
            let mut state = lock(state);
            if state.dropped {
                return;
            }
            for process in &mut state.measured.processes {
                process.peak_bytes = process.peak_bytes.max(largest_peak(process.pid).unwrap_or(0));
            }
            if !state.stopped && !state.measured.looks.is_empty() {
                // A look that fails is missing; the ones at start and stop say why.
                if let Ok(look) = look(network, disk) {
                    state.measured.add(look);
                }
            }
        }
        std::thread::sleep(INTERVAL);
    }
}

fn look(network: &Network, disk: Option<Disk>) -> Result<Look, NetworkError> {
    let hosts = network.counters()?;
    let uplink = network.uplink_counters()?;
    let (cpu_s, disk_s) = (machine_cpu_s(), disk.map_or(0.0, Disk::busy_s));
    Ok(Look { at: Instant::now(), after_s: 0.0, hosts, uplink, cpu_s, disk_s })
}

/// CPU seconds that this machine has spent since its start, on all of its processors, on anything but idling.
pub(crate) fn machine_cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    busy_ticks(&text) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// CPU seconds that a process has spent since its start, unless it is gone.
pub(crate) fn process_cpu_s(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may have blanks in it. Behind it the twelfth and thirteenth fields: user and system ticks.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map_while(|field| field.parse::<u64>().ok()).sum();
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU seconds that a process has spent so far, to the nanosecond: the ticks of its `stat` are too coarse for one that
/// idles. Threads that have ended do not count.
pub(crate) fn cpu_s(pid: u32) -> Option<f64> {
    let mut nanos = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let schedstat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanos += schedstat.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanos as f64 / 1e9)
}

/// A process's resident memory now, in bytes, unless it is gone.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    memory(pid, "VmRSS:")
}

/// The largest [`peak_resident`] of a process and all that it started, unless it is gone.
fn largest_peak(pid: u32) -> Option<u64> {
    let own = peak_resident(pid)?;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    Some(children.filter_map(largest_peak).fold(own, u64::max))
}

/// The peak of a process's resident memory so far, in bytes, unless it is gone.
pub(crate) fn peak_resident(pid: u32) -> Option<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// user, nice, system, irq, softirq and steal; the guests' shares are in the first two.
fn busy_ticks(stat: &str) -> u64 {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    [0, 1, 2, 5, 6, 7].into_iter().filter_map(|at| ticks.get(at)).sum()
}

impl Disk {
    fn busy_s(self) -> f64 {
        let text = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
        let of_this = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_it = fields.first() == Some(&self.major.to_string().as_str())
                && fields.get(1) == Some(&self.minor.to_string().as_str());
            // The thirteenth field: milliseconds with something in the queue.
            is_it.then(|| fields.get(12)?.parse::<f64>().ok()).flatten()
        };
        text.lines().find_map(of_this).unwrap_or(0.0) / 1000.0
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there are plain sums: nothing that a panic elsewhere leaves half done.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Short beside the seconds that a case takes; a look costs some tens of microseconds.
const INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_disk_is_idling() {
        assert_eq!(busy_ticks("cpu  1 20 300 4000 50000 600000 7000000 80000000 9 9\ncpu0 1 1"), 87_600_321);
        assert_eq!(busy_ticks(""), 0);
    }

    #[test]
    fn a_process_that_runs_has_a_peak() {
        assert!(peak_resident(std::process::id()).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(peak_resident(0), None);
    }
}
