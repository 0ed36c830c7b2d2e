//! Knobs of a swarm: each with its unit, its default and the reason for it.

use core::time::Duration;

/// What a [`Swarm`](super::Swarm) is told at construction.
#[derive(Clone, PartialEq, Debug)]
pub struct SwarmConfig {
    /// Neighbours that are sought: enough that a random graph of 10,000 hosts stays connected (> ln N) with room for
    /// deaths.
    pub neighbours_sought: usize,
    /// Neighbours that are let in, so that newcomers find a place: twice what is sought. Who comes first is dialled by all
    /// others and has most. With 30 sought the last of 32 hosts that come at once finishes at 1.15 of the bound, but of 40
    /// of mixed rates that come within ten seconds at 1.23 instead of 1.21, and the publisher gives 1.42 copies instead of
    /// 1.28 (simulated).
    pub neighbours_most: usize,
    /// Neighbours that are asked for data at the same time. See `upload_slots`.
    pub sources_most: usize,
    /// Peers that are served at the same time: slow is worse than no, but with fewer slots than neighbours who need
    /// something, links stand still. Both numbers count: of 15 hosts with 50 Mbit/s and an image of 64 MiB the last finishes
    /// at 1.15 of the bound with 8 slots and 8 sources, at 1.15 with 12 and 16, at 1.12 with 16 and 16, at 1.6 with 16 and 8
    /// (simulated, QUIC's headers of 1.053 included).
    pub upload_slots: usize,
    /// Requests that are served at the same time, to all peers together: those that wait meanwhile are late for nobody where
    /// each takes much longer than a round trip, and what is whole sooner is passed on sooner.
    pub served_at_once: usize,
    /// Least bytes asked for and not yet arrived, per peer. What is queued at a slow peer is late at the end: of those hosts
    /// the last finishes at 1.12 of the bound with 128 KiB, at 1.15 with 256 KiB.
    pub in_flight_least: u64,
    /// Most bytes asked for and not yet arrived, per peer.
    pub in_flight_most: u64,
    /// How long a peer's bytes in flight take at its rate.
    pub in_flight_time: Duration,
    /// Least bytes in one request, if there is so much to ask: it has to be worth its round trip.
    pub request_len_least: u64,
    /// Most bytes in one request; a larger piece is asked for in parts.
    pub request_len_most: u64,
    /// How long have-deltas are collected before they are sent, if little comes in. A piece that nobody knows of can't
    /// be passed on: 100 ms cost a per cent of the time at 1 Gbit/s, 50 ms half of that.
    pub have_interval: Duration,
    /// A request without a byte for so long is given up: the peer stalls or died.
    pub no_progress: Duration,
    /// After how much more than the mean time of a request it is asked of another peer, too.
    pub steal_factor: u32,
    /// How long a peer that said "busy" without a time is left alone.
    pub busy_backoff: Duration,
    /// How often it is looked whether more can be asked of anybody. Nothing waits for it but what nobody thought of.
    pub look_interval: Duration,
    /// How often neighbours are reconsidered.
    pub refresh_interval: Duration,
    /// Pieces that are picked at random before rarest-first begins.
    pub random_first_pieces: u32,
    /// The rack that this host stands in, if it knows.
    pub rack: Option<String>,
    /// Bytes per second handed out, to all peers together; `None` is unlimited.
    pub upload_limit: Option<u64>,
    /// Bytes per second asked for, of all peers together; `None` is unlimited.
    pub download_limit: Option<u64>,
}

impl SwarmConfig {
    /// No peer's request is shorter, whatever its rate.
    pub(super) fn shortest_request(&self) -> u64 {
        self.request_len_least.min(self.request_len_most)
    }

    /// No peer's window is wider, whatever its rate.
    pub(super) fn widest_window(&self) -> u64 {
        self.in_flight_least.max(self.in_flight_most).max(self.request_len_least)
    }
}

impl Default for SwarmConfig {
    fn default() -> Self {
        SwarmConfig {
            neighbours_sought: 20,
            neighbours_most: 40,
            sources_most: 16,
            upload_slots: 16,
            served_at_once: 64,
            in_flight_least: 128 << 10,
            in_flight_most: 16 << 20,
            in_flight_time: Duration::from_millis(50),
            request_len_least: 128 << 10,
            request_len_most: 1 << 20,
            have_interval: Duration::from_millis(50),
            no_progress: Duration::from_secs(2),
            steal_factor: 3,
            busy_backoff: Duration::from_millis(100),
            look_interval: Duration::from_millis(100),
            refresh_interval: Duration::from_secs(10),
            random_first_pieces: 4,
            rack: None,
            upload_limit: None,
            download_limit: None,
        }
    }
}
