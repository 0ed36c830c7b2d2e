//! udpcast: one `udp-sender`, and a `udp-receiver` at every other host. It is the engine of FOG and of Clonezilla.
//!
//! In its time: the sender from its start on, its hello and the receivers' answers, the transfer, and each receiver until
//! it ends, with its file synced, as it does by itself. Not in it: starting the receivers, which wait for the sender.
//!
//! Its settings are those of a switched network, with acknowledgements and without a cap on the rate: the sender's own
//! wire paces it. FEC is left out: with acknowledgements it cost its whole share of the wire and saved less, also where
//! packets are lost (see NOTES.md). The sender begins as soon as all receivers are there; repeated hellos shorten the two
//! seconds that it otherwise stays idle before that.

use std::time::Duration;

use serde_json::Value;

use super::program::{self, Socket};
use super::{Contender, ContenderError, Delivery, Stage};

/// `udp-sender` in full-duplex mode to as many receivers as there are.
#[derive(Debug, Default)]
pub(crate) struct Udpcast;

impl Contender for Udpcast {
    fn name(&self) -> &'static str {
        "udpcast"
    }

    fn missing(&self) -> Option<String> {
        program::missing_packages(&[("udp-sender", "udpcast")])
    }

    fn run(&self, stage: &Stage<'_>) -> Result<Delivery, ContenderError> {
        let mut receivers = Vec::new();
        for host in stage.case.receivers() {
            let file = stage.host_folder(host)?.join("image");
            let mut receiver = stage.network.host(host).command("udp-receiver");
            receiver.args(["--nokbd", "--interface", "eth0", "--start-timeout", "60", "--file"]).arg(&file);
            let mut receiver = stage.start(Some(host), "udp-receiver", &mut receiver)?;
            program::wait_to_listen(&mut receiver, Socket::Udp, PORT)?;
            receivers.push((host, receiver, file));
        }
        let mut sender = stage.network.host(0).command("udp-sender");
        sender.args(["--nokbd", "--interface", "eth0", "--full-duplex", "--rexmit-hello-interval", "100"]);
        sender.arg("--min-receivers").arg(stage.case.receivers().len().to_string()).arg("--file").arg(stage.image);

        stage.start_clock()?;
        let mut sender = stage.start(Some(0), "udp-sender", &mut sender)?;
        let finished = stage.wait_for_ends(receivers)?;
        sender.wait(FAREWELL)?;
        Ok(Delivery { finished, details: Value::Null })
    }
}

/// Its default port, at which receivers listen; the sender is at the next one.
const PORT: u16 = 9000;
/// The sender goes after the last receiver has said that it goes.
const FAREWELL: Duration = Duration::from_secs(30);
