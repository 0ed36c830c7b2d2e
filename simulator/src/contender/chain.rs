//! A pipelined chain: each host passes every piece on to the next while it takes the one after it.
//!
//! The textbook's optimum for a fleet that is known beforehand: `S/r · (1 + (N-1)/M)` with M pieces. Laid along the racks
//! it crosses each of their links once. The slowest member sets the rate of all behind it, and the death of one ends it
//! for them: what is left in the chain does not find a way around.

use drover_protocol::time::{Duration, Instant};

use super::{Course, TCP_GOODPUT, in_rack_order};
use crate::scenario::Scenario;

/// The exact schedule, piece by piece.
pub(super) fn pass_on(scenario: &Scenario) -> Course {
    let links = scenario.links(TCP_GOODPUT);
    let uplink = scenario.uplink(TCP_GOODPUT);
    let lens = piece_lens(scenario);
    let mut course = Course::new(scenario);
    let (mut from, mut has) = (0, vec![Instant::START; lens.len()]);
    for to in in_rack_order(scenario) {
        let crosses = scenario.hosts[from].rack != scenario.hosts[to].rack;
        let rate = links[from].up.min(links[to].down).min(uplink.filter(|_| crosses).unwrap_or(u64::MAX));
        let breaks = breaks_at(scenario, from).min(breaks_at(scenario, to));
        let mut free = Instant::START + scenario.hosts[to].arrives;
        for (piece, &len) in has.iter_mut().zip(&lens) {
            free = free.max(*piece) + time_of(len, rate);
            if free > breaks {
                let died = if breaks_at(scenario, from) == breaks { from } else { to };
                let seconds = breaks.since(Instant::START).as_secs_f64();
                course.stopped = Some(format!("the chain broke at host {died}, which died at {seconds} s"));
                return course;
            }
            course.sent(scenario, from, to, len);
            *piece = free + scenario.latency_between(from, to);
        }
        course.completed[to] = has.last().copied();
        from = to;
    }
    course
}

/// When a host dies for the first time, if it does.
fn breaks_at(scenario: &Scenario, host: usize) -> Instant {
    scenario.hosts[host].absences.first().map_or(NEVER, |absence| Instant::START + absence.from)
}

fn piece_lens(scenario: &Scenario) -> Vec<u64> {
    let (len, piece_len) = (scenario.data_len(), u64::from(scenario.geometry.piece_len()));
    (0..len.div_ceil(piece_len)).map(|piece| piece_len.min(len - piece * piece_len)).collect()
}

/// Rounded up: never faster than the wire.
fn time_of(len: u64, rate: u64) -> Duration {
    let nanos = (u128::from(len) * 1_000_000_000).div_ceil(u128::from(rate));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

const NEVER: Instant = Instant::from_nanos(u64::MAX);
