//! `drover check-config`: checks a settings file and shows what holds.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use drover_link::identity::Identity;

use super::drop_in::DropIn;
use super::output::say;
use super::{Common, Exit};
use crate::config::{Settings, SettingsError, Sources};
use crate::control::{Code, Problem};
use crate::daemon::{IDENTITY, dht_choice};
use crate::discovery::elsewhere::Watched;

/// Check the settings that the daemon would use, and print them
#[derive(Args, Debug)]
pub(super) struct CheckConfig {
    /// Settings file (default: STATE/drover.toml, else /etc/drover/drover.toml)
    #[arg(long, env = "DROVER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a drop-in for the unit instead, by which the kernel lets the daemon reach only the networks, trackers, peers and
    /// groups of these settings
    #[arg(long)]
    systemd: bool,
}

impl CheckConfig {
    pub(super) fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let sources = Sources::of(&common.state, self.config.clone());
        let settings = Settings::load(&sources).map_err(|error| refuse(&error))?;
        if self.systemd {
            common.output().print(&DropIn::of(&common.state, &settings)?, DropIn::text)?;
            return Ok(Exit::Done);
        }
        match &sources.file {
            Some(file) => say(&format!("{} is good; with variables and defaults, this holds:", file.display())),
            None => say("no settings file; with variables and defaults, this holds:"),
        }
        let text = |settings: &Settings| toml::to_string(settings).unwrap_or_default();
        common.output().print(&settings, text)?;
        warnings(&common.state, &settings).iter().for_each(|warning| say(&format!("warning: {warning}")));
        Ok(Exit::Done)
    }
}

/// What the daemon will warn of, as far as it can be known without asking what names stand for.
fn warnings(state: &Path, settings: &Settings) -> Vec<String> {
    let addresses = |list: &[String]| list.iter().filter_map(|text| text.parse().ok()).collect::<Vec<SocketAddr>>();
    let table = settings.dht.then(|| dht_choice(settings).networks);
    let watched = Watched::of(settings.listen.ip(), &settings.networks, table.as_ref());
    let warnings =
        |watched: Watched| watched.warnings(&addresses(&trackers(state, settings)), &addresses(&settings.peers));
    watched.map(warnings).unwrap_or_default()
}

/// Trackers of the settings, or those that `drover join` stored.
pub(super) fn trackers(state: &Path, settings: &Settings) -> Vec<String> {
    let stored = || Identity::load(&state.join(IDENTITY)).map(|identity| identity.trackers().to_vec());
    settings.trackers.clone().unwrap_or_else(|| stored().unwrap_or_default())
}

/// What `check-config` and `daemon` say about settings that can't be used.
pub(super) fn refuse(error: &SettingsError) -> Problem {
    Problem::new(Code::Usage, "settings", error)
        .todo("correct it; `drover check-config` checks a file without a daemon, and drover.example.toml explains each")
}
