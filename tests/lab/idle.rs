//! `lab idle`: what a daemon costs that has masters and neighbours, and nothing to do.
//!
//! Real daemons on this machine: the first publishes the masters, the others fetch them all. When all have all, and a while
//! after, their CPU time over a minute is read, and their memory. What the exchange before made them take, they still
//! have, as on a host that has just filled itself.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use drover_harness::{Fleet, FleetOptions, Host, LONG, TestImage, wait_until};
use serde_json::{Value, json};

use crate::goal::{self, Figure, Goal};
use crate::measure::{cpu_s, resident};

/// How to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// How many masters each host has
    #[arg(long, default_value_t = 20, value_name = "N")]
    masters: u64,
    /// How many other hosts
    #[arg(long, default_value_t = 16, value_name = "N")]
    neighbours: usize,
    /// Length of each master
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    mib: u64,
    /// Data in each master; the rest are holes
    #[arg(long, default_value_t = 16, value_name = "MIB")]
    data_mib: u64,
    /// How long to look
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u64,
    /// Where table and JSON are written, besides the table on standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Measures one fleet.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let seed = drover_harness::seed("lab idle");
    let names: Vec<String> = (0..arguments.masters).map(|number| format!("idle-{number}")).collect();
    let subscribe = format!("subscribe = {}", json!(names));
    let fleet = Fleet::with(&FleetOptions { hosts: 1 + arguments.neighbours, settings: subscribe });
    for (number, name) in names.iter().enumerate() {
        let seed = seed.wrapping_add(number as u64 * 1_000_000);
        let path = fleet.path(&format!("{name}.raw"));
        let image = TestImage::make(&path, arguments.mib << 20, arguments.data_mib << 20, seed);
        fleet.publish(&image.path, name, &["--in-place"]);
    }
    for host in &fleet.hosts {
        let complete = |masters: &usize| *masters == names.len();
        wait_until("all masters to be everywhere", LONG, || sealed(host), complete);
    }
    std::thread::sleep(SETTLE);
    let look = || fleet.hosts.iter().map(|host| cpu_s(host.agent().pid()).unwrap_or(0.0)).collect::<Vec<f64>>();
    let (begun, before) = (Instant::now(), look());
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    let (after, seconds) = (look(), begun.elapsed().as_secs_f64());
    let percent = after.iter().zip(&before).map(|(after, before)| (after - before) * 100.0 / seconds).collect();
    let mib = fleet.hosts.iter().map(|host| resident(host.agent().pid()).unwrap_or(0) as f64 / MIB);
    let neighbours = fleet.hosts.iter().map(|host| neighbours(&host.status()) as f64);
    let figures = [
        Figure::of_each("CPU time of each idle daemon", "%", percent, Goal::AtMost(0.3)),
        Figure::of_each("resident memory of each", "MiB", mib.collect(), Goal::AtMost(40.0)),
        Figure::of_each("connected neighbours of each", "", neighbours.collect(), Goal::None),
    ];
    println!("{} masters, {seconds:.0} s; a run is a daemon", names.len());
    println!("{}", goal::table(&figures));
    let details = json!({ "seed": seed, "masters": names.len(), "seconds": seconds, "data_mib": arguments.data_mib });
    goal::write(arguments.out.as_deref(), "idle", &figures, details)?;
    Ok(ExitCode::SUCCESS)
}

fn sealed(host: &Host) -> usize {
    host.masters().iter().filter(|master| master.sealed).count()
}

/// Different peers that are connected by any transfer.
fn neighbours(status: &Value) -> usize {
    let transfers = status["transfers"].as_array().into_iter().flatten();
    let peers = transfers.flat_map(|transfer| transfer["peers"].as_array().into_iter().flatten());
    let connected = peers.filter(|peer| peer["connected"] == true).filter_map(|peer| peer["peer"].as_str());
    connected.collect::<std::collections::BTreeSet<_>>().len()
}

const MIB: f64 = (1 << 20) as f64;
/// After the last transfer: checkpoints, announces and dials have settled by then.
const SETTLE: Duration = Duration::from_secs(30);
