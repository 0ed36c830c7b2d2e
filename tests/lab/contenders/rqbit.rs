//! rqbit: one `rqbit download` at every host, with a torrent made beforehand.
//!
//! In its time: each leecher from its start on, its announcement to the tracker, and the transfer until it says that its
//! torrent is finished. Leechers go on to seed. Not in it: the seeder, which checks its file first and is known to the
//! tracker when the clock starts.

use super::program;
use super::torrent::Torrent;
use super::{Contender, ContenderError, Delivery, Guard, Stage};

/// A swarm of `rqbit` with opentracker.
#[derive(Debug, Default)]
pub(crate) struct Rqbit;

impl Contender for Rqbit {
    fn name(&self) -> &'static str {
        "rqbit"
    }

    fn missing(&self) -> Option<String> {
        let rqbit = program::find("rqbit").is_none().then(|| "cargo install rqbit, and put it into PATH".to_owned());
        let missing: Vec<String> = [rqbit, program::missing_packages(&Torrent::NEEDS)].into_iter().flatten().collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }

    fn run(&self, stage: &Stage<'_>) -> Result<Delivery, ContenderError> {
        let torrent = Torrent::offer(stage, PIECE_BYTES)?;
        torrent.share(stage, |index| peer(stage, &torrent, index), |leecher, _| leecher.printed().contains(FINISHED))
    }
}

/// Starts the seeder, which is host 0, or a leecher.
fn peer(stage: &Stage<'_>, torrent: &Torrent, index: usize) -> Result<Guard, ContenderError> {
    let host = stage.network.host(index);
    let mut rqbit = host.command("rqbit");
    rqbit.args(["--disable-dht", "--disable-lsd", "--ipv4-only", "--listen-ip", &host.address.to_string()]);
    rqbit.args(["--listen-port", "4240", "download", "--disable-http-api", "--overwrite", "--output-folder"]);
    rqbit.arg(stage.host_folder(index)?).arg(&torrent.file);
    stage.start(Some(index), if index == 0 { "seed" } else { "leech" }, &mut rqbit)
}

/// As for libtorrent.
const PIECE_BYTES: u32 = 256 << 10;
/// What it logs when its last piece is checked.
const FINISHED: &str = "torrent finished downloading";
