//! Every target with its corpus and its seeds, and with thousands of changes of them: none panics, and none takes more
//! memory than its bound. `DROVER_SEED` repeats the changes.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use drover_fuzz::{TARGETS, Target};
use drover_protocol::rng::Rng;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The most that a target may take for one input, in bytes.
const MEMORY_MOST: usize = 64 << 20;
/// Changed inputs for each target.
const CHANGED: usize = 2000;
/// The longest input, in bytes.
const LONGEST: usize = 64 << 10;

// One test, so that nothing else takes memory meanwhile.
#[test]
fn no_input_makes_a_target_panic_or_take_more_memory_than_its_bound() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_nanos() as u64;
    let seed = std::env::var("DROVER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(now);
    eprintln!("DROVER_SEED={seed}");
    let mut rng = Rng::seeded(seed);
    for target in TARGETS {
        let mut inputs = corpus(target);
        let kept = inputs.len();
        inputs.extend((target.seeds)());
        assert!(inputs.len() > kept, "{} has no seed", target.name);
        let mut most = 0;
        for input in &inputs {
            most = most.max(run(target, input));
        }
        for _ in 0..CHANGED {
            most = most.max(run(target, &changed(&inputs, &mut rng)));
        }
        eprintln!("{}: {} inputs, {CHANGED} changed, at most {} KiB", target.name, inputs.len(), most >> 10);
    }
}

/// Runs one input, and gives the memory that it took at most.
fn run(target: Target, input: &[u8]) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.run)(input);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(taken <= MEMORY_MOST, "{} takes {taken} bytes for {input:02x?}", target.name);
    taken
}

fn corpus(target: Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = std::fs::read_dir(&folder).into_iter().flatten();
    entries.map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file")).collect()
}

/// One of the inputs with some bytes set, removed, repeated or taken from another.
fn changed(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = rng.pick(inputs).cloned().unwrap_or_default();
    for _ in 0..=rng.below(6) {
        let at = rng.below(bytes.len() as u32 + 1) as usize;
        let end = (at + 1 + rng.below(24) as usize).min(bytes.len());
        match rng.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at.min(end)..end)),
            2 => {
                let repeated = bytes[at.min(end)..end].to_vec();
                bytes.splice(at..at, repeated);
            }
            3 => {
                let other = rng.pick(inputs).cloned().unwrap_or_default();
                let from = rng.below(other.len() as u32 + 1) as usize;
                bytes.splice(at.., other[from..].iter().copied());
            }
            // The longest and the next to no numbers, as postcard writes them.
            4 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f])),
            5 => drop(bytes.splice(at..at, [rng.next_u64() as u8])),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = [*byte ^ 1 << rng.below(8), 0, 0xff, rng.next_u64() as u8][rng.below(4) as usize];
                }
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
