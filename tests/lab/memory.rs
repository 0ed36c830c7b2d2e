//! `lab memory`: what an agent takes at the most while a large master goes around among many.
//!
//! Real daemons on this machine; the peak is what the kernel says of each process (`VmHWM`), the publisher's import
//! included.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use drover_harness::{Fleet, FleetOptions, TestImage};
use serde_json::json;

use crate::goal::{self, Figure, Goal};

/// How to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Length of the master
    #[arg(long, default_value_t = 10, value_name = "GIB")]
    gib: u64,
    /// Data in it; the rest are holes
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    data_mib: u64,
    /// How many hosts fetch it
    #[arg(long, default_value_t = 16, value_name = "N")]
    peers: usize,
    /// Where table and JSON are written, besides the table on standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Measures one fleet.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let seed = drover_harness::seed("lab memory");
    let settings = "subscribe = [\"large\"]".to_owned();
    let fleet = Fleet::with(&FleetOptions { hosts: 1 + arguments.peers, settings });
    let image = TestImage::make(&fleet.path("disk.raw"), arguments.gib << 30, arguments.data_mib << 20, seed);
    let begun = Instant::now();
    fleet.publish(&image.path, "large", &["--in-place"]);
    for host in &fleet.hosts {
        host.wait_sealed("large@1", DEADLINE);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let peaks: Vec<f64> = fleet.hosts.iter().map(|host| host.agent().peak_resident() as f64 / MIB).collect();
    let largest = peaks.iter().copied().fold(0.0, f64::max);
    let figures = [
        Figure::new("peak resident memory of the publisher", "MiB", peaks[..1].to_vec(), Goal::AtMost(192.0)),
        Figure::new("of each of its peers", "MiB", peaks[1..].to_vec(), Goal::AtMost(192.0)),
        Figure::new("of the largest of all", "MiB", vec![largest], Goal::AtMost(192.0)),
    ];
    println!(
        "{} GiB with {} MiB of data to {} hosts in {seconds:.0} s; a run is a daemon",
        arguments.gib, arguments.data_mib, arguments.peers
    );
    println!("{}", goal::table(&figures));
    let details = json!({ "seed": seed, "peers": arguments.peers, "seconds": seconds, "data_mib": arguments.data_mib });
    goal::write(arguments.out.as_deref(), "memory", &figures, details)?;
    Ok(ExitCode::SUCCESS)
}

const MIB: f64 = (1 << 20) as f64;
/// For sixteen copies on one machine.
const DEADLINE: Duration = Duration::from_secs(600);
