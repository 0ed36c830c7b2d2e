//! A scenario as it is written in TOML, and the checks that make it one.
//!
//! Keys that are not known are refused. What is not written has a usual value, told at the key.

use core::time::Duration;

use drover_protocol::geometry::Geometry;
use drover_protocol::multicast::choice::Mode;
use drover_protocol::rng::Rng;
use drover_protocol::swarm::SwarmConfig;
use serde::Deserialize;

use super::faults::{RawChurn, RawDeath, RawOutage, plan_churn, plan_deaths, plan_outages};
use super::{HostPlan, MAX_HOSTS, PublisherDisk, Scenario, ScenarioError, Vms};
use crate::fabric::Access;
use crate::loss::Loss;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScenario {
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
    /// What every host's disk takes; usually more than its wire brings.
    disk_write_mbit_s: Option<f64>,
    /// Of the publisher.
    publisher_up_mbit_s: Option<f64>,
    /// What the publisher's disk gives; usually more than its wire takes.
    publisher_disk_mbit_s: Option<f64>,
    /// Memory that keeps what was read from that disk; usually all of it.
    publisher_cache_mib: Option<u64>,
    /// Hosts that are slower or faster than the rest.
    #[serde(default)]
    other_rates: Vec<RawRates>,
    #[serde(default)]
    latency_us: Option<u64>,
    loss: Option<RawLoss>,
    /// Length of a piece, if not the usual one.
    piece_kib: Option<u32>,
    /// Host n stands in rack n modulo so many.
    #[serde(default)]
    racks: usize,
    /// What leaves a rack, and what enters it, for all its hosts together.
    rack_uplink_mbit_s: Option<f64>,
    /// The same, as how many times more its hosts' links carry upwards.
    rack_oversubscription: Option<f64>,
    /// Whether hosts know their rack or site. The tracker is told of it, too.
    #[serde(default = "yes")]
    racks_are_known: bool,
    /// Host n stands at site n modulo so many. Instead of racks.
    #[serde(default)]
    sites: usize,
    /// What leaves a site, and what enters it.
    site_uplink_mbit_s: Option<f64>,
    /// From one site to another.
    site_latency_ms: Option<f64>,
    /// Hosts come at random moments within so many seconds; 0 is all at once.
    #[serde(default)]
    arrive_within_s: f64,
    late: Option<RawLate>,
    #[serde(default)]
    deaths: Vec<RawDeath>,
    churn: Option<RawChurn>,
    #[serde(default)]
    tracker_deaths: Vec<RawOutage>,
    vms: Option<RawVms>,
    goodput: Option<f64>,
    quantum_us: Option<u64>,
    deadline_s: Option<f64>,
    #[serde(default)]
    swarm: RawSwarm,
    /// When hosts send by multicast: `off`, `on`, or `auto`, if it is worth it.
    #[serde(default = "on")]
    multicast: Mode,
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
    disk_write_mbit_s: Option<f64>,
}

/// Packets that are lost on the wires of the last `hosts` hosts, or of all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLoss {
    percent: f64,
    /// Mean number of packets lost in a row.
    #[serde(default = "all")]
    burst: f64,
    hosts: Option<usize>,
}

/// The first `hosts` hosts come only then.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLate {
    hosts: usize,
    at_s: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVms {
    per_host: u64,
    boot_mib: f64,
    boot_s: f64,
    read_mbit_s: f64,
}

const fn one() -> u64 {
    1
}

const fn on() -> Mode {
    Mode::On
}

const fn yes() -> bool {
    true
}

const fn all() -> f64 {
    1.0
}

impl RawScenario {
    pub(super) fn checked(self, seed: Option<u64>) -> Result<Scenario, ScenarioError> {
        if !(1..=MAX_HOSTS).contains(&self.hosts) {
            return value("hosts", format!("{} is not between 1 and {MAX_HOSTS}", self.hosts));
        }
        if !(0.0..=1.0).contains(&self.data_share) {
            return value("data_share", format!("{} is not between 0 and 1", self.data_share));
        }
        if let Some(goodput) = self.goodput
            && !(goodput > 0.0 && goodput <= 1.0)
        {
            return value("goodput", format!("{goodput} is not above 0 and at most 1"));
        }
        let seed = seed.unwrap_or(self.seed);
        let geometry = self.geometry()?;
        let publisher_disk = self.publisher_disk(geometry.len())?;
        let hosts = self.plans(seed, publisher_disk)?;
        let slowest = hosts.iter().map(|host| host.access.down.min(host.access.up)).min().unwrap_or(1);
        // A hundredth of the time of a request of 1 MiB at the slowest link's rate.
        let usual = Duration::from_secs_f64((1 << 20) as f64 / slowest as f64 / 100.0).min(Duration::from_millis(20));
        Ok(Scenario {
            seed,
            geometry,
            data_share: self.data_share,
            hosts,
            publisher_disk,
            rack_uplink: self.rack_uplink()?,
            racks_are_known: self.racks_are_known,
            site_latency: self.site_latency()?,
            goodput: self.goodput,
            latency: Duration::from_micros(self.latency_us.unwrap_or(200)),
            tracker_absences: plan_outages("tracker_deaths", &self.tracker_deaths)?,
            vms: self.vms()?,
            quantum: self.quantum_us.map_or(usual, Duration::from_micros),
            deadline: seconds("deadline_s", self.deadline_s.unwrap_or(24.0 * 3600.0))?,
            swarm: self.swarm.config(),
            multicast: self.multicast,
        })
    }

    fn geometry(&self) -> Result<Geometry, ScenarioError> {
        let len = self.image_mib.saturating_mul(1 << 20);
        Ok(match self.piece_kib {
            None => Geometry::of_len(len)?,
            Some(kib) => Geometry::new(len, kib.saturating_mul(1 << 10))?,
        })
    }

    fn publisher_disk(&self, image_len: u64) -> Result<Option<PublisherDisk>, ScenarioError> {
        let Some(mbit) = self.publisher_disk_mbit_s else {
            return match self.publisher_cache_mib {
                Some(_) => value("publisher_cache_mib", "without publisher_disk_mbit_s it means nothing".to_owned()),
                None => Ok(None),
            };
        };
        let is_cached = self.publisher_cache_mib.is_none_or(|mib| mib.saturating_mul(1 << 20) >= image_len);
        Ok(Some(PublisherDisk { read: rate("publisher_disk_mbit_s", mbit)?, is_cached }))
    }

    fn rack_uplink(&self) -> Result<Option<u64>, ScenarioError> {
        if self.sites > 0 {
            if self.racks > 0 {
                return value("sites", "racks within sites are not modelled: take either".to_owned());
            }
            let (Some(mbit), Some(_)) = (self.site_uplink_mbit_s, self.site_latency_ms) else {
                return value("sites", "they need site_uplink_mbit_s and site_latency_ms".to_owned());
            };
            return rate("site_uplink_mbit_s", mbit).map(Some);
        }
        let plain = self.rack_uplink_mbit_s.map(|mbit| rate("rack_uplink_mbit_s", mbit)).transpose()?;
        let Some(times) = self.rack_oversubscription else { return Ok(plain.filter(|_| self.racks > 0)) };
        if self.racks == 0 || plain.is_some() || times < 1.0 {
            let problem = "it needs racks, is at least 1, and stands instead of rack_uplink_mbit_s";
            return value("rack_oversubscription", problem.to_owned());
        }
        let in_a_rack = (self.hosts + 1).div_ceil(self.racks);
        rate("rack_oversubscription", in_a_rack as f64 * self.up_mbit_s / times).map(Some)
    }

    fn site_latency(&self) -> Result<Option<Duration>, ScenarioError> {
        match self.site_latency_ms {
            Some(ms) if self.sites > 0 => seconds("site_latency_ms", ms / 1e3).map(Some),
            Some(_) => value("site_latency_ms", "there are no sites".to_owned()),
            None => Ok(None),
        }
    }

    fn vms(&self) -> Result<Option<Vms>, ScenarioError> {
        let Some(vms) = &self.vms else { return Ok(None) };
        let is_some_boot = vms.per_host > 0 && vms.boot_mib > 0.0 && vms.boot_mib <= self.image_mib as f64;
        if !is_some_boot || vms.boot_s <= 0.0 {
            return value("vms", "each needs machines that read something, at most the image, in some time".to_owned());
        }
        Ok(Some(Vms {
            per_host: vms.per_host,
            boot_len: (vms.boot_mib * f64::from(1 << 20)) as u64,
            boot_time: seconds("boot_s", vms.boot_s)?,
            read: rate("read_mbit_s", vms.read_mbit_s)?,
        }))
    }

    fn plans(&self, seed: u64, publisher_disk: Option<PublisherDisk>) -> Result<Vec<HostPlan>, ScenarioError> {
        let wires = self.wires()?;
        let within = seconds("arrive_within_s", self.arrive_within_s)?;
        let groups = self.racks.max(self.sites);
        let mut rng = Rng::seeded(seed ^ ARRIVALS);
        let mut hosts: Vec<HostPlan> = wires
            .into_iter()
            .enumerate()
            .map(|(host, (wire, access))| HostPlan {
                access,
                wire,
                loss: Loss::NONE,
                rack: (groups > 0).then(|| host % groups),
                arrives: if host == 0 { Duration::ZERO } else { within * rng.below(1 << 20) / (1 << 20) },
                absences: Vec::new(),
            })
            .collect();
        if let Some(disk) = publisher_disk {
            hosts[0].access.up = hosts[0].access.up.min(disk.read);
        }
        self.plan_late(&mut hosts)?;
        self.plan_loss(&mut hosts)?;
        plan_deaths(&self.deaths, &mut hosts)?;
        if let Some(churn) = &self.churn {
            plan_churn(churn, seed, &mut hosts)?;
        }
        Ok(hosts)
    }

    /// Each host's wire, and what is left of it behind its disk.
    fn wires(&self) -> Result<Vec<(Access, Access)>, ScenarioError> {
        let behind = |wire: Access, disk: Option<f64>| {
            let disk = disk.or(self.disk_write_mbit_s).map(|mbit| rate("disk_write_mbit_s", mbit)).transpose()?;
            Ok::<_, ScenarioError>((wire, Access { down: wire.down.min(disk.unwrap_or(u64::MAX)), ..wire }))
        };
        let usual = Access { up: rate("up_mbit_s", self.up_mbit_s)?, down: rate("down_mbit_s", self.down_mbit_s)? };
        let publisher_up = rate("publisher_up_mbit_s", self.publisher_up_mbit_s.unwrap_or(self.up_mbit_s))?;
        let mut wires = vec![behind(usual, None)?; self.hosts + 1];
        wires[0] = behind(Access { up: publisher_up, ..usual }, None)?;
        let mut last = wires.len();
        for rates in &self.other_rates {
            if rates.hosts >= last {
                return value("other_rates", "they are for more hosts than there are".to_owned());
            }
            let wire =
                Access { up: rate("up_mbit_s", rates.up_mbit_s)?, down: rate("down_mbit_s", rates.down_mbit_s)? };
            wires[last - rates.hosts..last].fill(behind(wire, rates.disk_write_mbit_s)?);
            last -= rates.hosts;
        }
        Ok(wires)
    }

    fn plan_late(&self, hosts: &mut [HostPlan]) -> Result<(), ScenarioError> {
        let Some(late) = &self.late else { return Ok(()) };
        let at = seconds("at_s", late.at_s)?;
        let Some(hosts) = hosts.get_mut(1..=late.hosts) else {
            return value("late", format!("there are no {} hosts", late.hosts));
        };
        hosts.iter_mut().for_each(|host| host.arrives = at);
        Ok(())
    }

    fn plan_loss(&self, hosts: &mut [HostPlan]) -> Result<(), ScenarioError> {
        let Some(loss) = &self.loss else { return Ok(()) };
        if !(0.0..100.0).contains(&loss.percent) {
            return value("loss", format!("{} is not from 0 to below 100 percent", loss.percent));
        }
        if loss.burst.is_nan() || loss.burst < 1.0 {
            return value("loss", format!("a burst of {} packets is none", loss.burst));
        }
        let count = hosts.len();
        let of = loss.hosts.unwrap_or(count);
        if loss.hosts.is_some_and(|of| of >= count) {
            return value("loss", format!("there are no {of} hosts"));
        }
        let loss = Loss { share: loss.percent / 100.0, burst: loss.burst };
        hosts[count - of..].iter_mut().for_each(|host| host.loss = loss);
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

pub(super) fn seconds(key: &'static str, seconds: f64) -> Result<Duration, ScenarioError> {
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if seconds <= 1e6 => Ok(duration),
        _ => value(key, format!("{seconds} s is no time in a scenario")),
    }
}

pub(super) fn value<T>(key: &'static str, problem: String) -> Result<T, ScenarioError> {
    Err(ScenarioError::Value { key, problem })
}
