//! The sender of a session, and what it has on its way.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use drover_protocol::geometry::Geometry;
use drover_protocol::have::ChunkSet;
use drover_protocol::id::PeerId;
use drover_protocol::multicast::config::SenderConfig;
use drover_protocol::multicast::group::GroupRange;
use drover_protocol::multicast::message::{Announcement, EndReason, MulticastMessage};
use drover_protocol::multicast::packet::{Header, SessionId, SessionKey};
use drover_protocol::multicast::sender::{Output, Sender};
use drover_protocol::rng::Rng;
use drover_protocol::time::Instant;

use super::losses::Losses;
use super::pass::Pass;

/// Who has not sent for so long takes nothing of the links.
const LULL: Duration = Duration::from_millis(100);

/// A session at its sender.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) host: usize,
    pub(super) id: SessionId,
    pub(super) sender: Sender,
    symbol_len: u64,
    losses: Losses,
    pass: Pass,
    /// When the last packet was sent.
    sent_at: Option<Instant>,
}

/// What the sender says, put together.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) messages: Vec<(PeerId, MulticastMessage)>,
    pub(super) passes: Vec<Pass>,
    /// Bytes of the image, and of parity, that it sent.
    pub(super) sent_bytes: u64,
    pub(super) ended: Option<EndReason>,
}

impl Session {
    /// The session that `host` was elected for.
    pub(super) fn new(
        now: Instant,
        (host, id): (usize, SessionId),
        (geometry, data): (Geometry, ChunkSet),
        config: SenderConfig,
        losses: Losses,
        rng: &mut Rng,
    ) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
        let announcement = Announcement {
            session: id,
            key: SessionKey::from_bytes(key),
            group: GroupRange::default().of(id),
            source: IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() | host as u32)),
            symbol_len: config.symbol_len as u16,
        };
        let symbol_len = config.symbol_len as u64;
        let sender = Sender::new(now, announcement, geometry, data, config, rng.next_u64());
        Session { host, id, sender, symbol_len, losses, pass: Pass::default(), sent_at: None }
    }

    /// All that the sender has to say.
    pub(super) fn listen(&mut self, now: Instant, rng: &mut Rng) -> Words {
        let mut words = Words::default();
        while let Some(output) = self.sender.poll_output() {
            match output {
                Output::Send { peer, message } => words.messages.push((peer, message)),
                Output::Transmit { header } => {
                    words.sent_bytes += self.symbol_len;
                    self.transmit(now, header);
                }
                // All blocks of a pass are let go of when its last packet was sent.
                Output::Unload { .. } => words.passes.extend(self.end_pass(rng)),
                Output::Ended { reason } => words.ended = Some(reason),
                // Whatever is sent can be read in time: the sender's rate is that of its disk, if that is slower than its wire.
                Output::Load { .. } => {}
            }
        }
        words
    }

    /// Bytes per second on the wire.
    pub(super) fn rate(&self, now: Instant) -> u64 {
        let is_sending = self.sent_at.is_some_and(|at| now.since(at) < LULL);
        if is_sending { self.sender.status().rate_bytes_per_s } else { 0 }
    }

    /// When it takes nothing of the links any more, if it goes on to send nothing.
    pub(super) fn lull_at(&self, now: Instant) -> Option<Instant> {
        self.sent_at.map(|at| at + LULL).filter(|&at| at > now)
    }

    fn transmit(&mut self, now: Instant, header: Header) {
        self.pass.add(header);
        self.pass.rate = self.sender.status().rate_bytes_per_s;
        self.sent_at = Some(now);
    }

    fn end_pass(&mut self, rng: &mut Rng) -> Option<Pass> {
        let mut pass = core::mem::take(&mut self.pass);
        self.losses.draw(rng, pass.len(), &mut pass.lost);
        (pass.len() > 0).then_some(pass)
    }
}
