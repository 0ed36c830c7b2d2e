//! `lab latency`: how soon a release is heard of, and how soon everybody knows that it has arrived.
//!
//! Real daemons on this machine, all but the publisher subscribed. Times are those of the daemons' logs, which share one
//! clock: from when the publisher's daemon had taken the file in, which is before the release is signed and posted, until
//! the first verified chunk at each host; and from when the last host had sealed the master until `GET /v1/status` of
//! every daemon, the publisher's too, counts all of them as seeders. Statuses are asked for without a pause of more than
//! [`POLL`].

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use drover_harness::{Fleet, FleetOptions, Host, LONG, TestImage};
use serde_json::{Value, json};

use crate::goal::{self, Figure, Goal};

/// How to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// How many hosts subscribe
    #[arg(long, default_value_t = 7, value_name = "N")]
    hosts: usize,
    /// Length of each release, all of it random
    #[arg(long, default_value_t = 64, value_name = "MIB")]
    mib: u64,
    /// How many releases, one after the other
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = goal::at_least_once)]
    repeat: usize,
    /// Where table and JSON are written, besides the table on standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Milliseconds of one release.
struct Times {
    first_host_ms: f64,
    last_host_ms: f64,
    known_ms: f64,
}

/// Measures one fleet.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let seed = drover_harness::seed("lab latency");
    let mut fleet = Fleet::with(&FleetOptions::default());
    for number in 0..=arguments.hosts {
        let mut host = fleet.join_host(if number == 0 { "" } else { "subscribe = [\"latency\"]" });
        host.start_with(&[("DROVER_LOG", Path::new("info,drover_agent::driver=debug"))]);
        fleet.hosts.push(host);
    }
    let times: Vec<Times> = (0..arguments.repeat)
        .map(|number| {
            let seed = seed.wrapping_add(number as u64 * 1_000_000);
            let path = fleet.path(&format!("disk{number}.raw"));
            let image = TestImage::make(&path, arguments.mib << 20, arguments.mib << 20, seed);
            release(&fleet, &image)
        })
        .collect();
    let of = |value: fn(&Times) -> f64| times.iter().map(value).collect::<Vec<_>>();
    let figures = [
        Figure::new("taken in -> first chunk at the first host", "ms", of(|it| it.first_host_ms), Goal::AtMost(300.0)),
        Figure::new("taken in -> first chunk at the last host", "ms", of(|it| it.last_host_ms), Goal::AtMost(300.0)),
        Figure::new("last host sealed -> known at every daemon", "ms", of(|it| it.known_ms), Goal::AtMost(1000.0)),
    ];
    println!("{} hosts subscribed, {} MiB", arguments.hosts, arguments.mib);
    println!("{}", goal::table(&figures));
    let details = json!({ "seed": seed, "hosts": arguments.hosts, "mib": arguments.mib });
    goal::write(arguments.out.as_deref(), "latency", &figures, details)?;
    Ok(ExitCode::SUCCESS)
}

fn release(fleet: &Fleet, image: &TestImage) -> Times {
    let released = fleet.publish(&image.path, "latency", &["--in-place"]);
    let id = released["image"].as_str().expect("an image id").to_owned();
    let known_at = wait_known(&fleet.hosts, &id);
    let taken_in = logged(&fleet.hosts[0], &["publish ", &id]).expect("the publisher logs what it took in");
    let subscribed = &fleet.hosts[1..];
    let at = |words: &[&str]| -> Vec<f64> {
        subscribed.iter().map(|host| logged(host, words).expect("each host logs it")).collect()
    };
    let (first_chunks, sealed) = (at(&["first chunk", &id]), at(&["master sealed", &id]));
    let last = |times: &[f64]| times.iter().copied().fold(f64::MIN, f64::max);
    let first = first_chunks.iter().copied().fold(f64::MAX, f64::min);
    Times {
        first_host_ms: (first - taken_in) * 1e3,
        last_host_ms: (last(&first_chunks) - taken_in) * 1e3,
        known_ms: (known_at - last(&sealed)).max(0.0) * 1e3,
    }
}

/// When every daemon was first seen to count every host as a seeder, in seconds of the day.
fn wait_known(hosts: &[Host], image: &str) -> f64 {
    let deadline = Instant::now() + LONG;
    let mut ignorant: Vec<&Host> = hosts.iter().collect();
    loop {
        ignorant.retain(|host| !status(&host.state).is_some_and(|status| knows(&status, image, hosts.len())));
        if ignorant.is_empty() {
            return now();
        }
        let names: Vec<&str> = ignorant.iter().map(|host| host.name.as_str()).collect();
        assert!(Instant::now() < deadline, "they never knew that all hosts are complete: {names:?}");
        std::thread::sleep(POLL);
    }
}

fn knows(status: &Value, image: &str, hosts: usize) -> bool {
    let transfers = status["transfers"].as_array().into_iter().flatten();
    let mut of_image = transfers.filter(|transfer| transfer["image"] == image);
    of_image.any(|it| it["phase"] == "complete" && it["seeders"] == hosts && it["leechers"] == 0)
}

/// What a daemon says of itself, asked for without a process.
fn status(state: &Path) -> Option<Value> {
    let mut socket = UnixStream::connect(state.join("agent.sock")).ok()?;
    socket.write_all(b"GET /v1/status HTTP/1.1\r\nHost: drover\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// When a host logged the first line that has all these words, in seconds of the day.
fn logged(host: &Host, words: &[&str]) -> Option<f64> {
    let log = host.log();
    let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)))?;
    // As in 2026-11-23T10:07:54.155117Z.
    let (_, rest) = line.split_once('T')?;
    let mut parts = rest.split_once('Z')?.0.splitn(3, ':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some(hours * 3600.0 + minutes * 60.0 + seconds)
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    since.as_secs_f64() % 86_400.0
}

/// A hundredth of the goal; asking eight daemons takes some milliseconds itself.
const POLL: Duration = Duration::from_millis(10);
