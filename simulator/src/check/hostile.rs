//! Hosts that lie, stall and grab. They run the real machine; what it says is twisted on its way out.

use core::time::Duration;

use drover_protocol::have::{PieceSet, WireDelta, WireHave};
use drover_protocol::message::SwarmMessage;
use drover_protocol::swarm::RequestId;

use super::fault::Fault;
use super::plan::Lie;
use super::token::Token;
use super::world::{Event, World};

/// How often a greedy host asks everybody for something.
const GREED_EVERY: Duration = Duration::from_millis(100);
/// How much it asks for at once: as many streams as a connection allows would only take longer.
const GREED_AT_ONCE: u32 = 8;
/// Numbers of requests that no swarm gives out.
const GREEDY_REQUESTS: u64 = 1 << 40;

impl World {
    /// What a host says, as it says it.
    pub(super) fn twisted(&mut self, host: usize, message: SwarmMessage) -> SwarmMessage {
        let geometry = self.plan.manifest.geometry();
        let everything = || WireHave::of(&PieceSet::full(&geometry));
        match (self.plan.hosts[host].lie, &message) {
            (Some(Lie::FalseHave), SwarmMessage::Join { .. }) => {
                self.counts.add(Fault::FalseHave);
                SwarmMessage::Join { have: everything() }
            }
            (Some(Lie::FalseHave), SwarmMessage::Have { .. }) => {
                self.counts.add(Fault::FalseHave);
                SwarmMessage::Have { have: everything() }
            }
            (Some(Lie::BadHave), SwarmMessage::HaveDelta { .. }) if self.rng.chance(0.2) => {
                self.counts.add(Fault::BadHave);
                let past = geometry.piece_count() - self.rng.below(2);
                SwarmMessage::HaveDelta { delta: WireDelta(vec![(past, 1 + self.rng.below(9) + 1)]) }
            }
            (Some(Lie::BadHave), SwarmMessage::Have { .. } | SwarmMessage::Join { .. }) if self.rng.chance(0.1) => {
                self.counts.add(Fault::BadHave);
                SwarmMessage::Have { have: WireHave::Bitmap(vec![0xff; 1 + self.rng.below(40) as usize]) }
            }
            _ => message,
        }
    }

    /// What a host sends for a chunk, if it is one that sends wrong bytes.
    pub(super) fn lie_about(&mut self, host: usize, _chunk: u32, token: &mut Token) {
        if let Some(Lie::WrongBytes(share)) = self.plan.hosts[host].lie
            && self.rng.chance(share)
        {
            self.counts.add(Fault::WrongBytes);
            token[self.rng.below(1024) as usize] ^= 1;
        }
    }

    /// A greedy host asks all its peers for pieces, whatever its own swarm wants.
    pub(super) fn be_greedy(&mut self, host: usize, life: u32) {
        let geometry = self.plan.manifest.geometry();
        let Some(run) = self.running(host, life) else { return };
        let peers: Vec<usize> = run.peers.values().copied().collect();
        for link in peers {
            for _ in 0..GREED_AT_ONCE {
                self.counts.add(Fault::GreedyPeer);
                let piece = self.rng.below(geometry.piece_count() + 1);
                let all = geometry.piece(piece).map_or(0..1 << 20, |piece| geometry.chunk_numbers(piece));
                let request = RequestId(GREEDY_REQUESTS + u64::from(self.rng.below(1 << 30)));
                let at = self.links[link].other(host);
                if let Some(arrives) = self.transit(link, host, false) {
                    self.queue.push(arrives, Event::Asked { link, at, request, piece, chunks: vec![all] });
                }
            }
        }
        self.after(GREED_EVERY, Event::Greed { host, life });
    }
}
