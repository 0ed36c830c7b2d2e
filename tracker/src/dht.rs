//! The tracker's node in the cluster's hash table: where hosts begin to find each other, while it lives, so that they
//! know each other when it is gone.
//!
//! It looks up nothing, also after a restart and beside other trackers, and takes those into its table who ask it. Every
//! host asks all trackers of its settings, when it starts and when one can be reached again, so each tracker knows all
//! hosts, and no tracker needs to know another.

use std::net::SocketAddr;
use std::time::Duration;

use drover_link::dht::{DhtNode, DhtSettings, beside};
use drover_protocol::lookup::PASS_LEN;
use drover_protocol::networks::Networks;
use tokio::time::sleep;
use tracing::{info, warn};

/// When to try again to listen.
const RETRY: Duration = Duration::from_secs(60);

/// Runs the node that belongs to a tracker on `tracker`, for hosts in these networks that know the pass, until dropped.
pub(crate) async fn run(tracker: SocketAddr, networks: Networks, pass: [u8; PASS_LEN]) {
    let Some(listen) = beside(tracker) else {
        return warn!("no DHT: it needs an IPv4 address to listen on, and a port below 65535");
    };
    loop {
        match DhtNode::start(DhtSettings { listen, bootstraps: Vec::new(), networks: networks.clone(), pass }) {
            Ok(_node) => {
                info!(%listen, "the node of the DHT runs");
                return core::future::pending().await;
            }
            Err(error) => {
                warn!("no DHT: can't listen on {listen} (UDP): {error}");
                sleep(RETRY).await;
            }
        }
    }
}
