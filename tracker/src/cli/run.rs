//! `drover-tracker run`: the service.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use drover_link::dht::log_filter;
use drover_link::durable;
use drover_protocol::networks::Networks;
use drover_tracker::config::{RawSettings, Settings};
use drover_tracker::{StartOptions, Tracker};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use super::{Failure, StateArgument};

/// How often a service manager is told what goes on, if it does not want to know more often.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// How long the tracker's parts may take to answer before the service manager is not told that all is well.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    state: StateArgument,
    /// Settings; unless given, DIR/tracker.toml if there is one.
    #[arg(long, value_name = "FILE", env = "DROVER_TRACKER_CONFIG")]
    config: Option<PathBuf>,
    /// UDP address for hosts [default: 0.0.0.0:7440].
    #[arg(long, value_name = "ADDR:PORT", env = "DROVER_TRACKER_LISTEN")]
    listen: Option<String>,
    /// TCP address for /status, /livez and /readyz, or "off" [default: 127.0.0.1:7441].
    #[arg(long, value_name = "ADDR:PORT", env = "DROVER_TRACKER_HTTP")]
    http: Option<String>,
    /// What is logged, as in "info,drover_tracker=debug" [default: info].
    #[arg(long, value_name = "FILTER", env = "DROVER_TRACKER_LOG")]
    log: Option<String>,
}

pub(super) fn run(arguments: RunArguments) -> Result<(), Failure> {
    let RunArguments { state, config, listen, http, log } = arguments;
    durable::refuse_open_folder(&state.state)
        .map_err(|error| Failure::failed(format!("{error}; look at what is in it, then `chmod o-w` it")))?;
    let over = RawSettings { listen, http, log, ..RawSettings::default() };
    let settings = Settings::layered(&state.state, config.as_deref(), over).map_err(Failure::usage)?;
    start_logging(&settings.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("can't start: {error}")))?;
    runtime.block_on(serve(&state.state, &settings))
}

fn start_logging(filter: &str) -> Result<(), Failure> {
    let parsed = EnvFilter::try_new(log_filter(filter));
    let filter = parsed.map_err(|error| Failure::usage(format!("log = {filter:?}: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let builder = builder.with_ansi(io::stderr().is_terminal());
    // The journal writes the time itself.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().init();
    } else {
        builder.init();
    }
    Ok(())
}

async fn serve(state: &std::path::Path, settings: &Settings) -> Result<(), Failure> {
    // Before anything is open, so that a signal that comes early is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    let Settings { listen, http, certificate_life, signatures, .. } = *settings;
    let networks = if settings.networks.is_empty() { Networks::private() } else { settings.networks.clone() };
    let (dht, trackers) = (settings.dht.then_some(networks), settings.trackers.clone());
    let options = StartOptions { listen, http, certificate_life, signatures, dht, trackers };
    let tracker = Tracker::start_with(state, options).map_err(Failure::failed)?;
    info!(listen = %tracker.local_addr(), http = ?tracker.http_addr(), "the tracker runs");
    notify(&[NotifyState::Ready, NotifyState::Status(&status(&tracker))]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = report(&tracker) => {}
    }
    info!("the tracker shuts down");
    notify(&[NotifyState::Stopping]);
    tracker.shutdown().await;
    Ok(())
}

/// Tells the service manager what goes on, and that all is well only if it is.
async fn report(tracker: &Tracker) {
    let period = sd_notify::watchdog_enabled().map_or(STATUS_INTERVAL, |limit| (limit / 3).min(STATUS_INTERVAL));
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if tracker.is_alive(PATIENCE).await {
            notify(&[NotifyState::Watchdog, NotifyState::Status(&status(tracker))]);
        } else {
            warn!("the directory does not answer");
        }
    }
}

fn status(tracker: &Tracker) -> String {
    format!("{} members connected", tracker.members())
}

fn notify(state: &[NotifyState<'_>]) {
    // Not run by a service manager, or by one that is gone: both are none of our business.
    let _ = sd_notify::notify(state);
}
