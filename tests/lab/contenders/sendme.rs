//! sendme, the command line of iroh-blobs: `sendme send` at the source, `sendme receive` at every other host.
//!
//! In its time: `sendme receive` from its start to its end, which is connecting, fetching with every 16 KiB checked,
//! exporting the file and removing its own store. Not in it: `sendme send`, which imports the file into a store first. As
//! with HTTP, the clock starts with the first receiver; all fetch from the one sender. It is encrypted, as Drover is.
//!
//! It runs without relays and with the sender's address in the ticket, so it needs nobody outside the network.

use serde_json::Value;

use super::program::{self, PATIENCE};
use super::{Contender, ContenderError, Delivery, Stage, poll};

/// One sender without a relay, and one receiver a host.
#[derive(Debug, Default)]
pub(crate) struct Sendme;

impl Contender for Sendme {
    fn name(&self) -> &'static str {
        "sendme"
    }

    fn missing(&self) -> Option<String> {
        program::find("sendme").is_none().then(|| "cargo install sendme, and put it into PATH".to_owned())
    }

    fn run(&self, stage: &Stage<'_>) -> Result<Delivery, ContenderError> {
        let source = stage.network.host(0);
        let name = stage.image.file_name().unwrap_or_default();
        let mut send = source.command("sendme");
        send.current_dir(stage.host_folder(0)?).args(["send", "--no-progress", "--relay", "disabled"]);
        send.args(["--ticket-type", "addresses", "--magic-ipv4-addr", &format!("{}:{PORT}", source.address)]);
        send.arg(stage.image);
        let mut sender = stage.start(Some(0), "send", &mut send)?;
        let ticket = poll("the ticket", PATIENCE, || {
            sender.must_run()?;
            Ok(ticket(&sender.printed()))
        })?;

        stage.start_clock()?;
        let mut receivers = Vec::new();
        for host in stage.case.receivers() {
            let folder = stage.host_folder(host)?;
            let mut receive = stage.network.host(host).command("sendme");
            // It writes into the folder that it is started in.
            receive.current_dir(&folder).args(["receive", "--no-progress", "--relay", "disabled", &ticket]);
            receivers.push((host, stage.start(Some(host), "receive", &mut receive)?, folder.join(name)));
        }
        Ok(Delivery { finished: stage.wait_for_ends(receivers)?, details: Value::Null })
    }
}

/// What the sender says that receivers are to be started with, as soon as it has said the whole line.
fn ticket(printed: &str) -> Option<String> {
    let lines = printed.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter_map(|line| line.trim().strip_prefix("sendme receive ")).next().map(str::to_owned)
}

const PORT: u16 = 4747;

#[cfg(test)]
mod tests {
    use super::ticket;

    #[test]
    fn half_a_ticket_is_none() {
        let said = "imported file image.raw\nto get this data, use\nsendme receive blobabc";
        assert_eq!(ticket(said), None);
        assert_eq!(ticket(&format!("{said}def\n")).as_deref(), Some("blobabcdef"));
    }
}
