//! What hosts came to hold, as their neighbours hear of it: a log for each host instead of a message for each neighbour.
//!
//! Every piece is told to every neighbour, which makes these messages by far the most numerous of all. So a host writes a
//! piece to its log once; a latency later it can be heard, and a neighbour hears all that is new to it just before anything
//! else happens to it. A swarm that could make use of news at once is told at once; to any other it makes no difference
//! (`Swarm::wants_news`). So each swarm decides as if every message had come in its time.

use drover_protocol::geometry::PieceIndex;

/// The logs of all hosts.
#[derive(Debug)]
pub(crate) struct News {
    logs: Vec<Vec<PieceIndex>>,
    /// How much of each log can be heard.
    heard: Vec<u32>,
}

impl News {
    /// Empty logs for so many hosts.
    pub(crate) fn new(hosts: usize) -> Self {
        News { logs: vec![Vec::new(); hosts], heard: vec![0; hosts] }
    }

    /// A host says that it holds these pieces. Gives the length of its log from now on.
    pub(crate) fn say(&mut self, host: usize, pieces: &[PieceIndex]) -> u32 {
        self.logs[host].extend_from_slice(pieces);
        self.logs[host].len() as u32
    }

    /// A host's log can be heard up to this length.
    pub(crate) fn arrive(&mut self, host: usize, len: u32) {
        self.heard[host] = self.heard[host].max(len);
    }

    /// How much of a host's log can be heard.
    pub(crate) fn heard(&self, host: usize) -> u32 {
        self.heard[host]
    }

    /// What can be heard of a host after the first `from` pieces.
    pub(crate) fn since(&self, host: usize, from: u32) -> &[PieceIndex] {
        &self.logs[host][from as usize..self.heard[host] as usize]
    }
}
