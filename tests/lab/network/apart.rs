//! What a host exchanges with a network that is not there: whoever floods it says that it comes from one.

use std::process::Command;

use super::build::tool;
use super::{Counters, NetHost, Network, NetworkError};

impl Network {
    /// Lets a host send what is for `network` to the service host, which drops it, and counts that and what comes from there.
    pub(crate) fn set_apart(&self, host: &NetHost, network: &str) -> Result<(), NetworkError> {
        let via = self.service().address.to_string();
        tool(host.command("ip").args(["route", "add", network, "via", &via]))?;
        let rules = format!(
            "table ip {TABLE} {{ counter sent {{ }}; counter received {{ }}; \
             chain out {{ type filter hook output priority 0; ip daddr {network} counter name sent; }}; \
             chain in {{ type filter hook prerouting priority 0; ip saddr {network} counter name received; }}; }}"
        );
        tool(host.command("nft").arg(rules)).map(drop)
    }

    /// What was counted so far, in bytes of IP packets.
    pub(crate) fn apart(&self, host: &NetHost) -> Result<Counters, NetworkError> {
        let mut list: Command = host.command("nft");
        let said = tool(list.args(["-j", "list", "counters", "table", "ip", TABLE]))?;
        let unclear = |_| NetworkError::Counters(format!("nft said: {said}"));
        let all: serde_json::Value = serde_json::from_str(&said).map_err(unclear)?;
        let counters = all["nftables"].as_array().into_iter().flatten().map(|entry| &entry["counter"]);
        let bytes = |name: &str| {
            let mut of_name = counters.clone().filter(|counter| counter["name"] == name);
            of_name.next().and_then(|counter| counter["bytes"].as_u64()).unwrap_or(0)
        };
        Ok(Counters { sent: bytes("sent"), received: bytes("received") })
    }
}

const TABLE: &str = "apart";
