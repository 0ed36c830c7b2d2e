//! What the sender and the members of a multicast session say to each other, over their QUIC connections.
//!
//! The sender announces a session to hosts that lack the image; who wants to takes part. Numbers of chunks are plain
//! here and become indices only through the image's geometry. Nothing of this crosses the wire as multicast: a
//! session's key, its beginning and its end come from an authenticated peer.

use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::fec::{PARITY_MOST, SYMBOL_LEN_LEAST, SYMBOL_LEN_MOST};
use super::packet::{SessionId, SessionKey};
use crate::have::{WireDelta, WireHave};
use crate::message::within;

/// Most blocks that one report names as lacking symbols: what a per cent of loss spoils in a quarter of a second at 10 Gbit/s.
pub const LACKING_MOST: usize = 256;

/// What is said about one session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MulticastMessage {
    /// From the sender: "I am about to send this image; take part if you like."
    Announce(Announcement),
    /// From a host: "I take part, and listen already." The only one that names what it holds as a whole.
    Join {
        /// Which session.
        session: SessionId,
        /// Pieces held.
        held: WireHave,
        /// Bytes per second that its interface carries; 0 if it does not know.
        link_bytes_per_s: u64,
    },
    /// From a member: how it fares.
    Report(Report),
    /// From a member: "I leave." It goes on by the swarm.
    Leave {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: LeaveReason,
    },
    /// From the sender to every member, several times a second: "I am alive and have sent so much."
    Beat(Beat),
    /// From the sender: "you are left out; go on by the swarm."
    Dismiss {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: DismissReason,
    },
    /// From the sender: there is no such session any more.
    End {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: EndReason,
    },
}

/// Everything that a host must know to take part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// Which session.
    pub session: SessionId,
    /// The key of its packets.
    pub key: SessionKey,
    /// Group and port that they are sent to.
    pub group: SocketAddr,
    /// Address that they are sent from; packets from elsewhere do not count.
    pub source: IpAddr,
    /// Length of a symbol in bytes.
    pub symbol_len: u16,
}

/// How a member fares. Counts are since it joined, so that a report that comes late or not at all spoils nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Which session.
    pub session: SessionId,
    /// Highest sequence number heard.
    pub highest: u64,
    /// Packets sent from the first one heard to the highest.
    pub expected: u64,
    /// Packets that came.
    pub received: u64,
    /// Packets that came to this host, but found no room in its socket's buffer.
    pub dropped: u64,
    /// Bytes that wait to be written.
    pub backlog: u64,
    /// Bytes per second that were written lately.
    pub drain_bytes_per_s: u64,
    /// Blocks that failed their verification.
    pub rejected: u32,
    /// Pieces that came to be held since the last report, by whatever way.
    pub gained: WireDelta,
    /// Blocks whose last packet has passed, and how many symbols each lacks: (number of the chunk, symbols), at most
    /// [`LACKING_MOST`].
    pub lacking: Vec<(u32, u8)>,
}

/// What a sender tells its members regularly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Beat {
    /// Which session.
    pub session: SessionId,
    /// Packets sent.
    pub sequence: u64,
    /// How often a member reports, in milliseconds; more seldom in large groups.
    pub report_interval_ms: u32,
    /// Whether every block that is wanted was sent: nothing follows now but repair.
    pub is_idle: bool,
}

/// Why a member leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LeaveReason {
    /// It holds everything.
    Complete,
    /// It loses too much.
    Lossy,
    /// Packets are sent and none comes: the network does not deliver them.
    Silent,
    /// Its disk is behind.
    Disk,
    /// Blocks failed their verification.
    Distrust,
    /// It is told to, or stops.
    Stopped,
}

/// Why a member is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DismissReason {
    /// It loses much more than the others.
    Lossy,
    /// It did not report.
    Silent,
    /// The session has as many members as it can have.
    Full,
    /// What it said does not fit the image.
    Malformed,
    /// It is no member.
    Unknown,
    /// Its link, socket or disk can't follow the others'.
    Slow,
}

/// Why a session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum EndReason {
    /// What is still lacked is left to the swarm.
    Done,
    /// Too few take part.
    TooFew,
    /// Too many lose too much, at any rate that makes sense.
    Network,
    /// Nobody reports any more.
    Deaf,
    /// Blocks fail their verification at several members.
    Polluted,
    /// The sender lost its lease, or stops.
    Stopped,
}

impl MulticastMessage {
    /// The session that it is about.
    pub fn session(&self) -> SessionId {
        match self {
            MulticastMessage::Announce(announcement) => announcement.session,
            MulticastMessage::Report(report) => report.session,
            MulticastMessage::Beat(beat) => beat.session,
            MulticastMessage::Join { session, .. }
            | MulticastMessage::Leave { session, .. }
            | MulticastMessage::Dismiss { session, .. }
            | MulticastMessage::End { session, .. } => *session,
        }
    }

    /// Whether it keeps the bounds that hold for every image.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self {
            MulticastMessage::Announce(announcement) => announcement.check(),
            MulticastMessage::Report(report) => {
                within(report.lacking.len(), LACKING_MOST, "too many lacking blocks")?;
                let most = report.lacking.iter().map(|&(_, symbols)| usize::from(symbols)).max().unwrap_or(0);
                within(most, SYMBOLS_MOST, "a block that lacks more symbols than one has")
            }
            // Sets and deltas are checked against their image's geometry when they are read.
            MulticastMessage::Join { .. }
            | MulticastMessage::Leave { .. }
            | MulticastMessage::Beat(_)
            | MulticastMessage::Dismiss { .. }
            | MulticastMessage::End { .. } => Ok(()),
        }
    }
}

/// Whether this is a group and port that a session may have.
pub(super) fn check_group(group: SocketAddr) -> Result<(), &'static str> {
    let is_fit = group.ip().is_multicast() && group.port() >= 1024;
    if is_fit { Ok(()) } else { Err("no group that a session may have") }
}

impl Announcement {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        check_group(self.group)?;
        if self.source.is_multicast() || self.source.is_unspecified() || self.source.is_ipv4() != self.group.is_ipv4() {
            return Err("no address that a sender may have");
        }
        let symbol_len = usize::from(self.symbol_len);
        let is_usable = (SYMBOL_LEN_LEAST..=SYMBOL_LEN_MOST).contains(&symbol_len);
        if is_usable { Ok(()) } else { Err("symbols that are too short or too long") }
    }
}

/// Most symbols of a block, parity included.
const SYMBOLS_MOST: usize = (crate::geometry::CHUNK_LEN as usize).div_ceil(SYMBOL_LEN_LEAST) + PARITY_MOST as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};
    use crate::id::ImageId;
    use crate::message::PeerMessage;

    fn announcement() -> Announcement {
        Announcement {
            session: SessionId(1),
            key: SessionKey::from_bytes([1; 32]),
            group: "239.255.1.2:50000".parse().unwrap(),
            source: "10.0.0.1".parse().unwrap(),
            symbol_len: 1366,
        }
    }

    fn refusal(message: MulticastMessage) -> Option<&'static str> {
        message.check().err()
    }

    #[test]
    fn an_announcement_out_of_bounds_is_refused() {
        let refused = |change: fn(&mut Announcement)| {
            let mut changed = announcement();
            change(&mut changed);
            refusal(MulticastMessage::Announce(changed)).is_some()
        };
        assert!(!refused(|_| ()));
        assert!(refused(|it| it.group = "10.0.0.9:50000".parse().unwrap()));
        assert!(refused(|it| it.group.set_port(53)));
        assert!(refused(|it| it.source = "239.1.1.1".parse().unwrap()));
        assert!(refused(|it| it.source = "::1".parse().unwrap()));
        assert!(refused(|it| it.symbol_len = 10));
        assert!(refused(|it| it.symbol_len = 9000));
    }

    #[test]
    fn a_report_out_of_bounds_is_neither_sent_nor_read() {
        let report = |lacking| MulticastMessage::Report(Report { lacking, ..Report::default() });
        assert_eq!(refusal(report(vec![(1, 126); LACKING_MOST])), None);
        assert!(refusal(report(vec![(1, 1); LACKING_MOST + 1])).is_some());
        assert!(refusal(report(vec![(1, 127)])).is_some());
        let message = PeerMessage::Multicast {
            image: ImageId::from_bytes([1; 32]),
            message: report(vec![(1, 1); LACKING_MOST + 1]),
        };
        assert!(encode(&message).is_err());
        let body = postcard::to_stdvec(&message).unwrap();
        assert!(decode::<PeerMessage>(&body).is_err());
    }
}
