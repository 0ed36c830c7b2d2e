//! What must hold, whatever happens: compared after every event with what only the world knows.
//!
//! - A chunk that is held reads back right, and one that the journal claims is durable and right, but where a bit rotted.
//! - What a checkpoint promised survives a crash; so does a sealed master, and the highest version of a name.
//! - The swarm counts as held what the store holds, and nothing else.
//! - Nothing is sent that is not right, and nobody is banned who did nothing.
//! - A banned peer is not asked; a chunk is asked for of two peers at most, never one that is held; slots are not exceeded.
//! - In the end everybody is complete, if what all have together is; else everybody has all of it, and names the rest.

use core::ops::Range;
use std::collections::BTreeMap;

use drover_durability::DISK;
use drover_protocol::geometry::ChunkIndex;
use drover_protocol::have::ChunkSet;
use drover_protocol::message::MAX_RANGES;
use drover_protocol::swarm::{Misdeed, Swarm};

use super::disk::SimDisk;
use super::host::{self, Opened, Running};
use super::plan::Lie;
use super::token::{self, TOKEN_LEN};
use super::world::World;

impl World {
    /// After every input to a host's swarm.
    pub(super) fn check_host(&mut self, host: usize) {
        let Some(Running { swarm: Some(swarm), image: Some(image), work, .. }) = &self.hosts[host].run else { return };
        if work.untold_losses > 0 {
            return;
        }
        // What a seal that failed half-way had lost it has again when it comes to its end.
        let held = image.held();
        let is_same = *swarm.held() == held;
        let is_sealed_over = image.is_sealed() && swarm.held().difference(&held).next().is_none();
        if !is_same && !is_sealed_over {
            let more: Vec<ChunkIndex> = swarm.held().difference(&held).collect();
            let less: Vec<ChunkIndex> = held.difference(swarm.held()).collect();
            self.fail(format!(
                "host {host}: the swarm counts {more:?} as held that the store lacks, and lacks {less:?}"
            ));
        }
    }

    /// A chunk was written.
    pub(super) fn check_stored(&mut self, host: usize, number: u32) {
        let Some(Running { image: Some(image), .. }) = &self.hosts[host].run else { return };
        let Some(chunk) = self.plan.manifest.geometry().chunk(number) else { return };
        let offset = image.manifest().geometry().chunk_offset(chunk);
        let (right, is_zero) = (token::right(self.plan.tag, number), image.manifest().is_zero(chunk));
        let is_fine =
            image.with_file(|file| file.is_rotten(offset, TOKEN_LEN as u64) || file.has(offset, &right[..]).0);
        if !is_zero && (!image.holds(chunk) || !is_fine) {
            self.fail(format!("host {host} counts chunk {number} as stored, and it can't be read back right"));
        }
    }

    /// After a checkpoint or a seal.
    pub(super) fn check_durable(&mut self, host: usize, has_succeeded: bool) {
        let Some(Running { image: Some(image), layout, .. }) = &self.hosts[host].run else { return };
        let (is_sealed, geometry) = (image.is_sealed(), image.manifest().geometry());
        let (held, claimed) = (image.held(), image.claimed());
        let must_last = match (&claimed, is_sealed) {
            (Some(claimed), _) => claimed.clone(),
            (None, true) => held.clone(),
            (None, false) => ChunkSet::empty(&geometry),
        };
        let mut wrong = None;
        for chunk in held.iter() {
            let (number, offset) = (chunk.number(), geometry.chunk_offset(chunk));
            let right = token::right(self.plan.tag, number);
            let ((live, durable), rotten) =
                image.with_file(|file| (file.has(offset, &right[..]), file.is_rotten(offset, TOKEN_LEN as u64)));
            if !rotten && (!live || (must_last.contains(chunk) && !durable)) {
                wrong = Some(format!("host {host} claims chunk {number}: right {live}, durable {durable}"));
                break;
            }
        }
        if is_sealed && has_succeeded {
            let path = layout.master_of(image.id()).join(DISK);
            let is_there = layout.disk().with(|inner| inner.find(&path, |folder| &folder.durable).is_some());
            if !is_there || held != self.data {
                wrong = Some(format!("host {host} seals a master that is not whole, or whose name is not durable"));
            }
        }
        let at = &mut self.hosts[host];
        if has_succeeded {
            at.promised = must_last.iter().map(ChunkIndex::number).collect();
            at.was_sealed |= is_sealed;
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    /// A store was opened again: after a crash, a power cut or a clean end.
    pub(super) fn check_opened(&mut self, host: usize, opened: &Opened) {
        let at = &self.hosts[host];
        let expected = Expected {
            tag: self.plan.tag,
            promised: at.promised.iter().copied().collect(),
            was_sealed: at.was_sealed,
            highest_version: at.highest_version,
            may_lack_records: at.disk.with(|inner| inner.has_rotten_records),
            reads_fail: at.disk.with(|inner| inner.dice.read_error > 0.0),
        };
        if let Err(what) = expected.compare(opened) {
            self.fail(format!("host {host}: {what}"));
        }
        if let Some(seen) = opened.catalog.highest_seen(&super::seek::name()) {
            self.hosts[host].highest_version = self.hosts[host].highest_version.max(seen);
        }
    }

    /// The disk no longer gives a chunk back: it may be lost.
    pub(super) fn lose_promise(&mut self, host: usize, chunk: u32) {
        self.hosts[host].promised.remove(&chunk);
    }

    /// A token is about to leave a host.
    pub(super) fn check_sent(&mut self, host: usize, number: u32, token: &[u8]) {
        let chunk = self.plan.manifest.geometry().chunk(number);
        if chunk.is_none_or(|chunk| self.plan.manifest.is_zero(chunk)) || self.is_right(number, token) {
            return;
        }
        if !self.hosts[host].disk.with(|inner| inner.ever_rotted) {
            self.fail(format!("host {host} sends chunk {number}, and its bytes are wrong"));
        }
    }

    /// A peer sent a wrong chunk.
    pub(super) fn check_struck(&mut self, host: usize, peer: usize) {
        // A greedy host gets answers to what its swarm never asked for.
        let is_honest = self.plan.hosts[host].lie.is_none();
        if is_honest && self.hosts[host].run.as_ref().is_some_and(|run| !run.banned.contains(&peer)) {
            self.fail(format!("host {host} got wrong bytes from host {peer}, and does not ban it"));
        }
    }

    /// A host bans another.
    pub(super) fn check_ban(&mut self, host: usize, peer: usize, misdeed: Misdeed) {
        let Some(at) = self.plan.hosts.get(peer) else { return };
        let is_just = match misdeed {
            Misdeed::WrongBytes { .. } => matches!(at.lie, Some(Lie::WrongBytes(_))),
            Misdeed::BadHave => at.lie == Some(Lie::BadHave),
        };
        let is_rotten = self.hosts[peer].disk.with(|inner| inner.ever_rotted);
        let is_excused = is_rotten && misdeed != Misdeed::BadHave;
        if !is_just && !is_excused {
            self.fail(format!("host {host} bans host {peer}, which did nothing: {misdeed}"));
        }
    }

    /// A swarm asks for something.
    pub(super) fn check_request(&mut self, host: usize, peer: usize, piece: u32, chunks: &[Range<u32>]) {
        let Some(run) = &self.hosts[host].run else { return };
        let geometry = self.plan.manifest.geometry();
        let within = geometry.piece(piece).map(|piece| geometry.chunk_numbers(piece)).unwrap_or_default();
        let mut wrong = None;
        if run.banned.contains(&peer) {
            wrong = Some("asks a peer that it banned");
        }
        if chunks.is_empty() || chunks.len() > MAX_RANGES {
            wrong = Some("asks for too many ranges, or for none");
        }
        for number in chunks.iter().cloned().flatten() {
            let copies = run.requests.values().filter(|asked| asked.chunks.contains(&number)).count();
            let is_held = geometry
                .chunk(number)
                .is_none_or(|chunk| run.swarm.as_ref().is_some_and(|swarm| swarm.held().contains(chunk)));
            if copies > 2 {
                wrong = Some("asks three peers for a chunk");
            }
            if is_held || !within.contains(&number) {
                wrong = Some("asks for a chunk that it has, or that is not of the piece");
            }
        }
        if let Some(wrong) = wrong {
            self.fail(format!("host {host} {wrong}: peer {peer}, piece {piece}, chunks {chunks:?}"));
        }
    }

    /// A swarm serves something.
    pub(super) fn check_serves(&mut self, host: usize) {
        let Some(run) = &self.hosts[host].run else { return };
        let mut of_peer = BTreeMap::<usize, u32>::new();
        for serve in run.serves.values().filter(|serve| serve.is_granted) {
            *of_peer.entry(serve.peer).or_default() += 1;
        }
        // Two at a time, and what was under way when a peer's slot was taken away and given to it again.
        let most = of_peer.values().max().copied().unwrap_or(0);
        if most > 4 || of_peer.len() > self.plan.config.upload_slots + 1 + run.peers.len() / 2 {
            self.fail(format!("host {host} serves {of_peer:?} at the same time"));
        }
    }

    /// Hosts of which everything is demanded in the end.
    fn expected(&self) -> impl Iterator<Item = usize> + '_ {
        let speaks = |host: &usize| {
            let (lowest, highest) = self.plan.hosts[*host].versions;
            (lowest..=highest).contains(&drover_protocol::message::PROTOCOL_VERSIONS.1)
        };
        let is_honest = |host: &usize| {
            let plan = &self.plan.hosts[*host];
            plan.lie.is_none() && !plan.is_bystander && !self.hosts[*host].is_dead
        };
        (0..self.hosts.len()).filter(is_honest).filter(speaks)
    }

    /// What these hosts have on their disks together.
    fn union(&self) -> ChunkSet {
        let mut union = ChunkSet::empty(&self.plan.manifest.geometry());
        for host in self.expected() {
            let held = match &self.hosts[host].run {
                Some(run) => run.image.as_ref().map(good_chunks),
                None => {
                    let copy = SimDisk::of(self.hosts[host].disk.with(|inner| inner.clone()));
                    let opened = host::open(&copy, self.plan.manifest.image_id()).ok();
                    opened.and_then(|opened| opened.image.as_ref().map(good_chunks))
                }
            };
            for run in held.iter().flat_map(ChunkSet::runs) {
                union.insert_run(run);
            }
        }
        union
    }

    /// Whether all of the image is somewhere.
    pub(super) fn is_whole(&self) -> bool {
        self.union() == self.data
    }

    /// Whether everything has come to the end that it must come to.
    pub(super) fn has_ended(&self) -> bool {
        if self.expected().any(|host| self.hosts[host].run.is_none()) {
            return false;
        }
        let is_sealed = |host: usize| {
            self.hosts[host].run.as_ref().and_then(|run| run.image.as_ref()).is_some_and(|image| image.is_sealed())
        };
        if self.expected().all(is_sealed) {
            return true;
        }
        let union = self.union();
        let knows_image = |host: usize| self.hosts[host].run.as_ref().is_some_and(|run| run.image.is_some());
        if union == self.data || self.expected().any(knows_image) && !self.expected().all(knows_image) {
            return false;
        }
        self.expected().all(|host| self.is_content(host, &union))
    }

    /// Whether a host has all that there is, and names the rest.
    fn is_content(&self, host: usize, union: &ChunkSet) -> bool {
        let Some(Running { swarm: Some(swarm), work, .. }) = &self.hosts[host].run else { return true };
        swarm.held() == union && !work.is_paused && unavailable(swarm) == self.lacking(union)
    }

    fn lacking(&self, union: &ChunkSet) -> Vec<u32> {
        self.data.difference(union).map(ChunkIndex::number).collect()
    }

    pub(super) fn why_unfinished(&self) -> String {
        let union = self.union();
        let mut why = format!("not at its end: {} of {} chunks are somewhere", union.count(), self.data.count());
        for host in self.expected() {
            match &self.hosts[host].run {
                Some(Running { swarm: Some(swarm), image: Some(image), work, peers, .. }) => {
                    let (held, sealed) = (swarm.held().count(), image.is_sealed());
                    let peers: Vec<usize> = peers.keys().copied().collect();
                    why += &format!(
                        "; host {host} holds {held}, sealed {sealed}, paused {}, busy {}, peers {peers:?}, names {:?}",
                        work.is_paused,
                        work.is_busy,
                        unavailable(swarm),
                    );
                }
                Some(_) => why += &format!("; host {host} has no manifest"),
                None => why += &format!("; host {host} does not run"),
            }
        }
        why
    }

    /// The last look at everything.
    pub(super) fn check_end(&mut self) {
        for host in 0..self.hosts.len() {
            self.check_host(host);
            self.check_durable(host, false);
        }
    }
}

/// What a store must show after a crash.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) tag: u64,
    pub(super) promised: Vec<u32>,
    pub(super) was_sealed: bool,
    pub(super) highest_version: u64,
    /// Whether journals, manifests or releases rotted.
    pub(super) may_lack_records: bool,
    /// Whether reading may have failed just now; a release that can't be read still counts as seen.
    pub(super) reads_fail: bool,
}

impl Expected {
    /// Compares it with what was found.
    pub(super) fn compare(&self, opened: &Opened) -> Result<(), String> {
        if let Some(image) = &opened.image {
            for chunk in image.held().iter() {
                let offset = image.manifest().geometry().chunk_offset(chunk);
                let right = token::right(self.tag, chunk.number());
                let is_fine =
                    image.with_file(|file| file.is_rotten(offset, TOKEN_LEN as u64) || file.has(offset, &right[..]).0);
                if !is_fine {
                    return Err(format!("after a crash chunk {} is claimed and not there", chunk.number()));
                }
            }
        }
        if self.may_lack_records {
            return Ok(());
        }
        if let Some(first) = opened.unreadable.first().filter(|_| !self.reads_fail) {
            return Err(format!("after a crash something can't be read: {first}"));
        }
        let holds = |number: &u32| {
            opened
                .image
                .as_ref()
                .is_some_and(|image| image.manifest().geometry().chunk(*number).is_some_and(|chunk| image.holds(chunk)))
        };
        if let Some(lost) = self.promised.iter().find(|number| !holds(number)) {
            return Err(format!("chunk {lost} was durable, and is lost after a crash"));
        }
        if self.was_sealed && !opened.image.as_ref().is_some_and(|image| image.is_sealed()) {
            return Err("the master was sealed, and is not after a crash".to_owned());
        }
        let seen = opened.catalog.highest_seen(&super::seek::name()).unwrap_or(0);
        if seen < self.highest_version {
            return Err(format!(
                "version {} was accepted, and after a crash {seen} is the highest",
                self.highest_version
            ));
        }
        Ok(())
    }
}

/// Chunks that an image holds and that read back right.
fn good_chunks(image: &drover_durability::Image<SimDisk>) -> ChunkSet {
    let mut good = image.held();
    for chunk in image.held().iter() {
        let offset = image.manifest().geometry().chunk_offset(chunk);
        if image.with_file(|file| file.is_rotten(offset, TOKEN_LEN as u64)) {
            good.remove(chunk);
        }
    }
    good
}

/// Numbers of the chunks that a host says nobody has.
fn unavailable(swarm: &Swarm) -> Vec<u32> {
    swarm.status().unavailable.into_iter().flatten().collect()
}
