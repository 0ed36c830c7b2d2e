//! How far the simulator is from real daemons.
//!
//! `lab accuracy` measures real daemons on shaped wires and writes, beside each case's scenario, when half of the hosts
//! and when all had the image. Here the same scenarios are simulated. Two constants are not known from anywhere: the share of a
//! link that is left for an image's bytes, and the time that passes before the swarm begins and after it ends (the
//! import, the news of the release, syncing and sealing). They are fitted to every second case, and the others judge them.

use core::fmt;
use core::time::Duration;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::scenario::{Scenario, ScenarioError};
use crate::world::{RunError, run};

/// Largest relative error of the time at which half of the hosts are complete.
pub const MEDIAN_GOAL: f64 = 0.15;
/// Largest relative error of the time at which the last host is complete.
pub const LAST_GOAL: f64 = 0.20;

/// What the lab has measured.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Measured {
    /// The cases. The first, the third and so on are for fitting.
    pub cases: Vec<MeasuredCase>,
}

/// One case: the same hosts and wires, really.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct MeasuredCase {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// The scenario, in TOML.
    pub scenario: String,
    /// What was measured, at least once.
    pub runs: Vec<Times>,
}

/// Seconds from the start of the publication until half of the hosts, and all of them, were complete.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Times {
    /// Half of them.
    pub median_s: f64,
    /// All.
    pub last_s: f64,
}

/// What is fitted.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Constants {
    /// Share of each link's rate that carries the image's bytes.
    pub goodput: f64,
    /// Seconds besides those of the swarm.
    pub around_s: f64,
}

/// Simulated beside measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// Name of the case.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Whether the constants are fitted to it.
    pub is_fitted: bool,
    /// Medians over the runs.
    pub measured: Times,
    /// Medians over the seeds, with the constants.
    pub simulated: Times,
}

/// All cases, and with which constants.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Accuracy {
    /// The constants.
    pub constants: Constants,
    /// One for each case.
    pub rows: Vec<Row>,
}

/// Why there is no accuracy to tell of.
#[derive(Debug, thiserror::Error)]
pub enum AccuracyError {
    /// The file can't be read.
    #[error("read it: {0}")]
    Read(#[from] std::io::Error),
    /// The file is not what the lab writes.
    #[error("it is not what `lab accuracy` writes: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Too few cases, or a case that was never measured.
    #[error("{0}")]
    TooLittle(String),
    /// A scenario that is none.
    #[error("the scenario of {name}: {cause}")]
    Scenario {
        /// Of which case.
        name: String,
        /// What is wrong.
        cause: ScenarioError,
    },
    /// A scenario that does not end.
    #[error("{name}: {cause}")]
    Run {
        /// Which case.
        name: String,
        /// How it ended.
        cause: RunError,
    },
}

impl Measured {
    /// What the lab wrote into a file.
    pub fn load(path: &Path) -> Result<Self, AccuracyError> {
        let measured: Measured = serde_json::from_slice(&std::fs::read(path)?)?;
        if measured.cases.len() < 2 {
            return Err(AccuracyError::TooLittle("one case to fit to and one to judge by are the least".to_owned()));
        }
        match measured.cases.iter().find(|case| case.runs.is_empty()) {
            Some(case) => Err(AccuracyError::TooLittle(format!("{} was never measured", case.name))),
            None => Ok(measured),
        }
    }
}

impl Accuracy {
    /// Fits the constants to the first half of the cases and simulates all with them.
    pub fn of(measured: &Measured) -> Result<Self, AccuracyError> {
        let fitting: Vec<&MeasuredCase> = measured.cases.iter().step_by(2).collect();
        let mut best: Option<(f64, Constants)> = None;
        for percent in GOODPUT_PERCENT {
            let goodput = f64::from(percent) / 100.0;
            let simulated: Vec<Times> =
                fitting.iter().map(|case| simulate(case, goodput)).collect::<Result<_, AccuracyError>>()?;
            let pairs: Vec<(Times, Times)> =
                fitting.iter().zip(simulated).map(|(case, simulated)| (typical(&case.runs), simulated)).collect();
            let mut missing: Vec<f64> = pairs.iter().flat_map(|(real, simulated)| real.minus(*simulated)).collect();
            let around_s = median(&mut missing).max(0.0);
            let squares = pairs.iter().flat_map(|(real, simulated)| simulated.later(around_s).errors(*real));
            let sum: f64 = squares.map(|error| error * error).sum();
            if best.is_none_or(|(least, _)| sum < least) {
                best = Some((sum, Constants { goodput, around_s }));
            }
        }
        let (_, constants) = best.expect("there are some shares to try");
        let row = |(number, case): (usize, &MeasuredCase)| {
            Ok(Row {
                name: case.name.clone(),
                title: case.title.clone(),
                is_fitted: number % 2 == 0,
                measured: typical(&case.runs),
                simulated: simulate(case, constants.goodput)?.later(constants.around_s),
            })
        };
        let rows = measured.cases.iter().enumerate().map(row).collect::<Result<_, AccuracyError>>()?;
        Ok(Accuracy { constants, rows })
    }

    /// The largest errors, of the median and of the last, among the cases that judge.
    pub fn worst(&self) -> [f64; 2] {
        let judging = self.rows.iter().filter(|row| !row.is_fitted).map(Row::errors);
        judging.fold([0.0, 0.0], |worst, errors| [worst[0].max(errors[0].abs()), worst[1].max(errors[1].abs())])
    }

    /// Whether the cases that judge are all within the goals.
    pub fn is_reached(&self) -> bool {
        let [median, last] = self.worst();
        median <= MEDIAN_GOAL && last <= LAST_GOAL
    }
}

impl Row {
    /// How much later the simulated median and the simulated last are, over the measured ones.
    pub fn errors(&self) -> [f64; 2] {
        self.simulated.errors(self.measured)
    }
}

impl Times {
    fn later(self, seconds: f64) -> Self {
        Times { median_s: self.median_s + seconds, last_s: self.last_s + seconds }
    }

    fn minus(self, other: Self) -> [f64; 2] {
        [self.median_s - other.median_s, self.last_s - other.last_s]
    }

    fn errors(self, real: Self) -> [f64; 2] {
        [self.median_s / real.median_s - 1.0, self.last_s / real.last_s - 1.0]
    }
}

impl fmt::Display for Accuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Constants { goodput, around_s } = self.constants;
        writeln!(f, "{:.0} % of a link for the image's bytes, {around_s:.2} s around the swarm\n", goodput * 100.0)?;
        writeln!(f, "| case | for | half: real s | simulated | error | all: real s | simulated | error |")?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let [median, last] = row.errors().map(|error| 100.0 * error);
            let role = if row.is_fitted { "fitting" } else { "judging" };
            writeln!(
                f,
                "| {} | {role} | {:.2} | {:.2} | {median:+.1} % | {:.2} | {:.2} | {last:+.1} % |",
                row.title, row.measured.median_s, row.simulated.median_s, row.measured.last_s, row.simulated.last_s
            )?;
        }
        let [median, last] = self.worst().map(|error| 100.0 * error);
        writeln!(
            f,
            "\nThe worst of those that judge: {median:.1} % (goal 15) for half of the hosts, {last:.1} % (goal 20) for all."
        )
    }
}

/// The medians over some seeds.
fn simulate(case: &MeasuredCase, goodput: f64) -> Result<Times, AccuracyError> {
    let mut reports = Vec::new();
    for seed in SEEDS {
        let scenario = Scenario::parse(&case.scenario, Some(seed));
        let mut scenario = scenario.map_err(|cause| AccuracyError::Scenario { name: case.name.clone(), cause })?;
        scenario.goodput = Some(goodput);
        scenario.deadline = DEADLINE;
        let report = run(&scenario).map_err(|cause| AccuracyError::Run { name: case.name.clone(), cause })?;
        reports.push(Times { median_s: report.median_seconds, last_s: report.last_seconds });
    }
    Ok(typical(&reports))
}

/// The medians of each.
fn typical(runs: &[Times]) -> Times {
    let mut halves: Vec<f64> = runs.iter().map(|times| times.median_s).collect();
    let mut lasts: Vec<f64> = runs.iter().map(|times| times.last_s).collect();
    Times { median_s: median(&mut halves), last_s: median(&mut lasts) }
}

/// Of an even number the lower of the two in the middle.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Shares of a link that are tried. A bare QUIC flow leaves 95 % (measured); acknowledgements of the other direction and
/// control streams take some of that.
const GOODPUT_PERCENT: core::ops::RangeInclusive<u32> = 85..=95;
const SEEDS: core::ops::RangeInclusive<u64> = 1..=3;
const DEADLINE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, scenario: &str, median_s: f64, last_s: f64) -> MeasuredCase {
        let runs = vec![Times { median_s, last_s }];
        MeasuredCase { name: name.to_owned(), title: name.to_owned(), scenario: scenario.to_owned(), runs }
    }

    #[test]
    fn the_constants_of_a_made_up_reality_are_found() {
        let scenarios = [50.0, 80.0, 100.0, 120.0]
            .map(|mbit| format!("hosts = 2\nimage_mib = 8\nup_mbit_s = {mbit:?}\ndown_mbit_s = {mbit:?}\n"));
        let cases = scenarios.iter().map(|scenario| {
            let times = simulate(&case("", scenario, 1.0, 1.0), 0.90).expect("it ends").later(0.3);
            case("made up", scenario, times.median_s, times.last_s)
        });
        let accuracy = Accuracy::of(&Measured { cases: cases.collect() }).expect("they end");
        assert!((accuracy.constants.goodput - 0.90).abs() < 1e-9, "{accuracy}");
        assert!((accuracy.constants.around_s - 0.3).abs() < 1e-9, "{accuracy}");
        assert!(accuracy.is_reached() && accuracy.worst()[1] < 1e-9, "{accuracy}");
    }

    #[test]
    fn a_case_that_is_far_off_is_told() {
        let scenario = "hosts = 1\nimage_mib = 8\nup_mbit_s = 100\ndown_mbit_s = 100\n";
        let cases = vec![case("fits", scenario, 0.8, 0.8), case("far", scenario, 2.0, 2.0)];
        let accuracy = Accuracy::of(&Measured { cases }).expect("they end");
        assert!(!accuracy.is_reached(), "{accuracy}");
        assert!(accuracy.rows[0].errors()[1].abs() < 0.01, "{accuracy}");
    }
}
