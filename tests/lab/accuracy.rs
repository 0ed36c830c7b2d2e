//! `lab accuracy`: how long real daemons take on wires that the simulator knows, for the simulator to be judged by.
//!
//! Every case of `accuracy.toml` is run some times with Drover alone. What comes out is one JSON file: of each case the
//! simulator's scenario, and of each run when half of the receivers and when all had the image. `drover-sim accuracy`
//! reads that.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use drover_harness::TestImage;
use serde::{Deserialize, Serialize};

use crate::case::Case;
use crate::contenders::Contender;
use crate::contenders::drover::Drover;
use crate::goal;
use crate::report::Run;
use crate::run::once;
use crate::scratch;

/// How to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Only these cases
    cases: Vec<String>,
    /// How often each
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = goal::at_least_once)]
    repeat: usize,
    /// Where the JSON is written
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where hosts keep their files
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
}

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

/// What was measured of all cases.
#[derive(Serialize)]
struct Measured {
    seed: u64,
    cases: Vec<MeasuredCase>,
}

#[derive(Serialize)]
struct MeasuredCase {
    name: String,
    title: String,
    /// The same hosts and wires for `drover-sim`, in TOML.
    scenario: String,
    runs: Vec<Times>,
}

/// Seconds from the start of `drover publish`.
#[derive(Serialize)]
struct Times {
    median_s: f64,
    last_s: f64,
    /// Of what the processors of the machine could do; near 1 the machine was what limited.
    cpu_share: f64,
}

/// Measures all cases and writes what was seen.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(missing) = Drover::DEFAULT.missing() {
        return Err(missing.into());
    }
    let seed = drover_harness::seed("lab accuracy");
    let scratch = scratch::make(&arguments.scratch)?;
    let mut measured = Measured { seed, cases: Vec::new() };
    for case in select(&arguments.cases)? {
        let image = TestImage::make(&scratch.path().join("image.raw"), case.image_bytes(), case.image_bytes(), seed);
        let mut runs = Vec::new();
        for repetition in 0..arguments.repeat {
            let folder = scratch.path().join(format!("{}-{repetition}", case.name));
            let run = once(&case, &Drover::DEFAULT, &image.path, &folder);
            scratch::remove(&folder);
            runs.push(Times::of(&run?));
        }
        let told: Vec<String> = runs.iter().map(|run| format!("{:.2}/{:.2}", run.median_s, run.last_s)).collect();
        eprintln!("{}: half/all after {} s", case.name, told.join(", "));
        let scenario = scenario(&case)?;
        measured.cases.push(MeasuredCase { name: case.name, title: case.title, scenario, runs });
        // After each case, since all of them take a quarter of an hour.
        std::fs::write(&arguments.out, format!("{}\n", serde_json::to_string_pretty(&measured)?))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Times {
    fn of(run: &Run) -> Self {
        let after_s: Vec<f64> = run.finished.iter().map(|finish| finish.after_s).collect();
        Times { median_s: after_s[after_s.len() / 2], last_s: run.last_s(), cpu_share: run.cpu_share }
    }
}

fn select(names: &[String]) -> Result<Vec<Case>, Box<dyn Error>> {
    let Cases { case: cases } = toml::from_str(CASES)?;
    if let Some(unknown) = names.iter().find(|name| cases.iter().all(|case| case.name != **name)) {
        let all: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        return Err(format!("there is no case {unknown:?}; there are {}", all.join(", ")).into());
    }
    Ok(cases.into_iter().filter(|case| names.is_empty() || names.contains(&case.name)).collect())
}

/// The case as the simulator reads it. Its racks are equal, and its slower hosts are the last.
fn scenario(case: &Case) -> Result<String, Box<dyn Error>> {
    let rate = |rate: Option<f64>| rate.ok_or_else(|| format!("{}: its wires have no rate", case.name));
    let (up, down) = (rate(case.up_mbit)?, rate(case.down_mbit)?);
    let mut text = format!("hosts = {}\nimage_mib = {}\n", case.receivers().len(), case.image_mib);
    writeln!(text, "up_mbit_s = {up:?}\ndown_mbit_s = {down:?}\nlatency_us = 200")?;
    let slow: Vec<usize> = case.receivers().filter(|&host| case.is_slow(host)).collect();
    if let Some(&first) = slow.first() {
        let (up, down) = (rate(case.up_mbit(first))?, rate(case.down_mbit(first))?);
        let is_alike = |&host: &usize| (case.up_mbit(host), case.down_mbit(host)) == (Some(up), Some(down));
        if first + slow.len() != case.hosts || !slow.iter().all(is_alike) {
            return Err(format!("{}: slow hosts must be alike and the last ones", case.name).into());
        }
        writeln!(text, "other_rates = [{{ hosts = {}, up_mbit_s = {up:?}, down_mbit_s = {down:?} }}]", slow.len())?;
    }
    if let Some(racks) = &case.racks {
        if racks.sizes[0] != racks.sizes[1] {
            return Err(format!("{}: racks must be equal", case.name).into());
        }
        writeln!(text, "racks = 2\nrack_uplink_mbit_s = {:?}", racks.uplink_mbit)?;
    }
    Ok(text)
}

const CASES: &str = include_str!("accuracy.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_a_scenario_too() {
        let cases = select(&[]).expect("they parse");
        assert!(cases.len() >= 12);
        for case in &cases {
            let scenario: toml::Table = toml::from_str(&scenario(case).expect("it can be simulated")).expect("TOML");
            assert_eq!(scenario["hosts"].as_integer(), Some(case.hosts as i64 - 1));
            assert_eq!(scenario.contains_key("racks"), case.racks.is_some());
        }
        assert!(select(&["none".to_owned()]).is_err());
    }
}
