//! Data packets: one symbol of one block each, sealed, and understood without any other packet.
//!
//! A packet is a header in the clear, the symbol encrypted, and a tag over both (AES-256-GCM, RFC 5116, through `ring`, which
//! carries the project's TLS, too). The header names session, chunk, symbol and shape of the code, so packets may come in any
//! order, and a host that joins late uses the first one that it hears. A block is a chunk and chunks are numbered
//! within the image, so the header needs no piece: the geometry tells it.
//!
//! The nonce is four bytes of the sender's peer id and the sequence number. A key belongs to one session, a session has one
//! sender, and [`Sealer`] numbers packets itself, so no nonce comes twice. [`Opener`] drops what has another length, session
//! or source, or was there before, at the price of a comparison; what does not authenticate costs one decryption in
//! place. Nothing is allocated for any of them, and nothing of a packet is believed before its tag fits.
//!
//! The key proves that a member of the session made a packet, not which one. A member that forges the sender's source address can spoil
//! blocks; their hashes show it, and the receiver leaves a session in which that happens again and again.

use core::net::IpAddr;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use crate::id::PeerId;

/// Bytes before the symbol.
pub const HEADER_LEN: usize = 26;
/// Bytes after it.
pub const TAG_LEN: usize = 16;
/// Bytes of UDP payload that an Ethernet frame carries over IPv4: 1,500 without the headers of IP and UDP.
pub const UDP_PAYLOAD_MOST: usize = 1472;
/// Bytes that a packet takes on the wire beside its UDP payload: Ethernet's preamble, header, checksum and gap (38), IPv4 (20), UDP (8).
pub const WIRE_OVERHEAD: usize = 66;
/// How far behind the highest sequence number a packet may come: some 50 ms at 1 Gbit/s, beyond any reordering in a LAN.
pub const REPLAY_WINDOW: u64 = 4096;
/// The form of header that this code writes and reads.
const FORMAT: u8 = 1;

/// The name of a session: random, drawn by its sender's driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// The secret of a session: 32 random bytes that its members get over QUIC.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKey([u8; 32]);

/// What a packet says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Which session.
    pub session: SessionId,
    /// Number of the packet within its session, from 1.
    pub sequence: u64,
    /// Number of the chunk that the block is, unchecked.
    pub chunk: u32,
    /// Number of the symbol: below `k` a part of the chunk, from `k` on parity.
    pub symbol: u8,
    /// Source symbols of the block.
    pub k: u8,
    /// Parity symbols that the sender made so far.
    pub h: u8,
    /// How many packets of the session follow until the last one of this pass over the block. So a receiver knows when to
    /// stop waiting for the block, however blocks are interleaved.
    pub rest: u16,
}

/// Makes a session's packets.
pub struct Sealer {
    key: LessSafeKey,
    salt: [u8; 4],
    sealed: u64,
}

/// Reads a session's packets.
pub struct Opener {
    key: LessSafeKey,
    salt: [u8; 4],
    session: SessionId,
    source: IpAddr,
    packet_len: usize,
    window: ReplayWindow,
}

/// Why a datagram is no packet of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It comes from another address than the session's sender has.
    #[error("from {0}, which is not the session's sender")]
    Source(IpAddr),
    /// It is longer or shorter than the session's packets.
    #[error("{len} bytes where packets have {expected}")]
    Len {
        /// Its length.
        len: usize,
        /// That of the session's packets.
        expected: usize,
    },
    /// Another format or another session.
    #[error("of another session or format")]
    Session,
    /// Its sequence number was there before, or is too far behind.
    #[error("packet {0} was there before or comes too late")]
    Replayed(u64),
    /// The tag does not fit: forged or damaged.
    #[error("forged or damaged")]
    Forged,
}

impl SessionKey {
    /// The key of these bytes, which must be random and used for one session only.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        SessionKey(bytes)
    }

    fn to_aead(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.0).expect("the key has the cipher's length"))
    }
}

/// Never the key itself.
impl core::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

impl Header {
    /// The bytes on the wire: numbers lowest byte first.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = FORMAT;
        bytes[1..9].copy_from_slice(&self.session.0.to_le_bytes());
        bytes[9..17].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[17..21].copy_from_slice(&self.chunk.to_le_bytes());
        bytes[21..24].copy_from_slice(&[self.symbol, self.k, self.h]);
        bytes[24..26].copy_from_slice(&self.rest.to_le_bytes());
        bytes
    }

    /// The header of these bytes, if they are of this format.
    pub fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let [format, rest @ ..] = bytes;
        let (session, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (chunk, rest) = rest.split_first_chunk()?;
        let (&[symbol, k, h], rest) = rest.split_first_chunk()?;
        (*format == FORMAT).then_some(Header {
            session: SessionId(u64::from_le_bytes(*session)),
            sequence: u64::from_le_bytes(*sequence),
            chunk: u32::from_le_bytes(*chunk),
            symbol,
            k,
            h,
            rest: u16::from_le_bytes(rest.try_into().ok()?),
        })
    }
}

/// Length of a session's packets as UDP payload, in bytes.
pub const fn packet_len(symbol_len: usize) -> usize {
    HEADER_LEN + symbol_len + TAG_LEN
}

impl Sealer {
    /// For the packets of a session that the host `sender` sends.
    pub fn new(key: &SessionKey, sender: PeerId) -> Self {
        Sealer { key: key.to_aead(), salt: salt_of(sender), sealed: 0 }
    }

    /// Appends the packet of `header` and `symbol` to `batch`.
    ///
    /// Packets are to be sealed in the order of their sequence numbers.
    ///
    /// # Panics
    ///
    /// If a sequence number does not rise: a nonce used twice would give the key away.
    pub fn seal(&mut self, header: &Header, symbol: &[u8], batch: &mut Vec<u8>) {
        assert!(header.sequence > self.sealed, "every packet has a number of its own");
        self.sealed = header.sequence;
        let head = header.to_bytes();
        batch.extend_from_slice(&head);
        let body = batch.len();
        batch.extend_from_slice(symbol);
        let nonce = nonce(self.salt, header.sequence);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(head), &mut batch[body..]);
        batch.extend_from_slice(tag.expect("a symbol is no longer than the cipher takes").as_ref());
    }
}

impl Opener {
    /// For the packets of `session` that the host `sender` sends from `source`, with symbols of `symbol_len` bytes.
    pub fn new(key: &SessionKey, session: SessionId, sender: PeerId, source: IpAddr, symbol_len: usize) -> Self {
        let packet_len = packet_len(symbol_len);
        let window = ReplayWindow::default();
        Opener { key: key.to_aead(), salt: salt_of(sender), session, source, packet_len, window }
    }

    /// Header and symbol of a datagram that came from `source`. It is decrypted where it lies.
    pub fn open<'a>(&mut self, source: IpAddr, datagram: &'a mut [u8]) -> Result<(Header, &'a [u8]), OpenError> {
        if source != self.source {
            return Err(OpenError::Source(source));
        }
        if datagram.len() != self.packet_len {
            return Err(OpenError::Len { len: datagram.len(), expected: self.packet_len });
        }
        let (head, body) = datagram.split_first_chunk_mut::<HEADER_LEN>().expect("a packet is longer than its header");
        let header = Header::from_bytes(head).filter(|header| header.session == self.session);
        let header = header.ok_or(OpenError::Session)?;
        if !self.window.is_new(header.sequence) {
            return Err(OpenError::Replayed(header.sequence));
        }
        let nonce = nonce(self.salt, header.sequence);
        let symbol = self.key.open_in_place(nonce, Aad::from(*head), body).map_err(|_| OpenError::Forged)?;
        self.window.mark(header.sequence);
        Ok((header, symbol))
    }
}

impl core::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sealer").field("sealed", &self.sealed).finish_non_exhaustive()
    }
}

impl core::fmt::Debug for Opener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Opener").field("session", &self.session).field("source", &self.source).finish_non_exhaustive()
    }
}

/// Which of the last sequence numbers came: a ring of bits (RFC 6479 has the idea).
#[derive(Clone, Debug)]
struct ReplayWindow {
    highest: u64,
    seen: [u64; (REPLAY_WINDOW / 64) as usize],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        ReplayWindow { highest: 0, seen: [0; _] }
    }
}

impl ReplayWindow {
    /// Whether a number may still come. Zero is nobody's.
    fn is_new(&self, sequence: u64) -> bool {
        if sequence > self.highest {
            return true;
        }
        let (word, bit) = place(sequence);
        sequence > 0 && self.highest - sequence < REPLAY_WINDOW && self.seen[word] & bit == 0
    }

    fn mark(&mut self, sequence: u64) {
        if sequence > self.highest {
            let passed = (sequence - self.highest).min(REPLAY_WINDOW);
            for between in sequence - passed + 1..sequence {
                let (word, bit) = place(between);
                self.seen[word] &= !bit;
            }
            self.highest = sequence;
        }
        let (word, bit) = place(sequence);
        self.seen[word] |= bit;
    }
}

const fn place(sequence: u64) -> (usize, u64) {
    let at = sequence % REPLAY_WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

fn salt_of(sender: PeerId) -> [u8; 4] {
    let [a, b, c, d, ..] = *sender.as_bytes();
    [a, b, c, d]
}

fn nonce(salt: [u8; 4], sequence: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&salt);
    bytes[4..].copy_from_slice(&sequence.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

const _: () = assert!(MAX_TAG_LEN == TAG_LEN);

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const SYMBOL_LEN: usize = 100;
    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn pair() -> (Sealer, Opener) {
        let (key, sender) = (SessionKey::from_bytes([7; 32]), PeerId::from_bytes([9; 32]));
        (Sealer::new(&key, sender), Opener::new(&key, SessionId(5), sender, SOURCE, SYMBOL_LEN))
    }

    fn header(sequence: u64) -> Header {
        Header { session: SessionId(5), sequence, chunk: 3, symbol: 1, k: 48, h: 2, rest: 10 }
    }

    fn sealed(sealer: &mut Sealer, sequence: u64) -> Vec<u8> {
        let mut packet = Vec::new();
        sealer.seal(&header(sequence), &[sequence as u8; SYMBOL_LEN], &mut packet);
        packet
    }

    #[test]
    fn the_usual_packet_fits_a_frame_over_ipv4_and_over_ipv6() {
        let len = packet_len(crate::multicast::fec::SYMBOL_LEN);
        let over_ipv6 = UDP_PAYLOAD_MOST - 20;
        assert!(len <= over_ipv6, "{len} bytes");
    }

    #[test]
    fn what_has_another_source_length_or_session_is_dropped() {
        let (mut sealer, mut opener) = pair();
        let mut packet = sealed(&mut sealer, 1);
        let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(opener.open(elsewhere, &mut packet.clone()), Err(OpenError::Source(elsewhere)));
        for len in [0, HEADER_LEN, packet.len() - 1] {
            let error = OpenError::Len { len, expected: packet.len() };
            assert_eq!(opener.open(SOURCE, &mut packet.clone()[..len]), Err(error));
        }
        let mut other = packet.clone();
        other[3] ^= 1;
        assert_eq!(opener.open(SOURCE, &mut other), Err(OpenError::Session));
        assert_eq!(opener.open(SOURCE, &mut packet).unwrap().0, header(1));
    }

    #[test]
    fn a_forged_packet_does_not_move_the_window() {
        let (mut sealer, mut opener) = pair();
        let mut forged = sealed(&mut sealer, 1);
        forged[9..17].copy_from_slice(&(1u64 << 60).to_le_bytes());
        assert_eq!(opener.open(SOURCE, &mut forged), Err(OpenError::Forged));
        assert!(opener.open(SOURCE, &mut sealed(&mut sealer, 2)).is_ok());
    }

    #[test]
    #[should_panic(expected = "a number of its own")]
    fn no_nonce_is_used_twice() {
        let (mut sealer, _) = pair();
        sealed(&mut sealer, 2);
        sealed(&mut sealer, 2);
    }

    #[test]
    fn a_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", SessionKey::from_bytes([7; 32])), "SessionKey(..)");
    }

    proptest! {
        #[test]
        fn any_header_and_symbol_come_back(
            sequence in 1u64.., chunk: u32, symbol: u8, k: u8, h: u8, rest: u16, bytes: [u8; SYMBOL_LEN],
        ) {
            let (mut sealer, mut opener) = pair();
            let header = Header { session: SessionId(5), sequence, chunk, symbol, k, h, rest };
            let mut packet = Vec::new();
            sealer.seal(&header, &bytes, &mut packet);
            prop_assert_eq!(packet.len(), packet_len(SYMBOL_LEN));
            prop_assert_eq!(opener.open(SOURCE, &mut packet), Ok((header, &bytes[..])));
        }

        #[test]
        fn a_packet_with_any_bit_flipped_is_dropped(bit in 0..packet_len(SYMBOL_LEN) * 8) {
            let (mut sealer, mut opener) = pair();
            let mut packet = sealed(&mut sealer, 70);
            packet[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(opener.open(SOURCE, &mut packet).is_err());
        }

        #[test]
        fn every_number_is_taken_once_in_any_order(steps in prop::collection::vec(1u64..6000, 1..60), seed: u64) {
            let (mut sealer, mut opener) = pair();
            let mut at = 0;
            let mut packets: Vec<(u64, Vec<u8>)> = Vec::new();
            for step in steps {
                at += step;
                packets.push((at, sealed(&mut sealer, at)));
            }
            crate::rng::Rng::seeded(seed).shuffle(&mut packets);
            let mut highest = 0;
            for (sequence, packet) in &packets {
                let is_late = highest >= sequence + REPLAY_WINDOW;
                highest = highest.max(*sequence);
                prop_assert_eq!(opener.open(SOURCE, &mut packet.clone()).is_ok(), !is_late);
                let mut again = packet.clone();
                prop_assert_eq!(opener.open(SOURCE, &mut again), Err(OpenError::Replayed(*sequence)));
            }
        }
    }
}
