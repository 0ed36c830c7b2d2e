//! What the daemon is told to do: settings as they are written, then checked [`Settings`].
//!
//! Layers, each over the one before: defaults, one file, environment variables, flags. The file is the one given with
//! `--config`, else `STATE/drover.toml`, else `/etc/drover/drover.toml`, else none; they are not merged, so that what a
//! host does can be read in one place. The variable of a setting is `DROVER_` and its name in capitals
//! (`DROVER_LISTEN`), lists are separated by commas. A key that is no setting is an error in a file, since it is a
//! mistyped one that would silently do nothing; a `DROVER_` variable that is none is left alone, since an environment
//! belongs to many programs.
//!
//! Nothing outside of this file sees a setting before it is checked. `drover.example.toml` explains each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_protocol::announce::MAX_LABEL_LEN;
use drover_protocol::id::PublisherKey;
use drover_protocol::multicast::choice::Mode;
use drover_protocol::multicast::group::GroupRange;
use drover_protocol::release::{MOST_COSIGNERS, Name};
use serde::{Deserialize, Serialize};

use crate::quantity::{parse_duration, parse_rate, parse_size};
use drover_protocol::networks::Networks;

/// Settings of a daemon, checked, units resolved. Serializes to what `drover check-config` shows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Settings {
    /// UDP address for other hosts. Default `0.0.0.0:7444`.
    pub listen: SocketAddr,
    /// Trackers, `HOST:PORT`. Default: those that `drover join` stored.
    pub trackers: Option<Vec<String>>,
    /// Hosts of the cluster, `HOST:PORT`, to begin with when no tracker answers. Default: none; those that were reached
    /// before are remembered.
    pub peers: Vec<String>,
    /// Networks that hosts are in: what trackers and other hosts say is elsewhere is not dialled. Default: all.
    pub networks: Networks,
    /// Whether this host takes part in the cluster's own hash table, by which hosts find each other when no tracker
    /// answers. Default true.
    pub dht: bool,
    /// UDP port for that. Default: the one after `listen`'s, where others look for it.
    pub dht_port: Option<u16>,
    /// Names whose releases are fetched by themselves. Default: none.
    pub subscribe: Vec<Name>,
    /// Publishers whose releases count. Default: those that the cluster named at `drover join`.
    pub publishers: Option<Vec<PublisherKey>>,
    /// How many of them have to sign a release before it counts. Default 1.
    pub signatures: usize,
    /// The rack this host stands in, so that peers nearby are preferred. Default: not told.
    pub rack: Option<String>,
    /// Most bytes per second handed out. Default: no limit.
    pub upload_limit: Option<u64>,
    /// Most bytes per second fetched. Default: no limit.
    pub download_limit: Option<u64>,
    /// Hosts served at the same time. Default 16: of 16 simulated hosts the last needed 1.15 of the bound with 8 or 12, 1.12
    /// with 16.
    pub upload_slots: usize,
    /// Versions of each name that `gc` keeps, besides those that clones need. Default 1.
    pub keep_versions: usize,
    /// Connections to other hosts at the same time. Default 64, twice the neighbours of a swarm; memory grows with it.
    pub max_connections: u32,
    /// Bytes that one connection may buffer. Default 2 MiB: 10 Gbit/s for 1.6 ms, eight times a LAN's round trip.
    pub connection_window: u64,
    /// Whether sealed masters are made immutable (`chattr +i`) where that works. Default true: it is what stops even root
    /// from writing to the backing file of a running clone.
    pub immutable: bool,
    /// How long a master goes without being read again and compared with its manifest. Default 7 days; `None` is never.
    pub scrub_every: Option<Duration>,
    /// Most bytes per second read for that. Default 20 MB, which any disk has to spare.
    pub scrub_rate: u64,
    /// Threads for disk and hashing. Default: one per processor, at most 4, at least 2.
    pub io_threads: usize,
    /// Whether images are sent and heard by multicast. Default `off`: its figures were not taken on quiet machines yet.
    pub multicast: Mode,
    /// The interface for that. Default: the one of the address that is listened on, or that the routing table has for groups.
    pub multicast_interface: Option<String>,
    /// Groups of sessions that this host begins. Default 239.255.0.0/16, which routers keep within a site.
    #[serde(serialize_with = "as_text")]
    pub multicast_groups: GroupRange,
    /// Most bytes per second sent by multicast. Default: what the interface carries, and `upload_limit`.
    pub multicast_limit: Option<u64>,
    /// What is logged, as in `info,drover_agent=debug`. Default `info`.
    pub log: String,
    /// How it is logged. Default `plain`.
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Plain,
    /// One JSON object a line.
    Json,
}

/// Where settings come from, in rising precedence.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment; only `DROVER_` variables are looked at.
    pub environment: Vec<(String, String)>,
    /// Settings from flags, by the name that they have in a file.
    pub flags: Vec<(&'static str, String)>,
}

/// Why settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file can't be read.
    #[error("can't read settings {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{} is not TOML: {source}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key that means nothing.
    #[error("{}: there is no setting {key:?}{}", path.display(), did_you_mean(nearest))]
    UnknownKey {
        /// In which file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The setting that is spelled most alike, if any is.
        nearest: Option<&'static str>,
    },
    /// A value of a wrong type.
    #[error("settings: {0}")]
    Type(#[from] config::ConfigError),
    /// A value that makes no sense.
    #[error("setting {key}: {why}")]
    Value {
        /// Of which setting.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// What was written: every key of a settings file, unchecked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    listen: Option<String>,
    trackers: Option<Vec<String>>,
    peers: Option<Vec<String>>,
    networks: Option<Vec<String>>,
    dht: Option<bool>,
    dht_port: Option<u32>,
    subscribe: Option<Vec<String>>,
    publishers: Option<Vec<String>>,
    signatures: Option<u32>,
    rack: Option<String>,
    upload_limit: Option<String>,
    download_limit: Option<String>,
    upload_slots: Option<u32>,
    keep_versions: Option<u32>,
    max_connections: Option<u32>,
    connection_window: Option<String>,
    immutable: Option<bool>,
    scrub_every: Option<String>,
    scrub_rate: Option<String>,
    io_threads: Option<u32>,
    multicast: Option<Mode>,
    multicast_interface: Option<String>,
    multicast_groups: Option<String>,
    multicast_limit: Option<String>,
    log: Option<String>,
    log_format: Option<LogFormat>,
}

impl Sources {
    /// What a daemon of `state` goes by: this process' environment, and the file as the module doc says.
    pub fn of(state: &Path, file: Option<PathBuf>) -> Self {
        let usual = || [state.join("drover.toml"), PathBuf::from(SYSTEM_FILE)].into_iter().find(|path| path.exists());
        Sources { file: file.or_else(usual), environment: std::env::vars().collect(), flags: Vec::new() }
    }
}

impl Settings {
    /// Reads, layers and checks.
    pub fn load(sources: &Sources) -> Result<Self, SettingsError> {
        let mut layers = config::Config::builder();
        if let Some(path) = &sources.file {
            check_keys(path)?;
            layers = layers.add_source(config::File::from(path.as_path()).format(config::FileFormat::Toml));
        }
        layers = layers.add_source(environment(&sources.environment));
        for (key, value) in &sources.flags {
            layers = layers.set_override(*key, value.as_str())?;
        }
        layers.build()?.try_deserialize::<RawSettings>()?.check()
    }

    /// Nothing would count where fewer publishers do than have to sign. Nobody is for who wants no releases.
    fn check_signatures(&self) -> Result<(), SettingsError> {
        let Some(publishers) = &self.publishers else { return Ok(()) };
        if publishers.is_empty() || publishers.len() >= self.signatures {
            return Ok(());
        }
        let (asked, count) = (self.signatures, publishers.len());
        let why = format!("no release can have {asked} of them while the setting publishers names {count}");
        Err(SettingsError::Value { key: "signatures", why })
    }

    /// The hash table needs a port of its own.
    fn check_dht_port(&self) -> Result<(), SettingsError> {
        let refuse = |key, why: &str| Err(SettingsError::Value { key, why: why.to_owned() });
        match (self.dht, self.dht_port, self.listen.port()) {
            (true, None, u16::MAX) => refuse(
                "listen",
                "the DHT takes the port after it, and 65535 is the last; choose a lower one, or set dht_port or dht = false",
            ),
            (true, Some(port), listen) if port == listen => {
                refuse("dht_port", "it is the port of listen, which is UDP, too; leave it out for the one after that")
            }
            _ => Ok(()),
        }
    }
}

impl RawSettings {
    fn check(self) -> Result<Settings, SettingsError> {
        let settings = Settings {
            listen: parsed("listen", self.listen.as_deref().unwrap_or(DEFAULT_LISTEN), |text| {
                text.parse().map_err(|_| format!("{text:?} is no address with a port; write it like 0.0.0.0:7444"))
            })?,
            trackers: self.trackers.map(|list| each("trackers", &list, check_tracker)).transpose()?,
            peers: each("peers", &self.peers.unwrap_or_default(), check_peer)?,
            networks: each("networks", &self.networks.unwrap_or_default(), |text| text.parse::<Networks>())?
                .into_iter()
                .collect(),
            dht: self.dht.unwrap_or(true),
            dht_port: self.dht_port.map(|port| within("dht_port", port, 1, 65535)).transpose()?.map(|port| port as u16),
            subscribe: each("subscribe", &self.subscribe.unwrap_or_default(), |name| name.parse())?,
            publishers: self.publishers.map(|list| each("publishers", &list, |key| key.parse())).transpose()?,
            signatures: within("signatures", self.signatures.unwrap_or(1), 1, 1 + MOST_COSIGNERS as u32)? as usize,
            rack: self.rack.map(|rack| parsed("rack", &rack, check_rack)).transpose()?,
            upload_limit: rate("upload_limit", self.upload_limit)?,
            download_limit: rate("download_limit", self.download_limit)?,
            upload_slots: within("upload_slots", self.upload_slots.unwrap_or(16), 1, 64)? as usize,
            keep_versions: within("keep_versions", self.keep_versions.unwrap_or(1), 1, 1000)? as usize,
            max_connections: within("max_connections", self.max_connections.unwrap_or(64), 4, 4096)?,
            connection_window: window(self.connection_window)?,
            immutable: self.immutable.unwrap_or(true),
            scrub_every: scrub_every(self.scrub_every)?,
            scrub_rate: rate("scrub_rate", self.scrub_rate)?.unwrap_or(DEFAULT_SCRUB_RATE),
            io_threads: within("io_threads", self.io_threads.unwrap_or_else(default_io_threads), 1, 64)? as usize,
            multicast: self.multicast.unwrap_or(Mode::Off),
            multicast_interface: self.multicast_interface,
            multicast_groups: groups(self.multicast_groups)?,
            multicast_limit: rate("multicast_limit", self.multicast_limit)?,
            log: self.log.map_or(Ok("info".to_owned()), |filter| parsed("log", &filter, check_filter))?,
            log_format: self.log_format.unwrap_or_default(),
        };
        settings.check_dht_port()?;
        settings.check_signatures()?;
        Ok(settings)
    }
}

/// Names of all settings, for finding mistyped ones; a test keeps it equal to [`RawSettings`].
const KEYS: [&str; 26] = [
    "listen",
    "trackers",
    "peers",
    "networks",
    "dht",
    "dht_port",
    "subscribe",
    "publishers",
    "signatures",
    "rack",
    "upload_limit",
    "download_limit",
    "upload_slots",
    "keep_versions",
    "max_connections",
    "connection_window",
    "immutable",
    "scrub_every",
    "scrub_rate",
    "io_threads",
    "multicast",
    "multicast_interface",
    "multicast_groups",
    "multicast_limit",
    "log",
    "log_format",
];
/// Settings that are lists, which an environment variable separates by commas.
const LISTS: [&str; 5] = ["trackers", "peers", "networks", "subscribe", "publishers"];
const DEFAULT_LISTEN: &str = "0.0.0.0:7444";
const DEFAULT_SCRUB_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);
const DEFAULT_SCRUB_RATE: u64 = 20_000_000;
const SYSTEM_FILE: &str = "/etc/drover/drover.toml";

/// Looks for keys that are no settings, which the layering library does not know until all layers are one, when it could not
/// say any more in which file a key was; and for entries that are empty, as only a whole variable may be.
fn check_keys(path: &Path) -> Result<(), SettingsError> {
    let read = |source| SettingsError::Read { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(read)?;
    let table: toml::Table =
        text.parse().map_err(|source| SettingsError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(SettingsError::UnknownKey { path: path.to_owned(), key: key.clone(), nearest: nearest_key(key) });
    }
    let is_empty = |entry: &toml::Value| entry.as_str().is_some_and(|text| text.trim().is_empty());
    let has_empty =
        |key: &&str| table.get(*key).and_then(toml::Value::as_array).is_some_and(|list| list.iter().any(is_empty));
    match LISTS.into_iter().find(has_empty) {
        None => Ok(()),
        Some(key) => Err(SettingsError::Value { key, why: "an entry is empty; for none at all write []".to_owned() }),
    }
}

fn nearest_key(key: &str) -> Option<&'static str> {
    let likeness = |known: &str| strsim::jaro_winkler(&key.to_ascii_lowercase(), known);
    let best = KEYS.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    // Below this, two words have no more in common than any two.
    (likeness(best) >= 0.75).then_some(best)
}

fn did_you_mean(nearest: &Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {nearest:?}?"),
        None => format!("; settings are {}", KEYS.join(", ")),
    }
}

fn environment(variables: &[(String, String)]) -> config::Environment {
    let known = |name: &str| {
        let key = name.strip_prefix("DROVER_").map(str::to_ascii_lowercase)?;
        KEYS.contains(&key.as_str()).then_some(key)
    };
    let known: HashMap<String, String> =
        variables.iter().filter_map(|(name, value)| Some((known(name)?, value.clone()))).collect();
    let source = config::Environment::default().source(Some(known)).try_parsing(true).list_separator(",");
    LISTS.into_iter().fold(source, config::Environment::with_list_parse_key)
}

fn parsed<T, E: ToString>(
    key: &'static str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, SettingsError> {
    parse(text.trim()).map_err(|why| SettingsError::Value { key, why: why.to_string() })
}

fn each<T, E: ToString>(
    key: &'static str,
    list: &[String],
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, SettingsError> {
    // An empty environment variable is an empty list, not a list of one empty text.
    list.iter().filter(|text| !text.trim().is_empty()).map(|text| parsed(key, text, &parse)).collect()
}

fn within(key: &'static str, value: u32, least: u32, most: u32) -> Result<u32, SettingsError> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(SettingsError::Value { key, why: format!("{value} is out of range; it goes from {least} to {most}") })
}

fn rate(key: &'static str, text: Option<String>) -> Result<Option<u64>, SettingsError> {
    match text.as_deref().map(str::trim) {
        None | Some("" | "none" | "unlimited") => Ok(None),
        Some(text) => parsed(key, text, parse_rate).map(Some),
    }
}

fn scrub_every(text: Option<String>) -> Result<Option<Duration>, SettingsError> {
    match text.as_deref().map(str::trim) {
        None => Ok(Some(DEFAULT_SCRUB_EVERY)),
        Some("never") => Ok(None),
        Some(text) => parsed("scrub_every", text, parse_duration).map(Some),
    }
}

fn window(text: Option<String>) -> Result<u64, SettingsError> {
    let key = "connection_window";
    let size = text.map_or(Ok(2 << 20), |text| parsed(key, &text, parse_size))?;
    // Less than a request's worth stalls every stream; 16 MiB carry 10 Gbit/s over 13 ms.
    if (256 << 10..=16 << 20).contains(&size) {
        return Ok(size);
    }
    Err(SettingsError::Value { key, why: "it goes from 256KiB to 16MiB".to_owned() })
}

fn groups(text: Option<String>) -> Result<GroupRange, SettingsError> {
    text.map_or(Ok(GroupRange::default()), |text| parsed("multicast_groups", &text, parse_groups))
}

/// `ADDRESS/BITS`, as in 239.255.0.0/16. Ports are the default ones.
fn parse_groups(text: &str) -> Result<GroupRange, String> {
    let parts = text.split_once('/').and_then(|(base, bits)| Some((base.parse().ok()?, bits.parse().ok()?)));
    let (base, prefix_len) =
        parts.ok_or_else(|| format!("{text:?} is no range of groups; write it like 239.255.0.0/16"))?;
    GroupRange::v4(base, prefix_len, GroupRange::PORTS).map_err(|error| error.to_string())
}

fn as_text<S: serde::Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn check_tracker(text: &str) -> Result<String, String> {
    is_somewhere(text)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{text:?} is no tracker; write it like tracker.example:7440"))
}

fn check_peer(text: &str) -> Result<String, String> {
    is_somewhere(text)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{text:?} is no host; write it like host-1.example:7444"))
}

/// Whether it may be where somebody listens: 0.0.0.0 is everywhere and nowhere.
fn is_somewhere(text: &str) -> bool {
    has_port(text) && !text.parse::<SocketAddr>().is_ok_and(|addr| addr.ip().to_canonical().is_unspecified())
}

fn has_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) && !text.contains(char::is_whitespace)
    })
}

fn check_rack(text: &str) -> Result<String, String> {
    if (1..=MAX_LABEL_LEN).contains(&text.len()) && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("a rack has 1 to {MAX_LABEL_LEN} bytes and no control characters"))
}

fn check_filter(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{text:?}: {error}; write it like info or info,drover_agent=debug")),
    }
}

fn default_io_threads() -> u32 {
    std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 4) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Story {
        folder: tempfile::TempDir,
        sources: Sources,
    }

    impl Story {
        fn with_file(text: &str) -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let file = folder.path().join("drover.toml");
            std::fs::write(&file, text).expect("write settings");
            Story { folder, sources: Sources { file: Some(file), ..Sources::default() } }
        }

        fn environment(mut self, name: &str, value: &str) -> Self {
            self.sources.environment.push((name.to_owned(), value.to_owned()));
            self
        }

        fn flag(mut self, key: &'static str, value: &str) -> Self {
            self.sources.flags.push((key, value.to_owned()));
            self
        }

        fn load(&self) -> Settings {
            Settings::load(&self.sources).expect("good settings")
        }

        fn refusal(&self) -> String {
            assert!(self.folder.path().exists());
            Settings::load(&self.sources).expect_err("bad settings").to_string()
        }
    }

    #[test]
    fn without_anything_written_the_defaults_hold() {
        let settings = Settings::load(&Sources::default()).expect("defaults");
        assert_eq!(settings.listen.to_string(), "0.0.0.0:7444");
        assert_eq!((settings.trackers, settings.publishers, settings.upload_limit), (None, None, None));
        assert_eq!((settings.upload_slots, settings.keep_versions), (16, 1));
    }

    #[test]
    fn environment_overrides_file_and_flags_override_both() {
        let story = Story::with_file("listen = '127.0.0.1:1'\nrack = 'a'\nupload_slots = 2\nsubscribe = ['x']")
            .environment("DROVER_LISTEN", "127.0.0.1:2")
            .environment("DROVER_RACK", "b")
            .environment("DROVER_SUBSCRIBE", "base, web")
            .environment("DROVER_UPLOAD_LIMIT", "800Mbit")
            .environment("DROVER_STATE", "/elsewhere")
            .environment("DROVER_SOMETHING_ELSE", "1")
            .flag("listen", "127.0.0.1:3");
        let settings = story.load();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:3");
        assert_eq!(settings.rack.as_deref(), Some("b"));
        assert_eq!(settings.upload_slots, 2);
        assert_eq!(settings.upload_limit, Some(100_000_000));
        let names: Vec<&str> = settings.subscribe.iter().map(Name::as_str).collect();
        assert_eq!(names, ["base", "web"]);
    }

    #[test]
    fn an_empty_variable_empties_a_list() {
        let story = Story::with_file("subscribe = ['x']").environment("DROVER_SUBSCRIBE", "");
        assert_eq!(story.load().subscribe, []);
    }

    #[test]
    fn a_limit_may_be_a_bare_number_of_bytes() {
        let settings = Story::with_file("upload_limit = 5000000\ndownload_limit = 'unlimited'").load();
        assert_eq!((settings.upload_limit, settings.download_limit), (Some(5_000_000), None));
        let story = Story::with_file("").environment("DROVER_DOWNLOAD_LIMIT", "1000");
        assert_eq!(story.load().download_limit, Some(1000));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file_and_the_nearest_setting() {
        let refusal = Story::with_file("subscribes = ['base']").refusal();
        assert!(refusal.contains("drover.toml: there is no setting \"subscribes\""), "{refusal}");
        assert!(refusal.contains("did you mean \"subscribe\"?"), "{refusal}");
        let refusal = Story::with_file("zzz = 1").refusal();
        assert!(refusal.contains("settings are listen, trackers"), "{refusal}");
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (text, part) in [
            ("listen = 'here'", "setting listen: \"here\" is no address"),
            ("trackers = ['tracker']", "setting trackers: \"tracker\" is no tracker"),
            ("peers = ['host']", "setting peers: \"host\" is no host"),
            ("peers = ['0.0.0.0:7444']", "setting peers: \"0.0.0.0:7444\" is no host"),
            ("trackers = ['[::]:7440']", "setting trackers: \"[::]:7440\" is no tracker"),
            ("networks = ['']", "setting networks: an entry is empty"),
            ("networks = ['10.0.0.0']", "setting networks: \"10.0.0.0\" is no network"),
            ("listen = '0.0.0.0:65535'", "setting listen: the DHT takes the port after it, and 65535 is the last"),
            ("dht_port = 7444", "setting dht_port: it is the port of listen"),
            ("subscribe = ['../x']", "setting subscribe: \"../x\" is no name"),
            ("publishers = ['12']", "setting publishers: an id is 64"),
            ("signatures = 0", "setting signatures: 0 is out of range"),
            ("signatures = 6", "setting signatures: 6 is out of range"),
            (
                &format!("signatures = 2\npublishers = ['{}']", "00".repeat(32)),
                "setting signatures: no release can have 2",
            ),
            ("upload_slots = 0", "setting upload_slots: 0 is out of range"),
            ("upload_limit = '5 parsecs'", "setting upload_limit: \"5 parsecs\" is no rate"),
            ("multicast_groups = '10.0.0.0/8'", "setting multicast_groups: 10.0.0.0/8 is no range of groups"),
            ("multicast_groups = 'all'", "setting multicast_groups: \"all\" is no range"),
            ("multicast = 'maybe'", "multicast"),
            ("rack = ''", "setting rack: "),
            ("log = '=,='", "setting log: "),
            ("connection_window = '1KiB'", "setting connection_window: "),
            ("subscribe = true", "subscribe"),
            ("listen = ", "is not TOML"),
        ] {
            let refusal = Story::with_file(text).refusal();
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_file_that_was_named_has_to_exist() {
        let sources = Sources { file: Some("/nowhere/drover.toml".into()), ..Sources::default() };
        let refusal = Settings::load(&sources).expect_err("no such file").to_string();
        assert!(refusal.contains("can't read settings /nowhere/drover.toml"), "{refusal}");
    }

    #[test]
    fn the_list_of_keys_is_that_of_the_raw_settings() {
        // serde names all fields when it meets one that it does not know.
        let error = toml::from_str::<RawSettings>("no_such_key = 1").expect_err("an unknown key").to_string();
        for key in KEYS {
            assert!(error.contains(&format!("`{key}`")), "{key} is no field: {error}");
        }
        assert_eq!(error.matches('`').count() / 2, KEYS.len() + 1, "{error}");
    }

    #[test]
    fn the_example_file_is_good_and_names_every_setting() {
        let text = include_str!("../drover.example.toml");
        let sources = Story::with_file(text);
        assert_eq!(sources.load(), Settings::load(&Sources::default()).expect("defaults"), "it shows the defaults");
        // With every line switched on it is good, too.
        let switched_on: String =
            text.lines().map(|line| line.strip_prefix("#:").unwrap_or(line).to_owned() + "\n").collect();
        Story::with_file(&switched_on).load();
        let table: toml::Table = switched_on.parse().expect("TOML");
        for key in KEYS {
            assert!(table.contains_key(key), "{key} is missing in the example");
        }
    }
}
