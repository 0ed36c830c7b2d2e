//! Wires for a fleet: a network namespace for each address, all on one bridge. Only inside an outer namespace ([`outer`]).
//!
//! [`outer`]: crate::outer

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;

use crate::command::run;
use crate::outer;

/// The network that all addresses are in.
pub(crate) const NET: [u8; 3] = [10, 66, 0];
const BRIDGE: &str = "fleet";
/// Where a default route leads, and the other end of that, where nobody listens.
const SINK: &str = "sink";
const DRAIN: &str = "drain";

/// A bridge that stands as long as the outer namespace does.
#[derive(Debug)]
pub(crate) struct Wires(());

impl Wires {
    /// Builds the bridge. The test itself is on it, too, so that it can ask whether a tracker answers.
    #[track_caller]
    pub(crate) fn build() -> Wires {
        assert!(outer::is_inside(), "a fleet on wires needs an outer namespace around it");
        ip(&["link", "add", BRIDGE, "type", "bridge"]);
        ip(&["address", "add", &format!("{}/24", address(254)), "dev", BRIDGE]);
        ip(&["link", "set", BRIDGE, "up"]);
        Wires(())
    }

    /// A namespace with one interface that has this address, unless there is one; gives its name.
    #[track_caller]
    pub(crate) fn host(&self, last: u8) -> String {
        let (namespace, wire) = (format!("fleet-{last}"), wire_to(address(last).into()));
        if std::path::Path::new("/run/netns").join(&namespace).exists() {
            return namespace;
        }
        ip(&["netns", "add", &namespace]);
        ip(&["link", "add", &wire, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
        ip(&["link", "set", &wire, "master", BRIDGE, "up"]);
        ip(&["-n", &namespace, "address", "add", &format!("{}/24", address(last)), "dev", "eth0"]);
        ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        namespace
    }

    /// Gives a host a default route, into a device that leads nowhere and counts.
    #[track_caller]
    pub(crate) fn add_default_route(&self, last: u8) {
        let namespace = self.host(last);
        let in_there = |arguments: &[&str]| ip(&[&["-n", namespace.as_str()], arguments].concat());
        in_there(&["link", "add", SINK, "type", "veth", "peer", "name", DRAIN]);
        // IPv6 would send something of its own as soon as a device is up.
        let quiet = [SINK, DRAIN].map(|device| format!("net.ipv6.conf.{device}.disable_ipv6=1"));
        run(&mut within(&namespace, Command::new("sysctl").args(["-q", "-w"]).args(quiet))).ok();
        in_there(&["link", "set", DRAIN, "up"]);
        in_there(&["link", "set", SINK, "arp", "off", "up"]);
        in_there(&["route", "add", "default", "dev", SINK]);
    }

    /// How many packets took that route; `None` for a host without it.
    #[track_caller]
    pub(crate) fn left_by_default_route(&self, last: u8) -> Option<u64> {
        let namespace = format!("fleet-{last}");
        let path = Path::new("/run/netns").join(&namespace);
        let show = path.exists().then(|| {
            run(&mut within(&namespace, Command::new("ip").args(["-j", "-s", "link", "show", "dev", SINK])))
        })?;
        let shown = show.json();
        shown[0]["stats64"]["tx"]["packets"].as_u64()
    }
}

/// The same command, to be run in a namespace. The process that is started becomes the program, so its id is the program's.
pub(crate) fn within(namespace: &str, command: &Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside.arg(format!("--net=/run/netns/{namespace}")).arg("--");
    inside.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(key, value),
            None => inside.env_remove(key),
        };
    }
    inside
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(NET[0], NET[1], NET[2], last)
}

/// The bridge's end of the wire to an address.
pub(crate) fn wire_to(address: IpAddr) -> String {
    let last = address.to_string().rsplit(['.', ':']).next().map(str::to_owned);
    format!("wire-{}", last.unwrap_or_default())
}

#[track_caller]
fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments)).ok();
}
