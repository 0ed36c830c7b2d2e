//! `drover-tracker init`: makes a cluster, or another tracker of one, and says how to go on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use drover_link::identity::Role;
use drover_link::token::JoinToken;
use drover_tracker::cluster::{self, Cluster};
use drover_tracker::config::{DEFAULT_LISTEN, check_port, parse_addr};
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
    /// Make another tracker of the cluster in DIR: a tracker's state folder, or a copy of its ca/, publishers.json and revoked.json.
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    cluster: Option<PathBuf>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &InitArguments) -> Result<(), Failure> {
    let dir = &arguments.state.state;
    let listen = parse_addr("--listen", &arguments.listen).map_err(Failure::usage)?;
    // What is noted for `run` must do for it; it would be refused there, when hosts have been told of it.
    check_port(listen).map_err(Failure::usage)?;
    if let Some(from) = &arguments.cluster {
        return another(arguments, listen, from);
    }
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

fn another(arguments: &InitArguments, listen: SocketAddr, from: &Path) -> Result<(), Failure> {
    let dir = &arguments.state.state;
    let pin = cluster::init_another(dir, listen, from).map_err(Failure::failed)?;
    let address = reachable(listen);
    if arguments.json {
        let object = json!({ "state": dir, "ca_pin": pin.to_string(), "listen": listen, "tracker": address });
        return print(&format!("{object}\n"));
    }
    let state = dir.display();
    print(&format!(
        "Another tracker of the cluster is in {state}.\n\
         \n\
         Start it:\n\
         \x20   drover-tracker run --state {state}\n\
         \n\
         Name all trackers in the settings of all hosts, and restart their daemons:\n\
         \x20   trackers = [\"FIRST:PORT\", \"{address}\"]\n\
         and in the tracker.toml of each tracker, so that hosts find each other that know one of them only.\n\
         \n\
         Releases come to it from these hosts. A token counts at the tracker that made it. A publisher who joins at one\n\
         tracker is made known to each of the others with:\n\
         \x20   drover-tracker publishers --add KEY --state {state}\n\
         \n\
         If {from} is a copy that was made for this, remove it now: the CA's key is in it.\n",
        from = from.display(),
    ))
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
