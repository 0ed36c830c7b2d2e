//! Whether and by whom something is sent: the real choices and candidates of all hosts that hold everything, and the tracker's
//! leases.

use std::collections::{BTreeMap, BTreeSet};

use drover_protocol::multicast::choice::{Choice, ChoiceConfig, Mode, Need, Network};
use drover_protocol::multicast::election::{Candidate, LEASE, LeaseReply, LeaseRequest, Leases, Output};
use drover_protocol::multicast::group::GroupRange;
use drover_protocol::multicast::message::EndReason;
use drover_protocol::multicast::packet::SessionId;
use drover_protocol::rng::Rng;
use drover_protocol::time::Instant;

use crate::host::peer_id;
use crate::tracker::IMAGE;

/// All who would send, and who decides.
#[derive(Debug)]
pub(super) struct Election {
    mode: Mode,
    candidates: BTreeMap<usize, Seeder>,
    /// Those that may have something to say.
    touched: BTreeSet<usize>,
    /// While the tracker is there.
    leases: Option<Leases>,
}

#[derive(Debug)]
struct Seeder {
    choice: Choice,
    candidate: Candidate,
    /// Bytes per second that it would send at most.
    bytes_per_s: u64,
    is_sending: bool,
    /// For when its timer is set.
    armed: Option<Instant>,
}

/// What a candidate says, put together.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) asks: Vec<LeaseRequest>,
    pub(super) elected: Option<SessionId>,
    pub(super) is_deposed: bool,
    /// When it is to be called again, if no timer is set for sooner.
    pub(super) timer: Option<Instant>,
}

impl Election {
    /// The tracker has been there for long enough to grant leases.
    pub(super) fn new(mode: Mode) -> Self {
        let leases = Some(Leases::new(Instant::START));
        Election { mode, candidates: BTreeMap::new(), touched: BTreeSet::new(), leases }
    }

    /// A host holds everything, and would send at this rate.
    pub(super) fn add(&mut self, now: Instant, host: usize, bytes_per_s: u64, rng: &mut Rng) {
        let choice = Choice::new(self.mode, ChoiceConfig::default());
        let candidate = Candidate::new(now, IMAGE, GroupRange::default(), rng.next_u64());
        self.candidates.insert(host, Seeder { choice, candidate, bytes_per_s, is_sending: false, armed: None });
    }

    /// A host is gone, or something of it.
    pub(super) fn remove(&mut self, host: usize) {
        self.candidates.remove(&host);
    }

    /// All hear what the hosts that they reach lack, in bytes each.
    pub(super) fn consider(&mut self, now: Instant, lacking: impl Fn(usize) -> Vec<u64>) {
        for (&host, seeder) in &mut self.candidates {
            let need = Need::of(lacking(host), seeder.choice.hosts_least());
            seeder.choice.handle_need(now, need);
            let network = Ok(Network { bytes_per_s: seeder.bytes_per_s });
            // Whoever sends goes on while there is less and less to send: its sender knows when to end.
            let is_needed = match seeder.is_sending {
                true => seeder.choice.is_worth_it(now),
                false => seeder.choice.verdict(now, network).is_ok(),
            };
            seeder.candidate.set_needed(now, is_needed);
            self.touched.insert(host);
        }
    }

    pub(super) fn session_is_over(&mut self, now: Instant, host: usize, ended: EndReason) {
        let Some(seeder) = self.candidates.get_mut(&host) else { return };
        seeder.is_sending = false;
        seeder.choice.handle_session_over(now, ended);
        seeder.candidate.handle_session_over(now);
        self.touched.insert(host);
    }

    /// A candidate's timer rings.
    pub(super) fn ring(&mut self, now: Instant, host: usize) {
        if let Some(seeder) = self.candidates.get_mut(&host)
            && seeder.armed.take_if(|at| *at <= now).is_some()
            && seeder.candidate.poll_timeout().is_some_and(|at| at <= now)
        {
            seeder.candidate.handle_timeout(now);
        }
        self.touched.insert(host);
    }

    /// The tracker's answer, if it is there.
    pub(super) fn answer(&mut self, now: Instant, host: usize, request: &LeaseRequest) -> Option<LeaseReply> {
        Some(self.leases.as_mut()?.handle_request(tracker_time(now), peer_id(host), request))
    }

    pub(super) fn hear(&mut self, now: Instant, host: usize, reply: &LeaseReply) {
        self.candidates.get_mut(&host).into_iter().for_each(|seeder| seeder.candidate.handle_reply(now, reply));
        self.touched.insert(host);
    }

    pub(super) fn tracker_died(&mut self) {
        self.leases = None;
    }

    pub(super) fn tracker_is_back(&mut self, now: Instant) {
        self.leases = Some(Leases::new(tracker_time(now)));
    }

    /// What a candidate says; to be called until there is none who says anything.
    pub(super) fn listen(&mut self, now: Instant) -> Option<(usize, Words)> {
        let host = self.touched.pop_first()?;
        let Some(seeder) = self.candidates.get_mut(&host) else { return Some((host, Words::default())) };
        let mut words = Words::default();
        while let Some(output) = seeder.candidate.poll_output() {
            match output {
                Output::Ask(request) => words.asks.push(request),
                Output::Elected { session, .. } => {
                    seeder.choice.handle_session_begun(now);
                    (seeder.is_sending, words.elected) = (true, Some(session));
                }
                Output::Deposed => (words.is_deposed, words.elected) = (true, None),
                Output::Release { image, session } => {
                    self.leases.iter_mut().for_each(|leases| leases.handle_release(peer_id(host), image, session));
                }
            }
        }
        let next = seeder.candidate.poll_timeout().map(|next| next.max(now));
        words.timer = next.filter(|&next| seeder.armed.is_none_or(|armed| next < armed));
        seeder.armed = words.timer.or(seeder.armed);
        Some((host, words))
    }
}

/// The tracker's clock is ahead: at the world's beginning it has been running for the time of a lease.
fn tracker_time(now: Instant) -> Instant {
    now + LEASE
}
