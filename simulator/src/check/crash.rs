//! What a crash leaves of what was not synced: any choice that a file system could make.

use drover_protocol::rng::Rng;

use super::disk::{Content, FileOp, Inner, Node, SECTOR_LEN};
use super::fault::Fault;

/// What is kept of the pending operations of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keep {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// One of them alone.
    Only(usize),
    /// The first so many.
    First(usize),
    /// Each by the toss of a coin.
    Some,
    /// Of each write each run of so many bytes by the toss of a coin; lengths are kept, so that what is lost is zeros.
    Torn(u64),
}

/// What a crash keeps: the same of every file, and so many of the operations on names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Crash {
    pub(super) files: Keep,
    pub(super) names: Keep,
}

impl Inner {
    /// Loses what a crash loses, and starts again.
    pub(super) fn crash(&mut self, crash: Crash, rng: &mut Rng) {
        self.keep_names(crash.names, rng);
        for at in 0..self.nodes.len() {
            if let Node::File(content) = &mut self.nodes[at] {
                let (lost, torn) = keep_writes(content, crash.files, rng);
                (0..lost).for_each(|_| self.counts.add(Fault::LostWrite));
                (0..torn).for_each(|_| self.counts.add(Fault::TornWrite));
            }
        }
        self.restart();
    }

    /// As a crash that keeps something else of each file, drawn at random.
    pub(super) fn crash_at_random(&mut self, rng: &mut Rng) {
        self.keep_names(any_keep(rng), rng);
        for at in 0..self.nodes.len() {
            if let Node::File(content) = &mut self.nodes[at] {
                let keep = any_keep(rng);
                let (lost, torn) = keep_writes(content, keep, rng);
                (0..lost).for_each(|_| self.counts.add(Fault::LostWrite));
                (0..torn).for_each(|_| self.counts.add(Fault::TornWrite));
            }
        }
        self.restart();
    }

    /// Keeps some operations on names. One survives only if those before it in the same folders do.
    fn keep_names(&mut self, keep: Keep, rng: &mut Rng) {
        let mut broken = Vec::new();
        let mut kept = Vec::new();
        for (at, op) in self.names.iter().enumerate() {
            let rests_on_lost = op.0.iter().any(|(folder, ..)| broken.contains(folder));
            let is_kept = !rests_on_lost && is_kept(keep, at, rng);
            if !is_kept {
                broken.extend(op.0.iter().map(|(folder, ..)| *folder));
                self.counts.add(Fault::LostWrite);
            }
            kept.push(is_kept);
        }
        self.apply_names(&kept);
    }
}

/// Keeps some of what is pending; says how many operations were lost, and how many torn.
fn keep_writes(content: &mut Content, keep: Keep, rng: &mut Rng) -> (u32, u32) {
    let (mut lost, mut torn) = (0, 0);
    for (at, op) in std::mem::take(&mut content.pending).into_iter().enumerate() {
        match (&op, keep) {
            (FileOp::Write(offset, bytes), Keep::Torn(unit)) => {
                torn += u32::from(keep_torn(content, *offset, bytes, unit, rng));
            }
            _ if is_kept(keep, at, rng) => match &op {
                FileOp::Write(offset, bytes) => content.durable.write(*offset, bytes),
                FileOp::SetLen(len) => content.durable.set_len(*len),
            },
            _ => lost += 1,
        }
    }
    (lost, torn)
}

/// Keeps parts of a write; says whether something is missing and something is there.
fn keep_torn(content: &mut Content, offset: u64, bytes: &[u8], unit: u64, rng: &mut Rng) -> bool {
    let end = offset + bytes.len() as u64;
    content.durable.len = content.durable.len.max(end);
    let (mut at, mut kept, mut lost) = (offset, false, false);
    while at < end {
        let next = ((at / unit + 1) * unit).min(end);
        if rng.chance(0.5) {
            content.durable.write(at, &bytes[(at - offset) as usize..(next - offset) as usize]);
            kept = true;
        } else {
            lost = true;
        }
        at = next;
    }
    kept && lost
}

fn is_kept(keep: Keep, at: usize, rng: &mut Rng) -> bool {
    match keep {
        Keep::None => false,
        Keep::All => true,
        Keep::Only(only) => at == only,
        Keep::First(count) => at < count,
        Keep::Some | Keep::Torn(_) => rng.chance(0.5),
    }
}

fn any_keep(rng: &mut Rng) -> Keep {
    match rng.below(8) {
        0 => Keep::None,
        1 => Keep::All,
        2 => Keep::First(rng.below(6) as usize),
        3 => Keep::Torn(8 * SECTOR_LEN),
        4 | 5 => Keep::Torn(SECTOR_LEN),
        _ => Keep::Some,
    }
}
