//! `lab publish`: how fast a file that is in the page cache becomes a master, beside what any program would need.
//!
//! In place and by reflink (on an XFS of its own, in a file), the file is only read and hashed: beside it runs
//! `b3sum --num-threads 2` on the same file. By copy it is written and made durable, too: beside it run `cp` and `sync` of
//! that file. The two of a pair run one after the other, and the ratio is of the pair. In the time of a publish is all
//! that `drover publish` does: talking with the daemon, import, signing, the tracker.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use drover_harness::{Fleet, FleetOptions, Host, Mount, TestImage, run as finish};
use serde_json::json;

use crate::goal::{self, Figure, Goal};

/// How to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Length of the file, all of it random
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    mib: u64,
    /// How many pairs of each kind
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = goal::at_least_once)]
    repeat: usize,
    /// The b3sum to compare with: best a fresh one (cargo install b3sum), Debian's is old
    #[arg(long, default_value = "b3sum", value_name = "PROGRAM")]
    b3sum: PathBuf,
    /// Only these kinds
    #[arg(long, value_delimiter = ',', value_name = "KIND", value_parser = ["in-place", "reflink", "copy"])]
    only: Vec<String>,
    /// Leave the file in the page cache as it was written, a mebibyte at a time, instead of as it is read from the disk
    #[arg(long)]
    as_written: bool,
    /// Where table and JSON are written, besides the table on standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A kind of publishing.
struct Kind {
    name: &'static str,
    options: &'static [&'static str],
    beside: &'static str,
}

/// Seconds of a publish, and of what ran beside it.
struct Pair {
    publish_s: f64,
    beside_s: f64,
}

/// Measures all kinds; those that can't be measured here are named.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let seed = drover_harness::seed("lab publish");
    let b3sum = version(&arguments.b3sum);
    println!("{}", b3sum.as_deref().unwrap_or("b3sum is missing (cargo install b3sum, or apt-get install b3sum)"));
    let mut figures = Vec::new();
    for kind in KINDS.iter().filter(|kind| arguments.wants(kind)) {
        let runs_beside = kind.beside != "b3sum" || b3sum.is_some();
        if kind.name == "reflink" && version("mkfs.xfs").is_none() {
            println!("reflink is not measured: mkfs.xfs is missing (apt-get install xfsprogs)");
        } else if runs_beside {
            figures.extend(measure(arguments, kind, seed));
        }
    }
    println!("{}", goal::table(&figures));
    let details = json!({ "seed": seed, "mib": arguments.mib, "b3sum": b3sum });
    goal::write(arguments.out.as_deref(), "publish", &figures, details)?;
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn wants(&self, kind: &Kind) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == kind.name)
    }
}

fn measure(arguments: &Arguments, kind: &Kind, seed: u64) -> Vec<Figure> {
    let mut fleet = Fleet::with(&FleetOptions::default());
    let mut host = fleet.join_host("");
    let _disk = (kind.name == "reflink").then(|| {
        let room = (arguments.mib << 20) + (2 << 30);
        Mount::xfs_over(&host.state, &fleet.path("xfs"), room)
    });
    host.start();
    // Within the host's folder, because a reflink is made within one file system only.
    let path = host.state.join("disk.raw");
    let image = TestImage::make(&path, arguments.mib << 20, arguments.mib << 20, seed);
    if !arguments.as_written {
        forget(&image.path);
    }
    let pairs: Vec<Pair> = (0..arguments.repeat).map(|_| pair(arguments, &fleet, &host, kind, &image)).collect();
    fleet.hosts.push(host);
    let speed = |seconds: f64| arguments.mib as f64 / 1024.0 / seconds;
    let of = |value: fn(&Pair) -> f64| pairs.iter().map(value).collect::<Vec<_>>();
    let to_speed = |seconds: Vec<f64>| seconds.into_iter().map(speed).collect::<Vec<_>>();
    vec![
        Figure::new(format!("{}: publish", kind.name), "GiB/s", to_speed(of(|pair| pair.publish_s)), Goal::None),
        Figure::new(format!("{}: {}", kind.name, kind.beside), "GiB/s", to_speed(of(|pair| pair.beside_s)), Goal::None),
        Figure::new(
            format!("{}: publish / {}", kind.name, kind.beside),
            "",
            of(|pair| pair.beside_s / pair.publish_s),
            Goal::AtLeast(0.8),
        ),
    ]
}

fn pair(arguments: &Arguments, fleet: &Fleet, host: &Host, kind: &Kind, image: &TestImage) -> Pair {
    settle(&image.path);
    let begun = Instant::now();
    if kind.beside == "b3sum" {
        finish(Command::new(&arguments.b3sum).args(["--num-threads", "2"]).arg(&image.path)).ok();
    } else {
        let copy = fleet.path("copy.raw");
        finish(Command::new("cp").args(["--reflink=never"]).arg(&image.path).arg(&copy)).ok();
        finish(Command::new("sync").arg(&copy)).ok();
    }
    let beside_s = begun.elapsed().as_secs_f64();
    let _ = std::fs::remove_file(fleet.path("copy.raw"));

    settle(&image.path);
    let mut publish = host.command();
    publish.arg("publish").arg(&image.path).args(["--name", "disk", "--key"]).arg(fleet.publisher_key());
    let begun = Instant::now();
    finish(publish.args(kind.options)).ok();
    let publish_s = begun.elapsed().as_secs_f64();
    // So that the next one is no content that is here already.
    let id = host.masters().pop().expect("what was published is here").image;
    host.run(&["rm", &id]).ok();
    Pair { publish_s, beside_s }
}

/// The file is in the page cache, and nothing waits to be written or freed.
fn settle(file: &Path) {
    finish(Command::new("sync").arg("-f").arg(file)).ok();
    finish(Command::new("dd").arg(format!("if={}", file.display())).args(["of=/dev/null", "bs=1M", "status=none"]))
        .ok();
}

/// Takes the file out of the page cache, so that it comes back as it is read from a disk: how it lies there decides what
/// mapping it costs b3sum (see the notes).
fn forget(file: &Path) {
    finish(Command::new("sync").arg("-f").arg(file)).ok();
    let forgotten =
        std::fs::File::open(file).map(|file| rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed));
    forgotten.expect("the image was just made").expect("a file of a disk can be forgotten");
}

/// The first line that a program says of its version, if it is there.
fn version(program: impl AsRef<std::ffi::OsStr>) -> Option<String> {
    let said = Command::new(program.as_ref()).arg("-V").output().ok()?;
    let text = [said.stdout, said.stderr].concat();
    Some(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

const KINDS: [Kind; 3] = [
    Kind { name: "in-place", options: &["--in-place"], beside: "b3sum" },
    Kind { name: "reflink", options: &[], beside: "b3sum" },
    Kind { name: "copy", options: &["--copy"], beside: "cp, sync" },
];
