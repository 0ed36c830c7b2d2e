//! Many members at once, each with a certificate of its own and one connection, that misuse what every connection may do.
//!
//! Each does one of four things for ever: it says that a message comes that is longer than any may be; it begins a message and
//! never ends it, a byte at a time; it opens every stream that it may and sends one byte on each; it asks for pieces on
//! every stream and takes nothing in. Who is dropped comes again after a while.
//!
//! A stream with gaps, whose parts the other side has to keep, can't be sent by the QUIC stack that both sides have; what
//! bounds it is the stream's window, which those that are never read fill as well.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_harness::{Claim, first_release};
use drover_link::config::LinkConfig;
use drover_link::endpoint::{Connection, Endpoint, Expect};
use drover_link::frame::write_frame;
use drover_link::identity::Identity;
use drover_protocol::codec::Message;
use drover_protocol::message::{DataRequest, PageRange, PeerMessage};
use quinn::SendStream;
use serde_json::json;
use tokio::time::sleep;

/// What one of them does.
#[derive(Clone, Copy, Debug)]
enum Misuse {
    TooLong,
    Endless,
    Idle,
    Deaf,
}

const ALL: [Misuse; 4] = [Misuse::TooLong, Misuse::Endless, Misuse::Idle, Misuse::Deaf];

/// How often each kind was connected, and how often it was dropped.
#[derive(Debug, Default)]
struct Count {
    connected: AtomicU64,
    dropped: AtomicU64,
}

/// Runs until it is ended; says every second on standard output what became of its connections.
pub(super) fn run(states: &[PathBuf], tracker: SocketAddr, target: SocketAddr) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let counts: Arc<[Count; 4]> = Arc::default();
        let mut claim = None;
        for (number, state) in states.iter().enumerate() {
            let identity = Identity::load(&state.join("identity"))?;
            let endpoint = Endpoint::bind((Ipv4Addr::UNSPECIFIED, 0).into(), &identity, LinkConfig::default())?;
            let claim = match claim {
                Some(claim) => claim,
                None => *claim.insert(released(&endpoint, tracker).await?),
            };
            let kind = number % ALL.len();
            tokio::spawn(besiege(endpoint, target, claim, kind, Arc::clone(&counts)));
        }
        loop {
            sleep(Duration::from_secs(1)).await;
            let told: Vec<_> = ALL
                .iter()
                .zip(counts.iter())
                .map(|(misuse, count)| {
                    let (connected, dropped) =
                        (count.connected.load(Ordering::Relaxed), count.dropped.load(Ordering::Relaxed));
                    json!({ "kind": format!("{misuse:?}"), "connected": connected, "dropped": dropped })
                })
                .collect();
            println!("{}", json!(told));
        }
    })
}

async fn released(endpoint: &Endpoint, tracker: SocketAddr) -> Result<Claim, Box<dyn Error>> {
    let connection = endpoint.connect(tracker, Expect::Tracker).await?;
    let release = first_release(&connection.link().quic).await;
    release.ok_or_else(|| "the tracker told of no release".into())
}

async fn besiege(endpoint: Endpoint, target: SocketAddr, claim: Claim, kind: usize, counts: Arc<[Count; 4]>) {
    loop {
        if let Ok(connection) = endpoint.connect(target, Expect::Host).await {
            counts[kind].connected.fetch_add(1, Ordering::Relaxed);
            let quic = connection.link().quic.clone();
            let misuse = tokio::spawn(misuse(connection, claim, ALL[kind]));
            quic.closed().await;
            misuse.abort();
            counts[kind].dropped.fetch_add(1, Ordering::Relaxed);
        }
        sleep(AGAIN).await;
    }
}

async fn misuse(connection: Connection, claim: Claim, misuse: Misuse) {
    let (link, control, _from) = connection.split();
    let mut control = control.into_inner();
    match misuse {
        Misuse::TooLong => {
            let _ = control.write_all(&u32::MAX.to_le_bytes()).await;
            std::future::pending::<()>().await;
        }
        Misuse::Endless => {
            let _ = control.write_all(&(PeerMessage::MAX_LEN as u32).to_le_bytes()).await;
            while control.write_all(&[0]).await.is_ok() {
                sleep(TRICKLE).await;
            }
        }
        Misuse::Idle => {
            let mut streams = Vec::new();
            while let Ok((mut send, receive)) = link.quic.open_bi().await {
                let _ = send.write_all(&[0]).await;
                streams.push((send, receive));
            }
        }
        Misuse::Deaf => {
            let mut streams = Vec::new();
            let pages = PageRange { first: 0, count: PAGES };
            let asked = DataRequest::Pages { image: claim.image, piece: 0, ranges: vec![pages] };
            while let Ok((mut send, receive)) = link.quic.open_bi().await {
                ask(&mut send, &asked).await;
                streams.push((send, receive));
            }
        }
    }
}

async fn ask(send: &mut SendStream, asked: &DataRequest) {
    let _ = write_frame(send, asked).await;
    let _ = send.finish();
}

/// Pages of the smallest piece.
const PAGES: u32 = 32;
const AGAIN: Duration = Duration::from_millis(200);
const TRICKLE: Duration = Duration::from_millis(100);
