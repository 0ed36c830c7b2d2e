//! UFTP: `uftp` at the source, the daemon `uftpd` at every other host.
//!
//! In its time: `uftp` from its start on, its announcement and the registrations, the transfer in as many passes as it
//! takes, and each receiver until its daemon has given the file its name. Not in it: starting the daemons.
//!
//! UFTP must be told its rate: here the slowest wire on the way, for nobody could follow a faster one. The group is closed,
//! so it begins when all are registered and not when the time for latecomers is over. Nothing is encrypted, which it can.

use serde_json::json;

use super::program::{self, Socket};
use super::{Contender, ContenderError, Delivery, Stage};
use crate::case::Case;
use crate::network::NetHost;

/// One `uftp` to a closed group of all receivers.
#[derive(Debug, Default)]
pub(crate) struct Uftp;

impl Contender for Uftp {
    fn name(&self) -> &'static str {
        "uftp"
    }

    fn missing(&self) -> Option<String> {
        program::missing_packages(&[("uftp", "uftp"), ("uftpd", "uftp")])
    }

    fn run(&self, stage: &Stage<'_>) -> Result<Delivery, ContenderError> {
        let mut daemons = Vec::new();
        for host in stage.case.receivers() {
            let mut daemon = stage.network.host(host).command("uftpd");
            daemon.args(["-d", "-I", "eth0", "-B", SOCKET_BYTES, "-t", "-D"]).arg(stage.host_folder(host)?);
            let mut daemon = stage.start(Some(host), "uftpd", &mut daemon)?;
            program::wait_to_listen(&mut daemon, Socket::Udp, PORT)?;
            daemons.push(daemon);
        }
        let name = stage.image.file_name().unwrap_or_default();
        let rate = rate_kbit(stage.case);
        let group: Vec<String> = stage.case.receivers().map(|host| id(stage.network.host(host))).collect();
        let mut sender = stage.network.host(0).command("uftp");
        sender.args(["-I", "eth0", "-B", SOCKET_BYTES, "-b", BLOCK_BYTES, "-R", &rate.to_string()]);
        sender.args(["-H", &group.join(",")]).arg(stage.image);

        stage.start_clock()?;
        let mut sender = stage.start(Some(0), "uftp", &mut sender)?;
        // The daemon gives a file its own name as soon as it is whole, and writes it under another one until then.
        let finished = stage.finish_line(|host| {
            sender.ended()?;
            daemons[host - 1].must_run()?;
            let file = stage.host_folder(host)?.join(name);
            Ok(file.exists().then_some(file))
        })?;
        Ok(Delivery { finished, details: json!({ "rate_kbit": rate }) })
    }
}

/// What a daemon calls itself: its address in hexadecimal figures.
fn id(host: &NetHost) -> String {
    format!("0x{:08X}", u32::from(host.address))
}

/// A little less than the slowest wire, so that no queue is ever full. It counts UFTP's own headers and those below.
fn rate_kbit(case: &Case) -> u64 {
    let wires = case.receivers().map(|host| case.down_mbit(host)).chain([case.up_mbit(0)]);
    let wires = wires.chain([case.racks.as_ref().map(|racks| racks.uplink_mbit)]).flatten();
    (wires.fold(UNSHAPED_MBIT, f64::min) * 1000.0 * 0.98) as u64
}

/// What two veth ends and two cores carry without a loss.
const UNSHAPED_MBIT: f64 = 2000.0;
/// Full frames: the default of 1,300 bytes is for paths that nobody knows.
const BLOCK_BYTES: &str = "1440";
/// As it advises for fast networks.
const SOCKET_BYTES: &str = "4194304";
/// Its default.
const PORT: u16 = 1044;
