//! What limited a host, told from what was seen ten times a second.
//!
//! Each interval until the host is done belongs to the first of these that holds (a thing is full from 85 % on):
//!
//! | verdict | what was seen |
//! |---|---|
//! | own wire | the host received as much as its wire carries: nothing to gain |
//! | CPU | all processors of the machine were busy, so the figure is the lab's, not the contender's |
//! | uplink | the host is in the far rack, and the link between the racks was full |
//! | source | the source sent as much as its wire carries, but not to this host or not for it |
//! | disk | the disk under the hosts' folders had always something to do |
//! | no transfer | no host received more than 5 % of what its wire carries: import, news, sealing |
//! | straggler | all other hosts with the usual rates were done, and this one still received less than it could |
//! | slots | none of these: somebody had room to send, and did not send to this host |
//!
//! The shares of time add up to 1. A contender that did all it could shows "own wire" nearly all the time.

use serde::Serialize;

use crate::case::Case;
use crate::measure::{Look, Measured};

/// What held a host up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Limit {
    /// Its own wire was full.
    OwnWire,
    /// The machine's processors were.
    Cpu,
    /// The source's wire was.
    Source,
    /// The link between the racks was.
    Uplink,
    /// The disk was.
    Disk,
    /// Nothing moved.
    NoTransfer,
    /// It was the only one left.
    Straggler,
    /// There was room everywhere.
    Slots,
}

/// How much of a host's time one limit held it up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Share {
    /// Which limit.
    pub(crate) limit: Limit,
    /// Of the time until the host was done, 0 to 1.
    pub(crate) share: f64,
}

/// What limited `host` until `after_s`, the largest share first. `others_s` is when the last of the other hosts with the
/// usual rates was done.
pub(crate) fn of(case: &Case, measured: &Measured, host: usize, after_s: f64, others_s: f64) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    let mut total = 0.0;
    for pair in measured.looks.windows(2) {
        let [before, now] = pair else { continue };
        let seconds = (now.after_s.min(after_s) - before.after_s).max(0.0);
        let limit = of_interval(case, host, before, now, before.after_s >= others_s);
        match shares.iter_mut().find(|share| share.limit == limit) {
            Some(share) => share.share += seconds,
            None => shares.push(Share { limit, share: seconds }),
        }
        total += seconds;
    }
    for share in &mut shares {
        share.share /= f64::max(total, f64::MIN_POSITIVE);
    }
    shares.retain(|share| share.share > 0.0);
    shares.sort_by(|one, other| other.share.total_cmp(&one.share));
    shares
}

fn of_interval(case: &Case, host: usize, before: &Look, now: &Look, alone: bool) -> Limit {
    let seconds = (now.at - before.at).as_secs_f64().max(1e-6);
    // Of what a wire carries; nothing if it is not shaped.
    let used = |bytes: u64, mbit: Option<f64>| mbit.map_or(0.0, |mbit| bytes as f64 * 8.0 / 1e6 / seconds / mbit);
    let passed = |index: usize| now.hosts[index].since(before.hosts[index]);
    let received = |index: usize| used(passed(index).received, case.down_mbit(index));
    let uplink = now.uplink.zip(before.uplink).map(|(now, before)| now.since(before).sent);
    let uplink_mbit = case.racks.as_ref().filter(|_| case.rack(host) != 0).map(|racks| racks.uplink_mbit);
    let processors = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    let nothing_moves = case.receivers().all(|index| match case.down_mbit(index) {
        Some(_) => received(index) < MOVES,
        None => passed(index).received < UNSHAPED_MOVES,
    });
    if received(host) >= FULL {
        Limit::OwnWire
    } else if (now.cpu_s - before.cpu_s) / seconds / processors >= FULL {
        Limit::Cpu
    } else if used(uplink.unwrap_or(0), uplink_mbit) >= FULL {
        Limit::Uplink
    } else if used(passed(0).sent, case.up_mbit(0)) >= FULL {
        Limit::Source
    } else if (now.disk_s - before.disk_s) / seconds >= FULL {
        Limit::Disk
    } else if nothing_moves {
        Limit::NoTransfer
    } else if alone {
        Limit::Straggler
    } else {
        Limit::Slots
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Limit::OwnWire => "own wire",
            Limit::Cpu => "CPU",
            Limit::Source => "source",
            Limit::Uplink => "uplink",
            Limit::Disk => "disk",
            Limit::NoTransfer => "no transfer",
            Limit::Straggler => "straggler",
            Limit::Slots => "slots",
        })
    }
}

/// A tenth of a second sees bursts, and batches of frames count their headers once, so a wire that is full all the time is
/// not seen at 100 %.
const FULL: f64 = 0.85;
/// Announcements and the like are far below, any transfer far above.
const MOVES: f64 = 0.05;
/// The same in bytes of a tenth of a second, where there is no rate to compare with.
const UNSHAPED_MOVES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::network::Counters;

    /// Looks a tenth of a second apart; what the source sent and host 1 received in each interval, in per cent of the wire.
    fn measured(case: &Case, intervals: &[(u64, u64)]) -> Measured {
        let begun = Instant::now();
        let full = 100_000_000 / 8 / 10;
        let mut hosts = vec![Counters::default(); case.hosts];
        let look = |at: usize, hosts: &[Counters]| Look {
            at: begun + Duration::from_millis(100 * at as u64),
            after_s: 0.1 * at as f64,
            hosts: hosts.to_vec(),
            uplink: None,
            cpu_s: 0.0,
            disk_s: 0.0,
        };
        let mut looks = vec![look(0, &hosts)];
        for (at, (sent, received)) in intervals.iter().enumerate() {
            hosts[0].sent += full * sent / 100;
            hosts[1].received += full * received / 100;
            looks.push(look(at + 1, &hosts));
        }
        Measured { looks, ..Measured::default() }
    }

    fn case() -> Case {
        Case::select(&["8x100".to_owned()]).expect("it is built in").remove(0)
    }

    #[test]
    fn each_interval_has_one_limit_and_the_shares_add_up() {
        let measured = measured(&case(), &[(0, 0), (100, 50), (100, 99), (100, 98), (20, 60)]);
        let shares = of(&case(), &measured, 1, 0.5, 0.5);
        assert_eq!(shares[0].limit, Limit::OwnWire);
        assert!((shares[0].share - 0.4).abs() < 1e-6);
        let mut limits: Vec<Limit> = shares.iter().map(|share| share.limit).collect();
        limits.sort();
        assert_eq!(limits, [Limit::OwnWire, Limit::Source, Limit::NoTransfer, Limit::Slots]);
        assert!((shares.iter().map(|share| share.share).sum::<f64>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn who_is_alone_and_slow_is_a_straggler() {
        let measured = measured(&case(), &[(100, 95), (30, 40), (30, 40)]);
        let shares = of(&case(), &measured, 1, 0.3, 0.1);
        assert_eq!(shares[0].limit, Limit::Straggler);
    }

    #[test]
    fn time_after_the_host_was_done_does_not_count() {
        let measured = measured(&case(), &[(100, 95), (0, 0), (0, 0)]);
        assert_eq!(of(&case(), &measured, 1, 0.1, 0.1), [Share { limit: Limit::OwnWire, share: 1.0 }]);
    }
}
