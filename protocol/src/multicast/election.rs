//! Who sends: one seeder at a time for an image and for a group, by a lease that a tracker gives.
//!
//! [`Leases`] is the tracker's side: it grants, renews and ends leases. [`Candidate`] is a seeder's: it asks while there is need, renews
//! what it has, and says when it is elected and when it is not any more. A holder counts its lease from when it
//! asked, the tracker from when it granted, which is later. So however long messages take or whether they come at all, the holder stops
//! before another one can begin: there are never two, as long as both clocks run at about the same speed.
//!
//! A lease is short, so that another seeder takes over soon after a sender died. A tracker that restarts knows no leases and grants none
//! for as long as one could be held.
//!
//! What is left to the tracker's server: to ask [`Leases`] only for peers that its `Directory` knows as seeders of the image. A holder
//! whose connection ends keeps its lease until it runs out, because it may still send. What is left to the agent: to stop the session with
//! [`Output::Deposed`], whatever else happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::group::GroupRange;
use super::message::check_group;
use super::packet::SessionId;
use crate::id::{ImageId, PeerId};
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// How long a lease is good for: with a renewal every quarter of that, two of them may get lost.
pub const LEASE: Duration = Duration::from_secs(2);
/// Most leases that a tracker gives out at a time.
pub const LEASES_MOST: usize = 16_384;

/// What a seeder asks the tracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// Number of the request, which the answer repeats: one that comes late must not be taken for that of a later request.
    pub number: u32,
    /// Which image it wants to send.
    pub image: ImageId,
    /// The session that it would begin, or has begun.
    pub session: SessionId,
    /// The session's group and port.
    pub group: SocketAddr,
}

impl LeaseRequest {
    /// Whether it keeps the bounds that hold for every image.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        check_group(self.group)
    }
}

/// What the tracker answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LeaseReply {
    /// Granted or renewed, for so many milliseconds from when it was asked for.
    Granted {
        /// Of the request.
        number: u32,
        /// For how long.
        for_ms: u32,
    },
    /// Somebody else sends this image; ask again in so many milliseconds.
    Held {
        /// Of the request.
        number: u32,
        /// When to ask again.
        retry_after_ms: u32,
    },
    /// Another image is sent to this group: ask with another session.
    GroupTaken {
        /// Of the request.
        number: u32,
    },
}

/// The tracker's memory of who sends.
#[derive(Clone, Debug)]
pub struct Leases {
    began: Instant,
    leases: BTreeMap<ImageId, Lease>,
    groups: BTreeSet<SocketAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    holder: PeerId,
    session: SessionId,
    group: SocketAddr,
    until: Instant,
}

impl Leases {
    /// A tracker begins: what another one granted before is unknown, so nothing is granted for the time of a lease.
    pub fn new(now: Instant) -> Self {
        Leases { began: now, leases: BTreeMap::new(), groups: BTreeSet::new() }
    }

    /// A seeder asks for a lease, or to renew one.
    pub fn handle_request(&mut self, now: Instant, peer: PeerId, request: &LeaseRequest) -> LeaseReply {
        self.handle_timeout(now);
        let LeaseRequest { number, image, session, group } = *request;
        let held =
            |until: Instant| LeaseReply::Held { number, retry_after_ms: until.since(now).as_millis() as u32 + 1 };
        if now.since(self.began) < LEASE {
            return held(self.began + LEASE);
        }
        match self.leases.get_mut(&image) {
            Some(lease) if (lease.holder, lease.session, lease.group) == (peer, session, group) => {
                lease.until = now + LEASE;
            }
            Some(lease) => return held(lease.until),
            None if self.groups.contains(&group) => return LeaseReply::GroupTaken { number },
            None if self.groups.len() >= LEASES_MOST => return held(now + LEASE),
            None => {
                self.leases.insert(image, Lease { holder: peer, session, group, until: now + LEASE });
                self.groups.insert(group);
            }
        }
        LeaseReply::Granted { number, for_ms: LEASE.as_millis() as u32 }
    }

    /// A holder gives up the lease of a session. A word that comes late must not end the next session's.
    pub fn handle_release(&mut self, peer: PeerId, image: ImageId, session: SessionId) {
        self.retain(|&of, lease| (of, lease.holder, lease.session) != (image, peer, session));
    }

    /// Drops leases that have run out.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.retain(|_, lease| lease.until > now);
    }

    /// Who sends an image now, as far as the tracker knows.
    pub fn holder(&self, now: Instant, image: ImageId) -> Option<PeerId> {
        self.leases.get(&image).filter(|lease| lease.until > now).map(|lease| lease.holder)
    }

    fn retain(&mut self, keep: impl Fn(&ImageId, &Lease) -> bool) {
        let groups = &mut self.groups;
        for (_, lease) in self.leases.extract_if(.., |image, lease| !keep(image, lease)) {
            groups.remove(&lease.group);
        }
    }
}

/// What a [`Candidate`] asks its driver to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Ask the tracker; hand its answer to [`Candidate::handle_reply`].
    Ask(LeaseRequest),
    /// This host sends now: begin this session.
    Elected {
        /// Which session.
        session: SessionId,
        /// Its group and port.
        group: SocketAddr,
    },
    /// This host does not send any more: stop the session at once.
    Deposed,
    /// Tell the tracker that the lease is free.
    Release {
        /// Of which image.
        image: ImageId,
        /// Of which session.
        session: SessionId,
    },
}

/// A seeder that would send an image.
#[derive(Clone, Debug)]
pub struct Candidate {
    image: ImageId,
    groups: GroupRange,
    rng: Rng,
    session: SessionId,
    /// Whether there is need for a sender.
    is_needed: bool,
    /// Number of the last request.
    number: u32,
    /// When the request was sent whose answer is waited for.
    asked: Option<Instant>,
    /// Until when the lease is held, if it is.
    until: Option<Instant>,
    next_ask: Instant,
    outputs: VecDeque<Output>,
}

impl Candidate {
    /// A host that holds all of `image`. It asks for nothing before [`Candidate::set_needed`].
    pub fn new(now: Instant, image: ImageId, groups: GroupRange, seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let session = SessionId(rng.next_u64());
        Candidate {
            image,
            groups,
            rng,
            session,
            is_needed: false,
            number: 0,
            asked: None,
            until: None,
            next_ask: now,
            outputs: VecDeque::new(),
        }
    }

    /// Whether hosts lack the image and multicast would help them, as the driver sees it.
    pub fn set_needed(&mut self, now: Instant, is_needed: bool) {
        if self.is_needed && !is_needed {
            self.give_up();
        }
        if is_needed && !self.is_needed {
            // Many seeders learn of a need at the same time.
            self.next_ask = now + self.jitter(FIRST_ASK);
        }
        self.is_needed = is_needed;
        self.handle_timeout(now);
    }

    /// The tracker answered the last request. A request that failed needs no call: it is asked again.
    pub fn handle_reply(&mut self, now: Instant, reply: &LeaseReply) {
        let (LeaseReply::Granted { number, .. } | LeaseReply::Held { number, .. } | LeaseReply::GroupTaken { number }) =
            *reply;
        let Some(asked) = self.asked.filter(|_| number == self.number) else { return };
        self.asked = None;
        match *reply {
            LeaseReply::Granted { for_ms, .. } => {
                // Counted from the asking, and never for longer than the tracker counts it.
                let until = asked + Duration::from_millis(u64::from(for_ms)).min(LEASE);
                if until > now {
                    self.hold(until);
                }
            }
            LeaseReply::Held { retry_after_ms, .. } => {
                self.depose();
                let wait = Duration::from_millis(u64::from(retry_after_ms)).min(LEASE);
                self.next_ask = now + wait + self.jitter(RENEW);
            }
            LeaseReply::GroupTaken { .. } => {
                self.depose();
                self.next_ask = now;
            }
        }
        self.handle_timeout(now);
    }

    /// The session that this host sends is over, for whatever reason.
    pub fn handle_session_over(&mut self, now: Instant) {
        self.give_up();
        self.next_ask = now + LEASE + self.jitter(LEASE);
    }

    /// The time given to [`Candidate::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.depose();
        }
        if self.is_needed && self.next_ask <= now {
            self.asked = Some(now);
            self.next_ask = now + RENEW;
            self.number = self.number.wrapping_add(1);
            let (number, image, session) = (self.number, self.image, self.session);
            let group = self.groups.of(session);
            self.outputs.push_back(Output::Ask(LeaseRequest { number, image, session, group }));
        }
    }

    /// What to do next. To be called until it is `None` after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Candidate::handle_timeout`], if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ask = self.is_needed.then_some(self.next_ask);
        self.until.into_iter().chain(ask).min()
    }

    /// Whether this host may send now.
    pub fn is_elected(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn hold(&mut self, until: Instant) {
        if self.until.is_none() {
            let group = self.groups.of(self.session);
            self.outputs.push_back(Output::Elected { session: self.session, group });
        }
        self.until = Some(until);
    }

    fn give_up(&mut self) {
        let session = self.session;
        if self.until.is_some() {
            self.depose();
            self.outputs.push_back(Output::Release { image: self.image, session });
        }
    }

    /// The next session is another one: a key is used once.
    fn depose(&mut self) {
        if self.until.take().is_some() {
            self.outputs.push_back(Output::Deposed);
        }
        self.session = SessionId(self.rng.next_u64());
        self.asked = None;
    }

    fn jitter(&mut self, most: Duration) -> Duration {
        Duration::from_millis(u64::from(self.rng.below(most.as_millis() as u32)))
    }
}

/// How often a holder renews, and asks again who was not answered.
const RENEW: Duration = Duration::from_millis(500);
/// Within how long the seeders that learn of a need at the same time ask: a tracker answers hundreds in that time, and a fleet that
/// waits loses no more.
const FIRST_ASK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: ImageId = ImageId::from_bytes([1; 32]);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    fn request(session: u64) -> LeaseRequest {
        let session = SessionId(session);
        LeaseRequest { number: 1, image: IMAGE, session, group: GroupRange::default().of(session) }
    }

    fn is_granted(reply: LeaseReply) -> bool {
        matches!(reply, LeaseReply::Granted { .. })
    }

    #[test]
    fn one_holds_a_lease_until_it_runs_out_or_is_released() {
        let mut leases = Leases::new(at(0));
        assert!(is_granted(leases.handle_request(at(2000), peer(1), &request(1))));
        assert!(is_granted(leases.handle_request(at(3000), peer(1), &request(1))));
        assert_eq!(
            leases.handle_request(at(4000), peer(2), &request(2)),
            LeaseReply::Held { number: 1, retry_after_ms: 1001 }
        );
        assert_eq!(leases.holder(at(4000), IMAGE), Some(peer(1)));
        leases.handle_release(peer(2), IMAGE, SessionId(2));
        assert!(!is_granted(leases.handle_request(at(4999), peer(2), &request(2))));
        assert!(is_granted(leases.handle_request(at(5000), peer(2), &request(2))));
        leases.handle_release(peer(2), IMAGE, SessionId(2));
        assert!(is_granted(leases.handle_request(at(5001), peer(1), &request(3))));
    }

    #[test]
    fn a_group_has_one_image_and_a_holder_one_session() {
        let mut leases = Leases::new(at(0));
        assert!(is_granted(leases.handle_request(at(2000), peer(1), &request(1))));
        let other = LeaseRequest { image: ImageId::from_bytes([2; 32]), ..request(1) };
        assert_eq!(leases.handle_request(at(2000), peer(2), &other), LeaseReply::GroupTaken { number: 1 });
        assert!(!is_granted(leases.handle_request(at(2000), peer(1), &request(2))));
    }

    #[test]
    fn a_tracker_that_has_just_begun_grants_nothing() {
        let mut leases = Leases::new(at(10_000));
        assert!(!is_granted(leases.handle_request(at(11_999), peer(1), &request(1))));
        assert!(is_granted(leases.handle_request(at(12_000), peer(1), &request(1))));
    }

    #[test]
    fn an_answer_to_an_earlier_request_counts_for_nothing() {
        let mut candidate = Candidate::new(at(0), IMAGE, GroupRange::default(), 1);
        candidate.set_needed(at(0), true);
        let mut asks = Vec::new();
        while asks.len() < 2 {
            candidate.handle_timeout(candidate.poll_timeout().unwrap());
            asks.extend(core::iter::from_fn(|| candidate.poll_output()));
        }
        let Output::Ask(first) = asks[0] else { panic!("{:?} is a request", asks[0]) };
        candidate.handle_reply(at(1200), &LeaseReply::Granted { number: first.number, for_ms: 2000 });
        assert!(!candidate.is_elected(at(1200)));
        candidate.handle_reply(at(1200), &LeaseReply::Granted { number: first.number + 1, for_ms: 2000 });
        assert!(candidate.is_elected(at(1200)));
    }

    /// Candidates and a tracker with messages that take up to a second or get lost, a tracker that restarts and candidates that stop and
    /// begin to be needed.
    #[test]
    fn there_are_never_two_and_mostly_one() {
        for seed in 0..20 {
            eprintln!("seed {seed}");
            let mut rng = Rng::seeded(seed);
            let mut leases = Leases::new(at(0));
            let new = |number: u64| Candidate::new(at(0), IMAGE, GroupRange::default(), seed * 100 + number);
            let mut candidates: Vec<Candidate> = (0..4).map(new).collect();
            candidates.iter_mut().for_each(|candidate| candidate.set_needed(at(0), true));
            // What is on its way: when it arrives, and to or from whom.
            let mut asks: Vec<(Instant, usize, LeaseRequest)> = Vec::new();
            let mut replies: Vec<(Instant, usize, LeaseReply)> = Vec::new();
            let mut releases: Vec<(Instant, usize, SessionId)> = Vec::new();
            let mut covered = 0;
            for now in (0..60_000).map(at) {
                let delay = |rng: &mut Rng| if rng.chance(0.1) { rng.below(1000) } else { rng.below(20) };
                for (_, who, ask) in asks.extract_if(.., |(due, ..)| *due <= now) {
                    let reply = leases.handle_request(now, peer(who as u8), &ask);
                    if !rng.chance(0.1) {
                        replies.push((now + Duration::from_millis(u64::from(delay(&mut rng))), who, reply));
                    }
                }
                for (_, who, reply) in replies.extract_if(.., |(due, ..)| *due <= now) {
                    candidates[who].handle_reply(now, &reply);
                }
                for (_, who, session) in releases.extract_if(.., |(due, ..)| *due <= now) {
                    leases.handle_release(peer(who as u8), IMAGE, session);
                }
                if rng.chance(0.000_03) {
                    leases = Leases::new(now);
                }
                if rng.chance(0.001) {
                    let (who, is_needed) = (rng.below(4) as usize, rng.chance(0.7));
                    candidates[who].set_needed(now, is_needed);
                }
                for (who, candidate) in candidates.iter_mut().enumerate() {
                    candidate.handle_timeout(now);
                    while let Some(output) = candidate.poll_output() {
                        match output {
                            Output::Ask(ask) if !rng.chance(0.1) => {
                                asks.push((now + Duration::from_millis(u64::from(delay(&mut rng))), who, ask));
                            }
                            Output::Release { session, .. } => {
                                releases.push((now + Duration::from_millis(u64::from(delay(&mut rng))), who, session));
                            }
                            Output::Ask(_) | Output::Elected { .. } | Output::Deposed => {}
                        }
                    }
                }
                let elected = candidates.iter().filter(|candidate| candidate.is_elected(now)).count();
                assert!(elected <= 1, "two senders at {now:?}");
                covered += elected;
            }
            assert!(covered > 35_000, "somebody sent for {covered} ms of 60,000");
        }
    }
}
