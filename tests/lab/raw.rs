//! Bare QUIC, the yardstick for `lab pair`: what moving a file costs with no protocol of ours around it.
//!
//! The same TLS, certificates and transport settings as Drover's, because it is the same `drover_link::Endpoint`; streams
//! of the same size, so many at a time and in order; BLAKE3 of every 64 KiB; each chunk written at its place. It decides
//! nothing, compares no hash, keeps no journal, and does all of it on the one thread of its runtime, which moves the least
//! data between processors: nothing here may wait for a disk that stalls. Tried and not faster: see the lab's notes.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use drover_link::config::LinkConfig;
use drover_link::endpoint::{Endpoint, Expect, Link};
use drover_link::identity::Identity;
use drover_protocol::id::PeerId;
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::measure::process_cpu_s;

/// One end.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Arguments {
    /// Serve a file until it is ended
    Serve {
        /// A member's identity folder
        identity: PathBuf,
        /// Where to listen
        listen: SocketAddr,
        /// What to serve
        file: PathBuf,
    },
    /// Fetch a file of known length, and print what that took
    Fetch {
        /// A member's identity folder
        identity: PathBuf,
        /// Who serves
        server: SocketAddr,
        /// The identity folder of who serves
        server_identity: PathBuf,
        /// Where to write it
        file: PathBuf,
        /// How long it is, in bytes
        len: u64,
    },
}

/// What fetching took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Took {
    /// Seconds from before the dial until the last byte was written.
    pub(crate) written_s: f64,
    /// Seconds until it was on the disk, too.
    pub(crate) synced_s: f64,
    /// CPU seconds of the receiver.
    pub(crate) cpu_s: f64,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs one end.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments {
        Arguments::Serve { identity, listen, file } => runtime.block_on(serve(&identity, listen, &file)),
        Arguments::Fetch { identity, server, server_identity, file, len } => {
            let peer = Identity::load(&server_identity)?.peer_id();
            let took = runtime.block_on(fetch(&identity, (server, peer), &file, len))?;
            #[expect(clippy::print_stdout, reason = "this is its result")]
            {
                println!("{}", serde_json::to_string(&took)?);
            }
            Ok(())
        }
    }
}

async fn serve(identity: &Path, listen: SocketAddr, file: &Path) -> Result<(), Failure> {
    let endpoint = Endpoint::bind(listen, &Identity::load(identity)?, LinkConfig::default())?;
    let file = Arc::new(File::open(file)?);
    #[expect(clippy::print_stdout, reason = "who waits for it reads this")]
    {
        println!("{SERVING}");
    }
    while let Some(incoming) = endpoint.accept().await {
        let (link, _sender, _receiver) = incoming.handshake().await?.split();
        serve_link(&link, &file).await;
    }
    Ok(())
}

/// Serves every stream, until the other side closes the connection.
async fn serve_link(link: &Link, file: &Arc<File>) {
    let mut order = 0;
    let mut serving = JoinSet::new();
    while let Ok((send, receive)) = link.quic.accept_bi().await {
        order -= 1;
        serving.spawn(send_range(send, receive, Arc::clone(file), order));
        while serving.try_join_next().is_some() {}
    }
}

async fn send_range(
    mut send: SendStream,
    mut receive: RecvStream,
    file: Arc<File>,
    priority: i32,
) -> Result<(), Failure> {
    send.set_priority(priority)?;
    let (mut at, mut len) = ([0; 8], [0; 8]);
    receive.read_exact(&mut at).await?;
    receive.read_exact(&mut len).await?;
    let (mut at, mut left) = (u64::from_le_bytes(at), u64::from_le_bytes(len));
    while left > 0 {
        let mut part = vec![0; left.min(READ_LEN) as usize];
        file.read_exact_at(&mut part, at)?;
        (at, left) = (at + part.len() as u64, left - part.len() as u64);
        send.write_chunk(Bytes::from(part)).await?;
    }
    send.finish()?;
    Ok(())
}

async fn fetch(identity: &Path, server: (SocketAddr, PeerId), file: &Path, len: u64) -> Result<Took, Failure> {
    let begun = Instant::now();
    let listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let endpoint = Endpoint::bind(listen, &Identity::load(identity)?, LinkConfig::default())?;
    let (link, _sender, _receiver) = endpoint.connect(server.0, Expect::Peer(server.1)).await?.split();
    let file = Arc::new(File::options().create_new(true).write(true).open(file)?);
    rustix::fs::fallocate(&*file, rustix::fs::FallocateFlags::empty(), 0, len).map_err(io::Error::from)?;

    let next = Arc::new(AtomicU64::new(0));
    let mut fetching = JoinSet::new();
    for _ in 0..STREAMS {
        fetching.spawn(fetch_ranges(link.clone(), Arc::clone(&file), Arc::clone(&next), len));
    }
    while let Some(done) = fetching.join_next().await {
        done??;
    }
    let written_s = begun.elapsed().as_secs_f64();
    file.sync_all()?;
    let synced_s = begun.elapsed().as_secs_f64();
    endpoint.close("done");
    endpoint.wait_idle().await;
    Ok(Took { written_s, synced_s, cpu_s: process_cpu_s(std::process::id()).ok_or("no /proc")? })
}

/// Fetches the next range that nobody else fetches, until there is none.
async fn fetch_ranges(link: Link, file: Arc<File>, next: Arc<AtomicU64>, len: u64) -> Result<(), Failure> {
    let mut chunk = vec![0; CHUNK_LEN];
    loop {
        let start = next.fetch_add(REQUEST_LEN, Ordering::Relaxed);
        if start >= len {
            return Ok(());
        }
        let end = len.min(start + REQUEST_LEN);
        let (mut send, mut receive) = link.quic.open_bi().await?;
        send.write_all(&start.to_le_bytes()).await?;
        send.write_all(&(end - start).to_le_bytes()).await?;
        send.finish()?;
        let mut at = start;
        while at < end {
            let chunk = &mut chunk[..(end - at).min(CHUNK_LEN as u64) as usize];
            receive.read_exact(chunk).await?;
            std::hint::black_box(blake3::hash(chunk));
            file.write_all_at(chunk, at)?;
            at += chunk.len() as u64;
        }
    }
}

/// What a server prints when it serves.
pub(crate) const SERVING: &str = "serving";
/// As many as Drover has under way with one fast peer.
const STREAMS: usize = 16;
/// As much as Drover asks for at once.
const REQUEST_LEN: u64 = 1 << 20;
const CHUNK_LEN: usize = 64 << 10;
const READ_LEN: u64 = 256 << 10;
