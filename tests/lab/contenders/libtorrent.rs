//! libtorrent: a small Python script at every host (`bittorrent.py`), with the settings that came out best of several: no
//! rate limits, no encryption, no limit to how many are served at once, few requests under way.
//!
//! In its time: the seeder's script from its start on, its announcement to the tracker, and each leecher until it has
//! checked the last piece. Leechers, which go on to share, are there and known to the tracker when the clock starts. The
//! seeder does not check its file again.

use serde_json::Value;

use super::program;
use super::torrent::{PYTHON, Torrent};
use super::{Contender, ContenderError, Delivery, Guard, Stage};

/// A swarm of libtorrent's Python scripts with opentracker.
#[derive(Debug, Default)]
pub(crate) struct Libtorrent;

impl Contender for Libtorrent {
    fn name(&self) -> &'static str {
        "libtorrent"
    }

    fn missing(&self) -> Option<String> {
        program::missing_packages(&Torrent::NEEDS)
    }

    fn run(&self, stage: &Stage<'_>) -> Result<Delivery, ContenderError> {
        let torrent = Torrent::offer(stage, PIECE_BYTES)?;
        let mut leechers = Vec::new();
        for host in stage.case.receivers() {
            leechers.push(peer(stage, &torrent, host)?);
        }
        torrent.wait_for_peers(stage, 0, leechers.len())?;
        let name = stage.image.file_name().unwrap_or_default();
        let shared = stage.host_folder(0)?.join("files");
        program::make_folder(&shared)?;
        program::link(stage.image, &shared.join(name))?;

        stage.start_clock()?;
        let mut seeder = peer(stage, &torrent, 0)?;
        let finished = stage.finish_line(|host| {
            seeder.must_run()?;
            leechers[host - 1].must_run()?;
            let folder = stage.host_folder(host)?;
            Ok(folder.join("files.done").exists().then(|| folder.join("files").join(name)))
        })?;
        Ok(Delivery { finished, details: Value::Null })
    }
}

/// Starts the seeder, which is host 0, or a leecher.
fn peer(stage: &Stage<'_>, torrent: &Torrent, index: usize) -> Result<Guard, ContenderError> {
    let host = stage.network.host(index);
    let role = if index == 0 { "seed" } else { "leech" };
    let mut script = host.command(PYTHON);
    script.arg(&torrent.script).arg(role).arg(&torrent.file).arg(stage.host_folder(index)?.join("files"));
    script.arg(host.address.to_string());
    stage.start(Some(index), role, &mut script)
}

/// Half of it made no difference that could be told from chance.
const PIECE_BYTES: u32 = 256 << 10;
