//! Crash images: everything that a crash could leave, at every operation of scripted traces.
//!
//! A trace brings a master in, as a transfer does, on a disk that may refuse here and there, and seals it; releases come on
//! the way. It is played again and again, and the power goes after one operation more each time. From what was not synced by
//! then images are made: nothing kept, everything, each single operation, the first so many, random choices, writes torn into
//! sectors and into pages; each with the names lost, kept, and half kept. Each image is opened, and must claim nothing that is
//! not there, and lack nothing that was promised; opened a second time it must be the same.

use drover_protocol::geometry::{CHUNK_LEN, Geometry};
use drover_protocol::have::ChunkSet;
use drover_protocol::manifest::Manifest;
use drover_protocol::rng::Rng;
use drover_protocol::time::{Duration, Instant};

use super::crash::{Crash, Keep};
use super::disk::{DiskDice, Inner, Node, SECTOR_LEN, SimDisk};
use super::host;
use super::invariants::Expected;
use super::seek;
use super::token;

/// Chunks of the master that comes in.
const CHUNKS: u32 = 12;
/// Random choices of each kind that are tried at each operation.
const CHOICES: usize = 3;

/// What came of crash images.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CrashImages {
    /// Scripted traces.
    pub traces: u64,
    /// Operations at which the power went.
    pub cuts: u64,
    /// Images that were opened.
    pub images: u64,
    /// What was found wrong, with the trace, the operation and the choice.
    pub violations: Vec<String>,
}

/// Tries every image of the traces with these numbers.
pub fn crash_images(traces: core::ops::Range<u64>) -> CrashImages {
    let mut tried = CrashImages::default();
    for trace in traces {
        tried.traces += 1;
        let manifest = manifest(trace);
        for cut_after in 0.. {
            let (cut, expected, is_cut) = play(trace, &manifest, cut_after);
            tried.cuts += 1;
            let mut rng = Rng::seeded(trace << 20 | u64::from(cut_after));
            for crash in choices(&cut) {
                tried.images += 1;
                let mut image = cut.clone();
                image.crash(crash, &mut rng);
                if let Err(what) = look_at(image, &manifest, &expected)
                    && tried.violations.len() < 100
                {
                    tried.violations.push(format!("trace {trace}, operation {cut_after}, {crash:?}: {what}"));
                }
            }
            if !is_cut {
                break;
            }
        }
    }
    tried
}

fn manifest(trace: u64) -> Manifest {
    let geometry = Geometry::new(u64::from(CHUNKS) * u64::from(CHUNK_LEN), 2 * CHUNK_LEN).expect("lengths of an image");
    token::manifest(trace, geometry, |chunk| chunk % 5 == 4)
}

/// Plays a trace until the power goes; gives what the disk was like, what is promised, and whether the power went at all.
fn play(trace: u64, manifest: &Manifest, cut_after: u32) -> (Inner, Expected, bool) {
    let disk = SimDisk::new(trace);
    disk.with(|inner| inner.cut_after = Some(cut_after));
    let mut expected = Expected {
        tag: trace,
        promised: Vec::new(),
        was_sealed: false,
        highest_version: 0,
        may_lack_records: false,
        reads_fail: false,
    };
    let mut script = Script { disk: disk.clone(), manifest, rng: Rng::seeded(trace), now: Instant::START };
    script.run(&mut expected);
    let is_cut = disk.is_cut();
    (disk.with(|inner| inner.clone()), expected, is_cut)
}

/// A transfer, as its number draws it.
struct Script<'a> {
    disk: SimDisk,
    manifest: &'a Manifest,
    rng: Rng,
    now: Instant,
}

impl Script<'_> {
    /// Goes on until everything is sealed or the power is gone, over whatever the disk refuses; opens the store again when a
    /// step fails that only a restart mends.
    fn run(&mut self, expected: &mut Expected) {
        let may_fail = self.rng.chance(0.6);
        for _ in 0..40 {
            if self.disk.is_cut() || expected.was_sealed {
                return;
            }
            let sync_error = if may_fail && self.rng.chance(0.4) { 0.15 } else { 0.0 };
            self.disk
                .with(|inner| inner.dice = DiskDice { sync_error, write_error: sync_error / 3.0, read_error: 0.0 });
            self.live_once(expected);
        }
        self.disk.with(|inner| inner.dice = DiskDice::default());
        self.live_once(expected);
    }

    /// One life of a process: from opening the store to its seal, or to an end by chance.
    fn live_once(&mut self, expected: &mut Expected) {
        let id = self.manifest.image_id();
        let Ok(opened) = host::open(&self.disk, id) else { return };
        let Some(image) = opened.image.or_else(|| host::begin_image(&opened.layout, self.manifest).ok()) else {
            return;
        };
        let mut missing: Vec<_> = self.manifest.data_chunks().difference(&image.held()).collect();
        self.rng.shuffle(&mut missing);
        while !missing.is_empty() {
            for _ in 0..1 + self.rng.below(4) {
                let Some(chunk) = missing.pop() else { break };
                let right = token::right(expected.tag, chunk.number());
                let verified = token::verify(self.manifest, chunk, right).expect("the right token");
                if image.write(self.now, &verified).is_err() {
                    missing.push(chunk);
                }
            }
            if self.rng.chance(0.15)
                && let Some(lost) = image.held().iter().next()
            {
                // A read failed.
                image.give_up(&[lost]);
                missing.push(lost);
                expected.promised.retain(|number| *number != lost.number());
            }
            self.now = self.now + Duration::from_secs(2);
            match image.checkpoint(self.now) {
                Ok(_) => expected.promised = numbers(&image.claimed().unwrap_or_else(|| image.held())),
                Err(error) => missing.extend(error.lost()),
            }
            if self.rng.chance(0.4) {
                let number = self.rng.below(4) as usize;
                if let Ok(accepted) = seek::accept(&opened.catalog, number) {
                    expected.highest_version = expected.highest_version.max(accepted);
                }
            }
            if self.disk.is_cut() || self.rng.chance(0.05) {
                return;
            }
        }
        if host::seal(self.now, &opened.layout, &image).is_ok() {
            expected.was_sealed = true;
            expected.promised = numbers(&image.held());
        }
    }
}

fn numbers(chunks: &ChunkSet) -> Vec<u32> {
    chunks.iter().map(drover_protocol::geometry::ChunkIndex::number).collect()
}

/// What a crash may keep here: all of it, or as good as.
fn choices(inner: &Inner) -> Vec<Crash> {
    let pending = |node: &Node| if let Node::File(content) = node { content.pending.len() } else { 0 };
    let most = inner.nodes.iter().map(pending).max().unwrap_or(0);
    let mut files = vec![Keep::None, Keep::All];
    files.extend((0..most).map(Keep::Only));
    files.extend((1..most).map(Keep::First));
    for _ in 0..CHOICES {
        files.extend([Keep::Some, Keep::Torn(SECTOR_LEN), Keep::Torn(8 * SECTOR_LEN)]);
    }
    let mut names = vec![Keep::None, Keep::All];
    names.extend((1..inner.names.len()).map(Keep::First));
    names.push(Keep::Some);
    files.iter().flat_map(|&files| names.iter().map(move |&names| Crash { files, names })).collect()
}

/// Opens an image, twice.
fn look_at(image: Inner, manifest: &Manifest, expected: &Expected) -> Result<(), String> {
    let disk = SimDisk::of(image);
    disk.with(|inner| inner.dice = DiskDice::default());
    let open = || host::open(&disk, manifest.image_id()).map_err(|error| format!("it can't be opened: {error}"));
    let first = open()?;
    expected.compare(&first)?;
    let held = first.image.as_ref().map(|image| (image.held(), image.is_sealed()));
    let second = open()?;
    expected.compare(&second)?;
    if second.image.as_ref().map(|image| (image.held(), image.is_sealed())) != held {
        return Err("it is another one when it is opened again".to_owned());
    }
    Ok(())
}
