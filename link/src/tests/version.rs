//! Sides without a common version part cleanly, and both know why.

use drover_protocol::message::Hello;

use super::*;
use crate::close;
use crate::frame::write_frame;

fn from_the_future() -> Hello {
    Hello { lowest: 7, highest: 9, agent: "drover/7\n".to_owned() }
}

#[tokio::test]
async fn a_dialler_of_another_version_is_told() {
    let cluster = Cluster::new();
    let anna = cluster.endpoint("anna");
    let (client, _) = hostile::client(&cluster.ca, Some(&cluster.member(Role::Host, "future")));
    let dialled = async {
        let connection = hostile::dial(&client, addr(&anna)).await.expect("TLS works");
        let (mut send, _receive) = connection.open_bi().await.expect("a stream");
        write_frame(&mut send, &from_the_future()).await.expect("a hello");
        connection.closed().await
    };
    let (closed, accepted) = tokio::join!(dialled, accept(&anna));
    let error = accepted.err().expect("no common version");
    assert!(matches!(&error, HandshakeError::Version(_)), "{error}");
    assert!(matches!(&closed, quinn::ConnectionError::ApplicationClosed(why) if why.error_code == close::VERSION));
    let told = close::reason(&closed);
    assert!(told.contains("7 to 9") && told.contains("update the older"), "{told}");
}

#[tokio::test]
async fn a_listener_of_another_version_is_told() {
    let cluster = Cluster::new();
    let identity = cluster.member(Role::Host, "future");
    let server = hostile::server(&identity);
    let listener = async {
        let connection = server.accept().await.expect("open").await.expect("TLS works");
        let (mut send, _receive) = connection.accept_bi().await.expect("a stream");
        write_frame(&mut send, &from_the_future()).await.expect("a hello");
        connection.closed().await
    };
    let anna = cluster.endpoint("anna");
    let to = server.local_addr().expect("bound");
    let (dialled, closed) = tokio::join!(anna.connect(to, Expect::Peer(identity.peer_id())), listener);
    let error = dialled.err().expect("no common version");
    assert!(matches!(&error, ConnectError::Handshake { cause: HandshakeError::Version(_), .. }), "{error}");
    assert!(close::reason(&closed).contains("no common protocol version"));
}
