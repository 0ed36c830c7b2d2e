//! What is simulated: hosts, their links and disks, the image, who comes and goes when.
//!
//! `raw` reads it as it is written in TOML and checks it; below this module everything is checked. All rates are bytes
//! per second, all times are from the start.

mod faults;
mod raw;

use core::time::Duration;
use std::path::{Path, PathBuf};

use drover_protocol::geometry::{Geometry, GeometryError};
use drover_protocol::multicast::choice::Mode;
use drover_protocol::swarm::SwarmConfig;

use crate::fabric::Access;
use crate::loss::Loss;

/// Most hosts that make sense with this model.
const MAX_HOSTS: usize = 10_000;
/// Share of a link that QUIC's headers leave at an MTU of 1,500: they cost 5.3 % (measured).
pub const QUIC_GOODPUT: f64 = 1.0 / 1.053;

/// A scenario, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// Where all randomness comes from.
    pub seed: u64,
    /// The image's geometry; its length is whole mebibytes.
    pub geometry: Geometry,
    /// Share of the image that is not zeros, from 0 to 1.
    pub data_share: f64,
    /// Host 0 has everything at the start; all others fetch.
    pub hosts: Vec<HostPlan>,
    /// The disk that the publisher reads from, if it is not faster than anything else.
    pub publisher_disk: Option<PublisherDisk>,
    /// What leaves a rack (or site), and what enters it, if that is limited.
    pub rack_uplink: Option<u64>,
    /// Whether hosts and tracker know who stands in which rack (or site).
    pub racks_are_known: bool,
    /// Between hosts of different sites; then `rack` is a host's site.
    pub site_latency: Option<Duration>,
    /// Share of each link's rate that carries the image's bytes, if not what a contender's headers leave.
    pub goodput: Option<f64>,
    /// From one host to another.
    pub latency: Duration,
    /// When the tracker does not answer.
    pub tracker_absences: Vec<Absence>,
    /// What runs on each host, for the contender that copies nothing.
    pub vms: Option<Vms>,
    /// How long after a change the network's rates are found anew.
    pub quantum: Duration,
    /// When whoever is not done has failed.
    pub deadline: Duration,
    /// How every host's swarm is set.
    pub swarm: SwarmConfig,
    /// When hosts send by multicast, for the contender that has it.
    pub multicast: Mode,
}

/// One host.
#[derive(Clone, PartialEq, Debug)]
pub struct HostPlan {
    /// What it can pass on and take in: its wire, or its disk where that is slower.
    pub access: Access,
    /// Its wire alone.
    pub wire: Access,
    /// On its wire.
    pub loss: Loss,
    /// Number of its rack, or of its site, if there are any.
    pub rack: Option<usize>,
    /// When it comes.
    pub arrives: Duration,
    /// When it is dead, in order; it is back with what it had stored.
    pub absences: Vec<Absence>,
}

/// A time in which something is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Absence {
    /// Its begin.
    pub from: Duration,
    /// Its end, if it ends.
    pub until: Option<Duration>,
}

/// The publisher's disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublisherDisk {
    /// Bytes per second.
    pub read: u64,
    /// Whether memory keeps what was read once.
    pub is_cached: bool,
}

/// Machines that read their disks over the network.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Vms {
    /// So many on each host.
    pub per_host: u64,
    /// Bytes that each reads to start.
    pub boot_len: u64,
    /// How long a start takes if no byte has to be waited for.
    pub boot_time: Duration,
    /// What each reads once it runs, in bytes per second.
    pub read: u64,
}

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file can't be read.
    #[error("can't read scenario {path}: {cause}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Not TOML, a key that is not known, or a value of the wrong type.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// An image that can't be.
    #[error("image_mib: {0}")]
    Image(#[from] GeometryError),
    /// A value that makes no sense.
    #[error("{key}: {problem}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl Scenario {
    /// The scenario in a file, with another seed if one is given.
    pub fn load(path: &Path, seed: Option<u64>) -> Result<Self, ScenarioError> {
        let text =
            std::fs::read_to_string(path).map_err(|cause| ScenarioError::Read { path: path.to_owned(), cause })?;
        Self::parse(&text, seed)
    }

    /// The scenario in a text, with another seed if one is given.
    pub fn parse(text: &str, seed: Option<u64>) -> Result<Self, ScenarioError> {
        let raw: raw::RawScenario = toml::from_str(text)?;
        raw.checked(seed)
    }

    /// The name of a host's rack or site, if there are any and they are known.
    pub fn rack_known(&self, host: usize) -> Option<String> {
        let kind = if self.site_latency.is_some() { "site" } else { "rack" };
        self.hosts[host].rack.filter(|_| self.racks_are_known).map(|rack| format!("{kind}-{rack}"))
    }

    /// Number of racks or sites; 0 if there are none.
    pub fn rack_count(&self) -> usize {
        self.hosts.iter().filter_map(|host| host.rack).max().map_or(0, |last| last + 1)
    }

    /// From one host to another.
    pub fn latency_between(&self, one: usize, other: usize) -> Duration {
        self.site_latency.filter(|_| self.hosts[one].rack != self.hosts[other].rack).unwrap_or(self.latency)
    }

    /// Bytes of the image that are not zeros: whole mebibytes, at least one.
    pub fn data_len(&self) -> u64 {
        let mebibytes = self.geometry.len() >> 20;
        ((mebibytes as f64 * self.data_share).round() as u64).max(1) << 20
    }

    /// What each host's links carry of the image's bytes, its disk and loss counted, when headers leave a share of
    /// `headers`.
    pub fn links(&self, headers: f64) -> Vec<Access> {
        self.hosts.iter().map(|host| self.carried_by(host.access, host.loss, headers)).collect()
    }

    /// As [`Scenario::links`], without the disks.
    pub fn wires(&self, headers: f64) -> Vec<Access> {
        self.hosts.iter().map(|host| self.carried_by(host.wire, host.loss, headers)).collect()
    }

    /// What a rack's uplink carries of the image's bytes each way, if it is limited.
    pub fn uplink(&self, headers: f64) -> Option<u64> {
        self.rack_uplink.map(|uplink| share_of(uplink, self.goodput(headers)))
    }

    /// Share of each link's rate that carries the image's bytes.
    pub fn goodput(&self, headers: f64) -> f64 {
        self.goodput.unwrap_or(headers)
    }

    fn carried_by(&self, access: Access, loss: Loss, headers: f64) -> Access {
        let share = self.goodput(headers) * loss.unicast_factor();
        Access { up: share_of(access.up, share), down: share_of(access.down, share) }
    }
}

impl HostPlan {
    /// Whether it dies for good.
    pub fn stays_away(&self) -> bool {
        self.absences.last().is_some_and(|last| last.until.is_none())
    }
}

fn share_of(rate: u64, share: f64) -> u64 {
    ((rate as f64 * share) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "hosts = 4\nimage_mib = 64\nup_mbit_s = 100\ndown_mbit_s = 200\n";

    fn parse(more: &str) -> Scenario {
        Scenario::parse(&format!("{GOOD}{more}"), Some(7)).unwrap_or_else(|error| panic!("{more}: {error}"))
    }

    #[test]
    fn a_short_scenario_has_usual_values() {
        let scenario = parse("");
        assert_eq!((scenario.seed, scenario.hosts.len(), scenario.geometry.len()), (7, 5, 64 << 20));
        assert!(scenario.hosts.iter().all(|host| host.access == Access { up: 12_500_000, down: 25_000_000 }));
        assert!(scenario.hosts.iter().all(|host| host.arrives.is_zero() && host.rack.is_none()));
        assert_eq!(scenario.data_len(), 64 << 20);
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused() {
        let refused = |line: &str| Scenario::parse(&format!("{GOOD}{line}"), None).unwrap_err().to_string();
        assert!(refused("host_count = 3").contains("host_count"));
        assert!(refused("data_share = 1.5").contains("data_share"));
        assert!(refused("goodput = 0.0").contains("goodput"));
        assert!(refused("arrive_within_s = -1.0").contains("arrive_within_s"));
        assert!(refused("publisher_up_mbit_s = 0.0").contains("publisher_up_mbit_s"));
        assert!(refused("deaths = [{ host = 9, at_s = 1.0 }]").contains("no host 9"));
        assert!(refused("deaths = [{ host = 1, at_s = 2.0, back_at_s = 1.0 }]").contains("order"));
        assert!(refused("deaths = [{ at_s = 1.0 }]").contains("either host or rack"));
        assert!(refused("deaths = [{ rack = 1, at_s = 1.0 }]").contains("no rack 1"));
        assert!(refused("deaths = [{ host = 1, at_s = 1.0 }, { host = 1, at_s = 2.0 }]").contains("dead already"));
        assert!(refused("tracker_deaths = [{ at_s = 2.0, back_at_s = 1.0 }]").contains("tracker_deaths"));
        assert!(refused("other_rates = [{ hosts = 5, up_mbit_s = 1, down_mbit_s = 1 }]").contains("other_rates"));
        assert!(refused("loss = { percent = 100.0 }").contains("loss"));
        assert!(refused("loss = { percent = 1.0, burst = 0.5 }").contains("burst"));
        assert!(refused("loss = { percent = 1.0, hosts = 5 }").contains("loss"));
        assert!(refused("late = { hosts = 5, at_s = 1.0 }").contains("late"));
        assert!(refused("churn = { percent_per_min = 7000.0, away_s = 1.0, until_s = 1.0 }").contains("churn"));
        assert!(refused("racks = 2\nsites = 2").contains("sites"));
        assert!(refused("sites = 2").contains("sites"));
        assert!(refused("rack_oversubscription = 8.0").contains("rack_oversubscription"));
        assert!(refused("publisher_cache_mib = 1").contains("publisher_cache_mib"));
        assert!(Scenario::parse("hosts = 0\nimage_mib = 1\nup_mbit_s = 1\ndown_mbit_s = 1", None).is_err());
        assert!(Scenario::parse("hosts = 1\nimage_mib = 0\nup_mbit_s = 1\ndown_mbit_s = 1", None).is_err());
    }

    #[test]
    fn disks_limit_what_passes_a_host_but_not_its_wire() {
        let scenario = parse("disk_write_mbit_s = 80\npublisher_disk_mbit_s = 40\npublisher_cache_mib = 32");
        assert_eq!(scenario.hosts[1].access, Access { up: 12_500_000, down: 10_000_000 });
        assert_eq!(scenario.hosts[0].access.up, 5_000_000);
        assert_eq!(scenario.hosts[0].wire.up, 12_500_000);
        assert_eq!(scenario.publisher_disk, Some(PublisherDisk { read: 5_000_000, is_cached: false }));
    }

    #[test]
    fn an_oversubscribed_uplink_is_a_share_of_its_hosts_links() {
        let scenario = parse("racks = 2\nrack_oversubscription = 3.0");
        // Five hosts in two racks: three in the fuller one.
        assert_eq!(scenario.rack_uplink, Some(12_500_000));
        assert_eq!(scenario.rack_count(), 2);
    }

    #[test]
    fn sites_are_far_from_each_other() {
        let scenario = parse("sites = 2\nsite_uplink_mbit_s = 50\nsite_latency_ms = 20.0");
        assert_eq!(scenario.latency_between(0, 2), Duration::from_micros(200));
        assert_eq!(scenario.latency_between(0, 1), Duration::from_millis(20));
        assert_eq!(scenario.rack_known(1).as_deref(), Some("site-1"));
    }

    #[test]
    fn a_rack_dies_with_all_its_hosts() {
        let scenario = parse("racks = 2\ndeaths = [{ rack = 1, at_s = 3.0, back_at_s = 5.0 }]");
        let gone = Absence { from: Duration::from_secs(3), until: Some(Duration::from_secs(5)) };
        let absences: Vec<&[Absence]> = scenario.hosts.iter().map(|host| host.absences.as_slice()).collect();
        assert_eq!(absences, [&[][..], &[gone], &[], &[gone], &[]]);
    }

    #[test]
    fn churn_takes_about_as_many_as_it_says_and_never_the_publisher() {
        let text = GOOD.replace("hosts = 4", "hosts = 1000");
        let churn = "churn = { percent_per_min = 50.0, away_s = 0.5, until_s = 60.0 }";
        let scenario = Scenario::parse(&format!("{text}{churn}"), Some(3)).expect("a scenario");
        let deaths: usize = scenario.hosts.iter().map(|host| host.absences.len()).sum();
        assert!((400..600).contains(&deaths), "seed 3: {deaths} deaths");
        assert!(scenario.hosts[0].absences.is_empty());
        let ordered = |host: &HostPlan| host.absences.windows(2).all(|pair| pair[0].until.unwrap() <= pair[1].from);
        assert!(scenario.hosts.iter().all(ordered));
    }

    #[test]
    fn the_late_come_late() {
        let scenario = parse("late = { hosts = 2, at_s = 30.0 }");
        let arrivals: Vec<u64> = scenario.hosts.iter().map(|host| host.arrives.as_secs()).collect();
        assert_eq!(arrivals, [0, 30, 30, 0, 0]);
    }
}
