//! A host that takes part in a session: the real receiver, and what its link loses.

use core::ops::Range;

use drover_protocol::geometry::ChunkIndex;
use drover_protocol::have::runs_of;
use drover_protocol::multicast::message::MulticastMessage;
use drover_protocol::multicast::receiver::{Output, Receiver};
use drover_protocol::rng::Rng;
use drover_protocol::time::Instant;

use super::losses::Losses;
use super::pass::Pass;

/// A host that takes part.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) receiver: Receiver,
    /// Who sends.
    pub(super) sender: usize,
    /// Whether the group's packets come here.
    pub(super) is_in_group: bool,
    /// Whether the swarm knows that multicast brings what is lacking.
    pub(super) is_carried: bool,
    /// For when its timer is set.
    pub(super) armed: Option<Instant>,
    losses: Losses,
    /// Bytes per second that its wire brings.
    wire: u64,
}

/// What a receiver says, put together.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) messages: Vec<MulticastMessage>,
    /// Whether it joined or left the group.
    pub(super) is_moved: bool,
    /// Chunks that are whole.
    pub(super) whole: Vec<Range<u32>>,
    /// Whether multicast brings what is lacking, if that is another now.
    pub(super) carries: Option<bool>,
    /// Chunks that it won't bring.
    pub(super) missed: Vec<ChunkIndex>,
}

impl Member {
    pub(super) fn new(receiver: Receiver, sender: usize, losses: Losses, wire: u64) -> Self {
        Member { receiver, sender, is_in_group: false, is_carried: false, armed: None, losses, wire }
    }

    /// A pass has come, but for what got lost at these places on the way to this host's link.
    pub(super) fn hear(&mut self, now: Instant, pass: &Pass, before: &[u32], rng: &mut Rng) {
        let mut lost = Vec::new();
        self.losses.draw(rng, pass.len(), &mut lost);
        drop_surplus(pass, self.wire, rng, &mut lost);
        for block in pass.without(before.iter().chain(&lost)) {
            self.receiver.handle_symbols(now, &block.last, block.symbols, pass.first_sequence());
        }
    }

    /// All that the receiver has to say.
    pub(super) fn listen(&mut self) -> Words {
        let (mut words, mut whole) = (Words::default(), Vec::new());
        while let Some(output) = self.receiver.poll_output() {
            match output {
                Output::JoinGroup => (self.is_in_group, words.is_moved) = (true, true),
                Output::LeaveGroup { .. } => (self.is_in_group, words.is_moved) = (false, true),
                Output::Send(message) => words.messages.push(message),
                Output::Decode { chunk } => whole.push(chunk.number()),
                Output::Carries(carries) => words.carries = Some(carries),
                Output::LeaveToPeers { chunk } => words.missed.push(chunk),
                // There are no bytes here to forget.
                Output::Forget { .. } => {}
            }
        }
        words.carries = words.carries.filter(|&carries| core::mem::replace(&mut self.is_carried, carries) != carries);
        whole.sort_unstable();
        words.whole = runs_of(whole.into_iter()).collect();
        words
    }
}

/// What is sent faster than a link carries gets lost, anywhere.
pub(super) fn drop_surplus(pass: &Pass, link: u64, rng: &mut Rng, lost: &mut Vec<u32>) {
    if pass.rate > link {
        let share = 1.0 - link as f64 / pass.rate as f64;
        lost.extend((0..pass.len()).filter(|_| rng.chance(share)));
    }
}
