//! `drover-tracker init`: makes a cluster and says how a host joins.

use std::net::SocketAddr;

use drover_link::identity::Role;
use drover_link::token::JoinToken;
use drover_tracker::cluster::{self, Cluster};
use drover_tracker::config::{DEFAULT_LISTEN, parse_addr};
use drover_tracker::tokens::DEFAULT_TTL;
use serde_json::json;

use super::{Failure, StateArgument, print};

#[derive(clap::Args)]
pub(super) struct InitArguments {
    #[command(flatten)]
    state: StateArgument,
    /// UDP address for hosts; noted for `run`.
    #[arg(long, value_name = "ADDR:PORT", default_value_t = DEFAULT_LISTEN.to_string())]
    listen: String,
    /// What the cluster is called; shows in its CA's certificate.
    #[arg(long, default_value = "drover")]
    name: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &InitArguments) -> Result<(), Failure> {
    let dir = &arguments.state.state;
    let listen = parse_addr("--listen", &arguments.listen).map_err(Failure::usage)?;
    let cluster = cluster::init_named(dir, listen, &arguments.name).map_err(Failure::failed)?;
    let token = cluster::new_token(dir, Role::Host, DEFAULT_TTL).map_err(Failure::failed)?;
    let address = reachable(listen);
    if arguments.json {
        let object = json!({
            "state": cluster.dir,
            "ca_pin": cluster.pin.to_string(),
            "listen": listen,
            "tracker": address,
            "publisher": cluster.publisher,
            "publisher_key": cluster.publisher_key,
            "token": token.to_string(),
        });
        return print(&format!("{object}\n"));
    }
    print(&guide(&cluster, &token, &address))
}

fn guide(cluster: &Cluster, token: &JoinToken, address: &str) -> String {
    let (state, key) = (cluster.dir.display(), cluster.publisher_key.display());
    format!(
        "A new cluster is in {state}.\n\
         \n\
         Start its tracker:\n\
         \x20   drover-tracker run --state {state}\n\
         \n\
         Let a host join, within an hour (one token lets one host in):\n\
         \x20   drover join {address} {token}\n\
         \n\
         Get a token for the next host:\n\
         \x20   drover-tracker token --state {state}\n\
         \n\
         Publish from a host that has joined; the key is a secret, move it there and keep a copy:\n\
         \x20   drover publish FILE --name NAME --key {key}\n"
    )
}

/// Where hosts may reach a tracker that listens there: its address, or this machine's name if it listens everywhere.
fn reachable(listen: SocketAddr) -> String {
    if !listen.ip().is_unspecified() {
        return listen.to_string();
    }
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    format!("{name}:{}", listen.port())
}
