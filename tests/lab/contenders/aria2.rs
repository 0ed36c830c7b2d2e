//! aria2: one `aria2c` at every host, with a torrent made beforehand.
//!
//! In its time: each leecher's `aria2c` from its start on, its announcement to the tracker, and the transfer until aria2
//! calls its hook for a complete download. Leechers go on to seed. Not in it: the seeder, which does not check its file and
//! is known to the tracker when the clock starts. With the leechers there first, who then waited for the seeder, aria2 was
//! slower: it decides only every ten seconds whom it serves.
//!
//! Its settings are those of a fast local network: no limit to the peers, the file's space taken at once, nothing of the
//! DHT (there is nobody to ask), peers named by the tracker and by each other. How many it serves at once, and whom, is
//! tit-for-tat, which no setting changes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::program;
use super::torrent::Torrent;
use super::{Contender, ContenderError, Delivery, Guard, Stage};

/// A swarm of `aria2c` with opentracker.
#[derive(Debug, Default)]
pub(crate) struct Aria2;

impl Contender for Aria2 {
    fn name(&self) -> &'static str {
        "aria2"
    }

    fn missing(&self) -> Option<String> {
        let needs: Vec<_> = [("aria2c", "aria2")].into_iter().chain(Torrent::NEEDS).collect();
        program::missing_packages(&needs)
    }

    fn run(&self, stage: &Stage<'_>) -> Result<Delivery, ContenderError> {
        let torrent = Torrent::offer(stage, PIECE_BYTES)?;
        torrent.share(stage, |index| peer(stage, &torrent, index), |_, folder| folder.join(COMPLETE).exists())
    }
}

/// Starts the seeder, which is host 0, or a leecher.
fn peer(stage: &Stage<'_>, torrent: &Torrent, index: usize) -> Result<Guard, ContenderError> {
    let folder = stage.host_folder(index)?;
    let mut aria2 = stage.network.host(index).command("aria2c");
    aria2.args(["--no-conf=true", "--enable-color=false", "--summary-interval=0", "--console-log-level=warn"]);
    aria2.args(["--enable-dht=false", "--enable-dht6=false", "--enable-peer-exchange=true", "--bt-max-peers=0"]);
    aria2.args(["--listen-port=6881", "--file-allocation=falloc", "--disk-cache=64M", "--seed-ratio=0.0"]);
    // In minutes: longer than any deadline.
    aria2.args(["--seed-time=1000", "--bt-seed-unverified=true"]);
    if index != 0 {
        aria2.arg("--on-bt-download-complete").arg(hook(&folder)?);
    }
    aria2.arg("--dir").arg(&folder).arg(&torrent.file);
    stage.start(Some(index), if index == 0 { "seed" } else { "leech" }, &mut aria2)
}

/// What a leecher calls when it has everything.
fn hook(folder: &Path) -> Result<PathBuf, ContenderError> {
    let file = folder.join("hook");
    program::write(&file, &format!("#!/bin/sh\n: >{}\n", folder.join(COMPLETE).display()))?;
    let executable = std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755));
    executable.map_err(|cause| ContenderError::File { what: format!("make {} executable", file.display()), cause })?;
    Ok(file)
}

/// Of 256 KiB to 1 MiB this let the fewest hosts straggle.
const PIECE_BYTES: u32 = 512 << 10;
const COMPLETE: &str = "complete";
