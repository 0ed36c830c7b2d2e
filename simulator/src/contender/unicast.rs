//! One server sends everything to everybody: NFS and HTTP.
//!
//! The server has a wire and perhaps a disk. What fits into its memory is read from the disk once, as fast as the disk
//! gives it; else every reader reads from the disk.
//!
//! When the server dies, clients wait. NFS (a hard mount) goes on where it stood once the server is back; an HTTP download
//! begins again. A client that dies begins its copy again, and machines that run from the server start again.

use drover_protocol::time::Instant;

use super::fluid::Fluid;
use super::timeline::{Change, Timeline};
use super::{Course, TCP_GOODPUT};
use crate::fabric::{Access, LinkId};
use crate::scenario::{Scenario, Vms};

/// Every host copies the image over NFS.
pub(super) fn nfs(scenario: &Scenario) -> Course {
    Server::new(scenario, &scenario.links(TCP_GOODPUT), scenario.data_len(), true).run()
}

/// Every host downloads the image over HTTP.
pub(super) fn http(scenario: &Scenario) -> Course {
    Server::new(scenario, &scenario.links(TCP_GOODPUT), scenario.data_len(), false).run()
}

/// Machines on every host read what they need to start, no faster than they start; then they run on and read on. There is
/// no cache on their hosts.
pub(super) fn on_demand(scenario: &Scenario, vms: Vms) -> Course {
    let mut server = Server::new(scenario, &scenario.wires(TCP_GOODPUT), vms.per_host * vms.boot_len, true);
    let demand = (vms.per_host as f64 * vms.boot_len as f64 / vms.boot_time.as_secs_f64()) as u64;
    for reader in &mut server.readers {
        reader.links.push(server.fluid.add_link(demand.max(1)));
    }
    let mut course = server.run();
    course.load = vms.per_host * vms.read * (scenario.hosts.len() as u64 - 1);
    course
}

struct Server<'a> {
    scenario: &'a Scenario,
    fluid: Fluid<'a>,
    /// Bytes that each host reads.
    need: u64,
    /// Whether a reader goes on where it stood when the server was gone.
    goes_on: bool,
    is_up: bool,
    /// By host; the first is the server itself and reads nothing.
    readers: Vec<Reader>,
    course: Course,
}

#[derive(Clone, Debug)]
struct Reader {
    is_here: bool,
    left: u64,
    /// Between it and the server's wire.
    links: Vec<LinkId>,
}

impl<'a> Server<'a> {
    fn new(scenario: &'a Scenario, links: &[Access], need: u64, goes_on: bool) -> Self {
        let mut links = links.to_vec();
        links[0] = scenario.wires(TCP_GOODPUT)[0];
        let mut fluid = Fluid::new(scenario, &links, scenario.uplink(TCP_GOODPUT));
        let reader = Reader { is_here: false, left: need, links: Vec::new() };
        let mut readers = vec![reader; scenario.hosts.len()];
        if let Some(disk) = scenario.publisher_disk {
            let shared = fluid.add_link(disk.read);
            for reader in &mut readers {
                reader.links.push(if disk.is_cached { fluid.add_link(disk.read) } else { shared });
            }
        }
        Server { scenario, fluid, need, goes_on, is_up: false, readers, course: Course::new(scenario) }
    }

    fn run(mut self) -> Course {
        let mut timeline = Timeline::new(self.scenario);
        while let Some(done) = self.fluid.advance(timeline.next_at()) {
            for host in done {
                let left = std::mem::take(&mut self.readers[host].left);
                self.course.sent(self.scenario, 0, host, left);
                self.course.completed[host] = Some(self.fluid.now());
            }
            while let Some(change) = timeline.pop(self.fluid.now()) {
                self.change(change);
            }
        }
        if !self.is_up {
            let died = self.scenario.hosts[0].absences.last().map_or(Instant::START, |last| Instant::START + last.from);
            let seconds = died.since(Instant::START).as_secs_f64();
            self.course.stopped = Some(format!("the server died at {seconds} s"));
        }
        self.course
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Comes(0) => {
                self.is_up = true;
                (1..self.readers.len()).for_each(|host| self.read(host));
            }
            Change::Goes(0) => {
                self.is_up = false;
                (1..self.readers.len()).for_each(|host| self.stop(host, self.goes_on));
            }
            Change::Comes(host) => {
                self.readers[host].is_here = true;
                self.read(host);
            }
            Change::Goes(host) => {
                self.readers[host].is_here = false;
                self.stop(host, false);
            }
        }
    }

    fn read(&mut self, host: usize) {
        let reader = &self.readers[host];
        if self.is_up && reader.is_here && reader.left > 0 {
            self.fluid.open(0, host, &reader.links, reader.left);
        }
    }

    fn stop(&mut self, host: usize, keeps: bool) {
        let reader = &mut self.readers[host];
        if let Some(left) = self.fluid.close(host) {
            self.course.sent(self.scenario, 0, host, reader.left - left);
            reader.left = left;
        }
        if !keeps && reader.left > 0 {
            reader.left = self.need;
        }
    }
}
