//! What is simulated: as written in a TOML file, and checked.

use core::time::Duration;
use std::path::{Path, PathBuf};

use drover_protocol::geometry::{Geometry, GeometryError};
use drover_protocol::swarm::SwarmConfig;
use serde::Deserialize;

use crate::fabric::Access;

/// Most hosts that make sense with this model.
const MAX_HOSTS: usize = 10_000;
/// Share of a link that is left for an image's bytes: QUIC's headers at an MTU of 1,500 cost 5.3 % (measured).
const GOODPUT: f64 = 1.0 / 1.053;

/// A scenario, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// Where all randomness comes from.
    pub seed: u64,
    /// The image's geometry.
    pub geometry: Geometry,
    /// Share of the image that is not zeros, from 0 to 1.
    pub data_share: f64,
    /// Host 0 has everything at the start; all others fetch.
    pub hosts: Vec<HostPlan>,
    /// Bytes per second between a rack and the others, each way, if they are limited.
    pub rack_uplink: Option<u64>,
    /// Whether hosts and tracker know who stands in which rack.
    pub racks_are_known: bool,
    /// Share of each link's rate that carries the image's bytes.
    pub goodput: f64,
    /// From one host to another.
    pub latency: Duration,
    /// How long after a change the network's rates are found anew.
    pub quantum: Duration,
    /// When whoever is not done has failed.
    pub deadline: Duration,
    /// How every host's swarm is set.
    pub swarm: SwarmConfig,
}

/// One host.
#[derive(Clone, PartialEq, Debug)]
pub struct HostPlan {
    /// Its links.
    pub access: Access,
    /// Number of its rack, if there are racks.
    pub rack: Option<usize>,
    /// When it comes, from the start.
    pub arrives: Duration,
    /// When it dies and, perhaps, when it is back with what it had stored.
    pub dies: Option<(Duration, Option<Duration>)>,
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

/// A scenario as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    #[serde(default = "one")]
    seed: u64,
    /// Hosts that fetch.
    hosts: usize,
    image_mib: u64,
    #[serde(default = "all")]
    data_share: f64,
    /// Of every host, unless told otherwise.
    up_mbit_s: f64,
    down_mbit_s: f64,
    /// Of the publisher.
    publisher_up_mbit_s: Option<f64>,
    /// Hosts that are slower or faster than the rest.
    #[serde(default)]
    other_rates: Vec<RawRates>,
    #[serde(default)]
    latency_us: Option<u64>,
    /// Length of a piece, if not the usual one.
    piece_kib: Option<u32>,
    /// Host n stands in rack n modulo so many.
    #[serde(default)]
    racks: usize,
    /// What leaves a rack, and what enters it, for all its hosts together.
    rack_uplink_mbit_s: Option<f64>,
    /// Whether hosts know their rack. The tracker is told of it, too.
    #[serde(default = "yes")]
    racks_are_known: bool,
    /// Hosts come at random moments within so many seconds; 0 is all at once.
    #[serde(default)]
    arrive_within_s: f64,
    #[serde(default)]
    deaths: Vec<RawDeath>,
    goodput: Option<f64>,
    quantum_us: Option<u64>,
    deadline_s: Option<f64>,
    #[serde(default)]
    swarm: RawSwarm,
}

/// What of the swarms' settings is not as usual.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSwarm {
    /// Bytes asked for at once, in KiB: whole pieces, if it is their length.
    request_kib: Option<u64>,
    /// Neighbours that are sought.
    neighbours: Option<usize>,
    /// Neighbours asked at the same time.
    sources: Option<usize>,
    /// Neighbours served at the same time.
    slots: Option<usize>,
    /// Requests served at the same time.
    served_at_once: Option<usize>,
    /// How many times later than usual a request must be to be asked for elsewhere, too.
    steal_factor: Option<u32>,
    /// Time between two looks whether more can be asked.
    look_ms: Option<u64>,
}

impl RawSwarm {
    fn config(&self) -> SwarmConfig {
        let usual = SwarmConfig::default();
        let neighbours_sought = self.neighbours.unwrap_or(usual.neighbours_sought);
        let request = self.request_kib.map(|kib| kib.saturating_mul(1 << 10));
        SwarmConfig {
            neighbours_sought,
            neighbours_most: usual.neighbours_most.max(neighbours_sought + neighbours_sought / 3),
            sources_most: self.sources.unwrap_or(usual.sources_most),
            upload_slots: self.slots.unwrap_or(usual.upload_slots),
            served_at_once: self.served_at_once.unwrap_or(usual.served_at_once),
            steal_factor: self.steal_factor.unwrap_or(usual.steal_factor),
            request_len_most: request.unwrap_or(usual.request_len_most),
            request_len_least: request.unwrap_or(usual.request_len_least),
            in_flight_least: request.unwrap_or(usual.in_flight_least),
            look_interval: self.look_ms.map_or(usual.look_interval, Duration::from_millis),
            ..usual
        }
    }
}

/// The last `hosts` hosts of those without rates of their own have these.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRates {
    hosts: usize,
    up_mbit_s: f64,
    down_mbit_s: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDeath {
    /// 0 is the publisher.
    host: usize,
    at_s: f64,
    back_at_s: Option<f64>,
}

const fn one() -> u64 {
    1
}

const fn yes() -> bool {
    true
}

const fn all() -> f64 {
    1.0
}

impl Scenario {
    /// The scenario in a file, with another seed if one is given.
    pub fn load(path: &Path, seed: Option<u64>) -> Result<Self, ScenarioError> {
        let text =
            std::fs::read_to_string(path).map_err(|cause| ScenarioError::Read { path: path.to_owned(), cause })?;
        Self::parse(&text, seed)
    }

    /// The name of a host's rack, if there are racks and they are known.
    pub fn rack_known(&self, host: usize) -> Option<String> {
        self.hosts[host].rack.filter(|_| self.racks_are_known).map(|rack| format!("rack-{rack}"))
    }

    /// The scenario in a text, with another seed if one is given.
    pub fn parse(text: &str, seed: Option<u64>) -> Result<Self, ScenarioError> {
        let raw: RawScenario = toml::from_str(text)?;
        raw.checked(seed)
    }
}

impl RawScenario {
    fn checked(self, seed: Option<u64>) -> Result<Scenario, ScenarioError> {
        if !(1..=MAX_HOSTS).contains(&self.hosts) {
            return value("hosts", format!("{} is not between 1 and {MAX_HOSTS}", self.hosts));
        }
        if !(0.0..=1.0).contains(&self.data_share) {
            return value("data_share", format!("{} is not between 0 and 1", self.data_share));
        }
        let goodput = self.goodput.unwrap_or(GOODPUT);
        if !(goodput > 0.0 && goodput <= 1.0) {
            return value("goodput", format!("{goodput} is not above 0 and at most 1"));
        }
        let seed = seed.unwrap_or(self.seed);
        let mut hosts = self.plans(seed)?;
        self.plan_deaths(&mut hosts)?;
        let latency = Duration::from_micros(self.latency_us.unwrap_or(200));
        let slowest = hosts.iter().map(|host| host.access.down.min(host.access.up)).min().unwrap_or(1);
        // A hundredth of the time of a request of 1 MiB at the slowest link's rate.
        let usual = Duration::from_secs_f64((1 << 20) as f64 / slowest as f64 / 100.0).min(Duration::from_millis(20));
        let len = self.image_mib.saturating_mul(1 << 20);
        let geometry = match self.piece_kib {
            None => Geometry::of_len(len)?,
            Some(kib) => Geometry::new(len, kib.saturating_mul(1 << 10))?,
        };
        let uplink = self.rack_uplink_mbit_s.map(|mbit| rate("rack_uplink_mbit_s", mbit)).transpose()?;
        Ok(Scenario {
            seed,
            geometry,
            data_share: self.data_share,
            hosts,
            rack_uplink: uplink.filter(|_| self.racks > 0),
            racks_are_known: self.racks_are_known,
            goodput,
            latency,
            quantum: self.quantum_us.map_or(usual, Duration::from_micros),
            deadline: seconds("deadline_s", self.deadline_s.unwrap_or(24.0 * 3600.0))?,
            swarm: self.swarm.config(),
        })
    }

    fn plans(&self, seed: u64) -> Result<Vec<HostPlan>, ScenarioError> {
        let usual = Access { up: rate("up_mbit_s", self.up_mbit_s)?, down: rate("down_mbit_s", self.down_mbit_s)? };
        let publisher_up = rate("publisher_up_mbit_s", self.publisher_up_mbit_s.unwrap_or(self.up_mbit_s))?;
        let within = seconds("arrive_within_s", self.arrive_within_s)?;
        let mut rng = drover_protocol::rng::Rng::seeded(seed ^ ARRIVALS);
        let mut hosts: Vec<HostPlan> = (0..=self.hosts)
            .map(|host| HostPlan {
                access: if host == 0 { Access { up: publisher_up, ..usual } } else { usual },
                rack: (self.racks > 0).then(|| host % self.racks),
                arrives: if host == 0 { Duration::ZERO } else { within * rng.below(1 << 20) / (1 << 20) },
                dies: None,
            })
            .collect();
        let mut last = hosts.len();
        for rates in &self.other_rates {
            if rates.hosts >= last {
                return value("other_rates", "they are for more hosts than there are".to_owned());
            }
            let access =
                Access { up: rate("up_mbit_s", rates.up_mbit_s)?, down: rate("down_mbit_s", rates.down_mbit_s)? };
            for host in &mut hosts[last - rates.hosts..last] {
                host.access = access;
            }
            last -= rates.hosts;
        }
        Ok(hosts)
    }

    fn plan_deaths(&self, hosts: &mut [HostPlan]) -> Result<(), ScenarioError> {
        for death in &self.deaths {
            let at = seconds("at_s", death.at_s)?;
            let back_at = death.back_at_s.map(|back_at| seconds("back_at_s", back_at)).transpose()?;
            let Some(host) = hosts.get_mut(death.host) else {
                return value("deaths", format!("there is no host {}", death.host));
            };
            if at <= host.arrives || back_at.is_some_and(|back_at| back_at <= at) {
                return value("deaths", format!("host {} must come, die and be back in this order", death.host));
            }
            host.dies = Some((at, back_at));
        }
        Ok(())
    }
}

/// Set apart from the seeds of the machines.
const ARRIVALS: u64 = 0x6172_7269_7661_6c73;

fn rate(key: &'static str, mbit_per_s: f64) -> Result<u64, ScenarioError> {
    let bytes_per_s = mbit_per_s * 1e6 / 8.0;
    if (1000.0..=1e12).contains(&bytes_per_s) {
        Ok(bytes_per_s as u64)
    } else {
        value(key, format!("{mbit_per_s} Mbit/s is no rate of a link"))
    }
}

fn seconds(key: &'static str, seconds: f64) -> Result<Duration, ScenarioError> {
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if seconds <= 1e6 => Ok(duration),
        _ => value(key, format!("{seconds} s is no time in a scenario")),
    }
}

fn value<T>(key: &'static str, problem: String) -> Result<T, ScenarioError> {
    Err(ScenarioError::Value { key, problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "hosts = 4\nimage_mib = 64\nup_mbit_s = 100\ndown_mbit_s = 200\n";

    #[test]
    fn a_short_scenario_has_usual_values() {
        let scenario = Scenario::parse(GOOD, Some(7)).unwrap();
        assert_eq!((scenario.seed, scenario.hosts.len(), scenario.geometry.len()), (7, 5, 64 << 20));
        assert!(scenario.hosts.iter().all(|host| host.access == Access { up: 12_500_000, down: 25_000_000 }));
        assert!(scenario.hosts.iter().all(|host| host.arrives.is_zero() && host.rack.is_none()));
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
        assert!(refused("other_rates = [{ hosts = 5, up_mbit_s = 1, down_mbit_s = 1 }]").contains("other_rates"));
        assert!(Scenario::parse("hosts = 0\nimage_mib = 1\nup_mbit_s = 1\ndown_mbit_s = 1", None).is_err());
        assert!(Scenario::parse("hosts = 1\nimage_mib = 0\nup_mbit_s = 1\ndown_mbit_s = 1", None).is_err());
    }
}
