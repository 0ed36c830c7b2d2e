//! `drover multicast`: what an administrator wants to know before, and when it is not used.

use clap::{Args, Subcommand};
use drover_protocol::multicast::probe::Fitness;

use super::{Common, Exit};
use crate::control::Problem;
use crate::control::api::{ProbeMulticast, ProbedMulticast};
use crate::quantity::Bytes;

/// Find out about multicast on this network
#[derive(Args, Debug)]
pub(super) struct Multicast {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Probe(Probe),
}

/// Send packets to hosts for a second, at rising rates, and say of each whether the network is fit for it
///
/// Exit code 1 if it is not fit for one of them. Groups that a switch floods to ports that did not join can't be seen from hosts.
#[derive(Args, Debug)]
struct Probe {
    /// Hosts, as `drover join --name` called them; all that there is a connection with, by default
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
}

impl Multicast {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let Command::Probe(probe) = &self.command;
        let request = ProbeMulticast { hosts: probe.hosts.clone() };
        let probed: ProbedMulticast = common.client().post("/v1/multicast/probe", &request).await?;
        common.output().print(&probed, show)?;
        let is_fit = probed.hosts.iter().all(|host| host.found == Fitness::Fit);
        Ok(if is_fit { Exit::Done } else { Exit::Failed })
    }
}

fn show(probed: &ProbedMulticast) -> String {
    if probed.hosts.is_empty() {
        return "there is a connection with no host: fetch or publish something first, or name a host".to_owned();
    }
    let sent = format!("sent up to {}/s", Bytes(probed.rate_bytes_per_s));
    let hosts = probed.hosts.iter().map(|host| format!("{:<20} {}", host.host, host.text));
    [sent].into_iter().chain(hosts).collect::<Vec<_>>().join("\n")
}
