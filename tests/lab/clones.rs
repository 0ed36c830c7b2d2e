//! `lab clones`: how long it takes to make, list and remove many clones, and what each takes on the disk.
//!
//! By the command line, as users do it: one `drover clone create --count`, one `drover clone rm`, one `drover clone list`.
//! The daemon's state and the clones lie on an XFS file system of the lab's own, so that both drivers can be used.

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use drover_harness::{Fleet, FleetOptions, Host, Mount, TestImage};
use serde_json::json;

use crate::goal::{self, Figure, Goal};

/// How to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// How many clones at once
    #[arg(long, default_value_t = 100, value_name = "N")]
    clones: usize,
    /// How many records `clone list` reads
    #[arg(long, default_value_t = 1000, value_name = "N")]
    records: usize,
    /// Length of the master
    #[arg(long, default_value_t = 5 << 10, value_name = "MIB")]
    mib: u64,
    /// Data in it; the rest are holes
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    data_mib: u64,
    /// How often each
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = goal::at_least_once)]
    repeat: usize,
    /// Where table and JSON are written, besides the table on standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Measures both drivers.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let seed = drover_harness::seed("lab clones");
    let mut fleet = Fleet::with(&FleetOptions::default());
    let mut host = fleet.join_host("");
    let disk = Mount::xfs_over(&host.state, &fleet.path("xfs"), 8 << 30);
    host.start();
    fleet.hosts.push(host);
    let image = TestImage::make(&fleet.path("disk.raw"), arguments.mib << 20, arguments.data_mib << 20, seed);
    fleet.publish(&image.path, "golden", &[]);
    let figures = measure(arguments, &fleet.hosts[0]);
    // The disk can't be unmounted while the daemon uses it.
    drop(fleet);
    drop(disk);
    let figures = figures?;
    println!("{}", goal::table(&figures));
    let details = json!({ "seed": seed, "clones": arguments.clones, "records": arguments.records });
    goal::write(arguments.out.as_deref(), "clones", &figures, details)?;
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: &Arguments, host: &Host) -> Result<Vec<Figure>, Box<dyn Error>> {
    let folder = host.state.join("vms");
    std::fs::create_dir(&folder)?;
    let mut figures = Vec::new();
    let count = arguments.clones;
    for driver in ["qcow2", "reflink"] {
        let (mut made_s, mut removed_s, mut kib) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..arguments.repeat {
            made_s.push(make(host, &folder, driver, "vm", count));
            kib.push(largest_kib(&folder)?);
            removed_s.push(remove(host, "vm", count));
        }
        figures.push(Figure::new(format!("{count} clones made, {driver}"), "s", made_s, Goal::AtMost(2.0)));
        figures.push(Figure::new(format!("{count} clones removed, {driver}"), "s", removed_s, Goal::AtMost(2.0)));
        figures.push(Figure::new(format!("disk taken by the largest, {driver}"), "KiB", kib, Goal::AtMost(200.0)));
    }
    for batch in 0..arguments.records.div_ceil(count) {
        make(host, &folder, "reflink", &format!("b{batch}"), count);
    }
    let list_ms = || timed(|| drop(host.run(&["clone", "list"]).ok())) * 1000.0;
    let listed_ms = (0..arguments.repeat).map(|_| list_ms()).collect();
    figures.push(Figure::new(format!("{} records listed", arguments.records), "ms", listed_ms, Goal::AtMost(100.0)));
    Ok(figures)
}

/// Seconds until all are made.
fn make(host: &Host, folder: &Path, driver: &str, prefix: &str, count: usize) -> f64 {
    let (name, out) = (format!("{prefix}-{{}}"), format!("{}/{prefix}-{{}}.img", folder.display()));
    let count = count.to_string();
    timed(|| {
        host.run(&["clone", "create", "golden", &name, "--driver", driver, "--out", &out, "--count", &count]).ok();
    })
}

/// Seconds until all are gone.
fn remove(host: &Host, prefix: &str, count: usize) -> f64 {
    let names: Vec<String> = (1..=count).map(|number| format!("{prefix}-{number}")).collect();
    let arguments: Vec<&str> = ["clone", "rm"].into_iter().chain(names.iter().map(String::as_str)).collect();
    timed(|| drop(host.run(&arguments).ok()))
}

/// What the largest file of a folder takes on the disk: for a reflink, what its file system books to it, which is the
/// master's blocks as well, so those that are shared are taken off.
fn largest_kib(folder: &Path) -> Result<f64, Box<dyn Error>> {
    let mut largest = 0.0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let own = std::fs::metadata(&path)?.blocks() * 512 - shared_bytes(&path)?;
        largest = f64::max(largest, own as f64 / 1024.0);
    }
    Ok(largest)
}

/// Bytes of a file in extents that other files have, too, by `filefrag`.
fn shared_bytes(path: &Path) -> Result<u64, Box<dyn Error>> {
    let listed = std::process::Command::new("filefrag").args(["-v", "-b1"]).arg(path).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let shared = listed.lines().filter(|line| line.contains("shared"));
    // `EXTENT: LOGICAL..: PHYSICAL..: LENGTH: EXPECTED: FLAGS`
    let len = |line: &str| line.split(':').nth(3).and_then(|len| len.trim().parse::<u64>().ok());
    Ok(shared.filter_map(len).sum())
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}
