//! Go or no-go: whether an image is sent by multicast, or left to the swarm alone.
//!
//! A [`Choice`] belongs to a host that holds an image. It is told what the others lack and answers with a verdict. The swarm is never
//! stopped for it: multicast has to show that it is faster. In mode [`Mode::Auto`] it goes if the network has nothing against it, enough
//! hosts lack enough, and sending it once to all would take clearly less time than the swarm is going to. How fast the swarm is, nobody
//! has to guess: it runs already, and what its hosts lack gets less.
//!
//! Whether the network delivers multicast shows in a session's first second: members go on asking their peers until packets come, and one
//! that hears none leaves. So a trial costs nothing but its packets; one that failed is not repeated soon ([`Choice::handle_session_over`]).
//!
//! A session that is under way goes on being compared ([`Choice::is_worth_it`]): it may have to go slower than its network would let it,
//! for its members' sake, and the swarm keeps back meanwhile.
//!
//! All in whole numbers, without a clock and without randomness.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::message::EndReason;
use crate::time::{Duration, Instant};

/// What the administrator wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Never.
    Off,
    /// If it is worth it.
    #[default]
    Auto,
    /// Whenever at least two hosts lack something, without comparing.
    On,
}

/// Knobs of a [`Choice`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChoiceConfig {
    /// Hosts that must lack enough: for fewer the swarm does as well. Two if told [`Mode::On`].
    pub hosts_least: u32,
    /// Bytes that so many hosts must lack each: a session needs a second to begin and to end. 8 MiB if told [`Mode::On`].
    pub bytes_least: u64,
    /// Multicast must take at most this share of the swarm's time, in percent: what is predicted of either is rough.
    pub time_percent_most: u64,
    /// How long the swarm is watched before its speed counts. Its first second says little: hosts are still getting to know each other.
    pub watch: Duration,
    /// How long nothing is sent after a session that brought what it could.
    pub rest: Duration,
    /// How long nothing is sent after one that the network did not carry, doubled with each in a row.
    pub rest_after_failure: Duration,
}

/// What the hosts that a sender can reach lack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Need {
    /// Hosts that lack something.
    pub hosts: u32,
    /// What all of them together lack, in bytes.
    pub bytes: u64,
    /// What so many of them as must lack enough each lack at least.
    pub bytes_each: u64,
}

/// What the sender's network says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Bytes per second that a session would be sent with at most.
    pub bytes_per_s: u64,
}

/// Why a network carries no multicast, or is not to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// Frames to a group are sent slowly and without acknowledgement there.
    #[error("{0} is a wireless interface, which carries multicast slowly and without acknowledgement")]
    Wireless(String),
    /// There is none to send on.
    #[error("no interface for multicast: {0}; name one with the setting multicast_interface")]
    NoInterface(String),
    /// Nobody knows how fast it is, so nothing can be predicted.
    #[error("{0} does not say how fast it is; say so with the setting multicast_limit")]
    UnknownRate(String),
    /// The tracker that gives leases can't.
    #[error("nobody gives leases: {0}")]
    NoLease(String),
}

/// Why nothing is sent by multicast.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoGo {
    /// The administrator does not want it.
    #[error("the setting multicast is off")]
    Off,
    /// The network is not fit.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Too few hosts lack enough.
    #[error("{hosts} hosts lack something, {least} have to")]
    FewHosts {
        /// Hosts that lack something.
        hosts: u32,
        /// How many have to.
        least: u32,
    },
    /// They lack too little.
    #[error("they lack only {bytes} bytes each, not {least}")]
    FewBytes {
        /// Bytes that they lack each.
        bytes: u64,
        /// How many they have to.
        least: u64,
    },
    /// The swarm was not watched for long enough.
    #[error("the swarm's speed is not known yet")]
    Watching,
    /// The swarm is about as fast.
    #[error("the swarm needs {swarm_s} s, multicast would need {multicast_s}")]
    SwarmIsFast {
        /// Seconds that the swarm is predicted to need.
        swarm_s: u64,
        /// Seconds that multicast would need.
        multicast_s: u64,
    },
    /// A session has just ended.
    #[error("a session has just ended ({ended:?})")]
    Rest {
        /// Why it ended.
        ended: EndReason,
    },
}

/// Whether to send one image.
#[derive(Clone, Debug)]
pub struct Choice {
    mode: Mode,
    config: ChoiceConfig,
    /// What was lacked when, and by how many: the oldest first, over the time that is watched.
    seen: VecDeque<(Instant, Need)>,
    rest: Option<(Instant, EndReason)>,
    failures: u32,
    /// When the session that is under way was begun, and what the swarm brought each host before, in bytes per second.
    session: Option<(Instant, u64)>,
}

impl Default for ChoiceConfig {
    fn default() -> Self {
        ChoiceConfig {
            hosts_least: 4,
            bytes_least: 64 << 20,
            time_percent_most: 80,
            watch: Duration::from_secs(2),
            rest: Duration::from_secs(5),
            rest_after_failure: Duration::from_secs(60),
        }
    }
}

impl Need {
    /// What hosts that lack `lacking` bytes each need, if `hosts_least` of them have to lack enough.
    pub fn of(mut lacking: Vec<u64>, hosts_least: u32) -> Self {
        lacking.retain(|&bytes| bytes > 0);
        lacking.sort_unstable_by(|a, b| b.cmp(a));
        Need {
            hosts: lacking.len() as u32,
            bytes: lacking.iter().sum(),
            bytes_each: (hosts_least as usize).checked_sub(1).and_then(|at| lacking.get(at)).copied().unwrap_or(0),
        }
    }
}

impl Choice {
    /// Nothing is known yet.
    pub fn new(mode: Mode, config: ChoiceConfig) -> Self {
        let config = match mode {
            Mode::On => ChoiceConfig { hosts_least: 2, bytes_least: ON_BYTES_LEAST, rest: ON_REST, ..config },
            Mode::Off | Mode::Auto => config,
        };
        Choice { mode, config, seen: VecDeque::new(), rest: None, failures: 0, session: None }
    }

    /// How many hosts have to lack enough: for [`Need::of`].
    pub fn hosts_least(&self) -> u32 {
        self.config.hosts_least
    }

    /// What is lacked now. To be told a few times a second.
    pub fn handle_need(&mut self, now: Instant, need: Need) {
        // Who comes or goes changes the sum, but brings nothing.
        if self.seen.back().is_some_and(|(_, last)| last.hosts != need.hosts || last.bytes < need.bytes) {
            self.seen.clear();
        }
        // Two samples that are close together count as one.
        let before_last = self.seen.len().checked_sub(2).and_then(|at| self.seen.get(at));
        if before_last.is_some_and(|&(at, _)| now.since(at) < self.config.watch / SAMPLES_MOST) {
            self.seen.pop_back();
        }
        self.seen.push_back((now, need));
        while self.seen.len() > 2 && self.seen.get(1).is_some_and(|&(at, _)| now.since(at) >= self.config.watch) {
            self.seen.pop_front();
        }
    }

    /// A session of this host's begins.
    pub fn handle_session_begun(&mut self, now: Instant) {
        self.session = Some((now, self.pace().unwrap_or(0)));
        self.seen.clear();
    }

    /// Whether the session that is under way brings hosts at least what the swarm brought them before. It is given twice the time that
    /// the swarm is watched for to show it, and nobody asks any more once so little is left that none would be begun. Only
    /// [`Mode::Auto`] compares.
    pub fn is_worth_it(&self, now: Instant) -> bool {
        let Some((begun, swarm)) = self.session.filter(|_| self.mode == Mode::Auto) else { return true };
        let has_begun = now.since(begun) >= self.config.watch * 2 && self.need().bytes_each >= self.config.bytes_least;
        !has_begun || self.pace().is_none_or(|pace| pace >= swarm)
    }

    /// A session of this host's is over.
    pub fn handle_session_over(&mut self, now: Instant, ended: EndReason) {
        let is_failure = match ended {
            EndReason::Network | EndReason::Deaf | EndReason::Polluted => true,
            EndReason::Stopped => !self.is_worth_it(now),
            EndReason::Done | EndReason::TooFew => false,
        };
        self.session = None;
        self.failures = if is_failure { self.failures + 1 } else { 0 };
        let doublings = self.failures.saturating_sub(1).min(DOUBLINGS_MOST);
        let rest = if is_failure { self.config.rest_after_failure * 2u32.pow(doublings) } else { self.config.rest };
        self.rest = Some((now + rest, ended));
        self.seen.clear();
    }

    /// Whether to send now.
    pub fn verdict(&self, now: Instant, network: Result<Network, Unfit>) -> Result<(), NoGo> {
        if self.mode == Mode::Off {
            return Err(NoGo::Off);
        }
        let network = network?;
        let (need, least) = (self.need(), self.config.hosts_least);
        if need.hosts < least {
            return Err(NoGo::FewHosts { hosts: need.hosts, least });
        }
        if need.bytes_each < self.config.bytes_least {
            return Err(NoGo::FewBytes { bytes: need.bytes_each, least: self.config.bytes_least });
        }
        if let Some((_, ended)) = self.rest.filter(|&(until, _)| now < until) {
            return Err(NoGo::Rest { ended });
        }
        if self.mode == Mode::On {
            return Ok(());
        }
        let swarm = self.swarm_time().ok_or(NoGo::Watching)?;
        let multicast = multicast_time(need.bytes_each, network.bytes_per_s);
        let is_faster = multicast.as_nanos() * 100 < swarm.as_nanos() * u128::from(self.config.time_percent_most);
        let slow = NoGo::SwarmIsFast { swarm_s: swarm.as_secs(), multicast_s: multicast.as_secs() };
        if is_faster { Ok(()) } else { Err(slow) }
    }

    fn need(&self) -> Need {
        self.seen.back().map_or(Need::default(), |&(_, need)| need)
    }

    /// What each host that lacks something got while they were watched, in bytes per second; `None` if that was not for long enough.
    fn pace(&self) -> Option<u64> {
        let (&(from, before), &(to, need)) = (self.seen.front()?, self.seen.back()?);
        let watched = to.since(from);
        let gained = u128::from(before.bytes - need.bytes) * 1_000_000_000;
        let host_nanos = watched.as_nanos() * u128::from(need.hosts);
        (watched >= self.config.watch).then(|| (gained / host_nanos.max(1)) as u64)
    }

    /// How long the swarm still needs, if it goes on as it did while it was watched.
    fn swarm_time(&self) -> Option<Duration> {
        let (&(from, before), &(to, need)) = (self.seen.front()?, self.seen.back()?);
        let watched = to.since(from);
        if watched < self.config.watch {
            return None;
        }
        let gained = u128::from(before.bytes - need.bytes).max(1);
        let nanos = u128::from(need.bytes) * watched.as_nanos() / gained;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

/// How long it takes to send so many bytes to all: with headers, parity, and a second to begin and to end.
fn multicast_time(bytes: u64, bytes_per_s: u64) -> Duration {
    let nanos = u128::from(bytes) * OVERHEAD_PERCENT * 10_000_000 / u128::from(bytes_per_s.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).saturating_add(Duration::from_secs(1))
}

/// What is on the wire for a byte of the image, in percent: 106 for headers and tag, the rest for parity and repair.
const OVERHEAD_PERCENT: u128 = 112;
/// Less is the tail of a session, or gone before one has begun.
const ON_BYTES_LEAST: u64 = 8 << 20;
/// Who is told to send always does so again soon: the tail of a session is left to the swarm, which needs a moment.
const ON_REST: Duration = Duration::from_secs(2);
/// Of what is watched: one for every 62 ms.
const SAMPLES_MOST: u32 = 32;
/// An hour, after which a network may be another.
const DOUBLINGS_MOST: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const GIGABIT: Network = Network { bytes_per_s: 125_000_000 };
    const GIB: u64 = 1 << 30;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    /// A swarm of so many hosts that lack a GiB at the start, of which each gains so much a second, after three seconds.
    fn watched(mode: Mode, hosts: usize, gain_per_s: u64) -> Choice {
        let mut choice = Choice::new(mode, ChoiceConfig::default());
        for tick in 0..=12 {
            let lacking = GIB - gain_per_s * tick / 4;
            choice.handle_need(at(tick * 250), Need::of(vec![lacking; hosts], choice.hosts_least()));
        }
        choice
    }

    #[test]
    fn multicast_goes_where_the_swarm_is_slow_and_not_where_it_is_fast() {
        // 7 hosts at 10 MB/s each: 100 s against 10.
        assert_eq!(watched(Mode::Auto, 7, 10_000_000).verdict(at(3000), Ok(GIGABIT)), Ok(()));
        let fast = watched(Mode::Auto, 7, 100_000_000).verdict(at(3000), Ok(GIGABIT));
        assert!(matches!(fast, Err(NoGo::SwarmIsFast { .. })), "{fast:?}");
        // As slow, but the limit allows no more by multicast.
        let limited = Network { bytes_per_s: 10_000_000 };
        assert!(watched(Mode::Auto, 7, 10_000_000).verdict(at(3000), Ok(limited)).is_err());
    }

    #[test]
    fn it_needs_enough_hosts_that_lack_enough() {
        let few = watched(Mode::Auto, 3, 1_000_000).verdict(at(3000), Ok(GIGABIT));
        assert_eq!(few, Err(NoGo::FewHosts { hosts: 3, least: 4 }));
        let mut choice = Choice::new(Mode::Auto, ChoiceConfig::default());
        choice.handle_need(at(0), Need::of(vec![GIB, GIB, GIB, 1 << 20], 4));
        let little = choice.verdict(at(0), Ok(GIGABIT));
        assert_eq!(little, Err(NoGo::FewBytes { bytes: 1 << 20, least: 64 << 20 }));
        assert_eq!(Need::of(vec![0, 5, 0, 7], 2), Need { hosts: 2, bytes: 12, bytes_each: 5 });
    }

    #[test]
    fn the_swarm_is_watched_first_and_anew_when_hosts_come() {
        let mut choice = Choice::new(Mode::Auto, ChoiceConfig::default());
        for tick in 0..8 {
            choice.handle_need(at(tick * 250), Need::of(vec![GIB; 5], 4));
            assert_eq!(choice.verdict(at(tick * 250), Ok(GIGABIT)), Err(NoGo::Watching));
        }
        choice.handle_need(at(2000), Need::of(vec![GIB; 5], 4));
        assert_eq!(choice.verdict(at(2000), Ok(GIGABIT)), Ok(()), "a swarm that stands still");
        choice.handle_need(at(2250), Need::of(vec![GIB; 6], 4));
        assert_eq!(choice.verdict(at(2250), Ok(GIGABIT)), Err(NoGo::Watching));
    }

    /// Tells a choice for so many seconds that each of seven hosts gains so much a second.
    fn gain(choice: &mut Choice, from_ms: u64, seconds: u64, gain_per_s: u64) {
        for tick in 0..=seconds * 4 {
            let lacking = (GIB / 2).saturating_sub(gain_per_s * tick / 4);
            choice.handle_need(at(from_ms + tick * 250), Need::of(vec![lacking; 7], choice.hosts_least()));
        }
    }

    #[test]
    fn a_session_that_brings_less_than_the_swarm_did_is_not_worth_it_and_not_soon_repeated() {
        let mut slow = watched(Mode::Auto, 7, 10_000_000);
        slow.handle_session_begun(at(3000));
        gain(&mut slow, 3000, 3, 2_000_000);
        assert!(slow.is_worth_it(at(6000)), "it is given time to begin");
        gain(&mut slow, 6000, 3, 2_000_000);
        assert!(!slow.is_worth_it(at(9000)));
        slow.handle_session_over(at(9000), EndReason::Stopped);
        gain(&mut slow, 9000, 10, 2_000_000);
        assert_eq!(slow.verdict(at(19_000), Ok(GIGABIT)), Err(NoGo::Rest { ended: EndReason::Stopped }));

        let mut fast = watched(Mode::Auto, 7, 10_000_000);
        fast.handle_session_begun(at(3000));
        gain(&mut fast, 3000, 6, 50_000_000);
        assert!(fast.is_worth_it(at(9000)));
        // Who is told to send compares nothing.
        let mut told = watched(Mode::On, 7, 10_000_000);
        told.handle_session_begun(at(3000));
        gain(&mut told, 3000, 6, 2_000_000);
        assert!(told.is_worth_it(at(9000)));
    }

    #[test]
    fn off_is_off_and_on_compares_nothing() {
        assert_eq!(watched(Mode::Off, 7, 1_000_000).verdict(at(3000), Ok(GIGABIT)), Err(NoGo::Off));
        assert_eq!(watched(Mode::On, 2, 100_000_000).verdict(at(3000), Ok(GIGABIT)), Ok(()));
        let wireless = Unfit::Wireless("wlan0".to_owned());
        assert_eq!(watched(Mode::On, 7, 0).verdict(at(3000), Err(wireless.clone())), Err(NoGo::Unfit(wireless)));
    }

    #[test]
    fn after_a_session_it_rests_and_longer_after_each_that_failed() {
        let until = |choice: &Choice| {
            let mut choice = choice.clone();
            (0..).map(|tick| 3000 + tick * 1000).find(|&millis| {
                choice.handle_need(at(millis), Need::of(vec![GIB; 7], 4));
                choice.verdict(at(millis), Ok(GIGABIT)).is_ok()
            })
        };
        let mut choice = watched(Mode::Auto, 7, 1_000_000);
        choice.handle_session_over(at(3000), EndReason::Done);
        assert_eq!(until(&choice), Some(8000));
        choice.handle_session_over(at(3000), EndReason::Deaf);
        assert_eq!(until(&choice), Some(63_000));
        choice.handle_session_over(at(3000), EndReason::Network);
        assert_eq!(until(&choice), Some(123_000));
        choice.handle_session_over(at(3000), EndReason::TooFew);
        assert_eq!(until(&choice), Some(8000));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut choice = Choice::new(Mode::Auto, ChoiceConfig::default());
        for millis in 0..10_000 {
            choice.handle_need(at(millis), Need::of(vec![GIB; 7], 4));
        }
        assert!(choice.seen.len() <= SAMPLES_MOST as usize + 3, "{}", choice.seen.len());
        assert_eq!(choice.verdict(at(10_000), Ok(GIGABIT)), Ok(()));
    }
}
