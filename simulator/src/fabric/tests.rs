//! Small networks by hand, and random ones with both solvers.

use std::collections::BTreeMap;

use drover_protocol::rng::Rng;

use super::*;

const MBYTE: u64 = 1_000_000;

fn fabric(hosts: usize, quantum: Duration) -> Fabric {
    Fabric::new(&vec![Access { up: MBYTE, down: MBYTE }; hosts], None, quantum)
}

/// Runs until nothing is left; gives the time at which each flow was done.
fn finish(fabric: &mut Fabric) -> BTreeMap<FlowId, Instant> {
    let mut done = BTreeMap::new();
    while let Some(now) = fabric.poll_timeout() {
        fabric.handle_timeout(now);
        while let Some(progress) = fabric.poll_progress() {
            if progress.is_done {
                done.insert(progress.flow, now);
            }
        }
    }
    done
}

#[test]
fn a_flow_alone_takes_its_length_over_its_rate() {
    let mut fabric = fabric(2, Duration::ZERO);
    let flow = fabric.open(Instant::START, 0, 1, 3 * MBYTE);
    assert_eq!(finish(&mut fabric), BTreeMap::from([(flow, Instant::from_millis(3000))]));
}

#[test]
fn what_one_leaves_the_other_takes() {
    let mut fabric = fabric(3, Duration::ZERO);
    let short = fabric.open(Instant::START, 0, 1, MBYTE);
    let long = fabric.open(Instant::START, 0, 2, 2 * MBYTE);
    let done = finish(&mut fabric);
    assert_eq!(done, BTreeMap::from([(short, Instant::from_millis(2000)), (long, Instant::from_millis(3000))]));
}

#[test]
fn what_runs_between_racks_shares_their_link_and_is_counted() {
    let racks = Racks { of_host: vec![0, 0, 1, 1], uplink: MBYTE };
    let mut fabric = Fabric::new(&[Access { up: MBYTE, down: MBYTE }; 4], Some(racks), Duration::ZERO);
    let within = fabric.open(Instant::START, 0, 1, MBYTE / 2);
    let across = [fabric.open(Instant::START, 0, 2, MBYTE / 2), fabric.open(Instant::START, 1, 3, MBYTE / 2)];
    let done = finish(&mut fabric);
    assert_eq!(done[&within], Instant::from_millis(1000));
    assert_eq!(across.map(|flow| done[&flow]), [Instant::from_millis(1000); 2]);
    assert_eq!(fabric.crossed(), [MBYTE, 0]);
}

#[test]
fn a_closed_flow_says_how_far_it_was() {
    let mut fabric = fabric(2, Duration::ZERO);
    let flow = fabric.open(Instant::START, 0, 1, MBYTE);
    fabric.handle_timeout(Instant::START);
    assert_eq!(fabric.close(Instant::from_millis(250), flow), Some(MBYTE / 4));
    assert_eq!(fabric.close(Instant::from_millis(250), flow), None);
    assert_eq!(finish(&mut fabric), BTreeMap::new());
}

#[test]
fn what_a_quantum_keeps_back_is_made_good() {
    let mut fabric = fabric(3, Duration::from_millis(10));
    let first = fabric.open(Instant::START, 0, 1, MBYTE);
    // It has nothing for a quantum, since the first has all.
    let second = fabric.open(Instant::START, 0, 2, 2 * MBYTE);
    // The first is done at 2 s; the second has all from then on, if only from a quantum later.
    let done = finish(&mut fabric);
    assert_eq!(done, BTreeMap::from([(first, Instant::from_millis(2000)), (second, Instant::from_millis(3000))]));
}

#[test]
fn nothing_is_made_good_beyond_what_a_link_carries() {
    let mut fabric = fabric(3, Duration::from_millis(100));
    let first = fabric.open(Instant::START, 0, 1, MBYTE / 20);
    let second = fabric.open(Instant::START, 0, 2, MBYTE / 20);
    // The first had all and is done before rates are found: that the half was the second's can't be made up for any more.
    let done = finish(&mut fabric);
    assert_eq!(done, BTreeMap::from([(first, Instant::from_millis(50)), (second, Instant::from_millis(100))]));
}

#[test]
fn what_is_told_is_not_taken_back() {
    let mut fabric = fabric(3, Duration::from_millis(100)).reporting_every(Duration::from_millis(50));
    fabric.open(Instant::START, 0, 1, MBYTE);
    let second = fabric.open(Instant::START, 0, 2, MBYTE);
    let mut told = 0;
    while let Some(now) = fabric.poll_timeout() {
        fabric.handle_timeout(now);
        while let Some(progress) = fabric.poll_progress() {
            if progress.flow != second {
                assert!(progress.sent >= told, "{} bytes after {told}", progress.sent);
                told = progress.sent;
            }
        }
    }
    assert_eq!(told, MBYTE);
}

#[test]
fn what_is_taken_of_a_link_flows_do_not_get() {
    let mut fabric = fabric(2, Duration::ZERO);
    fabric.take(Instant::START, Way::From(0), MBYTE / 2);
    let flow = fabric.open(Instant::START, 0, 1, MBYTE);
    assert_eq!(finish(&mut fabric), BTreeMap::from([(flow, Instant::from_millis(2000))]));
    fabric.take(Instant::from_millis(2000), Way::From(0), 2 * MBYTE);
    let stuck = fabric.open(Instant::from_millis(2000), 0, 1, MBYTE);
    fabric.handle_timeout(Instant::from_millis(2000));
    assert_eq!(fabric.close(Instant::from_millis(9000), stuck), Some(0));
}

#[test]
fn who_comes_takes_at_once_what_is_left() {
    let mut fabric = fabric(3, Duration::from_millis(10));
    let first = fabric.open(Instant::START, 0, 1, MBYTE);
    fabric.handle_timeout(Instant::from_millis(10));
    assert_eq!(fabric.close(Instant::from_millis(500), first), Some(MBYTE / 2));
    let second = fabric.open(Instant::from_millis(500), 0, 2, MBYTE);
    assert_eq!(finish(&mut fabric)[&second], Instant::from_millis(1500));
}

/// A network with flows that begin at given times: who sends how much to whom, with what weight.
struct Load {
    hosts: Vec<Access>,
    racks: Option<Racks>,
    flows: Vec<(Instant, usize, usize, u64, u32)>,
}

impl Load {
    fn random(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let count = 3 + rng.below(HOSTS_MOST - 2) as usize;
        let speeds = [1, 1, 1, 2, 5, 10];
        let rate = |rng: &mut Rng| 10 * MBYTE * speeds[rng.below(speeds.len() as u32) as usize];
        let hosts: Vec<Access> = (0..count).map(|_| Access { up: rate(&mut rng), down: rate(&mut rng) }).collect();
        let racks = (rng.below(2) == 1).then(|| {
            let racks = 2 + rng.below(4) as usize;
            Racks { of_host: (0..count).map(|host| host % racks).collect(), uplink: 20 * MBYTE }
        });
        let flows = (0..count * 12).map(|_| {
            let (from, by) = (rng.below(count as u32) as usize, 1 + rng.below(count as u32 - 1) as usize);
            let len = MBYTE * u64::from(1 + rng.below(16));
            let begins = Instant::from_nanos(u64::from(rng.below(10_000)) * 1_000_000);
            (begins, from, (from + by) % count, len, 1 + rng.below(8) / 7)
        });
        let mut flows: Vec<_> = flows.collect();
        flows.sort_by_key(|&(begins, ..)| begins);
        Load { hosts, racks, flows }
    }

    /// How long each flow takes, in seconds.
    fn run(&self, mut fabric: Fabric) -> Vec<f64> {
        let mut took = vec![0.0; self.flows.len()];
        let mut open = BTreeMap::new();
        let mut next = self.flows.iter().enumerate().peekable();
        loop {
            let due = fabric.poll_timeout();
            if let Some(&(at, &(begins, from, to, len, weight))) = next.peek()
                && due.is_none_or(|due| begins <= due)
            {
                open.insert(fabric.open_weighted(begins, from, to, len, weight), at);
                next.next();
                continue;
            }
            let Some(now) = due else { break };
            fabric.handle_timeout(now);
            while let Some(progress) = fabric.poll_progress() {
                if progress.is_done {
                    let at = open.remove(&progress.flow).expect("a flow ends once");
                    let (begins, .., len, _) = self.flows[at];
                    assert_eq!(progress.sent, len);
                    took[at] = now.since(begins).as_secs_f64();
                }
            }
        }
        assert_eq!(fabric.violation(), None);
        assert!(open.is_empty());
        took
    }
}

const HOSTS_MOST: u32 = 300;
const TOPOLOGIES: u64 = 50;

#[test]
fn the_batched_solver_is_near_the_exact_one() {
    let mut errors = Vec::new();
    for seed in 1..=TOPOLOGIES {
        let load = Load::random(seed);
        let exact = load.run(Fabric::exact(&load.hosts, load.racks.clone()));
        let mean = exact.iter().sum::<f64>() / exact.len() as f64;
        // As in large scenarios: a sixth of what the shortest request takes alone.
        let quantum = Duration::from_secs_f64(mean / 100.0).min(Duration::from_millis(20));
        let batched = load.run(Fabric::new(&load.hosts, load.racks.clone(), quantum));
        let mut of_this: Vec<f64> =
            exact.iter().zip(&batched).map(|(exact, batched)| (batched / exact - 1.0).abs()).collect();
        of_this.sort_by(f64::total_cmp);
        let (median, p99) = (of_this[of_this.len() / 2], of_this[of_this.len() * 99 / 100]);
        eprintln!("seed {seed}: {} hosts, {} flows, off by {median:.5}, p99 {p99:.5}", load.hosts.len(), exact.len());
        errors.extend(of_this);
    }
    errors.sort_by(f64::total_cmp);
    let (median, p99) = (errors[errors.len() / 2], errors[errors.len() * 99 / 100]);
    eprintln!("all: off by {median:.5}, p99 {p99:.5}");
    assert!(median <= 0.01 && p99 <= 0.03);
}

#[test]
fn wrong_rates_have_no_certificate() {
    let mut fabric = fabric(3, Duration::ZERO);
    let flow = fabric.open(Instant::START, 0, 1, MBYTE);
    fabric.open(Instant::START, 0, 2, MBYTE);
    fabric.handle_timeout(Instant::START);
    assert_eq!(certificate::check(&fabric.net), Ok(()));
    fabric.net.set_rate(Instant::START, flow.slot, MBYTE / 4);
    assert!(certificate::check(&fabric.net).unwrap_err().contains("could have more"));
    fabric.net.set_rate(Instant::START, flow.slot, MBYTE);
    assert!(certificate::check(&fabric.net).unwrap_err().contains("carries"));
}
