//! What came out for one contender, and whether it can be.

use drover_protocol::time::Instant;
use serde::{Deserialize, Serialize};

use super::bound::Bound;
use super::{Contender, Course};
use crate::scenario::Scenario;

/// What a contender made of a scenario. Lengths are bytes of the image, times seconds from the start.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Which.
    pub contender: Contender,
    /// When the last host was complete, if any was.
    pub last_seconds: Option<f64>,
    /// When half of the complete hosts were complete, if any was.
    pub median_seconds: Option<f64>,
    /// Before this the last of those that are complete can't be.
    pub bound_seconds: f64,
    /// `last_seconds` over `bound_seconds`.
    pub ratio: Option<f64>,
    /// What left the publisher.
    pub source_bytes: u64,
    /// What came into each rack (or site) from others; empty without racks.
    pub rack_bytes: Vec<u64>,
    /// What running machines go on to ask of the publisher, in bytes per second.
    pub load_bytes_per_s: u64,
    /// Why not all are complete that live to the end, if so.
    pub unfinished: Option<String>,
    /// Every host that fetches.
    pub hosts: Vec<HostOutcome>,
}

/// What a contender made of one host.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HostOutcome {
    /// Its number.
    pub host: usize,
    /// Its rack or site.
    pub rack: Option<usize>,
    /// When it came.
    pub arrived_seconds: f64,
    /// Before this it can't be complete.
    pub bound_seconds: f64,
    /// When it was complete, if it was.
    pub completed_seconds: Option<f64>,
}

/// What floats may be wrong by, relative: times are whole nanoseconds.
const ROUNDING: f64 = 1e-9;

impl Outcome {
    pub(super) fn new(scenario: &Scenario, contender: Contender, course: Course) -> Self {
        let bound = Bound::new(scenario, contender);
        let host_outcome = |host: usize| HostOutcome {
            host,
            rack: scenario.hosts[host].rack,
            arrived_seconds: scenario.hosts[host].arrives.as_secs_f64(),
            bound_seconds: bound.of_host(host),
            completed_seconds: course.completed[host].map(|at| at.since(Instant::START).as_secs_f64()),
        };
        let hosts: Vec<HostOutcome> = (1..scenario.hosts.len()).map(host_outcome).collect();
        let mut completed: Vec<f64> = hosts.iter().filter_map(|host| host.completed_seconds).collect();
        completed.sort_by(f64::total_cmp);
        let of_complete = hosts.iter().filter(|host| host.completed_seconds.is_some());
        let bound_seconds = of_complete.map(|host| host.bound_seconds).fold(bound.of_fleet(completed.len()), f64::max);
        let last_seconds = completed.last().copied();
        Outcome {
            contender,
            last_seconds,
            median_seconds: completed.get(completed.len() / 2).copied(),
            bound_seconds,
            ratio: last_seconds.map(|last| last / bound_seconds),
            source_bytes: course.source_bytes,
            rack_bytes: course.rack_bytes,
            load_bytes_per_s: course.load,
            unfinished: unfinished(scenario, &course.completed, course.stopped),
            hosts,
        }
    }

    /// Compares with the bounds, and what was sent with what came.
    pub(super) fn check(&self, scenario: &Scenario) -> Result<(), String> {
        let is_below = |seconds: f64, bound: f64| seconds < bound * (1.0 - ROUNDING);
        for host in &self.hosts {
            if let Some(seconds) = host.completed_seconds
                && is_below(seconds, host.bound_seconds)
            {
                return Err(format!("host {} took {seconds} s, the least is {} s", host.host, host.bound_seconds));
            }
        }
        if let Some(last) = self.last_seconds
            && is_below(last, self.bound_seconds)
        {
            return Err(format!("all took {last} s, the least is {} s", self.bound_seconds));
        }
        let need = Bound::new(scenario, self.contender).need();
        let is_anybody_complete = self.last_seconds.is_some();
        if is_anybody_complete && self.source_bytes < need.min(scenario.data_len()) {
            return Err(format!("a host is complete and the publisher sent {} of {need} bytes", self.source_bytes));
        }
        for (rack, &bytes) in self.rack_bytes.iter().enumerate() {
            let is_complete = |host: &&HostOutcome| host.rack == Some(rack) && host.completed_seconds.is_some();
            let is_elsewhere = scenario.hosts[0].rack != Some(rack);
            if is_elsewhere && self.hosts.iter().any(|host| is_complete(&host)) && bytes < scenario.data_len().min(need)
            {
                return Err(format!("a host in rack {rack} is complete and {bytes} of {need} bytes came into it"));
            }
        }
        Ok(())
    }
}

/// Why not all hosts are complete that do not die for good.
fn unfinished(scenario: &Scenario, completed: &[Option<Instant>], stopped: Option<String>) -> Option<String> {
    let expected = |&host: &usize| !scenario.hosts[host].stays_away();
    let missing = (1..completed.len()).filter(expected).filter(|&host| completed[host].is_none()).count();
    let why = stopped.unwrap_or_else(|| "they were not there to take it".to_owned());
    (missing > 0).then(|| format!("{missing} of {} hosts are not complete: {why}", completed.len() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RACKS: &str =
        "hosts = 3\nimage_mib = 8\nup_mbit_s = 100\ndown_mbit_s = 100\nracks = 2\nrack_uplink_mbit_s = 100";

    #[test]
    fn outcomes_that_can_t_be_are_refused() {
        let scenario = Scenario::parse(RACKS, None).expect("a scenario");
        for contender in Contender::all(&scenario) {
            let good = contender.compete(&scenario).unwrap_or_else(|error| panic!("{contender}: {error}"));
            let with = |change: fn(&mut Outcome)| {
                let mut outcome = good.clone();
                change(&mut outcome);
                outcome.check(&scenario).expect_err("it can't be")
            };
            assert!(with(|outcome| outcome.hosts[1].completed_seconds = Some(0.5)).contains("host 2"));
            assert!(with(|outcome| outcome.last_seconds = Some(0.5)).contains("all took"));
            assert!(with(|outcome| outcome.source_bytes = 1 << 20).contains("publisher sent"));
            assert!(with(|outcome| outcome.rack_bytes[1] = 1 << 20).contains("rack 1"));
        }
    }

    #[test]
    fn one_server_alone_can_t_be_as_fast_as_a_swarm() {
        let scenario = Scenario::parse(&RACKS.replace("hosts = 3", "hosts = 30"), None).expect("a scenario");
        let bound = |contender| Bound::new(&scenario, contender).of_fleet(30);
        let copy = 8.0 * f64::from(1 << 20) / 12_500_000.0;
        assert!((bound(Contender::Http) / copy - 30.0).abs() < 1e-9);
        assert!((bound(Contender::P2p) / copy - 30.0 / 31.0).abs() < 1e-9);
        assert_eq!(bound(Contender::Multicast), 0.0);
    }
}
