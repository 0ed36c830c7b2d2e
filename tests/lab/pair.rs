//! `lab pair`: two hosts on a wire without a limit, and what moving a gibibyte from one to the other costs.
//!
//! Bare QUIC ([`raw`](crate::raw)) and Drover take turns in the same network, with the same identities, so that whatever
//! else the machine does meets both. Of Drover the clock runs from the start of `drover fetch` until that returns: asking
//! the tracker, dialling, the manifest, making room, every chunk verified and stored, the journal, the seal. Not in it:
//! starting the daemons and publishing. Of bare QUIC it runs from before the dial until the file is on the disk. CPU
//! seconds are those of both ends' processes, and beside them those of the whole machine.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_harness::TestImage;
use serde::Serialize;
use serde_json::json;

use crate::case::Case;
use crate::contenders::drover::{Cluster, NAME};
use crate::contenders::{self, Contender, ContenderError, Guard, Stage, poll, program};
use crate::goal;
use crate::measure::{Meter, machine_cpu_s, process_cpu_s};
use crate::network::Network;
use crate::raw::{SERVING, Took};
use crate::run;
use crate::scratch;

/// How often, where, and beside whom.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// How many pairs of runs
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = goal::at_least_once)]
    repeat: usize,
    /// How much each run moves
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    mib: u64,
    /// Rivals to run, too, as often
    #[arg(long, value_delimiter = ',', value_name = "NAME", default_value = "aria2")]
    contender: Vec<String>,
    /// Where hosts keep their files. In memory by default: what a disk takes is the same for all
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    scratch: PathBuf,
    /// Where pair.json is written
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// One run of one of them.
#[derive(Debug, Clone, Copy, Serialize)]
struct Sample {
    /// Seconds until the file was written, checked and durable.
    wall_s: f64,
    /// CPU seconds of the sender, if it was told apart.
    sender_cpu_s: f64,
    /// CPU seconds of the receiver, or of everything.
    receiver_cpu_s: f64,
    /// CPU seconds of the whole machine meanwhile.
    machine_cpu_s: f64,
}

/// Runs the pairs and prints the table.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    for name in &arguments.contender {
        find(name)?;
    }
    let seed = drover_harness::seed("lab");
    let scratch = scratch::make(&arguments.scratch)?;
    let case = Case::unshaped("pair", "two hosts, no limits", 2, arguments.mib);
    let image = TestImage::make(&scratch.path().join("image.raw"), case.image_bytes(), case.image_bytes(), seed);
    let mut table = vec![("raw quinn".to_owned(), Vec::new()), ("drover".to_owned(), Vec::new())];
    {
        let network = Arc::new(Network::build(&case)?);
        let folder = scratch.path().join("pair");
        std::fs::create_dir_all(&folder)?;
        let meter = Meter::new(Arc::clone(&network), &folder);
        let stage = Stage::new(&network, &case, &image.path, &folder, &meter);
        let pair = Pair::start(&stage)?;
        for round in 0..arguments.repeat {
            // Who goes second finds the memory that the first has just given back.
            if round % 2 == 0 {
                table[0].1.push(pair.raw()?);
                table[1].1.push(pair.drover()?);
            } else {
                table[1].1.push(pair.drover()?);
                table[0].1.push(pair.raw()?);
            }
        }
        pair.end();
        scratch::remove(&folder);
    }
    for name in &arguments.contender {
        match rival(name, &case, &image.path, scratch.path(), arguments.repeat) {
            Ok(samples) => table.push((name.clone(), samples)),
            Err(error) => eprintln!("{name} gave no figure: {error}"),
        }
    }
    let gib = case.image_bytes() as f64 / f64::from(1 << 30);
    print(&table, gib);
    if let Some(folder) = &arguments.out {
        let runs: Vec<_> = table.iter().map(|(name, samples)| json!({ "name": name, "runs": samples })).collect();
        std::fs::create_dir_all(folder)?;
        let text = serde_json::to_string_pretty(&json!({ "seed": seed, "gib": gib, "pairs": runs }))?;
        std::fs::write(folder.join("pair.json"), text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Two hosts of a cluster of which the first has published the image, and serves it by bare QUIC, too.
struct Pair<'a> {
    stage: &'a Stage<'a>,
    cluster: Cluster,
    serving: Guard,
}

impl<'a> Pair<'a> {
    fn start(stage: &'a Stage<'a>) -> Result<Self, ContenderError> {
        let cluster = Cluster::start_without_subscribers(stage, "")?;
        cluster.publish(stage, &[])?.wait(PATIENCE)?;
        let mut serve = raw_end(stage, 0)?;
        serve.arg("serve").arg(cluster.agent(0).state.join("identity")).arg(raw_address(stage)).arg(stage.image);
        let mut serving = stage.start(Some(0), "raw-serve", &mut serve)?;
        poll("the raw server to serve", PATIENCE, || {
            serving.must_run()?;
            Ok(serving.printed().contains(SERVING).then_some(()))
        })?;
        Ok(Pair { stage, cluster, serving })
    }

    fn end(self) {
        self.cluster.end();
    }

    fn drover(&self) -> Result<Sample, ContenderError> {
        let [sender, receiver] = [0, 1].map(|host| self.cluster.agent(host));
        let (sender_cpu, receiver_cpu, machine_cpu) = (cpu_s(sender.pid())?, cpu_s(receiver.pid())?, machine_cpu_s());
        let begun = Instant::now();
        receiver.command(&["fetch", NAME])?;
        let wall_s = begun.elapsed().as_secs_f64();
        let sample = Sample {
            wall_s,
            sender_cpu_s: cpu_s(sender.pid())? - sender_cpu,
            receiver_cpu_s: cpu_s(receiver.pid())? - receiver_cpu,
            machine_cpu_s: machine_cpu_s() - machine_cpu,
        };
        let file = receiver.sealed().ok_or_else(|| self.differs("there is no sealed master"))?;
        self.compare(&file)?;
        receiver.command(&["rm", NAME])?;
        Ok(sample)
    }

    fn raw(&self) -> Result<Sample, ContenderError> {
        let [sender, receiver] = [0, 1].map(|host| self.cluster.agent(host).state.join("identity"));
        let file = self.stage.host_folder(1)?.join("raw");
        let mut fetch = raw_end(self.stage, 1)?;
        fetch.arg("fetch").arg(&receiver).arg(raw_address(self.stage)).arg(&sender).arg(&file);
        fetch.arg(self.stage.case.image_bytes().to_string());

        let (sender_cpu, machine_cpu) = (cpu_s(self.serving.pid())?, machine_cpu_s());
        let said = program::output(&mut fetch)?;
        let (sender_cpu, machine_cpu) = (cpu_s(self.serving.pid())? - sender_cpu, machine_cpu_s() - machine_cpu);
        let took: Took = serde_json::from_str(said.trim())
            .map_err(|_| ContenderError::Answer { what: "lab raw fetch".to_owned(), said })?;
        self.compare(&file)?;
        std::fs::remove_file(&file)
            .map_err(|cause| ContenderError::File { what: format!("remove {}", file.display()), cause })?;
        Ok(Sample {
            wall_s: took.synced_s,
            sender_cpu_s: sender_cpu,
            receiver_cpu_s: took.cpu_s,
            machine_cpu_s: machine_cpu,
        })
    }

    fn compare(&self, file: &Path) -> Result<(), ContenderError> {
        let same = Command::new("cmp").arg(self.stage.image).arg(file).status();
        let same = same.map_err(|cause| ContenderError::Start { what: "cmp".to_owned(), cause })?;
        if same.success() { Ok(()) } else { Err(self.differs("its file is not the image")) }
    }

    fn differs(&self, said: &str) -> ContenderError {
        ContenderError::Answer { what: "host 1".to_owned(), said: said.to_owned() }
    }
}

/// This program as an end of bare QUIC on a host.
fn raw_end(stage: &Stage<'_>, host: usize) -> Result<Command, ContenderError> {
    let own = std::env::current_exe();
    let own = own.map_err(|cause| ContenderError::Start { what: "this program".to_owned(), cause })?;
    let mut command = stage.network.host(host).command(own);
    command.arg("raw");
    Ok(command)
}

fn raw_address(stage: &Stage<'_>) -> String {
    format!("{}:7450", stage.network.host(0).address)
}

/// Runs of a rival, as in `lab run`. Its processes are not told apart, and nothing else runs.
fn find(name: &str) -> Result<Box<dyn Contender>, String> {
    let found = contenders::all().into_iter().find(|contender| contender.name() == name);
    found.ok_or_else(|| format!("there is no contender {name:?}; `lab list` names all"))
}

fn rival(name: &str, case: &Case, image: &Path, scratch: &Path, repeat: usize) -> Result<Vec<Sample>, Box<dyn Error>> {
    let contender = find(name)?;
    if let Some(missing) = contender.missing() {
        eprintln!("{name} is missing: {missing}");
        return Ok(Vec::new());
    }
    let sample = |repetition: usize| {
        let folder = scratch.join(format!("{name}-{repetition}"));
        let run = run::once(case, contender.as_ref(), image, &folder);
        scratch::remove(&folder);
        let run = run?;
        Ok(Sample { wall_s: run.last_s(), sender_cpu_s: 0.0, receiver_cpu_s: run.cpu_s, machine_cpu_s: run.cpu_s })
    };
    (0..repeat).map(sample).collect()
}

fn print(table: &[(String, Vec<Sample>)], gib: f64) {
    println!("two hosts, {gib} GiB: medians; CPU seconds per GiB of both ends, and how often bare QUIC's");
    println!(
        "{:<12} {:>4} {:>7} {:>7} {:>7} {:>7} {:>8} {:>6}",
        "", "runs", "wall s", "cpu s", "sender", "receiv.", "machine", "ratio"
    );
    let of_both = |sample: &Sample| sample.sender_cpu_s + sample.receiver_cpu_s;
    let yardstick = median(&table[0].1, of_both);
    for (name, samples) in table.iter().filter(|(_, samples)| !samples.is_empty()) {
        println!(
            "{name:<12} {:>4} {:>7.2} {:>7.2} {:>7.2} {:>7.2} {:>8.2} {:>6.2}",
            samples.len(),
            median(samples, |sample| sample.wall_s),
            median(samples, of_both) / gib,
            median(samples, |sample| sample.sender_cpu_s) / gib,
            median(samples, |sample| sample.receiver_cpu_s) / gib,
            median(samples, |sample| sample.machine_cpu_s) / gib,
            median(samples, of_both) / yardstick,
        );
    }
    let wall = |at: usize| median(&table[at].1, |sample: &Sample| sample.wall_s);
    println!("drover's throughput is {:.1} % of bare QUIC's (goal 90)", 100.0 * wall(0) / wall(1));
}

/// Of an even number the lower of the two in the middle.
fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

fn cpu_s(pid: u32) -> Result<f64, ContenderError> {
    let gone = || ContenderError::Answer { what: format!("process {pid}"), said: "it is gone".to_owned() };
    process_cpu_s(pid).ok_or_else(gone)
}

const PATIENCE: Duration = Duration::from_secs(120);
