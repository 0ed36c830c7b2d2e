//! Hosts on wires of a case, in network namespaces of this machine.
//!
//! Everything lies inside one outer network, mount and process namespace that the lab makes for itself
//! ([`drover_harness::outer`]), so nothing leaves the machine, and nothing stays when the lab ends, however it ends. Each
//! host is a named network namespace with one `eth0` behind a bridge. What a host sends is shaped at its own end of the wire, what it receives at the
//! bridge's end, both by `tbf`. Lost packets are dropped by `nft` where they reach a host, each for itself: in such cases all
//! offloads are off, else whole batches would be lost as one. In the others they are on, as on real hosts, which spares this
//! machine two thirds of the work of a packet: it plays all hosts at once, and is not to be what limits them.
//!
//! Beside the hosts of the case there is one more, the *service* host: unshaped, on the source's bridge, for trackers and
//! the like, and in no count.

mod apart;
mod build;

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;

use crate::case::Case;

/// A network that stands until it is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    hosts: Vec<NetHost>,
    service: NetHost,
    racks: bool,
}

/// One host of it.
#[derive(Debug, Clone)]
pub(crate) struct NetHost {
    /// Its number in the case; 0 is the source.
    pub(crate) index: usize,
    /// Its address; all hosts are in one /24.
    pub(crate) address: Ipv4Addr,
    namespace: String,
    /// The bridge's end of its wire.
    wire: String,
}

/// Bytes of frames that passed an interface, headers included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counters {
    /// What the host sent and its own shaper let out.
    pub(crate) sent: u64,
    /// What reached the host, also what it then lost.
    pub(crate) received: u64,
}

/// What passed a host's wire, as its shapers counted it: every frame with its headers, also those of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Wire {
    /// Bytes.
    pub(crate) bytes: Counters,
    /// Frames, where the wire is shaped.
    pub(crate) frames: Counters,
    /// Batches or frames that found the queue full at the host's own end.
    pub(crate) dropped_sending: u64,
    /// The same at the bridge's end: too many sent to this host at once.
    pub(crate) dropped_receiving: u64,
}

/// Why a network can't be built or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// A tool could not be started.
    #[error("run {tool}: {cause}; the lab needs Debian's iproute2, nftables, ethtool and util-linux")]
    Tool {
        /// Which.
        tool: String,
        /// Why.
        cause: std::io::Error,
    },
    /// A tool refused.
    #[error("{line}: {said}")]
    Refused {
        /// The command line.
        line: String,
        /// What it said.
        said: String,
    },
    /// The counters can't be read.
    #[error("read the interfaces' counters: {0}")]
    Counters(String),
}

impl Network {
    /// Builds the hosts and wires of a case. There can be one network at a time.
    pub(crate) fn build(case: &Case) -> Result<Self, NetworkError> {
        let hosts = (0..case.hosts).map(NetHost::numbered).collect();
        let network = Network { hosts, service: NetHost::service(), racks: case.racks.is_some() };
        // From here on, dropping it removes what was built, also half of it.
        build::network(&network, case)?;
        Ok(network)
    }

    /// A host of the case; 0 is the source.
    pub(crate) fn host(&self, index: usize) -> &NetHost {
        &self.hosts[index]
    }

    /// All hosts of the case.
    pub(crate) fn hosts(&self) -> &[NetHost] {
        &self.hosts
    }

    /// The unshaped host beside those of the case.
    pub(crate) fn service(&self) -> &NetHost {
        &self.service
    }

    /// What passed each host's wire so far, in the order of the hosts. Exact, but asks a tool for every host.
    pub(crate) fn wires(&self) -> Result<Vec<Wire>, NetworkError> {
        let quick = self.counters()?;
        self.hosts.iter().zip(quick).map(|(host, bytes)| host.wire(bytes)).collect()
    }

    /// What passed the link between the racks so far: `sent` out of the source's rack, `received` into it. Exact.
    pub(crate) fn uplink(&self) -> Result<Option<Counters>, NetworkError> {
        if !self.racks {
            return Ok(None);
        }
        let passed = |end| Ok(shaped(Command::new("tc"), end)?.map_or(0, |passed| passed.bytes));
        Ok(Some(Counters { sent: passed(build::UPLINK)?, received: passed(build::UPLINK_FAR)? }))
    }

    /// What passed each host's interface so far, in the order of the hosts. Quick; a batch of frames counts its headers once.
    pub(crate) fn counters(&self) -> Result<Vec<Counters>, NetworkError> {
        let text = devices()?;
        self.hosts.iter().map(|host| counters_of(&text, &host.wire)).collect()
    }

    /// [`Network::uplink`], as quick and inexact as [`Network::counters`].
    pub(crate) fn uplink_counters(&self) -> Result<Option<Counters>, NetworkError> {
        self.racks.then(|| counters_of(&devices()?, build::UPLINK).map(Counters::swapped)).transpose()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        build::remove(self);
    }
}

impl NetHost {
    fn numbered(index: usize) -> Self {
        let address = Ipv4Addr::new(10, 66, 0, 1 + index as u8);
        NetHost { index, address, namespace: format!("host{index}"), wire: format!("wire{index}") }
    }

    fn service() -> Self {
        let address = Ipv4Addr::new(10, 66, 0, 250);
        NetHost { index: usize::MAX, address, namespace: "service".to_owned(), wire: "wire-service".to_owned() }
    }

    /// A command that runs a program on this host. The process that is started becomes the program, so its id is the
    /// program's.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg("--").arg(program);
        command
    }

    /// What its shapers counted; of a direction without one, what its interface did.
    fn wire(&self, bytes: Counters) -> Result<Wire, NetworkError> {
        let unshaped = |bytes| Shaped { bytes, frames: 0, dropped: 0 };
        let sending = shaped(self.command("tc"), "eth0")?.unwrap_or(unshaped(bytes.sent));
        let receiving = shaped(Command::new("tc"), &self.wire)?.unwrap_or(unshaped(bytes.received));
        Ok(Wire {
            bytes: Counters { sent: sending.bytes, received: receiving.bytes },
            frames: Counters { sent: sending.frames, received: receiving.frames },
            dropped_sending: sending.dropped,
            dropped_receiving: receiving.dropped,
        })
    }
}

impl Counters {
    /// What passed since an earlier reading.
    pub(crate) fn since(self, earlier: Counters) -> Self {
        Counters { sent: self.sent - earlier.sent, received: self.received - earlier.received }
    }

    fn swapped(self) -> Self {
        Counters { sent: self.received, received: self.sent }
    }
}

impl Wire {
    /// What passed since an earlier reading.
    pub(crate) fn since(self, earlier: Wire) -> Self {
        Wire {
            bytes: self.bytes.since(earlier.bytes),
            frames: self.frames.since(earlier.frames),
            dropped_sending: self.dropped_sending - earlier.dropped_sending,
            dropped_receiving: self.dropped_receiving - earlier.dropped_receiving,
        }
    }
}

/// What a shaper says of itself.
#[derive(serde::Deserialize)]
struct Shaped {
    bytes: u64,
    #[serde(rename = "packets")]
    frames: u64,
    #[serde(rename = "drops")]
    dropped: u64,
}

/// What the shaper on an interface counted, if there is one.
fn shaped(mut tc: Command, interface: &str) -> Result<Option<Shaped>, NetworkError> {
    let said = build::tool(tc.args(["-s", "-j", "qdisc", "show", "dev", interface]))?;
    let unclear = |_| NetworkError::Counters(format!("tc said of {interface}: {said}"));
    let disciplines: Vec<serde_json::Value> = serde_json::from_str(&said).map_err(unclear)?;
    let shaper = disciplines.into_iter().find(|discipline| discipline["kind"] == "tbf");
    shaper.map(serde_json::from_value).transpose().map_err(unclear)
}

fn devices() -> Result<String, NetworkError> {
    std::fs::read_to_string("/proc/self/net/dev").map_err(|cause| NetworkError::Counters(cause.to_string()))
}

/// A wire's bridge end receives what its host sends.
fn counters_of(devices: &str, wire: &str) -> Result<Counters, NetworkError> {
    let missing = || NetworkError::Counters(format!("there is no interface {wire}"));
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix(wire)?.strip_prefix(':'));
    let fields: Vec<u64> = line.ok_or_else(missing)?.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let field = |at: usize| fields.get(at).copied().ok_or_else(missing);
    Ok(Counters { sent: field(0)?, received: field(8)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_seen_from_the_host() {
        let devices = "Inter-|   Receive  | Transmit\n face |bytes packets ...\n\
            wire1: 111 2 0 0 0 0 0 0 999 4 0 0 0 0 0 0\n wire10: 5 2 0 0 0 0 0 0 7 4 0 0 0 0 0 0\n";
        let seen = |wire| counters_of(devices, wire).expect("it is there");
        assert_eq!(seen("wire1"), Counters { sent: 111, received: 999 });
        assert_eq!(seen("wire10"), Counters { sent: 5, received: 7 });
        assert!(counters_of(devices, "wire2").is_err());
    }
}
