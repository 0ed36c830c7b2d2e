//! The part that this host takes in a session that a peer sends.
//!
//! A host that is announced a session takes part, if its settings let it. While multicast brings what it lacks the swarm is told so, and of
//! every chunk that multicast missed.

use drover_protocol::geometry::CHUNK_LEN;
use drover_protocol::id::PeerId;
use drover_protocol::multicast::choice::Mode;
use drover_protocol::multicast::message::{Announcement, LeaveReason};
use drover_protocol::multicast::packet::SessionId;
use drover_protocol::multicast::receiver::AwayReason;
use drover_protocol::time::Instant;

use super::super::durability::Origin;
use super::super::{Driver, Input};
use super::Session;
use crate::exchange::{MulticastRole, MulticastStatus};
use crate::multicast::receiving::{self, Receiving};

/// The session that this host hears, if there is one.
#[derive(Debug, Default)]
pub(super) struct Part {
    receiving: Option<Session<Receiving>>,
    /// Whether it brings what is lacking.
    carries: bool,
    /// Bytes that sessions before it brought.
    brought_before: u64,
}

impl Part {
    pub(super) fn note_disconnected(&mut self, peer: PeerId) {
        if self.receiving.as_ref().is_some_and(|receiving| receiving.sender == peer) {
            self.tell(receiving::Order::SenderGone);
        }
    }

    pub(super) fn tell(&self, order: receiving::Order) {
        if let Some(receiving) = &self.receiving {
            // A thread that has ended has said so.
            let _ = receiving.thread.tell(order);
        }
    }

    pub(super) fn stop(&mut self) {
        self.receiving = None;
    }

    /// Whether it is this session that is heard, and `sender` sends it.
    pub(super) fn is_of(&self, session: SessionId, sender: PeerId) -> bool {
        self.receiving.as_ref().is_some_and(|it| (it.session, it.sender) == (session, sender))
    }

    /// Bytes that sessions brought that are over.
    pub(super) fn brought_before(&self) -> u64 {
        self.brought_before
    }

    /// How the session that is heard stands, if there is one.
    pub(super) fn status(&self) -> Option<MulticastStatus> {
        let now = self.receiving.as_ref()?.thread.status();
        let lost = now.expected.saturating_sub(now.received + now.dropped);
        Some(MulticastStatus {
            role: MulticastRole::Receiving,
            loss_ppm: (lost * 1_000_000 / now.expected.max(1)) as u32,
            packets: now.received,
            surplus_packets: now.useless,
            dropped_packets: now.dropped,
            brought_bytes: self.brought_before + now.decoded * u64::from(CHUNK_LEN),
            rejected_blocks: now.rejected,
            ..MulticastStatus::default()
        })
    }

    /// Whether another session is not taken part in.
    fn is_busy_for(&self, session: SessionId) -> bool {
        self.receiving.as_ref().is_some_and(|it| self.carries || it.session == session)
    }
}

impl Driver<'_> {
    /// The thread of a session that this host hears has something to say.
    pub(in super::super) fn on_receiving(&mut self, now: Instant, number: u64, report: receiving::Report) {
        // What came is stored, whatever became of the session.
        if let receiving::Report::Came(batch) = report {
            return self.on_batch(now, Origin::Multicast, batch);
        }
        let part = &mut self.multicast.part;
        let Some(receiving) = part.receiving.as_ref().filter(|it| it.number == number) else { return };
        match report {
            receiving::Report::Send(message) => {
                let sender = receiving.sender;
                self.tell_about_multicast(sender, message);
            }
            receiving::Report::Came(_) => unreachable!("it was taken above"),
            receiving::Report::Carries(carries) => {
                part.carries = carries;
                self.swarm.set_carried(now, carries);
            }
            receiving::Report::Missed(chunks) => self.swarm.handle_missed(now, &chunks),
            receiving::Report::Away(reason) => self.multicast.why_not = Some(away(reason)),
            receiving::Report::Over => {
                let heard = part.status().unwrap_or_default();
                part.brought_before = heard.brought_bytes;
                part.receiving = None;
                self.multicast.last = heard;
            }
        }
    }

    /// A peer is about to send: this host takes part, if it wants to and nothing is against it.
    pub(super) fn take_part(&mut self, now: Instant, sender: PeerId, announcement: Announcement) {
        let session = announcement.session;
        let is_busy = self.multicast.part.is_busy_for(session);
        if self.multicast.settings.mode == Mode::Off || self.swarm.is_complete() || is_busy {
            return;
        }
        let interface = match self.multicast.interface(now, self.parts.listen) {
            Ok(interface) => interface,
            Err(unfit) => return self.multicast.why_not = Some(unfit.to_string()),
        };
        let (number, reports) = (self.multicast.next_number(), self.inlets.reports.clone());
        let parts = receiving::Parts {
            announcement,
            sender,
            image: self.disk.clone(),
            interface,
            buffers: self.parts.receiving.clone(),
            workers: self.parts.disk.clone(),
        };
        let report = move |report| drop(reports.blocking_send(Input::Receiving(number, report)));
        match Receiving::start(parts, report) {
            Ok(thread) => {
                let part = &mut self.multicast.part;
                part.brought_before = part.status().map_or(part.brought_before, |before| before.brought_bytes);
                part.receiving = Some(Session { number, session, sender, thread });
                self.multicast.why_not = None;
            }
            Err(error) => {
                tracing::warn!(image = %self.disk.id().short(), %error, "can't take part in multicast");
                self.multicast.why_not = Some(error.to_string());
            }
        }
    }
}

/// Why a host does not listen, for people.
fn away(reason: AwayReason) -> String {
    match reason {
        AwayReason::Left(LeaveReason::Complete) => "everything is here".to_owned(),
        AwayReason::Left(LeaveReason::Lossy) => "too many packets were lost on the way to this host".to_owned(),
        AwayReason::Left(LeaveReason::Silent) => "packets were sent and none came".to_owned(),
        AwayReason::Left(LeaveReason::Disk) => "this host's disk was behind".to_owned(),
        AwayReason::Left(LeaveReason::Distrust) => "blocks were not what the manifest says".to_owned(),
        AwayReason::Left(LeaveReason::Stopped) => "this host stopped taking part".to_owned(),
        AwayReason::Dismissed(reason) => format!("the sender left this host out ({reason:?})"),
        AwayReason::Ended(reason) => format!("the session ended ({reason:?})"),
        AwayReason::SenderGone => "the sender is gone".to_owned(),
    }
}
