//! `drover-tracker publishers`: whom the cluster trusts to sign releases.

use drover_protocol::id::PublisherKey;
use drover_tracker::publishers::Publishers;
use serde_json::json;

use super::{Failure, StateArgument, print};

/// The tracker may run meanwhile, and tells the hosts that are connected of a change within seconds. Each tracker of a cluster
/// has its own list: repeat it at the others, for hosts trust whom any of them names.
#[derive(clap::Args)]
pub(super) struct PublishersArguments {
    #[command(flatten)]
    state: StateArgument,
    /// Trust releases signed with this key, too: 64 hexadecimal digits.
    #[arg(long, value_name = "KEY", conflicts_with = "remove")]
    add: Option<PublisherKey>,
    /// Take no more releases signed with this key. Those that were taken stay.
    #[arg(long, value_name = "KEY")]
    remove: Option<PublisherKey>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &PublishersArguments) -> Result<(), Failure> {
    let dir = &arguments.state.state;
    let publishers = Publishers::load(dir).map_err(|error| {
        let dir = dir.display();
        Failure::failed(format!("can't read publishers.json in {dir}: {error}; name the tracker's folder with --state"))
    })?;
    if let Some(key) = arguments.add {
        publishers.add(key).map_err(Failure::failed)?;
    }
    if let Some(key) = arguments.remove {
        publishers.remove(key).map_err(Failure::failed)?;
    }
    let keys = publishers.all();
    if arguments.json {
        return print(&format!("{}\n", json!({ "publishers": keys })));
    }
    print(&keys.iter().map(|key| format!("{key}\n")).collect::<String>())
}
