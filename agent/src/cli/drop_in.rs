//! A drop-in for the daemon's unit, by which the kernel lets it reach nobody but who the settings name.
//!
//! The daemon keeps to the networks of the settings by itself; this is for who wants a second lock on the same door.
//! systemd does not know the settings, so they are written down for it.

use std::collections::BTreeSet;
use std::net::ToSocketAddrs;
use std::path::Path;

use drover_protocol::multicast::choice::Mode;
use serde::Serialize;

use super::check_config::trackers;
use crate::config::Settings;
use crate::control::{Code, Problem};

/// What the unit is to be allowed.
#[derive(Serialize, Debug)]
pub(super) struct DropIn {
    networks: Vec<String>,
    /// Addresses of trackers and static peers.
    named: BTreeSet<String>,
    /// Groups of multicast, if it is used.
    groups: Option<String>,
    /// Who tells what names stand for, if any are named.
    name_servers: BTreeSet<String>,
}

impl DropIn {
    /// For the daemon with this state folder and these settings.
    pub(super) fn of(state: &Path, settings: &Settings) -> Result<Self, Problem> {
        let what = "check-config --systemd";
        if settings.networks.is_empty() {
            return Err(Problem::new(Code::Usage, what, "the setting networks is not set, so hosts may be anywhere")
                .todo("name the networks that hosts are in, as in networks = [\"10.7.0.0/16\"]"));
        }
        let mut named = BTreeSet::new();
        let mut has_names = false;
        for text in trackers(state, settings).iter().chain(&settings.peers) {
            has_names |= text.parse::<std::net::SocketAddr>().is_err();
            let addrs = text.to_socket_addrs().map_err(|error| {
                Problem::failed(what, format!("can't find {text}: {error}"))
                    .todo("make it when that name leads somewhere, or name an address")
            })?;
            named.extend(addrs.map(|addr| addr.ip().to_canonical().to_string()));
        }
        Ok(DropIn {
            networks: settings.networks.texts().collect(),
            named,
            groups: (settings.multicast != Mode::Off).then(|| settings.multicast_groups.to_string()),
            name_servers: if has_names { name_servers() } else { BTreeSet::new() },
        })
    }

    pub(super) fn text(&self) -> String {
        let mut lines: Vec<String> = [
            "# Made by `drover check-config --systemd`: the kernel lets the daemon reach nobody else. Make it anew when networks,",
            "# trackers, peers or multicast change in the settings, or the addresses of what they name.",
            "[Service]",
            "IPAddressDeny=any",
            "IPAddressAllow=localhost",
        ]
        .map(str::to_owned)
        .into();
        let allowed = self.networks.iter().chain(&self.named).chain(&self.groups).chain(&self.name_servers);
        lines.extend(allowed.map(|allowed| format!("IPAddressAllow={allowed}")));
        lines.join("\n")
    }
}

/// Those of this machine; one that runs on it is let in anyway.
fn name_servers() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addrs = servers.filter_map(|addr| addr.trim().split('%').next()?.parse::<std::net::IpAddr>().ok());
    addrs.filter(|addr| !addr.is_loopback()).map(|addr| addr.to_string()).collect()
}
