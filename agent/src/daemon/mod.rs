//! The daemon: builds the parts in order, keeps them going, takes them down in order.
//!
//! Order at start: identity, settings, store (whose lock keeps a second daemon out of the state folder), unfinished
//! clones, endpoint, exchange, control socket; then what was under way is resumed, and only then is the daemon ready.
//! At the end nothing new is let in, the exchange makes durable what has come, and the endpoint says goodbye; all
//! within five seconds. A daemon that is killed instead goes through the same recovery at its next start.
//!
//! Everything runs on one thread; what blocks is handed to others. [`Daemon`] is the handle that the control socket and
//! the daemon's own tasks share, and holds what they decide by.

mod fetch;
mod masters;
mod notes;
mod refusals;
mod releases;
mod scrub;
mod supervise;
mod view;
mod work;

mod renewal;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_link::config::LinkConfig;
use drover_link::endpoint::{BindError, Endpoint};
use drover_link::identity::{Identity, IdentityError};
use drover_protocol::networks::Networks;
use drover_protocol::swarm::SwarmConfig;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::config::Settings;
use crate::control::problem::chain;
use crate::control::{Code, Problem, server};
use crate::exchange::{DhtChoice, Exchange, ExchangeParts, ExchangeSettings};
use crate::handover::{Handover, Outcome};
use crate::multicast::MulticastSettings;
use crate::store::{Store, StoreError};
use notes::Notes;
use refusals::Refusals;

pub(crate) use drover_link::identity::unix_now_s;

/// A running daemon. Clones are handles on the same one.
#[derive(Clone)]
pub(crate) struct Daemon {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    exchange: Exchange,
    endpoint: Endpoint,
    settings: Settings,
    identity: Mutex<Identity>,
    renewing: tokio::sync::Mutex<()>,
    notes: Notes,
    refusals: Refusals,
    listen: SocketAddr,
    started_unix_s: u64,
}

/// Runs a daemon until `stop` is done. On a current-thread runtime.
pub(crate) async fn run(state: &Path, settings: Settings, stop: impl Future<Output = ()>) -> Result<(), Problem> {
    let (daemon, socket) = start(state, settings).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(daemon.clone().hear_releases(daemon.exchange().releases()));
    tasks.spawn(daemon.clone().follow_publishers(daemon.exchange().publishers()));
    daemon.seek_releases();
    daemon.resume().await;
    tasks.spawn(daemon.clone().post_kept());
    tasks.spawn(daemon.clone().renew_certificate());
    tasks.spawn(daemon.clone().scrub());
    let serving = daemon.clone();
    tasks.spawn(async move {
        if let Err(error) = server::serve(socket, serving).await {
            tracing::error!("the control socket fails: {error}");
        }
    });
    supervise::ready();
    tracing::info!("ready on {}", daemon.inner.listen);
    tasks.spawn(supervise::report(daemon.clone()));

    // None of the tasks ends by itself; one that does leaves a daemon that only seems to work.
    let ended = tokio::select! {
        () = stop => None,
        ended = tasks.join_next() => ended,
    };
    supervise::stopping();
    tracing::info!("stopping");
    let _ = std::fs::remove_file(crate::control::socket_path(state));
    tasks.abort_all();
    let left = tokio::time::timeout(SHUTDOWN_DEADLINE, daemon.exchange().shutdown()).await;
    if left.is_err() {
        tracing::warn!("shutdown took too long; the next start recovers what was not made durable");
    }
    match ended {
        None => Ok(()),
        Some(ended) => {
            let why = ended.err().map_or("one of its tasks ended".to_owned(), |error| error.to_string());
            Err(Problem::failed("daemon", why).todo("this is a defect of drover; its log above tells more"))
        }
    }
}

async fn start(state: &Path, settings: Settings) -> Result<(Daemon, UnixListener), Problem> {
    let identity = Identity::load(&state.join(IDENTITY)).map_err(|error| refuse_identity(state, &error))?;
    let store = open_store(state, &settings).await?;
    let notes = Notes::open(state).map_err(|error| Problem::explained(Code::Failed, "daemon", &error))?;
    let state = store.state().to_owned();
    recover_clones(&state).await;

    let link = LinkConfig {
        max_connections: settings.max_connections as usize,
        connection_window: settings.connection_window as u32,
        stream_window: (settings.connection_window as u32).min(LinkConfig::default().stream_window),
        ..LinkConfig::default()
    };
    let endpoint = Endpoint::bind(settings.listen, &identity, link).map_err(|error| refuse_bind(&settings, &error))?;
    let listen = endpoint.local_addr().map_err(|error| Problem::failed("daemon", error))?;
    let exchange = Exchange::start(ExchangeParts {
        store: store.clone(),
        endpoint: endpoint.clone(),
        me: identity.peer_id(),
        trackers: settings.trackers.clone().unwrap_or_else(|| identity.trackers().to_vec()),
        settings: exchange_settings(&settings, listen),
    })
    .map_err(|error| Problem::failed("daemon", error))?;
    let socket = server::bind(&state).map_err(|error| {
        Problem::failed(format!("control socket {}", crate::control::socket_path(&state).display()), error)
    })?;
    let member = identity.member();
    tracing::info!("drover {} is {member}, state folder {}", env!("CARGO_PKG_VERSION"), state.display());
    let (identity, started_unix_s) = (Mutex::new(identity), unix_now_s());
    let (renewing, refusals) = (tokio::sync::Mutex::default(), Refusals::default());
    let inner =
        Inner { store, exchange, endpoint, settings, identity, renewing, notes, refusals, listen, started_unix_s };
    Ok((Daemon { inner: Arc::new(inner) }, socket))
}

async fn open_store(state: &Path, settings: &Settings) -> Result<Store, Problem> {
    let (folder, how) = (state.to_owned(), crate::store::Settings { immutable: settings.immutable });
    let opened = tokio::task::spawn_blocking(move || Store::open_with(&folder, how)).await;
    let store = opened.map_err(|error| Problem::failed("store", error))?.map_err(|error| {
        let code = if matches!(error, StoreError::InUse { .. }) { Code::Refused } else { Code::Failed };
        Problem::explained(code, format!("state folder {}", state.display()), &error)
    })?;
    store.unreadable().iter().for_each(|problem| tracing::error!("{problem}"));
    Ok(store)
}

/// Completes or cleans clones that a crash left unfinished.
async fn recover_clones(state: &Path) {
    let handover = Handover::new(state);
    match tokio::task::spawn_blocking(move || handover.recover()).await {
        Ok(Ok(recovered)) => {
            for clone in recovered {
                match clone.outcome {
                    Outcome::Completed => tracing::info!("clone {} was whole, and has its name now", clone.name),
                    Outcome::Rests(master) => {
                        tracing::info!("clone {} was being moved, and rests on {master} now", clone.name);
                    }
                    Outcome::Cleaned => tracing::info!("clone {} was not finished: nothing of it is left", clone.name),
                    Outcome::Left(why) => tracing::warn!("clone {} is unfinished: {why}", clone.name),
                    Outcome::Foreign => tracing::warn!(
                        "clone {} is unfinished; `drover clone activate --all`, run by who made it, sets it right",
                        clone.name
                    ),
                }
            }
        }
        Ok(Err(error)) => tracing::error!("clone records: {error}"),
        Err(error) => tracing::error!("clone records: {error}"),
    }
}

fn exchange_settings(settings: &Settings, listen: SocketAddr) -> ExchangeSettings {
    let swarm = SwarmConfig {
        upload_slots: settings.upload_slots,
        upload_limit: settings.upload_limit,
        download_limit: settings.download_limit,
        rack: settings.rack.clone(),
        ..SwarmConfig::default()
    };
    ExchangeSettings {
        rack: settings.rack.clone(),
        listen: vec![listen],
        peers: settings.peers.clone(),
        networks: settings.networks.clone(),
        dht: settings.dht.then(|| dht_choice(settings)),
        swarm,
        disk_threads: settings.io_threads,
        multicast: MulticastSettings {
            mode: settings.multicast,
            groups: settings.multicast_groups.clone(),
            interface: settings.multicast_interface.clone(),
            limit: settings.multicast_limit,
        },
        ..ExchangeSettings::default()
    }
}

/// What is found in the table comes from anybody who reaches it, so it must lie in a private network unless the settings
/// name others.
pub(crate) fn dht_choice(settings: &Settings) -> DhtChoice {
    let named = &settings.networks;
    let networks = if named.is_empty() { Networks::private() } else { named.clone() };
    DhtChoice { port: settings.dht_port, networks }
}

fn refuse_identity(state: &Path, error: &IdentityError) -> Problem {
    let what = format!("daemon of {}", state.display());
    match error {
        IdentityError::NotJoined(_) => {
            Problem::new(Code::Refused, what, "this host has not joined a cluster").todo(format!(
                "get a token with `drover-tracker token`, then: drover join TRACKER TOKEN --state {}",
                state.display()
            ))
        }
        error => Problem::explained(Code::Failed, what, error),
    }
}

fn refuse_bind(settings: &Settings, error: &BindError) -> Problem {
    Problem::failed(format!("listen on {}", settings.listen), chain(error))
        .todo("is another daemon running? choose another address with --listen or the setting listen")
}

impl Daemon {
    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn exchange(&self) -> &Exchange {
        &self.inner.exchange
    }

    fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    fn notes(&self) -> &Notes {
        &self.inner.notes
    }

    fn refusals(&self) -> &Refusals {
        &self.inner.refusals
    }

    fn identity(&self) -> Identity {
        self.inner.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_identity(&self, identity: Identity) {
        *self.inner.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    fn identity_folder(&self) -> PathBuf {
        self.store().state().join(IDENTITY)
    }

    /// Does what waits for the disk on another thread.
    async fn blocking<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Daemon) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let daemon = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&daemon)).await;
        done.unwrap_or_else(|error| {
            Err(Problem::failed(what, error).todo("this is a defect of drover; its log tells more"))
        })
    }
}

/// Where in the state folder the identity is.
pub(crate) const IDENTITY: &str = "identity";
/// The exchange bounds its own shutdown at 2.5 s; with this, five seconds are never reached.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(4);
