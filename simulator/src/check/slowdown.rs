//! How much longer a fleet takes if a tracker and the hash table lie about where hosts are: the same fleet with and without
//! them, on days on which nothing else goes wrong.
//!
//! Who is asked for what is chosen at random, so no two days last the same. Of each kind there are several, and their means
//! are compared; if that makes the lies look dear, there are more days, until chance can't be what made them so.

use drover_protocol::time::{Duration, Instant};

use super::plan::Plan;
use super::run_plan;

/// How many times as long a fleet may take if it is lied to.
pub const SLOWER_MOST: f64 = 1.2;
/// Days of each kind at first, how many times as many there are if that looks dear, and at most.
const DAYS_FIRST: u64 = 8;
const DAYS_GROW: u64 = 4;
const DAYS_MOST: u64 = 128;

/// How long the last host of one fleet took, in the mean.
#[derive(Clone, PartialEq, Debug)]
pub struct Slowdown {
    /// The fleet's seed.
    pub seed: u64,
    /// Days of each kind.
    pub days: u64,
    /// With nobody who lies: on days with odd numbers, and on the others.
    pub honest: [Duration; 2],
    /// With a tracker and a hash table that do.
    pub hostile: Duration,
    /// What must not be and was, if anything.
    pub violation: Option<String>,
}

impl Slowdown {
    /// The mean time with nobody who lies.
    pub fn honest(&self) -> Duration {
        self.honest.iter().sum::<Duration>() / 2
    }

    /// Time with lies over time without any.
    pub fn ratio(&self) -> f64 {
        self.hostile.as_secs_f64() / self.honest().as_secs_f64()
    }

    /// What is chance: 1 if all days without lies were alike.
    pub fn chance(&self) -> f64 {
        self.honest[1].as_secs_f64() / self.honest[0].as_secs_f64()
    }
}

/// Runs the fleet of a seed on several days of each kind.
pub fn slowdown(seed: u64) -> Slowdown {
    let mut sums = Slowdown { seed, days: 0, honest: [Duration::ZERO; 2], hostile: Duration::ZERO, violation: None };
    let mut days = DAYS_FIRST;
    loop {
        for day in sums.days..days {
            let mut took = |has_false_hints: bool| {
                let outcome = run_plan(seed, || Plan::calm(seed, has_false_hints, day), false);
                sums.violation = sums.violation.take().or(outcome.violation);
                outcome.completed_at.since(Instant::START)
            };
            let (honest, hostile) = (took(false), took(true));
            sums.honest[(day % 2) as usize] += honest;
            sums.hostile += hostile;
        }
        sums.days = days;
        let honest = sums.honest.map(|sum| sum / (days / 2) as u32);
        let means = Slowdown { honest, hostile: sums.hostile / days as u32, ..sums.clone() };
        if means.ratio() <= SLOWER_MOST || days >= DAYS_MOST || means.violation.is_some() {
            return means;
        }
        days *= DAYS_GROW;
    }
}
