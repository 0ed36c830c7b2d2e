//! Knobs of an endpoint, each with its unit and the reason for its default.

use std::sync::Arc;
use std::time::Duration;

use drover_protocol::message::PROTOCOL_VERSIONS;
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

const KIB: u64 = 1024;
/// Most handshakes with strangers at a time; further ones are refused before anything is computed for them.
pub const MAX_HANDSHAKES: usize = 256;
/// From so many handshakes on, a stranger must first show that its address is its own (QUIC Retry).
pub const RETRY_ABOVE: usize = 64;
/// What strangers' first packets may take while they wait to be looked at, in bytes: each, and all together.
pub(crate) const INCOMING_BUFFER: (u64, u64) = (16 * KIB, 2048 * KIB);
/// What a connection takes beside its windows, in bytes: keys, timers, packets in flight (estimated).
const CONNECTION_OVERHEAD: u64 = 64 * KIB;
/// The priority of streams that carry a few bytes that somebody waits for: they are sent before payload, which has at
/// most 0.
pub const PROMPT: i32 = 1;
/// quinn's buffer for one receive call: 32 messages of 64 coalesced datagrams.
const RECEIVE_BATCH: u64 = 32 * 64;

/// How the rate of sending follows what the path can take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Congestion {
    /// What TCP uses; fair beside it.
    #[default]
    Cubic,
    /// Simple, for comparison.
    NewReno,
    /// quinn's, which it calls experimental.
    Bbr,
}

/// How an endpoint behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkConfig {
    /// Name and version of the program, told to the other side for its logs.
    pub agent: String,
    /// The versions of the protocol that are offered, lowest and highest: all that this code speaks, or fewer, to see how
    /// others get on with an older side.
    pub versions: (u16, u16),
    /// Most connections with members, in both directions together, besides those with trackers that are dialled; those from one address are a quarter at the most. A swarm
    /// has up to 30 neighbours, twice that while they change.
    pub max_connections: usize,
    /// Streams that the other side may have open at a time on one connection.
    pub bidi_streams: u32,
    /// Bytes that may be under way to us on one stream. One chunk is 64 KiB; a megabyte hides the pauses of a disk.
    pub stream_window: u32,
    /// Bytes that may be under way to us on one connection: 10 Gbit/s for 1.6 ms, eight times a LAN's round trip. Times
    /// `max_connections`, this is what bounds our memory.
    pub connection_window: u32,
    /// Bytes that we keep for one connection until it has acknowledged them.
    pub send_window: u32,
    /// After how much silence a connection is kept alive. QUIC repeats a keep-alive that gets lost within milliseconds, so
    /// one is enough; an idle host with many neighbours does next to nothing else.
    pub keep_alive: Duration,
    /// After how much silence a connection is dead.
    pub idle_timeout: Duration,
    /// How long a dialled address may take for its TLS handshake.
    pub connect_timeout: Duration,
    /// How long all of a handshake may take, in either direction.
    pub handshake_timeout: Duration,
    /// Bytes that may be sent before the first acknowledgement. On a LAN the path takes them; the usual 14 KiB cost
    /// several round trips on each new connection.
    pub initial_window: u32,
    /// How the rate follows the path.
    pub congestion: Congestion,
    /// Largest datagram that is tried for, in bytes of UDP payload. 1,452 fits Ethernet with IPv6. More is not better by
    /// itself: over loopback a GiB took 2.1 CPU seconds (both ends) with 1,452 and 2.6 with 8,952, because bursts of
    /// large datagrams overflow the receive buffer, and QUIC takes that for a path that has shrunk.
    pub mtu_upper_bound: u16,
    /// What is asked of the system for the socket's buffers, in bytes each way; it may give less.
    pub socket_buffer: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        LinkConfig {
            agent: concat!("drover/", env!("CARGO_PKG_VERSION")).to_owned(),
            versions: PROTOCOL_VERSIONS,
            max_connections: 64,
            bidi_streams: 64,
            stream_window: 1024 * 1024,
            connection_window: 2 * 1024 * 1024,
            send_window: 1024 * 1024,
            keep_alive: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(5),
            initial_window: 256 * 1024,
            congestion: Congestion::default(),
            mtu_upper_bound: 1452,
            socket_buffer: 4 * 1024 * 1024,
        }
    }
}

impl LinkConfig {
    /// For a tracker: many connections that say little.
    pub fn tracker() -> Self {
        LinkConfig {
            agent: concat!("drover-tracker/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_connections: 2048,
            bidi_streams: 8,
            stream_window: 64 * 1024,
            connection_window: 128 * 1024,
            send_window: 64 * 1024,
            ..LinkConfig::default()
        }
    }

    /// The most memory that others can make an endpoint with these settings take, in bytes.
    ///
    /// Received bytes count two and a half times: QUIC keeps the packets that they came in, and joins them only when
    /// more than that is wasted.
    pub fn worst_case_memory(&self) -> u64 {
        let received = u64::from(self.connection_window) * 5 / 2;
        let connection = received + u64::from(self.send_window) + CONNECTION_OVERHEAD;
        let handshakes = MAX_HANDSHAKES as u64 * CONNECTION_OVERHEAD + INCOMING_BUFFER.1;
        let socket = 2 * self.socket_buffer as u64 + RECEIVE_BATCH * u64::from(self.max_udp_payload());
        self.max_connections as u64 * connection + handshakes + socket
    }

    pub(crate) fn transport(&self) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        let idle_timeout = IdleTimeout::try_from(self.idle_timeout).unwrap_or(IdleTimeout::from(VarInt::MAX));
        let mut mtu_discovery = MtuDiscoveryConfig::default();
        mtu_discovery.upper_bound(self.mtu_upper_bound);
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(self.bidi_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.connection_window))
            .send_window(u64::from(self.send_window))
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(idle_timeout))
            .initial_rtt(INITIAL_RTT)
            .mtu_discovery_config(Some(mtu_discovery))
            .congestion_controller_factory(self.controller());
        Arc::new(transport)
    }

    pub(crate) fn max_udp_payload(&self) -> u16 {
        self.mtu_upper_bound.max(1472)
    }

    fn controller(&self) -> Arc<dyn ControllerFactory + Send + Sync> {
        let initial_window = u64::from(self.initial_window);
        match self.congestion {
            Congestion::Cubic => {
                let mut config = CubicConfig::default();
                config.initial_window(initial_window);
                Arc::new(config)
            }
            Congestion::NewReno => {
                let mut config = NewRenoConfig::default();
                config.initial_window(initial_window);
                Arc::new(config)
            }
            Congestion::Bbr => {
                let mut config = BbrConfig::default();
                config.initial_window(initial_window);
                Arc::new(config)
            }
        }
    }
}

/// A guess until the first measurement. quinn's 333 ms would let a lost first packet wait for a second of the two that a
/// dial may take.
const INITIAL_RTT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_bound_memory() {
        assert!(LinkConfig::default().worst_case_memory() < 512 * 1024 * 1024);
        assert!(LinkConfig::tracker().worst_case_memory() < 1024 * 1024 * 1024);
    }
}
