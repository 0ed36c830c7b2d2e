//! Others that know QUIC but not manners.

use drover_protocol::codec::Message;
use drover_protocol::message::PeerMessage;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::*;
use crate::config::{MAX_HANDSHAKES, RETRY_ABOVE};
use crate::endpoint::open;
use crate::frame::{FrameError, read_frame};
use crate::tls::{self, ALPN_MEMBER, Admission};

/// A bare client that believes `ca` and shows the certificate of `identity`, if any.
pub(super) fn client(ca: &CertificateAuthority, identity: Option<&Identity>) -> (quinn::Endpoint, quinn::ClientConfig) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.certificate().to_vec())).expect("a CA");
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let mut tls = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(vec![identity.certificate().clone()], identity.private_key())
            .expect("a certificate"),
    };
    tls.alpn_protocols = vec![ALPN_MEMBER.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("a suite")));
    let mut endpoint = open(loopback(), &config_bare(), None).expect("a socket");
    endpoint.set_default_client_config(config.clone());
    (endpoint, config)
}

/// A bare server with the certificate of `identity`.
pub(super) fn server(identity: &Identity) -> quinn::Endpoint {
    let tls = tls::server_config(identity, Admission::Members).expect("a configuration");
    let server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("a suite")));
    open(loopback(), &config_bare(), Some(server)).expect("a socket")
}

pub(super) async fn dial(
    client: &quinn::Endpoint,
    to: SocketAddr,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    client.connect(to, "drover").expect("a dial").await
}

fn config_bare() -> LinkConfig {
    config()
}

#[tokio::test]
async fn garbage_instead_of_a_hello_ends_the_connection() {
    let cluster = Cluster::new();
    let anna = cluster.endpoint("anna");
    let (client, _) = client(&cluster.ca, Some(&cluster.member(Role::Host, "rude")));
    for bytes in [&[0xff; 64][..], &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], &[0, 0, 0, 0], &[9]] {
        let dialled = async {
            let connection = dial(&client, addr(&anna)).await.expect("TLS works");
            let (mut send, _receive) = connection.open_bi().await.expect("a stream");
            send.write_all(bytes).await.expect("sent");
            send.finish().expect("an open stream");
            connection.closed().await
        };
        let (closed, accepted) = tokio::join!(dialled, accept(&anna));
        assert!(matches!(accepted, Err(HandshakeError::Hello(_))));
        assert!(crate::close::reason(&closed).contains("hello is unreadable"), "{closed}");
    }
}

#[tokio::test]
async fn silence_after_tls_ends_by_the_deadline() {
    let cluster = Cluster::new();
    let short = LinkConfig { handshake_timeout: Duration::from_millis(300), ..config() };
    let anna = Endpoint::bind(loopback(), &cluster.member(Role::Host, "anna"), short).expect("an endpoint");
    let (client, _) = client(&cluster.ca, Some(&cluster.member(Role::Host, "mute")));
    let (connection, accepted) = tokio::join!(dial(&client, addr(&anna)), accept(&anna));
    // Whether TLS or the greeting ran into it depends on how busy this machine is.
    assert!(matches!(accepted, Err(HandshakeError::TimedOut(_))));
    drop(connection);
    assert_eq!(anna.members(), 0);
}

#[tokio::test]
async fn streams_and_bytes_of_a_member_are_bounded() {
    let cluster = Cluster::new();
    let tight = LinkConfig { bidi_streams: 4, stream_window: 4096, connection_window: 8192, ..config() };
    let identity = cluster.member(Role::Host, "anna");
    let anna = Endpoint::bind(loopback(), &identity, tight).expect("an endpoint");
    let greedy = cluster.endpoint("greedy");
    let (dialled, accepted) = meet(&greedy, &anna, Expect::Peer(identity.peer_id())).await;
    let (dialled, _accepted) = (dialled.expect("a member"), accepted.expect("a member"));
    let quic = &dialled.link().quic;
    // The control stream is one of the four.
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(quic.open_bi().await.expect("an allowed stream"));
    }
    let a_moment = Duration::from_millis(100);
    assert!(tokio::time::timeout(a_moment, quic.open_bi()).await.is_err(), "no fifth stream");
    assert!(tokio::time::timeout(a_moment, quic.open_uni()).await.is_err(), "no one-way stream at all");
    assert!(quic.max_datagram_size().is_none(), "no datagrams");
    let mut sent = 0;
    for (send, _) in &mut streams {
        while let Ok(written) = tokio::time::timeout(a_moment, send.write(&[0; 1024])).await {
            sent += written.expect("an open stream");
            if sent > 10 * 1024 * 1024 {
                break;
            }
        }
    }
    let kept_here = LinkConfig::default().send_window as usize;
    assert!(sent <= kept_here + 8192, "{sent} bytes were taken from a sender that nobody reads");
}

/// Two members that are connected, as each of them sees it.
async fn two_members() -> ([Endpoint; 2], Connection, Connection) {
    let cluster = Cluster::new();
    let (anna, bert) = (cluster.member(Role::Host, "anna"), cluster.endpoint("bert"));
    let peer = anna.peer_id();
    let anna = bind(&anna);
    let (dialled, accepted) = meet(&bert, &anna, Expect::Peer(peer)).await;
    ([bert, anna], dialled.expect("a member"), accepted.expect("a member"))
}

#[tokio::test]
async fn a_frame_that_claims_too_much_is_refused_before_room_is_made() {
    let (_endpoints, dialled, accepted) = two_members().await;
    let (mut send, _r) = dialled.link().quic.open_bi().await.expect("a stream");
    let claimed = PeerMessage::MAX_LEN as u32 + 1;
    send.write_all(&claimed.to_le_bytes()).await.expect("sent");
    let (_s, mut receive) = accepted.link().quic.accept_bi().await.expect("a stream");
    let error = read_frame::<PeerMessage>(&mut receive).await.expect_err("too long");
    assert!(matches!(&error, FrameError::Decode(_)), "{error}");
}

#[tokio::test]
async fn a_frame_that_comes_byte_by_byte_survives_being_interrupted() {
    let (_endpoints, dialled, accepted) = two_members().await;
    let (_link, send, _receive) = dialled.split();
    let (_other, _other_send, mut receive) = accepted.split();
    let message = PeerMessage::Peers { image: drover_protocol::id::ImageId::from_bytes([1; 32]), peers: Vec::new() };
    let bytes = drover_protocol::codec::encode_frame(&message).expect("a small message");
    let mut stream = send.into_inner();
    let (last, first) = bytes.split_last().expect("a frame has bytes");
    for byte in first {
        stream.write_all(&[*byte]).await.expect("sent");
        let waiting = tokio::time::timeout(Duration::from_millis(1), receive.next()).await;
        assert!(waiting.is_err(), "the frame is not whole yet");
    }
    stream.write_all(&[*last]).await.expect("sent");
    assert_eq!(receive.next().await.expect("a frame"), Some(message));
}

#[tokio::test]
async fn a_frame_that_begins_and_does_not_end_is_given_up_however_often_a_byte_comes() {
    let (_endpoints, dialled, accepted) = two_members().await;
    let (_link, send, _receive) = dialled.split();
    let (_other, _other_send, mut receive) = accepted.split();
    let mut stream = send.into_inner();
    stream.write_all(&(PeerMessage::MAX_LEN as u32).to_le_bytes()).await.expect("sent");
    let trickle = async {
        while stream.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let error = tokio::select! {
        received = receive.next() => received.expect_err("it never ends"),
        () = trickle => panic!("the stream was closed"),
    };
    assert!(matches!(&error, FrameError::Slow(_)), "{error}");
}

#[tokio::test]
async fn many_handshakes_make_strangers_prove_their_address_and_then_wait_outside() {
    let cluster = Cluster::new();
    let anna = cluster.endpoint("anna");
    let (client, _) = client(&cluster.ca, None);
    let (mut dials, mut waiting) = (Vec::new(), Vec::new());
    for count in 0..MAX_HANDSHAKES {
        dials.push(client.connect(addr(&anna), "drover").expect("a dial"));
        let incoming = anna.accept().await.expect("an open endpoint");
        assert_eq!(incoming.address_is_proven(), count >= RETRY_ABOVE, "stranger {count}");
        waiting.push(incoming);
    }
    let one_more = dial(&client, addr(&anna));
    let refused = tokio::select! {
        refused = one_more => refused.expect_err("too many"),
        _ = anna.accept() => panic!("one more than allowed"),
    };
    assert!(crate::close::reason(&refused).contains("no more connections"), "{refused}");
    waiting.pop();
    tokio::select! {
        _ = dial(&client, addr(&anna)) => panic!("nobody has answered yet"),
        accepted = anna.accept() => assert!(accepted.is_some(), "a place that is free again is given away"),
    }
}
