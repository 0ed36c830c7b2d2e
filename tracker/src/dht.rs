//! The tracker's node in the cluster's hash table: where hosts begin to find each other, while it lives, so that they
//! know each other when it is gone.
//!
//! The nodes that it knew are kept over restarts. A tracker that knows nobody starts a table of its own, into which
//! every host that asks comes by itself.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_link::dht::{DhtNode, DhtSettings, PORT_FREE, beside, load_nodes, save_nodes};
use drover_protocol::networks::Networks;
use tokio::net::lookup_host;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

/// A node that knows nobody after this time begins a table of its own.
const ALONE_MOST: Duration = Duration::from_secs(20);
/// How soon nodes are kept, and how often after that.
const KEEP_FIRST: Duration = Duration::from_secs(5);
const KEEP_EVERY: Duration = Duration::from_secs(300);
/// When to try again to listen.
const RETRY: Duration = Duration::from_secs(60);

/// What the node is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DhtOptions {
    /// The cluster's other trackers, "host:port" each.
    pub trackers: Vec<String>,
    /// Networks that hosts are in.
    pub networks: Networks,
}

/// Runs the node that belongs to a tracker on `tracker`, with its file in `dir`, until dropped.
pub(crate) async fn run(dir: PathBuf, tracker: std::net::SocketAddr, options: DhtOptions) {
    let Some(listen) = beside(tracker) else {
        return warn!("no DHT: it needs an IPv4 address to listen on");
    };
    let file = dir.join("dht.json");
    let mut bootstraps = load_nodes(&file);
    for text in &options.trackers {
        let addrs = lookup_host(text).await.into_iter().flatten();
        bootstraps.extend(addrs.filter_map(beside).filter(|addr| *addr != listen));
    }
    loop {
        let settings = DhtSettings { listen, bootstraps: bootstraps.clone(), networks: options.networks.clone() };
        match DhtNode::start(settings) {
            Ok(node) => {
                info!(%listen, bootstraps = bootstraps.len(), "the node of the DHT runs");
                keep(&node, &file, !bootstraps.is_empty()).await;
                drop(node);
                bootstraps.clear();
                sleep(PORT_FREE).await;
            }
            Err(error) => {
                warn!("no DHT: can't listen on {listen} (UDP): {error}");
                sleep(RETRY).await;
            }
        }
    }
}

/// Keeps the nodes that are known, for as long as there are any, or for ever if that is not `to_end`.
async fn keep(node: &DhtNode, file: &Path, to_end: bool) {
    let mut wait = KEEP_FIRST;
    let mut alone = Duration::ZERO;
    loop {
        sleep(wait).await;
        let nodes: Vec<SocketAddrV4> = node.nodes().await;
        if nodes.is_empty() {
            alone += wait;
            wait = KEEP_FIRST;
            if to_end && alone >= ALONE_MOST {
                return;
            }
            continue;
        }
        (alone, wait) = (Duration::ZERO, KEEP_EVERY);
        let file = file.to_owned();
        match spawn_blocking(move || save_nodes(&file, &nodes)).await {
            Ok(Err(error)) => warn!(%error, "nodes of the DHT are not kept"),
            Err(error) => warn!(%error, "nodes of the DHT are not kept"),
            Ok(Ok(())) => {}
        }
    }
}
