//! `lab attack`: what those who are against a fleet cost it.
//!
//! Liars, stallers and takers are members with valid certificates, three among 29 honest hosts (the case `gang`). A crowd is
//! 128 members on one host that misuse their connections with the source ([`crowd`]), and a flood is that of a stranger
//! ([`flood`]); both beside three honest hosts that fetch (the case `besieged`). Each attack is run beside the same fleet left
//! alone, the flood beside an equal one to a port where nobody listens, one after the other, as often as asked. What
//! counts is how much later the honest hosts have their master.

mod crowd;
mod flood;

use std::error::Error;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) use flood::MADE_UP;

use clap::ValueEnum;
use drover_harness::{BadPeer, Misbehaviour, TestImage};
use serde_json::{Value, json};

use crate::case::Case;
use crate::contenders::drover::Drover;
use crate::goal::{self, Figure, Goal};
use crate::report::Run;
use crate::run::once;
use crate::scratch;

/// What to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Which gangs; all by default
    gangs: Vec<Gang>,
    /// How often each, beside as many runs without
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = goal::at_least_once)]
    repeat: usize,
    /// Where table and JSON are written, besides the table on standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where hosts keep their files; a folder on the disk to measure with
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
}

/// Who attacks, and how.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gang {
    /// Say that they hold everything, and send bytes that they made up
    Liars,
    /// Say that they hold everything, accept requests, and send nothing
    Stallers,
    /// Ask everybody for as much as they get, and serve nothing
    Takers,
    /// Many connections with the source, each misused
    Crowd,
    /// Handshakes from made-up addresses at the source
    Flood,
    /// The same to a port of the source where nobody listens
    #[value(hide = true)]
    FloodElsewhere,
}

/// Those of a gang that are on one host.
#[derive(clap::Args, Debug)]
pub(crate) struct Hostile {
    gang: Gang,
    /// State folders of hosts that have joined are in here, `state-0` and so on
    folder: PathBuf,
    /// Where to listen
    listen: SocketAddr,
    /// The tracker's address
    tracker: SocketAddr,
    /// The source's address
    source: SocketAddrV4,
}

impl Gang {
    /// The arguments by which this program becomes one of them; folder and addresses follow.
    pub(crate) fn command(self) -> [String; 2] {
        let name = self.to_possible_value().expect("no gang is skipped");
        ["hostile".to_owned(), name.get_name().to_owned()]
    }

    /// How many certificates it has on each host.
    pub(crate) const fn certificates(self) -> usize {
        match self {
            Gang::Liars | Gang::Stallers | Gang::Takers => 1,
            Gang::Crowd => 128,
            Gang::Flood | Gang::FloodElsewhere => 0,
        }
    }

    /// Whether its packets come from addresses that are made up.
    pub(crate) const fn is_flood(self) -> bool {
        matches!(self, Gang::Flood | Gang::FloodElsewhere)
    }

    const fn case(self) -> &'static str {
        match self {
            Gang::Liars | Gang::Stallers | Gang::Takers => "gang",
            Gang::Crowd | Gang::Flood | Gang::FloodElsewhere => "besieged",
        }
    }

    /// What it is measured beside.
    const fn beside(self) -> Drover {
        match self {
            Gang::Flood => Drover::attacked_by(Gang::FloodElsewhere),
            _ => Drover::DEFAULT,
        }
    }

    /// How much later the honest hosts may be done.
    const fn goal(self) -> f64 {
        if self.is_flood() { 1.15 } else { 1.10 }
    }
}

impl Hostile {
    /// Runs until it is ended.
    pub(crate) fn run(&self) -> Result<ExitCode, Box<dyn Error>> {
        match self.gang {
            Gang::Liars => self.misbehave(Misbehaviour::WrongBytes),
            Gang::Stallers => self.misbehave(Misbehaviour::Stalls),
            Gang::Takers => self.misbehave(Misbehaviour::Takes),
            Gang::Crowd => crowd::run(&self.states(), self.tracker, self.source.into())?,
            Gang::Flood => flood::run(self.source, DATAGRAMS_PER_S)?,
            Gang::FloodElsewhere => flood::run(SocketAddrV4::new(*self.source.ip(), NOBODYS_PORT), DATAGRAMS_PER_S)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn misbehave(&self, misbehaviour: Misbehaviour) -> ! {
        let state = &self.states()[0];
        let _running = BadPeer::start(state, self.listen, self.tracker, None, misbehaviour);
        loop {
            std::thread::park();
        }
    }

    fn states(&self) -> Vec<PathBuf> {
        (0..self.gang.certificates()).map(|number| self.folder.join(format!("state-{number}"))).collect()
    }
}

/// Measures what was asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let seed = drover_harness::seed("lab attack");
    let scratch = scratch::make(&arguments.scratch)?;
    let gangs = if arguments.gangs.is_empty() { ALL } else { &arguments.gangs };
    let (mut figures, mut details) = (Vec::new(), Vec::new());
    for &gang in gangs {
        let case = Case::select(&[gang.case().to_owned()])?.remove(0);
        let image = TestImage::make(&scratch.path().join("image.raw"), case.image_bytes(), case.image_bytes(), seed);
        let mut seen = Seen::default();
        for repetition in 0..arguments.repeat {
            let folder = scratch.path().join(format!("{repetition}"));
            let alone = measure(&case, &gang.beside(), &image.path, &folder)?;
            let attacked = measure(&case, &Drover::attacked_by(gang), &image.path, &folder)?;
            eprintln!("{gang:?}: {:.2} s, and {:.2} s without", attacked.last_s(), alone.last_s());
            details.push(json!({ "gang": format!("{gang:?}"), "attacked": attacked, "alone": alone }));
            seen.add(&attacked, &alone);
        }
        figures.extend(seen.figures(gang));
    }
    println!("a run is a pair, with the attack and without");
    println!("{}", goal::table(&figures));
    goal::write(arguments.out.as_deref(), "attack", &figures, json!({ "seed": seed, "runs": details }))?;
    Ok(ExitCode::SUCCESS)
}

fn measure(case: &Case, drover: &Drover, image: &Path, folder: &Path) -> Result<Run, Box<dyn Error>> {
    let run = once(case, drover, image, folder);
    scratch::remove(folder);
    Ok(run?)
}

/// Of each pair of runs.
#[derive(Default)]
struct Seen {
    last: Vec<f64>,
    mean: Vec<f64>,
    /// Of all pairs of an honest host and one of the gang, in how many that host has banned it.
    banned: Vec<f64>,
    /// What the host that was served worst got for nothing.
    wasted_kib: Vec<f64>,
    /// The most that a daemon took.
    peak_mib: Vec<f64>,
    /// CPU time of the source's daemon, over that of one processor.
    source_cpu: Vec<f64>,
    /// Bytes to addresses that are made up, over those from them.
    amplified: Vec<f64>,
    /// How often each kind of a crowd was connected, and dropped.
    crowd: Vec<Value>,
    cpu_share: Vec<f64>,
}

impl Seen {
    fn add(&mut self, attacked: &Run, alone: &Run) {
        let mean = |run: &Run| run.finished.iter().map(|finish| finish.after_s).sum::<f64>();
        self.last.push(attacked.last_s() / alone.last_s());
        self.mean.push(mean(attacked) / mean(alone));
        self.banned.push(banned(&attacked.details) * 100.0);
        let hosts = attacked.details["hosts"].as_array().into_iter().flatten();
        let wasted = hosts.filter_map(|host| host["transfers"][0]["wasted_bytes"].as_u64()).max();
        self.wasted_kib.push(wasted.unwrap_or(0) as f64 / 1024.0);
        self.peak_mib.push(attacked.peak_bytes.get("agent").map_or(0.0, |&bytes| bytes as f64 / (1 << 20) as f64));
        let source_cpu_s = attacked.details["source_cpu_s"].as_f64().unwrap_or(0.0);
        self.source_cpu.push(source_cpu_s * 100.0 / attacked.last_s());
        let passed = |way: &str| attacked.details["made_up"][way].as_f64().unwrap_or(0.0);
        self.amplified.push(passed("sent") / passed("received").max(1.0));
        self.crowd.push(attacked.details["gang_says"][0].clone());
        self.cpu_share.push(attacked.cpu_share * 100.0);
    }

    fn figures(self, gang: Gang) -> Vec<Figure> {
        let name = gang.to_possible_value().expect("no gang is skipped").get_name().to_owned();
        let of = |what: &str| format!("{name}: {what}");
        let goal = Goal::AtMost(gang.goal());
        let mut figures = vec![
            Figure::new(of("the last host, over the same without"), "", self.last, goal),
            Figure::new(of("all hosts, over the same without"), "", self.mean, goal),
            Figure::new(of("most memory of a daemon"), "MiB", self.peak_mib, Goal::AtMost(256.0)),
            Figure::new(of("the machine's CPU"), "%", self.cpu_share, Goal::None),
        ];
        let wasted = Figure::new(of("most that one host got for nothing"), "KiB", self.wasted_kib, Goal::None);
        match gang {
            Gang::Liars => {
                let what = of("banned, of all pairs of a host and a liar");
                figures.extend([wasted, Figure::new(what, "%", self.banned, Goal::AtLeast(100.0))]);
            }
            Gang::Stallers | Gang::Takers => figures.push(wasted),
            Gang::Crowd => {
                let kinds: Vec<&Value> =
                    self.crowd.iter().flat_map(|said| said.as_array().into_iter().flatten()).collect();
                let names: std::collections::BTreeSet<&str> =
                    kinds.iter().filter_map(|it| it["kind"].as_str()).collect();
                for kind in names {
                    let of_kind = kinds.iter().filter(|it| it["kind"] == kind);
                    let rates = of_kind.map(|it| {
                        let count = |what: &str| it[what].as_f64().unwrap_or(0.0);
                        count("dropped") * 100.0 / count("connected").max(1.0)
                    });
                    let what = of(&format!("connections dropped, {kind}"));
                    figures.push(Figure::new(what, "%", rates.collect(), Goal::None));
                }
            }
            Gang::Flood | Gang::FloodElsewhere => figures.extend([
                Figure::new(of("bytes out over bytes in"), "", self.amplified, Goal::AtMost(3.0)),
                Figure::new(of("CPU of the source's daemon"), "%", self.source_cpu, Goal::None),
            ]),
        }
        figures
    }
}

/// Of all pairs of an honest host that fetches and one of the gang, the share in which the host has banned it.
fn banned(details: &Value) -> f64 {
    let gang: Vec<&str> = details["gang"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let hosts: Vec<&Value> = details["hosts"].as_array().into_iter().flatten().skip(1).collect();
    let bans = |host: &&Value| {
        let banned = host["transfers"][0]["banned"].as_array().into_iter().flatten();
        banned.filter(|banned| banned["peer"].as_str().is_some_and(|peer| gang.contains(&peer))).count()
    };
    let pairs = (hosts.len() * gang.len()).max(1);
    hosts.iter().map(bans).sum::<usize>() as f64 / pairs as f64
}

/// What is measured if nothing is named.
const ALL: &[Gang] = &[Gang::Liars, Gang::Stallers, Gang::Takers, Gang::Crowd, Gang::Flood];
/// 49 Mbit/s: half of the source's wire.
const DATAGRAMS_PER_S: u32 = 5000;
const NOBODYS_PORT: u16 = 9;
