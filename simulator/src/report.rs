//! What came out: a table for people, JSON for programs.

use core::fmt;
use core::time::Duration;

use serde::Serialize;

use crate::checker;
use crate::host::Counts;
use crate::scenario::{HostPlan, Scenario};

/// The result of a run. Lengths are in bytes, times in seconds from the start unless said otherwise.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The seed, which gives this result again.
    pub seed: u64,
    /// Length of the image.
    pub image_bytes: u64,
    /// Bytes of it that are not zeros: what each host fetches.
    pub data_bytes: u64,
    /// Number of pieces.
    pub pieces: u32,
    /// When the last host was complete.
    pub last_seconds: f64,
    /// When half of the hosts were complete.
    pub median_seconds: f64,
    /// Before this the last can't be complete.
    pub bound_seconds: f64,
    /// `last_seconds` over `bound_seconds`.
    pub ratio: f64,
    /// Where all hosts are equal and come at the start: the best that passing pieces on can do.
    pub optimum_seconds: Option<f64>,
    /// Bytes that left the publisher, over the data.
    pub publisher_sent_ratio: f64,
    /// Bytes that left each rack for others, over the data; empty if what is between racks is not limited.
    pub rack_sent_ratios: Vec<f64>,
    /// Bytes that came into each rack (or site) from others, over the data; empty without racks.
    pub rack_received_ratios: Vec<f64>,
    /// All bytes that left a host.
    pub sent_bytes: u64,
    /// All bytes that came and were stored.
    pub received_bytes: u64,
    /// All bytes that came in vain.
    pub wasted_bytes: u64,
    /// Events noted in the trace.
    pub events: u64,
    /// How often the network's rates were found anew.
    pub rate_solutions: u64,
    /// Hash of all that happened.
    pub trace: String,
    /// Each host that is complete.
    pub hosts: Vec<HostReport>,
}

/// The result of one host.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct HostReport {
    /// Its number; 0 is the publisher.
    pub host: usize,
    /// When it came.
    pub arrived_seconds: f64,
    /// How long it took from then.
    pub seconds: f64,
    /// It can't in less.
    pub bound_seconds: f64,
    /// `seconds` over `bound_seconds`.
    pub ratio: f64,
    /// What came from the publisher.
    pub publisher_bytes: u64,
    /// What came from others.
    pub peer_bytes: u64,
    /// What came in vain.
    pub wasted_bytes: u64,
    /// What it sent.
    pub sent_bytes: u64,
}

impl HostReport {
    pub(crate) fn new(host: usize, arrived: Duration, completed: Duration, bound: Duration, counts: Counts) -> Self {
        let (seconds, bound_seconds) = (completed.saturating_sub(arrived).as_secs_f64(), bound.as_secs_f64());
        HostReport {
            host,
            arrived_seconds: arrived.as_secs_f64(),
            seconds,
            bound_seconds,
            ratio: seconds / bound_seconds,
            publisher_bytes: counts.from_publisher,
            peer_bytes: counts.from_peers,
            wasted_bytes: counts.wasted,
            sent_bytes: counts.sent,
        }
    }
}

impl Report {
    pub(crate) fn new(
        scenario: &Scenario,
        data_bytes: u64,
        hosts: Vec<HostReport>,
        counts: Vec<Counts>,
        crossed: &[u64],
        trace: String,
        (events, rate_solutions): (u64, u64),
    ) -> Self {
        let mut completed: Vec<f64> = hosts.iter().map(|host| host.arrived_seconds + host.seconds).collect();
        completed.sort_by(f64::total_cmp);
        let last_seconds = completed.last().copied().unwrap_or(0.0);
        let each = hosts.iter().map(|host| host.arrived_seconds + host.bound_seconds);
        let fleet = checker::fleet_bound(scenario, hosts.len(), data_bytes).as_secs_f64();
        let bound_seconds = each.fold(fleet, f64::max);
        Report {
            seed: scenario.seed,
            image_bytes: scenario.geometry.len(),
            data_bytes,
            pieces: scenario.geometry.piece_count(),
            last_seconds,
            median_seconds: completed.get(completed.len() / 2).copied().unwrap_or(0.0),
            bound_seconds,
            ratio: last_seconds / bound_seconds,
            optimum_seconds: optimum_seconds(scenario, data_bytes),
            publisher_sent_ratio: counts[0].sent as f64 / data_bytes as f64,
            rack_sent_ratios: crossed.iter().map(|&bytes| bytes as f64 / data_bytes as f64).collect(),
            rack_received_ratios: rack_received(scenario, &counts)
                .into_iter()
                .map(|bytes| bytes as f64 / data_bytes as f64)
                .collect(),
            sent_bytes: counts.iter().map(|counts| counts.sent).sum(),
            received_bytes: counts.iter().map(|counts| counts.from_publisher + counts.from_peers).sum(),
            wasted_bytes: counts.iter().map(|counts| counts.wasted).sum(),
            events,
            rate_solutions,
            trace,
            hosts,
        }
    }
}

fn rack_received(scenario: &Scenario, counts: &[Counts]) -> Vec<u64> {
    let mut received = vec![0; scenario.rack_count()];
    for (plan, counts) in scenario.hosts.iter().zip(counts) {
        plan.rack.into_iter().for_each(|rack| received[rack] += counts.from_other_racks);
    }
    received
}

/// `S/r · (1 + ⌊log2 N⌋ / M)`: the publisher sends each of M pieces once, and the last one doubles its holders each time.
pub(crate) fn optimum_seconds(scenario: &Scenario, data_bytes: u64) -> Option<f64> {
    let rate = scenario.hosts[0].access.up;
    let equal = |host: &HostPlan| {
        host.access.up == rate && host.access.down == rate && host.arrives.is_zero() && host.absences.is_empty()
    };
    if !scenario.hosts.iter().all(equal) {
        return None;
    }
    let fetching = scenario.hosts.len() - 1;
    let fill = f64::from(fetching.ilog2()) / f64::from(scenario.geometry.piece_count());
    Some(data_bytes as f64 / rate as f64 * (1.0 + fill))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{:>6} {:>10} {:>10} {:>7} {:>15} {:>12} {:>9}",
            "host", "arrived s", "took s", "ratio", "from source MiB", "peers MiB", "waste MiB"
        )?;
        for host in &self.hosts {
            writeln!(
                f,
                "{:>6} {:>10.3} {:>10.3} {:>7.3} {:>15.1} {:>12.1} {:>9.2}",
                host.host,
                host.arrived_seconds,
                host.seconds,
                host.ratio,
                mib(host.publisher_bytes),
                mib(host.peer_bytes),
                mib(host.wasted_bytes),
            )?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "data     {:.1} MiB of {:.1} in {} pieces",
            mib(self.data_bytes),
            mib(self.image_bytes),
            self.pieces
        )?;
        writeln!(f, "median   {:.3} s", self.median_seconds)?;
        writeln!(
            f,
            "last     {:.3} s, {:.3} of the bound of {:.3} s",
            self.last_seconds, self.ratio, self.bound_seconds
        )?;
        if let Some(optimum) = self.optimum_seconds {
            writeln!(
                f,
                "optimum  {optimum:.3} s for equal hosts; the last took {:.3} of it",
                self.last_seconds / optimum
            )?;
        }
        writeln!(f, "publisher sent {:.3} of the data", self.publisher_sent_ratio)?;
        for (what, ratios) in [("sent", &self.rack_sent_ratios), ("received", &self.rack_received_ratios)] {
            if !ratios.is_empty() {
                let ratios: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
                writeln!(f, "racks {what} {} of the data", ratios.join(", "))?;
            }
        }
        writeln!(
            f,
            "wasted   {:.2} % of what came",
            100.0 * self.wasted_bytes as f64 / self.received_bytes.max(1) as f64
        )?;
        writeln!(f, "seed {}, {} events, trace {}", self.seed, self.events, self.trace)
    }
}
