//! What every BitTorrent rival needs beside itself: a torrent of the image, and a tracker that names its peers.
//!
//! The torrent is made with libtorrent and is at every host before any clock starts; its hashes are outside every rival's
//! time. The tracker is opentracker on the service host, started before the clock, too.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::program::{self, PATIENCE, Socket};
use super::{ContenderError, Delivery, Guard, Stage, poll};

/// A torrent whose tracker runs. Dropping it ends the tracker.
#[derive(Debug)]
pub(super) struct Torrent {
    /// The file that every peer is given.
    pub(super) file: PathBuf,
    /// The script that made it and shares it with libtorrent.
    pub(super) script: PathBuf,
    /// The tracker's answer about this torrent: how many peers of which kind.
    scrape: String,
    _tracker: Guard,
}

impl Torrent {
    /// What is not installed of this.
    pub(super) const NEEDS: [(&str, &str); 3] = [
        ("opentracker", "opentracker"),
        ("curl", "curl"),
        ("/usr/lib/python3/dist-packages/libtorrent.cpython-311-x86_64-linux-gnu.so", "python3-libtorrent"),
    ];

    /// Makes the torrent of the stage's image and starts its tracker.
    pub(super) fn offer(stage: &Stage<'_>, piece_bytes: u32) -> Result<Self, ContenderError> {
        let service = stage.network.service();
        let (file, script) = (stage.folder.join("image.torrent"), stage.folder.join("bittorrent.py"));
        program::write(&script, SCRIPT)?;
        let announce = format!("http://{}:{PORT}/announce", service.address);
        let mut make = Command::new(PYTHON);
        make.arg(&script).arg("make").arg(stage.image).arg(announce).arg(piece_bytes.to_string()).arg(&file);
        let info_hash = program::output(&mut make)?.trim().to_owned();

        // Debian's build serves no torrent that is not on its list, and looks for the list only after it has made this
        // folder its root.
        let folder = stage.sub_folder("tracker")?;
        program::write(&folder.join("whitelist"), &format!("{info_hash}\n"))?;
        let mut tracker = service.command("opentracker");
        tracker.args(["-i", &service.address.to_string(), "-p", &PORT.to_string(), "-w", "/whitelist"]);
        tracker.arg("-d").arg(&folder);
        let mut tracker = stage.start(None, "opentracker", &mut tracker)?;
        program::wait_to_listen(&mut tracker, Socket::Tcp, PORT)?;
        let scrape = format!("http://{}:{PORT}/scrape?info_hash={}", service.address, in_url(&info_hash));
        Ok(Torrent { file, script, scrape, _tracker: tracker })
    }

    /// Shares the image: a seeder that the tracker knows, then the clock, then all leechers. `peer` starts one of them, the
    /// seeder being host 0; `is_whole` tells whether a leecher has everything.
    pub(super) fn share(
        &self,
        stage: &Stage<'_>,
        peer: impl Fn(usize) -> Result<Guard, ContenderError>,
        is_whole: impl Fn(&Guard, &Path) -> bool,
    ) -> Result<Delivery, ContenderError> {
        let name = stage.image.file_name().unwrap_or_default();
        program::link(stage.image, &stage.host_folder(0)?.join(name))?;
        let mut seeder = peer(0)?;
        self.wait_for_peers(stage, 1, 0)?;

        stage.start_clock()?;
        let mut leechers = stage.case.receivers().map(peer).collect::<Result<Vec<_>, _>>()?;
        let finished = stage.finish_line(|host| {
            seeder.must_run()?;
            leechers[host - 1].must_run()?;
            let folder = stage.host_folder(host)?;
            Ok(is_whole(&leechers[host - 1], &folder).then(|| folder.join(name)))
        })?;
        Ok(Delivery { finished, details: Value::Null })
    }

    /// Waits until the tracker knows as many peers that have the image, and that still fetch it.
    pub(super) fn wait_for_peers(
        &self,
        stage: &Stage<'_>,
        seeders: usize,
        leechers: usize,
    ) -> Result<(), ContenderError> {
        let wanted = [format!("8:completei{seeders}e"), format!("10:incompletei{leechers}e")];
        poll("the tracker to know all peers", PATIENCE, || {
            let mut scrape = stage.network.service().command("curl");
            let answer = program::output(scrape.args(["--silent", "--max-time", "5", "--output", "-", &self.scrape]))?;
            Ok(wanted.iter().all(|count| answer.contains(count)).then_some(()))
        })
    }
}

/// Twenty bytes as an URL has them, from their hexadecimal figures.
fn in_url(info_hash: &str) -> String {
    let bytes = info_hash.as_bytes().chunks(2);
    bytes.map(|figures| format!("%{}", String::from_utf8_lossy(figures))).collect()
}

/// The system's own interpreter, which is the one that has Debian's modules.
pub(super) const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = include_str!("bittorrent.py");
const PORT: u16 = 6969;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_info_hash_goes_into_an_url() {
        assert_eq!(in_url("00ff7a"), "%00%ff%7a");
    }
}
