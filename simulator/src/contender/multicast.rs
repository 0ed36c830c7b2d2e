//! Multicast in lock-step, like udpcast: one stream that every receiver must keep up with.
//!
//! Modelled after udpcast's acknowledged mode: 112 blocks of 1,456 bytes make a slice; two slices are under way; every
//! receiver answers each, and what any of them lost is sent again to all. The session begins when the last host is there,
//! runs at the rate of the slowest, and ends for all at once. A receiver that dies is asked again for minutes, and until
//! it is dropped nobody gets anything; nobody joins later, and the sender's death ends it.
//!
//! Answers come to one link: with thousands of receivers they, not the image, set the rate. Multicast ends at a router, so
//! other sites get nothing. (udpcast itself takes at most 1,024 receivers.)

use drover_protocol::time::{Duration, Instant};

use super::Course;
use crate::loss::transmissions;
use crate::scenario::Scenario;

/// Bytes of the image in a block.
const BLOCK_LEN: u64 = 1456;
const BLOCKS_IN_SLICE: u64 = 112;
/// Share of a frame that udpcast's, UDP's, IP's and Ethernet's headers leave.
const GOODPUT: f64 = 1456.0 / 1514.0;
/// A receiver's answer to a slice on the wire: the shortest frame.
const ANSWER_LEN: u64 = 64;
/// Slices that are sent before the first must be answered.
const SLICES_UNDER_WAY: u32 = 2;
/// How long a silent receiver is waited for: 200 questions, a second apart after the first ten.
const DROPPED_AFTER: Duration = Duration::from_secs(190);

/// The session, from one death to the next.
pub(super) fn lock_step(scenario: &Scenario) -> Course {
    let mut course = Course::new(scenario);
    let reached = |&host: &usize| scenario.site_latency.is_none() || is_at_home(scenario, host);
    let members: Vec<usize> = (1..scenario.hosts.len()).filter(reached).collect();
    // Everybody is waited for.
    let all_are_there = members.iter().map(|&host| scenario.hosts[host].arrives).max().unwrap_or_default();
    let mut session =
        Session { scenario, members, now: Instant::START + all_are_there, left: scenario.data_len() as f64, sent: 0.0 };
    if session.members.len() + 1 < scenario.hosts.len() {
        course.stopped = Some("multicast does not leave the publisher's site".to_owned());
    }
    match session.run() {
        Ok(()) => session.members.iter().for_each(|&host| course.completed[host] = Some(session.now)),
        Err(died) => course.stopped = Some(format!("the sender died at {} s", died.as_secs_f64())),
    }
    course.source_bytes = session.sent.round() as u64;
    let receives = |rack: usize| session.members.iter().any(|&host| scenario.hosts[host].rack == Some(rack));
    for (rack, bytes) in course.rack_bytes.iter_mut().enumerate() {
        if receives(rack) && scenario.hosts[0].rack != Some(rack) {
            *bytes = course.source_bytes;
        }
    }
    course
}

fn is_at_home(scenario: &Scenario, host: usize) -> bool {
    scenario.hosts[host].rack == scenario.hosts[0].rack
}

struct Session<'a> {
    scenario: &'a Scenario,
    members: Vec<usize>,
    now: Instant,
    /// Bytes of the image that not all members have.
    left: f64,
    /// Bytes sent, repeated ones too.
    sent: f64,
}

impl Session<'_> {
    /// Runs to the end; or gives when the sender died.
    fn run(&mut self) -> Result<(), Duration> {
        loop {
            self.drop_silent();
            let (per_second, repeats) = self.pace();
            let end = self.now + Duration::from_secs_f64(self.left / per_second) + NANOSECOND;
            let death = self.members.iter().filter_map(|&host| self.death_of(host)).min().filter(|&death| death < end);
            let until = death.map_or(end, |death| death.max(self.now));
            let sends_until = self.death_of(0).map_or(until, |dies| dies.min(until));
            let moved = (per_second * sends_until.since(self.now).as_secs_f64()).min(self.left);
            self.left -= moved;
            self.sent += moved * repeats;
            let Some(death) = death else {
                self.now = until + self.scenario.latency;
                return self.sender_lives(until);
            };
            // Nothing moves until the dead one is dropped.
            self.now = until.max(death + DROPPED_AFTER);
            self.sender_lives(self.now)?;
        }
    }

    fn sender_lives(&self, until: Instant) -> Result<(), Duration> {
        match self.death_of(0).filter(|&dies| dies < until) {
            Some(dies) => Err(dies.since(Instant::START)),
            None => Ok(()),
        }
    }

    /// Bytes of the image per second that all members get, and how often each is sent.
    fn pace(&self) -> (f64, f64) {
        let scenario = self.scenario;
        let plans = || self.members.iter().map(|&host| &scenario.hosts[host]);
        let repeats = transmissions(plans().map(|plan| plan.loss));
        let crosses = self.members.iter().any(|&host| !is_at_home(scenario, host));
        let uplink = scenario.rack_uplink.filter(|_| crosses);
        let links = plans().map(|plan| plan.access.down).chain(uplink).chain([scenario.hosts[0].access.up]);
        let slowest = links.min().unwrap_or(1) as f64 * scenario.goodput(GOODPUT);
        let slice = (BLOCK_LEN * BLOCKS_IN_SLICE) as f64;
        let sending = slice * repeats / slowest;
        let answers = (ANSWER_LEN * self.members.len() as u64) as f64 / scenario.hosts[0].wire.down as f64;
        let waiting = (scenario.latency * 2 / SLICES_UNDER_WAY).as_secs_f64();
        (slice / sending.max(answers).max(waiting), repeats)
    }

    fn drop_silent(&mut self) {
        let now = self.now;
        let gone: Vec<usize> = self.members.iter().copied().filter(|&host| self.is_dropped(host, now)).collect();
        self.members.retain(|host| !gone.contains(host));
    }

    fn is_dropped(&self, host: usize, now: Instant) -> bool {
        self.death_of(host).is_some_and(|death| death + DROPPED_AFTER <= now)
    }

    /// Its first: whoever was away has missed something for good.
    fn death_of(&self, host: usize) -> Option<Instant> {
        self.scenario.hosts[host].absences.first().map(|absence| Instant::START + absence.from)
    }
}

/// Added to a time that was rounded to whole nanoseconds.
const NANOSECOND: Duration = Duration::from_nanos(1);
