//! The commands that make the network of a case.

use std::process::Command;

use super::{NetHost, Network, NetworkError};
use crate::case::Case;

/// The end in the source's rack of the link between two racks.
pub(super) const UPLINK: &str = "uplink0";
/// Its other end.
pub(super) const UPLINK_FAR: &str = "uplink1";
const BRIDGES: [&str; 2] = ["rack0", "rack1"];

/// Builds everything.
pub(super) fn network(network: &Network, case: &Case) -> Result<(), NetworkError> {
    let racks = if case.racks.is_some() { 2 } else { 1 };
    for bridge in &BRIDGES[..racks] {
        ip(&["link", "add", bridge, "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["link", "set", bridge, "up"])?;
        if case.snooping {
            // Without a querier, snooping would only decide by chance who hears a multicast. A bridge floods at first, for as long as hosts
            // may take to answer a query when the querier is switched on: a second, if that is set before, instead of ten. While
            // it floods, hosts hear each other's reports and keep back their own, so that it would forget some when it stops.
            let set = |option: &str, value: &str| ip(&["link", "set", bridge, "type", "bridge", option, value]);
            set("mcast_query_response_interval", "100")?;
            set("mcast_snooping", "1")?;
            set("mcast_querier", "1")?;
        }
    }
    if let Some(racks) = &case.racks {
        ip(&["link", "add", UPLINK, "type", "veth", "peer", "name", UPLINK_FAR])?;
        for (end, bridge) in [UPLINK, UPLINK_FAR].into_iter().zip(BRIDGES) {
            ip(&["link", "set", end, "master", bridge, "up"])?;
            tool(&mut shape(Command::new("tc"), end, racks.uplink_mbit))?;
        }
    }
    for host in &network.hosts {
        wire(host, BRIDGES[case.rack(host.index)])?;
        limit(host, case)?;
    }
    wire(&network.service, BRIDGES[0])
}

/// Removes what is there; what is not, was not built. Dropped wires take their other ends along.
pub(super) fn remove(network: &Network) {
    for host in network.hosts.iter().chain([&network.service]) {
        let _ = tool(Command::new("ip").args(["link", "del", &host.wire]));
        let _ = tool(Command::new("ip").args(["netns", "del", &host.namespace]));
    }
    for link in [UPLINK, BRIDGES[0], BRIDGES[1]] {
        let _ = tool(Command::new("ip").args(["link", "del", link]));
    }
}

/// Runs a tool of the system to its end and gives what it printed.
pub(super) fn tool(command: &mut Command) -> Result<String, NetworkError> {
    let line = format!("{command:?}").replace('"', "");
    let output = command.output().map_err(|cause| NetworkError::Tool { tool: line.clone(), cause })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(NetworkError::Refused { line, said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// A namespace with one interface, whose other end is a port of the bridge.
fn wire(host: &NetHost, bridge: &str) -> Result<(), NetworkError> {
    let NetHost { namespace, wire, .. } = host;
    ip(&["netns", "add", namespace])?;
    // Address negotiation of IPv6 would be in every count.
    tool(host.command("sh").args(["-c", "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$f; done"]))?;
    ip(&["link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", namespace])?;
    ip(&["link", "set", wire, "master", bridge, "up"])?;
    ip(&["-n", namespace, "address", "add", &format!("{}/24", host.address), "broadcast", "+", "dev", "eth0"])?;
    ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
    ip(&["-n", namespace, "link", "set", "lo", "up"])?;
    ip(&["-n", namespace, "route", "add", "224.0.0.0/4", "dev", "eth0"])
}

/// Shapes and thins out the wire of a host as the case says.
fn limit(host: &NetHost, case: &Case) -> Result<(), NetworkError> {
    let (up, down) = (case.up_mbit(host.index), case.down_mbit(host.index));
    if let Some(rate) = up {
        tool(&mut shape(host.command("tc"), "eth0", rate))?;
    }
    if let Some(rate) = down {
        tool(&mut shape(Command::new("tc"), &host.wire, rate))?;
    }
    let loss = case.loss_percent(host.index);
    if loss > 0.0 {
        tool(&mut without_offloads(host.command("ethtool"), "eth0"))?;
        tool(&mut without_offloads(Command::new("ethtool"), &host.wire))?;
        let per_million = (loss * 10_000.0).round();
        let rules = format!(
            "table netdev lab {{ chain loss {{ type filter hook ingress device eth0 priority 0; \
             numgen random mod 1000000 < {per_million} drop; }}; }}"
        );
        tool(host.command("nft").arg(rules))?;
    }
    Ok(())
}

/// A token bucket on an interface: bursts no longer than what a sender hands to its interface at once, and a queue as
/// short as that of a switch. It counts every frame of a batch with its headers.
fn shape(mut command: Command, interface: &str, mbit: f64) -> Command {
    // 50 ms, but never less than the packets that one socket may have under way by the kernel's default: a shorter queue
    // would drop what a sender's own socket let through without a word to it.
    let queue = (mbit * 1e6 / 8.0 * 0.05).max(256.0 * 1024.0) as u64;
    command.args(["qdisc", "add", "dev", interface, "root", "tbf", "rate", &format!("{mbit}mbit"), "burst", "16kb"]);
    command.args(["limit", &queue.to_string()]);
    command
}

/// So that what is dropped are packets: a batch would be lost as one.
fn without_offloads(mut command: Command, interface: &str) -> Command {
    command.args(["-K", interface, "tso", "off", "gso", "off", "gro", "off", "tx-udp-segmentation", "off"]);
    command
}

fn ip(arguments: &[&str]) -> Result<(), NetworkError> {
    tool(Command::new("ip").args(arguments)).map(drop)
}
