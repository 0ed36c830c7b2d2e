//! Somebody who knows the protocol and the addresses, with whatever certificate or none.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use drover_link::close;
use drover_protocol::codec;
use drover_protocol::message::Hello;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{RecvStream, SendStream};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;

/// Long enough for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long somebody who does not close the connection may say more.
const AFTERTHOUGHT: Duration = Duration::from_millis(200);

/// Somebody who dials members of a cluster, believes who they are, and says what it likes.
#[derive(Debug)]
pub struct Stranger {
    endpoint: quinn::Endpoint,
    runtime: tokio::runtime::Runtime,
    tls: rustls::ClientConfig,
}

/// On which stream something is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// On the control stream, after the hello.
    Control,
    /// On a stream of its own, beside the control stream.
    Request,
    /// On the first stream, without a hello, as who joins does.
    Join,
}

/// What somebody who was dialled did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// Bytes that came on the control stream: a hello at least, if they talk to us.
    pub heard: Vec<u8>,
    /// Bytes that came in answer.
    pub answer: Vec<u8>,
    /// Why the connection ended, if it did.
    pub closed: Option<String>,
}

impl Stranger {
    /// Believes the cluster whose CA's certificate (PEM) is at `ca`; shows the certificate in the folder `papers`, which is
    /// laid out as a member's identity, if any.
    #[track_caller]
    pub fn new(ca: &Path, papers: Option<&Path>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be started");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).expect("a CA's certificate")).expect("a CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots);
        let tls = match papers {
            None => builder.with_no_client_auth(),
            Some(papers) => {
                let certificate = CertificateDer::from_pem_file(papers.join("certificate.pem")).expect("a certificate");
                let key = PrivateKeyDer::from_pem_file(papers.join("key.pem")).expect("a key");
                builder.with_client_auth_cert(vec![certificate], key).expect("a key for the certificate")
            }
        };
        let endpoint = {
            let _entered = runtime.enter();
            quinn::Endpoint::client(([0, 0, 0, 0], 0).into()).expect("a socket")
        };
        Stranger { endpoint, runtime, tls }
    }

    /// Dials a member and says one frame.
    #[track_caller]
    pub fn say(&self, to: SocketAddr, on: Stream, frame: &[u8]) -> Reaction {
        let mut tls = self.tls.clone();
        tls.alpn_protocols = vec![if on == Stream::Join { b"drover-join/1".to_vec() } else { b"drover/1".to_vec() }];
        let crypto = QuicClientConfig::try_from(tls).expect("TLS 1.3 has a suite for QUIC");
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        self.runtime.block_on(async {
            let dialled = self.endpoint.connect_with(config, to, "drover").expect("an address");
            match timeout(PATIENCE, dialled).await.expect("an answer in time") {
                Ok(connection) => react(&connection, on, frame).await,
                Err(error) => Reaction { heard: Vec::new(), answer: Vec::new(), closed: Some(close::reason(&error)) },
            }
        })
    }
}

async fn react(connection: &quinn::Connection, on: Stream, frame: &[u8]) -> Reaction {
    // A client is done with TLS before the server has seen its certificate: everything can be sent.
    let hello = codec::encode_frame(&Hello::ours("stranger/1")).expect("a hello");
    let (mut heard, mut answer) = (Vec::new(), Vec::new());
    let first = if on == Stream::Join { frame.to_vec() } else { [hello, on_control(on, frame).to_vec()].concat() };
    let talk = async {
        let (mut send, mut receive) = connection.open_bi().await.ok()?;
        send.write_all(&first).await.ok()?;
        match on {
            Stream::Join => listen(&mut receive, &mut answer).await,
            Stream::Control => listen(&mut receive, &mut heard).await,
            Stream::Request => {
                let (mut ask, mut reply): (SendStream, RecvStream) = connection.open_bi().await.ok()?;
                ask.write_all(frame).await.ok()?;
                ask.finish().ok()?;
                tokio::join!(listen(&mut receive, &mut heard), listen(&mut reply, &mut answer));
            }
        }
        Some(())
    };
    // What it was cut off in is as good as ended.
    let _ = timeout(PATIENCE * 2, talk).await;
    let closed = timeout(AFTERTHOUGHT, connection.closed()).await.ok();
    Reaction { heard, answer, closed: closed.map(|error| close::reason(&error)) }
}

fn on_control(on: Stream, frame: &[u8]) -> &[u8] {
    if on == Stream::Control { frame } else { &[] }
}

/// Takes in what comes, until the stream or the connection ends, or nothing has come for a while after something did.
async fn listen(receive: &mut RecvStream, into: &mut Vec<u8>) {
    loop {
        let patience = if into.is_empty() { PATIENCE } else { AFTERTHOUGHT };
        match timeout(patience, receive.read_chunk(1 << 20, true)).await {
            Ok(Ok(Some(chunk))) => into.extend_from_slice(&chunk.bytes),
            _ => return,
        }
    }
}
