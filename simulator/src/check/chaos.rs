//! What goes wrong with hosts, disks and links; and how all of it ends.

use core::time::Duration;

use std::path::Path;

use drover_durability::{DISK, Disk as _, JOURNAL};
use drover_protocol::rng::Rng;

use super::disk::{DiskDice, Node};
use super::fault::Fault;
use super::host::{self, Host};
use super::plan::Trouble;
use super::token::TOKEN_LEN;
use super::world::{Event, World};

impl World {
    /// One of the troubles that were drawn.
    pub(super) fn trouble(&mut self, trouble: Trouble) {
        if self.is_healed {
            return;
        }
        self.note(|| format!("{trouble:?}"));
        match trouble {
            Trouble::Crash { host, back_after } => self.crash(host, back_after),
            Trouble::PowerCut { host, after_ops } => {
                self.hosts[host].disk.with(|inner| inner.cut_after = Some(after_ops));
            }
            Trouble::Death { host } => {
                self.stop(host);
                self.hosts[host].is_dead = true;
            }
            Trouble::Suspend { host, time } => {
                self.counts.add(Fault::Suspend);
                let at = &mut self.hosts[host];
                at.suspended_until = at.suspended_until.max(self.now + time);
            }
            Trouble::ClockJump { host, by_s } => {
                self.counts.add(Fault::ClockJump);
                self.hosts[host].clock_off_s += by_s;
            }
            // The end of an earlier trouble may end this one, too.
            Trouble::Full { host, time } => {
                self.hosts[host].disk.with(|inner| inner.is_full = true);
                self.after(time, Event::Relief { host, is_full: true });
            }
            Trouble::ReadOnly { host, time } => {
                self.hosts[host].disk.with(|inner| inner.is_read_only = true);
                self.after(time, Event::Relief { host, is_full: false });
            }
            Trouble::Stall { host, time } => {
                self.counts.add(Fault::DiskStall);
                let at = &mut self.hosts[host];
                at.stalled_until = at.stalled_until.max(self.now + time);
            }
            Trouble::Rot { host } => self.rot(host),
            Trouble::Break { a, b } => self.break_between(a, b),
            Trouble::OneWay { from, to, time } => {
                self.counts.add(Fault::OneWay);
                self.net.block(from, to, self.now + time);
            }
            Trouble::Flap { group, times, time } => self.flap(group, times, time),
            Trouble::TrackerRestart => {
                self.counts.add(Fault::TrackerRestart);
                let seed = self.rng.next_u64();
                self.tracker.restart(seed);
            }
        }
    }

    /// A host's process ends; its disk keeps what reads see.
    pub(super) fn stop(&mut self, host: usize) {
        self.hosts[host].run = None;
        self.hosts[host].life += 1;
        for link in 0..self.links.len() {
            if self.links[link].ends.contains(&host) {
                self.break_link(link);
            }
        }
    }

    fn crash(&mut self, host: usize, back_after: Duration) {
        if self.hosts[host].run.is_none() {
            return;
        }
        self.counts.add(Fault::Crash);
        self.trace.note(self.now, "crash", [host as u64, 0]);
        self.stop(host);
        if self.rng.chance(0.75) {
            self.lose_power(host);
        }
        self.after(back_after, Event::Start { host });
    }

    /// The disk loses what was not synced.
    pub(super) fn lose_power(&mut self, host: usize) {
        let mut rng = Rng::seeded(self.rng.next_u64());
        self.hosts[host].disk.with(|inner| inner.crash_at_random(&mut rng));
    }

    /// Whether the power went in the middle of what was just done; then the host is gone for a while.
    pub(super) fn notice_power(&mut self, host: usize) {
        if !self.hosts[host].disk.is_cut() {
            return;
        }
        self.counts.add(Fault::PowerCut);
        self.trace.note(self.now, "power", [host as u64, 0]);
        self.note(|| format!("host {host} lost its power"));
        self.stop(host);
        self.lose_power(host);
        let back_after = Duration::from_millis(u64::from(10 + self.rng.below(5000)));
        self.after(back_after, Event::Start { host });
    }

    pub(super) fn relieve(&mut self, host: usize, is_full: bool) {
        self.hosts[host].disk.with(|inner| if is_full { inner.is_full = false } else { inner.is_read_only = false });
    }

    /// Flips a bit somewhere on a disk, mostly in the content of the master.
    fn rot(&mut self, host: usize) {
        let mut rng = Rng::seeded(self.rng.next_u64());
        let id = self.plan.manifest.image_id();
        let kind = rng.below(10);
        let rotted = self.hosts[host].disk.with(|inner| {
            let file_of = |name: &str| {
                let folders = ["/masters", "/incoming"].map(|folder| Path::new(folder).join(id.to_string()).join(name));
                folders.iter().find_map(|path| inner.find(path, |folder| &folder.live))
            };
            let (content, journal) = (file_of(DISK), file_of(JOURNAL));
            let is_file = |at: &usize| matches!(inner.nodes[*at], Node::File(_));
            let nodes: Vec<usize> = match kind {
                0..6 => content.into_iter().collect(),
                6..9 => journal.into_iter().collect(),
                _ => (0..inner.nodes.len()).filter(is_file).filter(|at| Some(*at) != content).collect(),
            };
            let in_content = kind < 6;
            let node = *rng.pick(&nodes)?;
            let Node::File(file) = &mut inner.nodes[node] else { return None };
            let sectors: Vec<u64> = file.durable.sectors.keys().copied().collect();
            let sector = *rng.pick(&sectors)?;
            let (byte, bit) = (rng.below(512) as usize, 1 << rng.below(8));
            for bytes in [&mut file.durable, &mut file.live] {
                if let Some(sector) = bytes.sectors.get_mut(&sector) {
                    sector[byte] ^= bit;
                }
            }
            inner.rotten.insert((node, sector));
            inner.has_rotten_records |= !in_content;
            inner.ever_rotted = true;
            Some((node, sector))
        });
        if rotted.is_some() {
            self.counts.add(Fault::BitRot);
        }
    }

    fn break_between(&mut self, a: usize, b: usize) {
        for link in 0..self.links.len() {
            let at = &self.links[link];
            if at.ends.contains(&a) && at.ends.contains(&b) && !at.is_cut {
                self.counts.add(Fault::Break);
                self.break_link(link);
            }
        }
    }

    fn flap(&mut self, group: u32, times: u32, time: Duration) {
        self.counts.add(Fault::Flapping);
        let is_in = |host: usize| group >> (host % 32) & 1 == 1;
        for from in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|&to| is_in(from) != is_in(to)) {
                self.net.block(from, to, self.now + time);
            }
        }
        if times > 1 {
            self.after(time * 2, Event::Trouble(Trouble::Flap { group, times: times - 1, time }));
        }
    }

    /// All faults end. What is broken is mended as far as an operator would, and then everything must come to its end.
    pub(super) fn heal(&mut self) {
        self.note(|| "all faults end".to_owned());
        self.is_healed = true;
        self.net.heal();
        self.tracker.heal();
        for host in 0..self.hosts.len() {
            let at = &mut self.hosts[host];
            (at.suspended_until, at.stalled_until, at.clock_off_s) = (self.now, self.now, 0);
            at.disk.with(|inner| {
                inner.dice = DiskDice::default();
                (inner.is_full, inner.is_read_only, inner.cut_after) = (false, false, None);
            });
        }
        for host in 0..self.hosts.len() {
            self.stop_and_scrub(host);
        }
        let is_whole = self.is_whole();
        for host in 0..self.hosts.len() {
            let is_liar = self.plan.hosts[host].lie.is_some();
            if is_liar && !(is_whole && self.plan.liars_stay) {
                // With false haves about, nobody could say what is missing.
                self.stop(host);
                self.hosts[host].is_dead = true;
            } else if !self.hosts[host].is_dead && self.hosts[host].run.is_none() {
                self.after(Duration::from_millis(1), Event::Start { host });
            }
        }
        self.demand_end();
    }

    /// Stops what has to start again: who shut out an honest host, and whose disk rotted.
    fn stop_and_scrub(&mut self, host: usize) {
        let is_rotten = self.hosts[host].disk.with(|inner| !inner.rotten.is_empty() || inner.has_rotten_records);
        let bans_honest = self.hosts[host].run.as_ref().is_some_and(|run| {
            run.banned.iter().any(|&peer| self.plan.hosts.get(peer).is_some_and(|peer| peer.lie.is_none()))
        });
        if bans_honest || is_rotten {
            self.stop(host);
        }
        if is_rotten {
            self.scrub(host);
        }
    }

    /// Reads everything back, as a verification would; what is damaged is given up. A sealed master that is damaged is taken
    /// apart: what is good of it comes in again.
    fn scrub(&mut self, host: usize) {
        let id = self.plan.manifest.image_id();
        let Host { disk, .. } = &self.hosts[host];
        let Ok(opened) = host::open(disk, id) else { return };
        self.check_opened(host, &opened);
        let (disk, Some(image)) = (&self.hosts[host].disk, opened.image) else { return };
        let bad = host::damaged(&image);
        if !image.is_sealed() {
            image.give_up(&bad);
            let _ = image.checkpoint(self.now);
        } else if !bad.is_empty() {
            let good: Vec<_> = self.data.iter().filter(|chunk| !bad.contains(chunk)).collect();
            if disk.rename(&opened.layout.master_of(id), Path::new("/spoilt")).is_ok()
                && let Ok(anew) = host::begin_image(&opened.layout, &self.plan.manifest)
            {
                for chunk in good {
                    let mut token = Box::new([0; TOKEN_LEN]);
                    let read = image.read(chunk, &mut token[..]);
                    if let (Ok(()), Some(verified)) = (read, super::token::verify(&self.plan.manifest, chunk, token)) {
                        let _ = anew.write(self.now, &verified);
                    }
                }
                let _ = anew.checkpoint(self.now);
                let _ = disk.remove_tree(Path::new("/spoilt"));
            }
            self.hosts[host].was_sealed = false;
        }
        self.hosts[host].promised.clear();
        self.hosts[host].disk.with(|inner| inner.rotten.clear());
    }
}
