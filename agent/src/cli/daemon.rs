//! `drover daemon`: runs the daemon in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use drover_link::dht::log_filter;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Common, Exit};
use crate::config::{LogFormat, Settings, Sources};
use crate::control::Problem;

/// Run the daemon: exchange masters with the other hosts, take commands on STATE/agent.sock
///
/// Runs in the foreground and logs to standard error, as systemd wants it. SIGTERM, SIGINT and SIGHUP end it in order,
/// within five seconds; SIGKILL loses at most the last seconds of transfer.
#[derive(Args, Debug)]
pub(super) struct Daemon {
    /// Settings file (default: STATE/drover.toml, else /etc/drover/drover.toml)
    #[arg(long, env = "DROVER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// UDP address for other hosts (default: setting listen, else 0.0.0.0:7444; port 0 takes a free one)
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// End when standard input is closed: with the process that started this one
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

impl Daemon {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        common.check_state()?;
        let mut sources = Sources::of(&common.state, self.config.clone());
        sources.flags.extend(self.listen.map(|listen| ("listen", listen.to_string())));
        let settings = Settings::load(&sources).map_err(|error| super::check_config::refuse(&error))?;
        start_logging(&settings);
        let signals = Signals::listen().map_err(|error| Problem::failed("daemon", error))?;
        crate::daemon::run(&common.state, settings, signals.first(self.stop_with_stdin)).await?;
        Ok(Exit::Done)
    }
}

/// The signals that end the daemon.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Signals { terminate, interrupt, hangup: signal(SignalKind::hangup())? })
    }

    /// Done when the first of them comes, or standard input ends.
    async fn first(mut self, with_stdin: bool) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
            () = stdin_closed(), if with_stdin => {}
        }
    }
}

async fn stdin_closed() {
    let (mut stdin, mut buffer) = (tokio::io::stdin(), [0; 64]);
    while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

fn start_logging(settings: &Settings) {
    let filter = EnvFilter::new(log_filter(&settings.log));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // The journal adds its own time to each line.
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let started = match settings.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Plain if in_journal => builder.with_ansi(false).without_time().try_init(),
        LogFormat::Plain => builder.with_ansi(super::output::colours()).try_init(),
    };
    if let Err(error) = started {
        super::output::warn(&format!("no log: {error}"));
    }
}
