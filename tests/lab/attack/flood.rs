//! Handshakes from addresses that are made up, by somebody without a certificate.
//!
//! Real first datagrams of a QUIC client, some thousands of different ones, sent again and again by a raw socket, each time
//! from another address of a network that nobody is in. So many a second, and no more.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Where the flood says that it comes from: 198.18.0.0/15 is for such tests (RFC 2544).
pub(crate) const MADE_UP: &str = "198.18.0.0/15";

/// Floods until it is ended.
pub(super) fn run(target: SocketAddrV4, datagrams_per_s: u32) -> Result<(), Box<dyn Error>> {
    let first = first_datagrams(DIFFERENT)?;
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
    let to = SockAddr::from(SocketAddrV4::new(*target.ip(), 0));
    let (begun, mut sent) = (Instant::now(), 0u64);
    for datagram in first.iter().cycle() {
        let source = Ipv4Addr::from(0xc612_0000 | (sent as u32 & 0x1_ffff));
        let packet = packet(SocketAddrV4::new(source, 1024 + (sent % 60_000) as u16), target, datagram);
        match raw.send_to(&packet, &to) {
            Ok(_) => sent += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(ENOBUFS) => {}
            Err(error) => return Err(error.into()),
        }
        let due = Duration::from_secs_f64(sent as f64 / f64::from(datagrams_per_s));
        if let Some(early) = due.checked_sub(begun.elapsed()).filter(|early| *early > BATCH) {
            std::thread::sleep(early);
        }
    }
    Ok(())
}

/// The first datagrams of this many handshakes.
fn first_datagrams(count: usize) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    sink.set_read_timeout(Some(Duration::from_secs(20)))?;
    let to: SocketAddr = sink.local_addr()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"drover/1".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let mut buffer = [0; 2048];
    let (mut dialled, mut datagrams) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        // Kept, for one that is given up says so in a datagram like these.
        dialled.push(endpoint.connect_with(config.clone(), to, "drover")?);
        let len = sink.recv(&mut buffer)?;
        datagrams.push(buffer[..len].to_vec());
    }
    Ok(datagrams)
}

/// A UDP datagram over IPv4, without a checksum of its own; the kernel fills in that of the IP header.
fn packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(28 + payload.len());
    packet.extend([0x45, 0]);
    packet.extend((28 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend((8 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// More than an endpoint has handshakes under way, so that one that comes again is new again.
const DIFFERENT: usize = 4096;
/// How much too early a datagram may go: sleeping is not worth it below.
const BATCH: Duration = Duration::from_millis(2);
const IPPROTO_RAW: i32 = 255;
const ENOBUFS: i32 = 105;
