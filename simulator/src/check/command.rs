//! `drover-sim check`: runs seeds on all cores, and prints what came of them.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::{CrashImages, Fault, FaultCounts, Outcome, SLOWER_MOST, Slowdown, crash_images, run_seed, slowdown};

/// From so many seeds on each kind of fault must have been injected [`INJECTED_LEAST`] times.
const MANY_SEEDS: u64 = 20_000;
const INJECTED_LEAST: u64 = 1000;
/// Seeds that `--twice` runs again.
const TWICE: u64 = 200;
/// Traces of which every crash image is tried.
const TRACES: u64 = 40;
#[cfg(feature = "planted")]
const PLANTED_SEEDS: u64 = 5000;

/// What to check.
#[derive(clap::Args, Clone, Debug)]
pub struct CheckArgs {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them; the others follow it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run one seed and print what happened in it.
    #[arg(long)]
    trace: bool,
    /// Run the first 200 of the seeds twice: all must be the same.
    #[arg(long)]
    twice: bool,
    /// Try all that a crash could leave, at every operation of scripted traces, instead.
    #[arg(long)]
    crash_images: bool,
    /// Measure how much longer the fleets of the seeds take if a tracker and the hash table lie about where hosts are and
    /// nothing else goes wrong, instead. A fleet that takes more than a fifth longer is a failure.
    #[arg(long)]
    hostile_discovery: bool,
    /// Plant bugs, and count the seeds until each is found, instead. Only in a build with `--features planted`.
    #[cfg(feature = "planted")]
    #[arg(long)]
    planted: bool,
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

/// Checks, prints, and says whether all was as it must be.
pub fn run(args: &CheckArgs) -> io::Result<bool> {
    // A panic in a run is a finding, and told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let (text, value, is_good) = check(args);
    let _ = std::panic::take_hook();
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{value}")?;
    } else {
        write!(out, "{text}")?;
    }
    Ok(is_good)
}

fn check(args: &CheckArgs) -> (String, Value, bool) {
    #[cfg(feature = "planted")]
    if args.planted {
        return planted(args.seed);
    }
    if args.crash_images {
        return images();
    }
    if args.hostile_discovery {
        return slowdowns(args);
    }
    if args.trace {
        let outcome = run_seed(args.seed, true);
        let text = outcome.log.join("\n") + &format!("\n{}\n", Line(&outcome));
        return (text, json!({ "seed": args.seed, "violation": outcome.violation }), outcome.violation.is_none());
    }
    seeds(args)
}

fn seeds(args: &CheckArgs) -> (String, Value, bool) {
    let outcomes = on_all_cores(args.seeds, |number| run_seed(args.seed + number, false));
    let mut total = Total::of(&outcomes);
    if args.twice {
        let again = on_all_cores(args.seeds.min(TWICE), |number| run_seed(args.seed + number, false));
        let differs = |(one, other): &(&Outcome, &Outcome)| one != other;
        total.differing = outcomes.iter().zip(&again).filter(differs).map(|(one, _)| one.seed).collect();
        total.twice = again.len();
    }
    let is_good = total.is_good(args.seeds);
    (total.text(args), total.value(args), is_good)
}

/// Calls `job` with each number below `count`, on all cores; gives the results in order.
fn on_all_cores<T: Send>(count: u64, job: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let (next, results) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let result = job(number);
                    results.lock().expect("a job does not panic").push((number, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("a job does not panic");
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What came of many seeds.
#[derive(Debug, Default)]
struct Total {
    violations: Vec<(u64, String)>,
    faults: FaultCounts,
    events: u64,
    hours: f64,
    trace: String,
    twice: usize,
    differing: Vec<u64>,
}

impl Total {
    fn of(outcomes: &[Outcome]) -> Self {
        let mut total = Total::default();
        let mut hasher = blake3::Hasher::new();
        for outcome in outcomes {
            total.violations.extend(outcome.violation.iter().map(|what| (outcome.seed, what.clone())));
            total.faults.add_all(&outcome.faults);
            total.events += outcome.events;
            total.hours += outcome.lasted.as_secs_f64() / 3600.0;
            hasher.update(outcome.trace.as_bytes());
        }
        hasher.finalize().to_hex()[..16].clone_into(&mut total.trace);
        total
    }

    /// Kinds of faults that were injected too seldom, if there were so many seeds that it counts.
    fn rare(&self, seeds: u64) -> Vec<Fault> {
        let is_rare = |fault: &Fault| seeds >= MANY_SEEDS && self.faults.of(*fault) < INJECTED_LEAST;
        Fault::ALL.into_iter().filter(is_rare).collect()
    }

    fn is_good(&self, seeds: u64) -> bool {
        self.violations.is_empty() && self.differing.is_empty() && self.rare(seeds).is_empty()
    }

    fn text(&self, args: &CheckArgs) -> String {
        let mut text = String::new();
        for (seed, what) in &self.violations {
            let _ = writeln!(text, "seed {seed}: {what}\n  drover-sim check --trace --seed {seed}");
        }
        for fault in Fault::ALL {
            let _ = writeln!(text, "{:<16} {:>9}", fault.to_string(), self.faults.of(fault));
        }
        for fault in self.rare(args.seeds) {
            let _ = writeln!(text, "{fault} was injected less than {INJECTED_LEAST} times");
        }
        if args.twice {
            let _ =
                writeln!(text, "{} seeds run twice, {} differ: {:?}", self.twice, self.differing.len(), self.differing);
        }
        let _ = writeln!(
            text,
            "{} seeds from {}: {} violations, {} faults, {} events, {:.0} h of the hosts' time, trace {}",
            args.seeds,
            args.seed,
            self.violations.len(),
            self.faults.sum(),
            self.events,
            self.hours,
            self.trace
        );
        text
    }

    fn value(&self, args: &CheckArgs) -> Value {
        let faults: serde_json::Map<String, Value> =
            Fault::ALL.into_iter().map(|fault| (fault.to_string(), json!(self.faults.of(fault)))).collect();
        json!({
            "first_seed": args.seed,
            "seeds": args.seeds,
            "violations": self.violations,
            "faults": faults,
            "events": self.events,
            "hours": self.hours,
            "trace": self.trace,
            "twice": self.twice,
            "differing": self.differing,
        })
    }
}

struct Line<'a>(&'a Outcome);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { seed, violation, events, lasted, trace, .. } = self.0;
        let what = violation.as_deref().unwrap_or("as it must be");
        write!(f, "seed {seed}: {what}; {events} events, {:.1} s, trace {trace}", lasted.as_secs_f64())
    }
}

fn images() -> (String, Value, bool) {
    let mut all = CrashImages::default();
    for tried in on_all_cores(TRACES, |trace| crash_images(trace..trace + 1)) {
        all.traces += tried.traces;
        all.cuts += tried.cuts;
        all.images += tried.images;
        all.violations.extend(tried.violations);
    }
    let mut text = String::new();
    for what in &all.violations {
        let _ = writeln!(text, "{what}");
    }
    let (traces, cuts, images, violations) = (all.traces, all.cuts, all.images, all.violations.len());
    let _ = writeln!(text, "{images} crash images at {cuts} operations of {traces} traces: {violations} violations");
    let value = json!({ "traces": traces, "cuts": cuts, "images": images, "violations": all.violations });
    (text, value, violations == 0)
}

fn slowdowns(args: &CheckArgs) -> (String, Value, bool) {
    let fleets = on_all_cores(args.seeds, |number| slowdown(args.seed + number));
    let mut text = String::new();
    for fleet in &fleets {
        if let Some(what) = &fleet.violation {
            let _ = writeln!(text, "seed {}: {what}", fleet.seed);
        }
    }
    let ratios = Spread::of(fleets.iter().map(Slowdown::ratio).collect());
    let chance = Spread::of(fleets.iter().map(Slowdown::chance).collect());
    let worst = fleets.iter().max_by(|one, other| one.ratio().total_cmp(&other.ratio()));
    let is_good = fleets.iter().all(|fleet| fleet.violation.is_none()) && ratios.most <= SLOWER_MOST;
    let _ = writeln!(text, "time of the last host with false hints over without: {ratios}");
    let _ = writeln!(text, "the same without over without, by chance: {chance}");
    if let Some(worst) = worst {
        let (hostile, honest) = (worst.hostile.as_secs_f64(), worst.honest().as_secs_f64());
        let _ = writeln!(
            text,
            "{} fleets from seed {}; the slowest by them is {}: {hostile:.2} s instead of {honest:.2} s; the most is {SLOWER_MOST}",
            fleets.len(),
            args.seed,
            worst.seed
        );
    }
    let violations: Vec<_> =
        fleets.iter().filter_map(|fleet| fleet.violation.clone().map(|what| (fleet.seed, what))).collect();
    let value = json!({
        "first_seed": args.seed,
        "fleets": fleets.len(),
        "violations": violations,
        "ratios": ratios.value(),
        "chance": chance.value(),
        "most": SLOWER_MOST,
    });
    (text, value, is_good)
}

/// How ratios are spread.
#[derive(Debug, Default)]
struct Spread {
    median: f64,
    p90: f64,
    p99: f64,
    most: f64,
}

impl Spread {
    fn of(mut ratios: Vec<f64>) -> Self {
        ratios.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (ratios.len() as f64 * share) as usize;
            ratios.get(place.min(ratios.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        Spread { median: at(0.5), p90: at(0.9), p99: at(0.99), most: at(1.0) }
    }

    fn value(&self) -> Value {
        json!({ "median": self.median, "p90": self.p90, "p99": self.p99, "most": self.most })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { median, p90, p99, most } = self;
        write!(f, "median {median:.3}, 90 % {p90:.3}, 99 % {p99:.3}, most {most:.3}")
    }
}

#[cfg(feature = "planted")]
fn planted(first: u64) -> (String, Value, bool) {
    use drover_protocol::planted::Bug;

    let found =
        on_all_cores(Bug::ALL.len() as u64, |number| super::find(Bug::ALL[number as usize], first, PLANTED_SEEDS));
    let mut text = String::new();
    for at in &found {
        let seeds = at.seeds.map_or("not found".to_owned(), |seeds| seeds.to_string());
        let _ = writeln!(text, "{:<20} {seeds:>9}  {}", format!("{:?}", at.bug), at.violation);
    }
    let mut needed: Vec<u64> = found.iter().filter_map(|at| at.seeds).collect();
    needed.sort_unstable();
    let (median, worst) = (needed.get(needed.len() / 2), needed.last());
    let _ = writeln!(
        text,
        "{} of {} planted bugs found, from seed {first} on; seeds needed: median {median:?}, worst {worst:?}",
        needed.len(),
        found.len()
    );
    let value = json!({
        "first_seed": first,
        "planted": found.iter().map(|at| json!([format!("{:?}", at.bug), at.seeds])).collect::<Vec<_>>(),
        "median": median,
        "worst": worst,
    });
    (text, value, needed.len() == found.len())
}
