//! What the fuzzer runs: every place where Drover reads what others made, and every machine that others can drive.
//!
//! A [`Target`] takes any bytes and must neither panic nor take more memory than its bound. It also asserts what must hold
//! of whatever the bytes turn out to be: what is read is written back the same, what is promised to be bounded is. Machines
//! are driven by operation lists: each few bytes are an operation that a driver might carry out, in any order.
//!
//! The targets are plain functions, so that a stable compiler replays the corpora in `fuzz/corpus/NAME`, and changes of
//! them, as a test; `fuzz/libfuzzer` runs the same under libFuzzer:
//!
//! ```text
//! DROVER_FUZZ=swarm cargo fuzz run --fuzz-dir fuzz/libfuzzer target fuzz/corpus/swarm -- -max_total_time=60
//! ```

mod directory;
mod files;
mod journal;
mod messages;
mod multicast;
mod swarm;
mod table;
mod texts;

/// Something that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// What it is called, also the folder of its corpus.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Bytes that it finds nothing wrong with, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 18] = [
    Target { name: "message", run: messages::message, seeds: messages::message_seeds },
    Target { name: "manifest", run: messages::manifest, seeds: messages::manifest_seeds },
    Target { name: "release", run: messages::release, seeds: messages::release_seeds },
    Target { name: "have", run: messages::have, seeds: messages::have_seeds },
    Target { name: "revocation", run: messages::revocation, seeds: messages::revocation_seeds },
    Target { name: "swarm", run: swarm::run, seeds: swarm::seeds },
    Target { name: "directory", run: directory::run, seeds: directory::seeds },
    Target { name: "multicast", run: multicast::run, seeds: multicast::seeds },
    Target { name: "answer", run: table::answer, seeds: table::answer_seeds },
    Target { name: "walk", run: table::walk, seeds: table::walk_seeds },
    Target { name: "journal", run: journal::run, seeds: journal::seeds },
    Target { name: "vhd", run: files::vhd, seeds: files::vhd_seeds },
    Target { name: "image-file", run: files::image_file, seeds: files::image_file_seeds },
    Target { name: "clone-record", run: files::clone_record, seeds: files::clone_record_seeds },
    Target { name: "settings", run: texts::settings, seeds: texts::settings_seeds },
    Target { name: "control", run: texts::control, seeds: texts::control_seeds },
    Target { name: "token", run: texts::token, seeds: texts::token_seeds },
    Target { name: "certificate", run: texts::certificate, seeds: texts::certificate_seeds },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
