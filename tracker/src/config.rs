//! Settings of `drover-tracker run`: as written, then checked.
//!
//! Layers, each over the one before: defaults, one TOML file (`--config`, else `DIR/tracker.toml`), environment, flags.
//! A key that is no setting is refused: it is a mistyped one that would silently do nothing.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_link::ca::MEMBER_DAYS;
use drover_protocol::networks::Networks;
use drover_protocol::release::MOST_COSIGNERS;
use serde::Deserialize;

/// UDP port of trackers.
pub const DEFAULT_PORT: u16 = 7440;
/// Where hosts reach the tracker unless told otherwise: on every address.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT);
/// Where status is to be had unless told otherwise: on this machine only, because it asks nobody who they are.
pub const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7441);

/// How long certificates of hosts and publishers are good for unless told otherwise. They are renewed after two thirds of
/// it, so trackers may be away for two days before the first host is locked out; a stolen key is of use no longer.
pub const DEFAULT_CERTIFICATE_LIFE: Duration = Duration::from_secs(MEMBER_DAYS as u64 * 24 * 3600);
/// What it may be set to. Less than an hour is for trying out how members renew; with more, a host that is not to be a
/// member any more stays one for long.
const CERTIFICATE_LIFE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(90 * 24 * 3600));
/// The publisher who made a release, and those who signed it as well.
const MOST_SIGNATURES: usize = 1 + MOST_COSIGNERS;

/// Checked settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// UDP address for hosts.
    pub listen: SocketAddr,
    /// TCP address for status, if any.
    pub http: Option<SocketAddr>,
    /// How long certificates of hosts and publishers are good for.
    pub certificate_life: Duration,
    /// How many publishers have to sign a release before it is taken.
    pub signatures: usize,
    /// Whether it has a node of the cluster's hash table, on the port after `listen`'s.
    pub dht: bool,
    /// Networks that hosts are in, for that node; none are named for the private ones.
    pub networks: Networks,
    /// Other trackers of the cluster, "host:port", whose nodes are to know this one's.
    pub trackers: Vec<String>,
    /// What is logged, as in `info,drover_tracker=debug`.
    pub log: String,
}

/// Settings as somebody wrote them; what is missing falls through to the layer below.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSettings {
    /// `ADDRESS:PORT`, UDP.
    pub listen: Option<String>,
    /// `ADDRESS:PORT`, TCP, or `off`.
    pub http: Option<String>,
    /// A number with a unit: `12h`, `7d`.
    pub certificate_life: Option<String>,
    /// A number.
    pub signatures: Option<usize>,
    /// `true` or `false`.
    pub dht: Option<bool>,
    /// `ADDRESS/BITS` each.
    pub networks: Option<Vec<String>>,
    /// `HOST:PORT` each.
    pub trackers: Option<Vec<String>>,
    /// As in `RUST_LOG`.
    pub log: Option<String>,
}

/// Why settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file can't be read.
    #[error("can't read the settings in {path}: {cause}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The file holds something else than settings; the text says where.
    #[error("can't use the settings in {path}: {cause}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and in which line.
        #[source]
        cause: Box<toml::de::Error>,
    },
    /// An address is none.
    #[error("{setting} = {value:?} is no address: write it as 192.0.2.7:{DEFAULT_PORT} or [::]:{DEFAULT_PORT}")]
    Address {
        /// Which setting.
        setting: &'static str,
        /// What was written.
        value: String,
    },
    /// A network is none.
    #[error("networks: {0}")]
    Network(#[from] drover_protocol::networks::ParseNetworkError),
    /// Another tracker is none.
    #[error(
        "trackers: {0:?} is no tracker: write it as 192.0.2.7:{DEFAULT_PORT} or tracker.example.org:{DEFAULT_PORT}"
    )]
    Tracker(String),
    /// There is no port for the node of the hash table.
    #[error(
        "listen = \"{0}\" leaves no port for the DHT, which takes the one after it: choose a lower one, or set dht = \
         false in tracker.toml"
    )]
    LastPort(SocketAddr),
    /// No release can have so many signatures, or none.
    #[error("signatures = {0} can't be: a release has 1 to {MOST_SIGNATURES}")]
    Signatures(usize),
    /// Certificates can't live that long, or that short.
    #[error("certificate_life = {0:?} can't be: it goes from 10s, for tests, to 90d; write it as 12h or 7d")]
    CertificateLife(String),
}

/// Where settings are looked for if no file is named.
pub fn default_file(dir: &Path) -> PathBuf {
    dir.join("tracker.toml")
}

/// What `init` writes there.
pub(crate) fn initial(listen: SocketAddr) -> String {
    format!(
        "# Settings of `drover-tracker run`; flags and environment go before them.\n\
         # UDP address for hosts.\n\
         listen = \"{listen}\"\n\
         # TCP address for /status, /livez and /readyz, or \"off\". Whoever reaches it may read it.\n\
         #http = \"{DEFAULT_HTTP}\"\n\
         # How long certificates of hosts and publishers are good for. They renew after two thirds of it.\n\
         #certificate_life = \"7d\"\n\
         # How many publishers have to sign a release before it is taken. Hosts have the same in their settings.\n\
         #signatures = 1\n\
         # Whether it has a node of the cluster's hash table (UDP, on the port after listen's), by which hosts find each\n\
         # other when no tracker answers.\n\
         #dht = true\n\
         # The networks that hosts are in, for that node (default: private ones). It answers nobody else; hosts have the same\n\
         # in their settings.\n\
         #networks = [\"10.0.0.0/8\"]\n\
         # Other trackers of the cluster, for that node: so hosts find each other that know one of them each. The list may be\n\
         # the same on all trackers.\n\
         #trackers = [\"192.0.2.7:{DEFAULT_PORT}\"]\n\
         # What is logged, as in \"info,drover_tracker=debug\".\n\
         #log = \"info\"\n"
    )
}

impl Settings {
    /// `over` over the file (`named`, else the one in `dir` if there is one) over the defaults.
    pub fn layered(dir: &Path, named: Option<&Path>, over: RawSettings) -> Result<Settings, SettingsError> {
        let file = match named {
            Some(path) => RawSettings::read(path)?,
            None if default_file(dir).exists() => RawSettings::read(&default_file(dir))?,
            None => RawSettings::default(),
        };
        let listen = over.listen.or(file.listen);
        let listen = listen.map_or(Ok(DEFAULT_LISTEN), |text| parse_addr("listen", &text))?;
        let dht = over.dht.or(file.dht).unwrap_or(true);
        if dht {
            check_port(listen)?;
        }
        let http = over.http.or(file.http);
        Ok(Settings {
            listen,
            http: match http.as_deref() {
                None => Some(DEFAULT_HTTP),
                Some("off") => None,
                Some(text) => Some(parse_addr("http", text)?),
            },
            certificate_life: over
                .certificate_life
                .or(file.certificate_life)
                .map_or(Ok(DEFAULT_CERTIFICATE_LIFE), |text| parse_certificate_life(&text))?,
            signatures: check_signatures(over.signatures.or(file.signatures).unwrap_or(1))?,
            dht,
            networks: over
                .networks
                .or(file.networks)
                .unwrap_or_default()
                .iter()
                .map(|text| text.parse::<Networks>())
                .collect::<Result<_, _>>()?,
            trackers: over
                .trackers
                .or(file.trackers)
                .unwrap_or_default()
                .into_iter()
                .map(with_port)
                .collect::<Result<_, _>>()?,
            log: over.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
        })
    }
}

impl RawSettings {
    fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = fs::read_to_string(path).map_err(|cause| SettingsError::Read { path: path.to_owned(), cause })?;
        toml::from_str(&text).map_err(|cause| SettingsError::Parse { path: path.to_owned(), cause: Box::new(cause) })
    }
}

/// An address for hosts, as it is written in settings and flags; without a port it gets the usual one.
pub fn parse_addr(setting: &'static str, text: &str) -> Result<SocketAddr, SettingsError> {
    let alone = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DEFAULT_PORT));
    text.parse().or_else(|_| alone()).map_err(|_| SettingsError::Address { setting, value: text.to_owned() })
}

/// Another tracker, as it is written in settings: an address or a name, and a port.
fn with_port(tracker: String) -> Result<String, SettingsError> {
    let port = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    if tracker.rsplit_once(':').is_some_and(port) { Ok(tracker) } else { Err(SettingsError::Tracker(tracker)) }
}

/// The node of the hash table takes the port after a tracker's.
pub fn check_port(listen: SocketAddr) -> Result<(), SettingsError> {
    if listen.port() == u16::MAX { Err(SettingsError::LastPort(listen)) } else { Ok(()) }
}

/// A time with its unit: 90s, 30m, 1h, 7d.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return None,
    };
    let count: u64 = text[..text.len() - 1].parse().ok()?;
    count.checked_mul(seconds).map(Duration::from_secs)
}

fn check_signatures(count: usize) -> Result<usize, SettingsError> {
    if (1..=MOST_SIGNATURES).contains(&count) { Ok(count) } else { Err(SettingsError::Signatures(count)) }
}

fn parse_certificate_life(text: &str) -> Result<Duration, SettingsError> {
    let (least, most) = CERTIFICATE_LIFE;
    let life = parse_duration(text.trim()).filter(|life| (least..=most).contains(life));
    life.ok_or_else(|| SettingsError::CertificateLife(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, over: RawSettings) -> Result<Settings, SettingsError> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(default_file(dir.path()), text).expect("written");
        Settings::layered(dir.path(), None, over)
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let over = RawSettings { http: Some("off".to_owned()), ..RawSettings::default() };
        let settings = with_file("listen = '[::1]:9'\nhttp = '127.0.0.1:1'\n", over).expect("settings");
        assert_eq!(
            settings,
            Settings {
                listen: "[::1]:9".parse().expect("an address"),
                http: None,
                certificate_life: DEFAULT_CERTIFICATE_LIFE,
                signatures: 1,
                dht: true,
                networks: Networks::default(),
                trackers: Vec::new(),
                log: "info".to_owned()
            }
        );
    }

    #[test]
    fn what_init_writes_can_be_read() {
        let listen = "127.0.0.1:7000".parse().expect("an address");
        let settings = with_file(&initial(listen), RawSettings::default()).expect("settings");
        assert_eq!((settings.listen, settings.http), (listen, Some(DEFAULT_HTTP)));
    }

    #[test]
    fn a_mistyped_key_is_refused_with_its_line() {
        let error = with_file("log = 'info'\nlissten = '1.2.3.4:5'\n", RawSettings::default()).expect_err("mistyped");
        let text = error.to_string();
        assert!(text.contains("lissten") && text.contains("line 2") && text.contains("tracker.toml"), "{text}");
    }

    #[test]
    fn other_trackers_have_a_port() {
        let settings =
            with_file("trackers = ['192.0.2.7:7440', 'two.example.org:1', '[::1]:2']", RawSettings::default());
        assert_eq!(settings.expect("settings").trackers.len(), 3);
        for wrong in ["192.0.2.7", ":7440", "two.example.org:", "two.example.org:0", ""] {
            let error = with_file(&format!("trackers = ['{wrong}']"), RawSettings::default()).expect_err("no port");
            assert!(error.to_string().contains(&format!("{wrong:?} is no tracker")), "{error}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("1h"), Some(Duration::from_secs(3600)));
        for wrong in ["", "h", "5", "5é", "-1h", "99999999999999999999h", "18446744073709551615h"] {
            assert!(parse_duration(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn certificates_live_neither_for_seconds_nor_for_years() {
        let life = |text: &str| with_file(&format!("certificate_life = '{text}'"), RawSettings::default());
        assert_eq!(life("12h").expect("settings").certificate_life, Duration::from_secs(12 * 3600));
        for wrong in ["9s", "91d", "0d", "7", "week"] {
            assert!(matches!(life(wrong), Err(SettingsError::CertificateLife(_))), "{wrong}");
        }
    }

    #[test]
    fn a_release_has_one_to_five_signatures() {
        let settings = |count: i64| with_file(&format!("signatures = {count}"), RawSettings::default());
        assert_eq!(settings(5).expect("settings").signatures, 5);
        for wrong in [0, 6] {
            assert!(matches!(settings(wrong), Err(SettingsError::Signatures(_))), "{wrong}");
        }
    }

    #[test]
    fn the_last_port_leaves_none_for_the_hash_table() {
        let settings = |text: &str| with_file(text, RawSettings::default());
        assert!(matches!(settings("listen = '10.0.0.1:65535'"), Err(SettingsError::LastPort(_))));
        assert!(settings("listen = '10.0.0.1:65535'\ndht = false").is_ok());
    }

    #[test]
    fn an_address_may_lack_its_port_but_not_more() {
        assert_eq!(parse_addr("listen", "::1").expect("an address").port(), DEFAULT_PORT);
        assert!(parse_addr("listen", "tracker.example:7440").is_err());
    }
}
