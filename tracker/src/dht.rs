//! The tracker's node in the cluster's hash table: where hosts begin to find each other, while it lives, so that they
//! know each other when it is gone.
//!
//! It looks up nothing, also after a restart, and takes those into its table who ask it. Every host asks all trackers of
//! its settings, when it starts and when one can be reached again. Nodes of other trackers that this one's settings name
//! are asked by it, so hosts find each other that know one tracker each.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use drover_link::dht::{DhtNode, DhtSettings, beside};
use drover_protocol::lookup::PASS_LEN;
use drover_protocol::networks::Networks;
use tokio::net::lookup_host;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// When to try again to listen.
const RETRY: Duration = Duration::from_secs(60);
/// How often the nodes of other trackers are asked; they forget who does not for a quarter of an hour.
const MEET_EVERY: Duration = Duration::from_secs(60);

/// Runs the node that belongs to a tracker on `tracker`, for hosts in these networks that know the pass, until dropped.
/// `others` are other trackers of the cluster, "host:port".
pub(crate) async fn run(tracker: SocketAddr, networks: Networks, pass: [u8; PASS_LEN], others: Vec<String>) {
    let Some(listen) = beside(tracker) else {
        return warn!("no DHT: it needs an IPv4 address to listen on, and a port below 65535");
    };
    loop {
        let bootstraps = nodes_beside(&others, listen).await;
        match DhtNode::start(DhtSettings { listen, bootstraps, networks: networks.clone(), pass }) {
            Ok(node) => {
                info!(%listen, "the node of the DHT runs");
                loop {
                    node.show_to(&nodes_beside(&others, listen).await).await;
                    sleep(MEET_EVERY).await;
                }
            }
            Err(error) => {
                warn!("no DHT: can't listen on {listen} (UDP): {error}");
                sleep(RETRY).await;
            }
        }
    }
}

/// The nodes of these trackers but the own one, of those that can be found now.
async fn nodes_beside(trackers: &[String], own: SocketAddrV4) -> Vec<SocketAddrV4> {
    let mut nodes = Vec::new();
    for tracker in trackers {
        match lookup_host(tracker).await {
            Ok(addrs) => nodes.extend(addrs.filter_map(beside).filter(|node| *node != own)),
            Err(error) => debug!("can't find the tracker {tracker} of the settings: {error}"),
        }
    }
    nodes
}
