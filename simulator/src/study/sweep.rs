//! One scenario in which one thing changes from point to point.

use std::sync::Mutex;
use std::thread;

use super::{Extent, Point, StudyError};
use crate::contender::{Contender, Outcome};
use crate::plot::Line;
use crate::scenario::Scenario;

/// What changes, and what is measured.
pub(super) struct Sweep {
    /// Of the plot.
    pub(super) name: &'static str,
    /// What stays, in TOML.
    pub(super) base: String,
    /// Values of what changes.
    pub(super) values: Vec<f64>,
    /// The lines of TOML for a value.
    pub(super) changing: fn(&Extent, f64) -> String,
    /// Height of a point.
    pub(super) measure: fn(&Scenario, &Outcome) -> Option<f64>,
}

impl Sweep {
    /// The scenario of the first value, with the others as a comment, and the seeds.
    pub(super) fn text(&self, extent: &Extent) -> String {
        let mut lines = self.values.iter().map(|&value| (self.changing)(extent, value));
        let first = lines.next().unwrap_or_default();
        let others: Vec<String> = lines.map(|line| format!("# or: {line}")).collect();
        format!("{}{first}\n{}\n{}", self.base, others.join("\n"), seeds_text(extent))
    }

    /// A contender's line: at each value the median of its seeds.
    pub(super) fn line(&self, extent: &Extent, contender: Contender) -> Result<(Line, Vec<Point>), StudyError> {
        let mut runs = Vec::new();
        for &x in &self.values {
            for &seed in seeds(extent, contender) {
                let scenario = self.scenario(extent, x, seed)?;
                if extent.hosts_most(contender).is_none_or(|most| scenario.hosts.len() - 1 <= most) {
                    runs.push((x, scenario));
                }
            }
        }
        let point = |(x, scenario): &(f64, Scenario)| {
            let y = (self.measure)(scenario, &contender.compete(scenario)?);
            let line = contender.to_string();
            Ok(Point { plot: self.name.to_owned(), line, x: *x, y, seed: scenario.seed })
        };
        let points = in_parallel(&runs, point).into_iter().collect::<Result<Vec<Point>, StudyError>>()?;
        let line = Line::of(contender, medians(&points));
        let spread = if contender.throws_dice() { spread(&points) } else { Vec::new() };
        Ok((Line { spread, ..line }, points))
    }

    /// A line of something that follows from the scenario alone.
    pub(super) fn bound(&self, extent: &Extent, of: impl Fn(&Scenario) -> f64) -> Result<Line, StudyError> {
        let point = |&x: &f64| Ok((x, of(&self.scenario(extent, x, extent.seeds[0])?)));
        Ok(Line::bound("bound", self.values.iter().map(point).collect::<Result<_, StudyError>>()?))
    }

    fn scenario(&self, extent: &Extent, value: f64, seed: u64) -> Result<Scenario, StudyError> {
        Ok(Scenario::parse(&format!("{}{}", self.base, (self.changing)(extent, value)), Some(seed))?)
    }
}

/// Runs that have nothing to do with each other, on all processors; the last ones, which take longest, first.
fn in_parallel<T: Sync, R: Send>(runs: &[T], run: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let left = Mutex::new((0..runs.len()).collect::<Vec<usize>>());
    let next = || left.lock().expect("nobody panics while it takes one").pop();
    let work = || core::iter::from_fn(next).map(|at| (at, run(&runs[at]))).collect::<Vec<(usize, R)>>();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a run does not panic")).collect()
    });
    results.sort_by_key(|&(at, _)| at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Only the swarm throws dice in the study's scenarios, with multicast or without.
pub(super) fn seeds(extent: &Extent, contender: Contender) -> &[u64] {
    if contender.throws_dice() { &extent.seeds } else { &extent.seeds[..1] }
}

/// As a comment in TOML.
pub(super) fn seeds_text(extent: &Extent) -> String {
    let seeds: Vec<String> = extent.seeds.iter().map(u64::to_string).collect();
    format!("# seeds of p2p and hybrid: {}; nobody else throws dice", seeds.join(", "))
}

/// At each x the middle one of its heights, if it has any.
fn medians(points: &[Point]) -> Vec<(f64, f64)> {
    let middle = |same: &[Point]| {
        let mut heights: Vec<f64> = same.iter().filter_map(|point| point.y).collect();
        heights.sort_by(f64::total_cmp);
        Some((same[0].x, *heights.get(heights.len() / 2)?))
    };
    points.chunk_by(|one, next| one.x == next.x).filter_map(middle).collect()
}

/// At each x the least and the most of its heights, if it has any.
fn spread(points: &[Point]) -> Vec<(f64, f64, f64)> {
    let range = |same: &[Point]| {
        let heights = || same.iter().filter_map(|point| point.y);
        Some((same[0].x, heights().reduce(f64::min)?, heights().reduce(f64::max)?))
    };
    points.chunk_by(|one, next| one.x == next.x).filter_map(range).collect()
}
