//! Contenders side by side on one scenario: a table for people, JSON and CSV for programs, a plot for both.

use core::fmt;
use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::contender::{CompareError, Contender, Outcome};
use crate::plot::{Chart, Line, PlotError};
use crate::report::optimum_seconds;
use crate::scenario::Scenario;

/// What several contenders made of one scenario. Lengths are in bytes, times in seconds from the start.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the scenario.
    pub scenario: String,
    /// The seed, which gives this result again.
    pub seed: u64,
    /// Hosts that fetch.
    pub hosts: usize,
    /// Length of the image.
    pub image_bytes: u64,
    /// Bytes of it that are not zeros: what a host fetches.
    pub data_bytes: u64,
    /// Where all hosts are equal and come at the start: the best that passing pieces on can do.
    pub optimum_seconds: Option<f64>,
    /// One for each contender.
    pub outcomes: Vec<Outcome>,
}

/// One line of the CSV: one host of one contender.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Name of the scenario.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// Which contender.
    pub contender: Contender,
    /// Which host.
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

impl Comparison {
    /// Lets contenders compete.
    ///
    /// # Errors
    /// One of them can't, or its result is below a bound.
    pub fn run(name: &str, scenario: &Scenario, contenders: &[Contender]) -> Result<Self, CompareError> {
        let data_bytes = scenario.data_len();
        Ok(Comparison {
            scenario: name.to_owned(),
            seed: scenario.seed,
            hosts: scenario.hosts.len() - 1,
            image_bytes: scenario.geometry.len(),
            data_bytes,
            optimum_seconds: optimum_seconds(scenario, data_bytes),
            outcomes: contenders.iter().map(|contender| contender.compete(scenario)).collect::<Result<_, _>>()?,
        })
    }

    /// Every host of every contender, in the CSV's order.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.outcomes.iter().flat_map(move |outcome| {
            outcome.hosts.iter().map(move |host| Row {
                scenario: self.scenario.clone(),
                seed: self.seed,
                contender: outcome.contender,
                host: host.host,
                rack: host.rack,
                arrived_seconds: host.arrived_seconds,
                bound_seconds: host.bound_seconds,
                completed_seconds: host.completed_seconds,
            })
        })
    }

    /// Writes [`Comparison::rows`] as CSV, with a head if `with_head`.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_csv(&self, out: impl Write, with_head: bool) -> Result<(), csv::Error> {
        let mut writer = csv::WriterBuilder::new().has_headers(with_head).from_writer(out);
        self.rows().try_for_each(|row| writer.serialize(row))?;
        Ok(writer.flush()?)
    }

    /// The share of hosts that are complete over time, as SVG.
    ///
    /// # Errors
    /// It can't be drawn.
    pub fn curves(&self) -> Result<String, PlotError> {
        let lines = self.outcomes.iter().map(|outcome| Line::of(outcome.contender, curve(outcome)));
        Chart::over_time(format!("{}: hosts that are complete", self.scenario), lines.collect()).svg()
    }
}

/// Steps from the first complete host to the last: seconds, and per cent of all that fetch.
pub(crate) fn curve(outcome: &Outcome) -> Vec<(f64, f64)> {
    let mut completed: Vec<f64> = outcome.hosts.iter().filter_map(|host| host.completed_seconds).collect();
    completed.sort_by(f64::total_cmp);
    let share = |count: usize| 100.0 * count as f64 / outcome.hosts.len() as f64;
    let step = |(before, &at): (usize, &f64)| [(at, share(before)), (at, share(before + 1))];
    completed.iter().enumerate().flat_map(step).collect()
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{}: {} hosts, {:.0} MiB of data, seed {}",
            self.scenario,
            self.hosts,
            mib(self.data_bytes),
            self.seed
        )?;
        if let Some(optimum) = self.optimum_seconds {
            writeln!(f, "no schedule of pieces is faster than {optimum:.3} s")?;
        }
        writeln!(
            f,
            "{:<13} {:>10} {:>10} {:>10} {:>8} {:>13} {:>11}",
            "contender", "last s", "median s", "bound s", "ratio", "source copies", "into a rack"
        )?;
        let copies = |bytes: u64| bytes as f64 / self.data_bytes as f64;
        let maybe = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        for outcome in &self.outcomes {
            writeln!(
                f,
                "{:<13} {:>10} {:>10} {:>10} {:>8} {:>13.3} {:>11}",
                outcome.contender,
                maybe(outcome.last_seconds),
                maybe(outcome.median_seconds),
                maybe(outcome.last_seconds.map(|_| outcome.bound_seconds)),
                maybe(outcome.ratio),
                copies(outcome.source_bytes),
                maybe(outcome.rack_bytes.iter().max().map(|&bytes| copies(bytes))),
            )?;
            if let Some(why) = &outcome.unfinished {
                writeln!(f, "{:<13} {why}", "")?;
            }
        }
        Ok(())
    }
}
