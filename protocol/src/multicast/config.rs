//! Knobs of a session: each with its unit, its default and the reason for it.

use crate::time::Duration;

/// What a [`Sender`](super::sender::Sender) is told at construction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SenderConfig {
    /// Bytes per second that the sender's interface carries.
    pub link_bytes_per_s: u64,
    /// Share of the link that a session takes at most, in percent: what is left is for reports, and repair by the swarm.
    pub link_share_percent: u32,
    /// The administrator's limit in bytes per second on the wire; `None` is unlimited.
    pub limit_bytes_per_s: Option<u64>,
    /// Length of a symbol in bytes. See `fec::SYMBOL_LEN`.
    pub symbol_len: usize,
    /// How long hosts may join before the first packet is sent, if there are enough of them: a moment, not a barrier.
    pub gathering: Duration,
    /// How long is waited for enough members before there is no session.
    pub patience: Duration,
    /// Members without which there is no session: for fewer the swarm does as well.
    pub members_least: usize,
    /// Members that may join.
    pub members_most: usize,
    /// A piece is sent only if so many members lack it (or all members, if they are fewer); the rest is left to the swarm.
    pub wanted_by_least: usize,
    /// Blocks that are interleaved: a burst of so many lost packets costs each block one symbol, and so does a lost batch.
    pub interleave: usize,
    /// How often rate, parity and members are reconsidered.
    pub tick: Duration,
    /// The receiver whose loss counts, by rank from the best, in percent. Nor is the rate lowered for links and disks of the rest.
    pub quantile_percent: usize,
    /// Parity symbols of a block before loss was measured.
    pub parity_at_start: u8,
    /// Parity symbols of a block at the most before repair.
    pub parity_most: u8,
    /// Blocks that may fail at a receiver in spite of parity, in millionths. At a per cent of loss 2 parity symbols let 1.4 % fail, 3
    /// let 1.7 ‰: each costs all receivers 2 % of their time, to save a few blocks that repair and the swarm bring for less.
    pub failures_ppm: u32,
    /// Parity is sent as repair if so many members lack a symbol.
    pub repair_by_least: usize,
    /// How long requests for repair are collected: every member has reported once by then.
    pub repair_wait: Duration,
    /// Repair is at most this share of what is sent, in percent.
    pub repair_percent_most: u64,
    /// A member that did not report for so long is left out; if nobody did, the session stops.
    pub silence: Duration,
    /// How long a session without anything to send waits for newcomers and requests for repair.
    pub linger: Duration,
}

impl Default for SenderConfig {
    fn default() -> Self {
        SenderConfig {
            link_bytes_per_s: 125_000_000,
            link_share_percent: 97,
            limit_bytes_per_s: None,
            symbol_len: super::fec::SYMBOL_LEN,
            gathering: Duration::from_millis(100),
            patience: Duration::from_secs(5),
            members_least: 2,
            members_most: 1024,
            wanted_by_least: 3,
            interleave: 16,
            tick: Duration::from_millis(250),
            quantile_percent: 85,
            parity_at_start: 2,
            parity_most: 8,
            failures_ppm: 20_000,
            repair_by_least: 3,
            repair_wait: Duration::from_millis(500),
            repair_percent_most: 10,
            silence: Duration::from_secs(2),
            linger: Duration::from_millis(1500),
        }
    }
}

/// What a [`Receiver`](super::receiver::Receiver) is told at construction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceiverConfig {
    /// Bytes per second that the interface carries; 0 if nobody knows.
    pub link_bytes_per_s: u64,
    /// Most bytes of incomplete blocks.
    pub pool_bytes_most: usize,
    /// Blocks that lack more symbols are left to peers at once: a repair of so many is no repair.
    pub repair_symbols_most: u8,
    /// How long a block that was reported waits for repair.
    pub repair_wait: Duration,
    /// How far, in packets, a block's last one must be past before the block counts as passed: reordering.
    pub reorder_packets: u64,
    /// How often the first reports are made, before the sender told how often.
    pub report_interval: Duration,
    /// Packets are sent and none comes for so long: multicast does not reach this host.
    pub silence: Duration,
    /// Neither packets nor word of the sender for so long, or for three of the intervals at which it speaks: it is gone.
    pub sender_silence: Duration,
    /// The disk is behind with more bytes than this for `backlog_time`.
    pub backlog_most: u64,
    /// See `backlog_most`.
    pub backlog_time: Duration,
    /// Loss that no sender's rule has to find first, in millionths, if it lasts for `lossy_reports`.
    pub loss_most_ppm: u32,
    /// See `loss_most_ppm`.
    pub lossy_reports: u32,
    /// Blocks that may fail their verification before the session is not believed any more.
    pub strikes_most: u32,
    /// How long a host that left stays away.
    pub away: Duration,
    /// How often it comes back.
    pub returns_most: u32,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        ReceiverConfig {
            link_bytes_per_s: 0,
            pool_bytes_most: 64 << 20,
            repair_symbols_most: 8,
            repair_wait: Duration::from_millis(1250),
            reorder_packets: 64,
            report_interval: Duration::from_millis(250),
            silence: Duration::from_secs(1),
            sender_silence: Duration::from_millis(1200),
            backlog_most: 64 << 20,
            backlog_time: Duration::from_secs(2),
            loss_most_ppm: 250_000,
            lossy_reports: 6,
            strikes_most: 3,
            away: Duration::from_secs(30),
            returns_most: 2,
        }
    }
}
