//! Whether a network is fit for multicast: a second of packets at rising rates, and what is to be concluded from what hosts heard.
//!
//! A probe is no session: nothing is in its packets, and it needs no lease. The asking host says [`ProbeMessage::Begin`] to each
//! host that it wants to know of; who takes part joins the group and says [`ProbeMessage::Ready`]. Then packets are sent in [`STEPS`], each
//! of which names its step where others name their chunk. After [`ProbeMessage::End`] every host says what it heard, and
//! [`judge`] says what that means. So an administrator learns of what else would show as a slow session: groups that are not delivered, a
//! switch that lets only so much through (storm control), a host whose sockets are too small.

use serde::{Deserialize, Serialize};

use super::message::Announcement;
use super::packet::SessionId;
use crate::message::within;
use crate::time::Duration;

/// Shares of the rate that is probed, in percent, each for [`STEP_TIME`].
pub const STEPS: [u64; 4] = [10, 25, 50, 100];
/// How long each step takes.
pub const STEP_TIME: Duration = Duration::from_millis(250);
/// Longest reason of a refusal in bytes.
pub const REASON_LEN_MOST: usize = 512;

/// What hosts say about a probe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ProbeMessage {
    /// From who asks: "join this group and count."
    Begin(Announcement),
    /// "I listen."
    Ready {
        /// Of which probe.
        session: SessionId,
    },
    /// "I take no part."
    Refused {
        /// Of which probe.
        session: SessionId,
        /// Why, for people; at most [`REASON_LEN_MOST`] bytes.
        why: String,
    },
    /// From who asks: everything was sent; what came?
    End {
        /// Of which probe.
        session: SessionId,
    },
    /// What came.
    Heard {
        /// Of which probe.
        session: SessionId,
        /// Of each step.
        steps: [Heard; STEPS.len()],
    },
}

/// What a host heard of one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Heard {
    /// Packets that came.
    pub received: u32,
    /// Packets that found no room in the host's own socket.
    pub dropped: u32,
}

/// What was sent in one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Packets.
    pub packets: u32,
    /// Bytes per second on the wire.
    pub bytes_per_s: u64,
}

/// How one host, and the way to it, fares.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Fitness {
    /// Everything came, but for what parity makes good.
    #[error("fit")]
    Fit,
    /// Nothing came.
    #[error(
        "no packet came: is a firewall in the way, is the host in another subnet, or has the switch IGMP snooping without a querier?"
    )]
    NotDelivered,
    /// Much is lost, however slowly it is sent.
    #[error("{} % of packets are lost at any rate", .ppm / 10_000)]
    Lossy {
        /// Loss, in millionths.
        ppm: u32,
    },
    /// Beyond some rate much is lost.
    #[error("it carries {} Mbit/s and loses {} % at the next step: is storm control on at the switch, or is a link slower?", .bytes_per_s / 125_000, .ppm / 10_000)]
    Knee {
        /// The highest rate that was carried, in bytes per second.
        bytes_per_s: u64,
        /// Loss at the next, in millionths.
        ppm: u32,
    },
    /// The host itself drops what comes.
    #[error("the host dropped {} % in its own socket: raise net.core.rmem_max there", .ppm / 10_000)]
    SmallBuffer {
        /// Dropped, in millionths.
        ppm: u32,
    },
    /// It takes no part.
    #[error("it takes no part: {why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// It did not answer.
    #[error("it did not answer over QUIC")]
    Unreachable,
}

impl ProbeMessage {
    /// Which probe it is about.
    pub fn session(&self) -> SessionId {
        match self {
            ProbeMessage::Begin(announcement) => announcement.session,
            ProbeMessage::Ready { session }
            | ProbeMessage::Refused { session, .. }
            | ProbeMessage::End { session }
            | ProbeMessage::Heard { session, .. } => *session,
        }
    }

    /// Whether it keeps its bounds.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self {
            ProbeMessage::Begin(announcement) => announcement.check(),
            ProbeMessage::Refused { why, .. } => within(why.len(), REASON_LEN_MOST, "a reason that is too long"),
            ProbeMessage::Ready { .. } | ProbeMessage::End { .. } | ProbeMessage::Heard { .. } => Ok(()),
        }
    }
}

/// What it means that a host heard so much of what was sent.
pub fn judge(sent: &[Sent; STEPS.len()], heard: &[Heard; STEPS.len()]) -> Fitness {
    if heard.iter().all(|step| step.received == 0) {
        return Fitness::NotDelivered;
    }
    let steps = || sent.iter().zip(heard);
    if let Some(ppm) = steps().map(|(sent, heard)| ppm(heard.dropped, sent.packets)).find(|&ppm| ppm > DROPPED_MOST) {
        return Fitness::SmallBuffer { ppm };
    }
    let losses = steps().map(|(sent, heard)| {
        ppm(sent.packets.saturating_sub(heard.received.saturating_add(heard.dropped)), sent.packets)
    });
    let losses: Vec<u32> = losses.collect();
    let own = losses[0];
    if own > LOSS_MOST {
        return Fitness::Lossy { ppm: own };
    }
    match losses.iter().position(|&loss| loss > own + KNEE) {
        Some(at) => Fitness::Knee { bytes_per_s: sent[at - 1].bytes_per_s, ppm: losses[at] },
        None => Fitness::Fit,
    }
}

fn ppm(part: u32, whole: u32) -> u32 {
    (u64::from(part.min(whole)) * 1_000_000 / u64::from(whole.max(1))) as u32
}

/// What a session puts up with (5 %): parity beyond that costs more than the swarm.
const LOSS_MOST: u32 = 50_000;
/// More than chance adds to the loss of a few hundred packets (3 %).
const KNEE: u32 = 30_000;
/// A host that drops so much by itself is better served by the swarm (2 %).
const DROPPED_MOST: u32 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,000 packets at each step, of which so many come.
    fn judged(received: [u32; 4], dropped: [u32; 4]) -> Fitness {
        let sent = STEPS.map(|percent| Sent { packets: 1000, bytes_per_s: percent * 1_250_000 });
        judge(&sent, &std::array::from_fn(|at| Heard { received: received[at], dropped: dropped[at] }))
    }

    #[test]
    fn each_fault_has_a_name() {
        assert_eq!(judged([1000, 1000, 1000, 995], [0; 4]), Fitness::Fit);
        assert_eq!(judged([980, 990, 985, 975], [0; 4]), Fitness::Fit);
        assert_eq!(judged([0; 4], [0; 4]), Fitness::NotDelivered);
        assert_eq!(judged([900, 900, 900, 900], [0; 4]), Fitness::Lossy { ppm: 100_000 });
        let knee = Fitness::Knee { bytes_per_s: 31_250_000, ppm: 400_000 };
        assert_eq!(judged([1000, 1000, 600, 300], [0; 4]), knee);
        assert_eq!(judged([1000, 1000, 1000, 900], [0, 0, 0, 100]), Fitness::SmallBuffer { ppm: 100_000 });
        assert!(knee.to_string().contains("250 Mbit/s"), "{knee}");
    }

    #[test]
    fn a_host_that_counts_more_than_was_sent_breaks_nothing() {
        assert_eq!(judged([u32::MAX; 4], [u32::MAX; 4]), Fitness::SmallBuffer { ppm: 1_000_000 });
    }
}
