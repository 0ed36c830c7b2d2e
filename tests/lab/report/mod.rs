//! What is made of the runs: a table, JSON, and plots.

mod plot;
mod table;

use std::path::Path;

use serde::Serialize;

use crate::case::Case;
use crate::contenders::Delivery;
use crate::limits::{self, Share};
use crate::measure::{Look, Measured, Passed, Watched};

pub(crate) use table::table;

/// One contender in one case.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// Name of the case.
    pub(crate) case: String,
    /// Name of the contender.
    pub(crate) contender: &'static str,
    /// How it went.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// How a contender did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It is not installed; what to do about it.
    Missing(String),
    /// It failed, or delivered something else; why.
    Failed(String),
    /// It delivered, this often; sorted by the last host's time.
    Runs(Vec<Run>),
}

/// One delivery.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    /// When each receiver had the whole file, in this order.
    pub(crate) finished: Vec<Finish>,
    /// What the source sent, with all headers, over the length of the image.
    pub(crate) source_ratio: f64,
    /// What left the source's rack, with all headers, over the length of the image.
    pub(crate) uplink_ratio: Option<f64>,
    /// What came twice or for nothing over what the receivers took, if the contender tells it (`wasted_bytes` in its
    /// details).
    pub(crate) wasted_share: Option<f64>,
    /// CPU seconds of the whole machine.
    pub(crate) cpu_s: f64,
    /// The same over what its processors could have spent: near 1, the figures are of this machine.
    pub(crate) cpu_share: f64,
    /// CPU seconds for each GiB that reached a receiver.
    pub(crate) cpu_s_per_gib: f64,
    /// Peak of resident memory by role, in bytes, of the largest process each.
    pub(crate) peak_bytes: std::collections::BTreeMap<String, u64>,
    /// The same of every process that the contender started.
    pub(crate) processes: Vec<Watched>,
    /// What limited the last host with the usual rates, the largest share first.
    pub(crate) limits: Vec<Share>,
    /// What passed every host's wire.
    pub(crate) passed: Passed,
    /// What the contender says of itself.
    pub(crate) details: serde_json::Value,
    /// What was seen ten times a second; written to a file of its own.
    #[serde(skip)]
    looks: Vec<Look>,
}

/// When one host had the whole file.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finish {
    /// Which host.
    pub(crate) host: usize,
    /// After how many seconds.
    pub(crate) after_s: f64,
    /// Over the soonest that is possible, if the case bounds it.
    pub(crate) over_bound: Option<f64>,
    /// Whether this host receives more slowly than most.
    pub(crate) slow: bool,
}

/// A report that can't be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// To a file.
    #[error("write {path}: {cause}")]
    Write {
        /// Which.
        path: String,
        /// Why.
        cause: std::io::Error,
    },
    /// A plot.
    #[error("draw {path}: {cause}")]
    Draw {
        /// Which.
        path: String,
        /// Why.
        cause: String,
    },
}

impl Entry {
    /// It could not be run.
    pub(crate) fn missing(case: &Case, contender: &'static str, what: String) -> Self {
        Entry { case: case.name.clone(), contender, outcome: Outcome::Missing(what) }
    }

    /// It did not deliver.
    pub(crate) fn broken(case: &Case, contender: &'static str, why: String) -> Self {
        Entry { case: case.name.clone(), contender, outcome: Outcome::Failed(why) }
    }

    /// It delivered at least once.
    pub(crate) fn ran(case: &Case, contender: &'static str, mut runs: Vec<Run>) -> Self {
        runs.sort_by(|one, other| one.last_s().total_cmp(&other.last_s()));
        Entry { case: case.name.clone(), contender, outcome: Outcome::Runs(runs) }
    }

    /// Whether it was there and did not deliver.
    pub(crate) fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    /// The run that stands for all: the one with the median of the last host's times (the lower of two).
    pub(crate) fn typical(&self) -> Option<&Run> {
        let Outcome::Runs(runs) = &self.outcome else { return None };
        runs.get((runs.len().max(1) - 1) / 2)
    }

    /// One line for who waits.
    pub(crate) fn summary(&self) -> String {
        let told = match &self.outcome {
            Outcome::Missing(what) => format!("missing: {what}"),
            Outcome::Failed(why) => format!("failed: {why}"),
            Outcome::Runs(runs) => runs.iter().map(Run::summary).collect::<Vec<_>>().join("; "),
        };
        format!("{} {told}", self.contender)
    }
}

impl Run {
    /// What a delivery and the measurements of its time amount to.
    pub(crate) fn new(case: &Case, delivery: Delivery, measured: &Measured) -> Self {
        let finish = |finished: &crate::contenders::Finished| {
            let after_s = finished.after.as_secs_f64();
            let over_bound = case.bound_s(finished.host).map(|bound| after_s / bound);
            Finish { host: finished.host, after_s, over_bound, slow: case.is_slow(finished.host) }
        };
        let image = case.image_bytes() as f64;
        let delivered_gib = image * case.receivers().len() as f64 / f64::from(1 << 30);
        let roles = measured.processes.iter().map(|process| process.role.clone());
        let finished: Vec<Finish> = delivery.finished.iter().map(finish).collect();
        let usual = || finished.iter().filter(|finish| !finish.slow).rev();
        let others_s = usual().nth(1).map_or(0.0, |finish| finish.after_s);
        let limits = usual().next().map(|last| limits::of(case, measured, last.host, last.after_s, others_s));
        let passed = measured.passed.clone();
        let processors = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
        let wasted = delivery.details["wasted_bytes"].as_f64();
        Run {
            limits: limits.unwrap_or_default(),
            wasted_share: wasted.map(|bytes| bytes / (image * case.receivers().len() as f64)),
            finished,
            source_ratio: passed.wires.first().map_or(0.0, |source| source.bytes.sent as f64 / image),
            uplink_ratio: passed.uplink.map(|uplink| uplink.sent as f64 / image),
            cpu_s: measured.cpu_s(),
            cpu_share: measured.cpu_s() / f64::max(measured.seconds() * processors, f64::MIN_POSITIVE),
            cpu_s_per_gib: measured.cpu_s() / delivered_gib,
            peak_bytes: roles.map(|role| (role.clone(), measured.peak_bytes(&role).unwrap_or(0))).collect(),
            processes: measured.processes.clone(),
            passed,
            details: delivery.details,
            looks: measured.looks.clone(),
        }
    }

    /// Refuses a run whose last host was done before any schedule could have had it done. Of other hosts the bound is no
    /// bound: where all send together, some may end early at the expense of the last.
    pub(crate) fn check(&self) -> Result<(), String> {
        for last in [self.usual().last().copied(), self.last_slow()].into_iter().flatten() {
            if let Some(ratio) = last.over_bound.filter(|ratio| *ratio < 1.0) {
                return Err(format!("host {} ended at {ratio:.3} of the soonest that is possible", last.host));
            }
        }
        Ok(())
    }

    /// When the last host was done.
    pub(crate) fn last_s(&self) -> f64 {
        self.finished.last().map_or(0.0, |finish| finish.after_s)
    }

    /// The hosts with the usual rates, in the order of their ends.
    pub(crate) fn usual(&self) -> Vec<&Finish> {
        self.finished.iter().filter(|finish| !finish.slow).collect()
    }

    /// The last host that is slower than most, if the case has such.
    pub(crate) fn last_slow(&self) -> Option<&Finish> {
        self.finished.iter().rfind(|finish| finish.slow)
    }

    fn summary(&self) -> String {
        let over =
            |finish: &Finish| finish.over_bound.map_or(String::new(), |ratio| format!(" ({ratio:.2} of the bound)"));
        let told = |finish: &&Finish| format!("{:.2} s{}", finish.after_s, over(finish));
        let last = self.usual().last().map(told).unwrap_or_default();
        let slow = self.last_slow().map(|finish| format!(", slow host {}", told(&finish))).unwrap_or_default();
        format!("last host after {last}{slow}")
    }
}

/// Writes everything into a folder: `table.md`, `plot.svg`, `runs.json`, and `timeline.json`, which has what was seen ten
/// times a second of each entry's typical run.
pub(crate) fn write(folder: &Path, cases: &[Case], entries: &[Entry], seed: u64) -> Result<(), ReportError> {
    let unable = |path: &Path| {
        let path = path.display().to_string();
        move |cause| ReportError::Write { path, cause }
    };
    std::fs::create_dir_all(folder).map_err(unable(folder))?;
    let file = folder.join("table.md");
    std::fs::write(&file, table(cases, entries)).map_err(unable(&file))?;
    let file = folder.join("runs.json");
    let json = serde_json::json!({ "seed": seed, "entries": entries });
    std::fs::write(&file, format!("{json:#}\n")).map_err(unable(&file))?;
    let file = folder.join("timeline.json");
    let runs = entries.iter().filter_map(|entry| Some((entry, entry.typical()?)));
    let of = |(entry, run): (&Entry, &Run)| serde_json::json!({ "case": entry.case, "contender": entry.contender, "looks": run.looks });
    let json = serde_json::Value::from(runs.map(of).collect::<Vec<_>>());
    std::fs::write(&file, format!("{json}\n")).map_err(unable(&file))?;
    plot::draw(&folder.join("plot.svg"), cases, entries)
}
