//! `drover-tracker ca`: the cluster goes over to another CA.

use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_link::ca::CertificateAuthority;
use drover_link::rotation::{self, Rotation};
use drover_tracker::cluster::ca_folder;
use drover_tracker::config::{RawSettings, Settings};
use serde_json::json;

use super::{Failure, StateArgument, print};

/// For when the CA's key may be in other hands, or its ten years end. The hosts go on meanwhile. At each tracker of the
/// cluster: `ca begin`, restart the tracker; when every host has renewed its certificate, which takes as long as one is good
/// for (7 days), `ca switch`, restart; after as long again, `ca finish`, restart. With several trackers `ca begin` makes the
/// CA at one of them; copy that one's ca/ to the others over a channel that keeps secrets, and `ca begin --from COPY` there.
///
/// A host that was away for longer than that joins again with a new token; one that missed all of it moves its folder
/// STATE/identity away first. Tokens given before `ca switch` are void after it. The secret of the cluster's hash table stays.
#[derive(clap::Args)]
pub(super) struct CaArguments {
    #[command(subcommand)]
    step: Step,
}

#[derive(clap::Subcommand)]
enum Step {
    /// Show how far the cluster is.
    Status {
        #[command(flatten)]
        state: StateArgument,
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Make the next CA, which hosts come to trust as they renew.
    Begin {
        #[command(flatten)]
        state: StateArgument,
        /// Take the one that was made at another tracker, from a copy of its ca/.
        #[arg(long, value_name = "COPY")]
        from: Option<PathBuf>,
    },
    /// Have the next CA sign, and forget the key of the one before, which is still trusted.
    Switch {
        #[command(flatten)]
        next: NextStep,
    },
    /// Have the CA before trusted no more.
    Finish {
        #[command(flatten)]
        next: NextStep,
    },
}

#[derive(clap::Args)]
struct NextStep {
    #[command(flatten)]
    state: StateArgument,
    /// Settings; unless given, DIR/tracker.toml if there is one.
    #[arg(long, value_name = "FILE", env = "DROVER_TRACKER_CONFIG")]
    config: Option<PathBuf>,
    /// Do not wait until all certificates from before the last step have ended. Hosts that have not renewed since are locked
    /// out, and join again.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &CaArguments) -> Result<(), Failure> {
    match &arguments.step {
        Step::Status { state, json } => status(&state.state, *json),
        Step::Begin { state, from } => {
            let dir = ca_folder(&state.state);
            match from {
                None => rotation::begin(&dir, "drover"),
                Some(from) => rotation::join(&dir, from),
            }
            .map_err(Failure::failed)?;
            print("the next CA is there: restart the tracker now, and hosts come to trust it as they renew\n")
        }
        Step::Switch { next } => {
            rotation::switch(&ca_folder(&next.state.state), next.life()?, next.force).map_err(Failure::failed)?;
            print("the new CA signs: restart the tracker now, and make new tokens\n")
        }
        Step::Finish { next } => {
            rotation::finish(&ca_folder(&next.state.state), next.life()?, next.force).map_err(Failure::failed)?;
            print("the old CA is trusted no more: restart the tracker now, and hosts follow as they renew\n")
        }
    }
}

impl NextStep {
    /// How long certificates are good for.
    fn life(&self) -> Result<Duration, Failure> {
        let settings = Settings::layered(&self.state.state, self.config.as_deref(), RawSettings::default());
        Ok(settings.map_err(Failure::usage)?.certificate_life)
    }
}

fn status(state: &Path, as_json: bool) -> Result<(), Failure> {
    let dir = ca_folder(state);
    let pin = CertificateAuthority::load(&dir).map_err(Failure::failed)?.pin();
    let (word, since, text) = match rotation::state(&dir) {
        Rotation::Settled => ("settled", None, "the cluster has one CA"),
        Rotation::Begun(since) => ("begun", Some(since), "hosts come to trust the next CA; `ca switch` is next"),
        Rotation::Switched(since) => {
            ("switched", Some(since), "the new CA signs, the old one is trusted; `ca finish` is next")
        }
    };
    let since_s = since.map(|since| since.as_secs());
    if as_json {
        return print(&format!("{}\n", json!({ "ca_pin": pin.to_string(), "state": word, "since_s": since_s })));
    }
    let since = since_s.map(|seconds| format!(", since {} h", seconds / 3600)).unwrap_or_default();
    print(&format!("{pin}\n{text}{since}\n"))
}
