//! The bodies and events of the control socket. Times are seconds since 1970, sizes bytes, rates bytes per second.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use drover_protocol::id::{ContentHash, ImageId, PeerId, PublisherKey};
use drover_protocol::item::ItemSignature;
use drover_protocol::lookup::NameSecret;
use drover_protocol::multicast::probe::Fitness;
use drover_protocol::release::{Name, Release, SignedRelease};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Problem;
use crate::exchange::{DhtStatus, KnownHost, MulticastStatus, Source, StaticPeer};
use crate::handover::FileIdentity;

/// The version that every event and status carries as `"v"`.
pub const API_VERSION: u32 = 1;

/// How a person names a master: `NAME` (its newest version), `NAME@VERSION` or an image id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MasterRef {
    /// By name.
    Named {
        /// Which name.
        name: Name,
        /// Which version; the newest if there is none.
        version: Option<u64>,
    },
    /// By image id.
    Image(ImageId),
}

/// A text that names no master.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseMasterError {
    /// The part before the `@` is no name.
    #[error(transparent)]
    Name(#[from] drover_protocol::release::ParseNameError),
    /// The part after the `@` is no version.
    #[error("{0:?} is no version: versions are whole numbers from 1 on, as in base@3")]
    Version(String),
}

/// How the daemon stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// [`API_VERSION`].
    pub v: u32,
    /// Version of the daemon.
    pub version: String,
    /// What the host is called in its certificate.
    pub host: String,
    /// Who it is.
    pub peer: PeerId,
    /// Where it listens.
    pub listen: Vec<std::net::SocketAddr>,
    /// Its state folder.
    pub state: PathBuf,
    /// When it was started.
    pub started_unix_s: u64,
    /// When its certificate ends.
    pub certificate_expires_unix_s: u64,
    /// Every tracker of the settings.
    pub trackers: Vec<Tracker>,
    /// Names whose releases are fetched by themselves.
    pub subscribed: Vec<Name>,
    /// Every swarm that the daemon is in.
    pub transfers: Vec<Transfer>,
    /// Releases that no tracker has taken yet.
    pub unposted: Vec<String>,
    /// Hosts that this one is connected with, for whatever image or none.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// Hosts of which an address is known.
    #[serde(default)]
    pub known_hosts: usize,
    /// Those of them that this one is not connected with.
    #[serde(default)]
    pub away: Vec<KnownHost>,
    /// Hosts that the settings name (`peers`).
    #[serde(default)]
    pub static_peers: Vec<StaticPeer>,
    /// What somebody should look at, though the daemon goes on: settings that can't be meant, releases that expired,
    /// masters that are spoilt.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The host's node in the cluster's hash table, unless the settings switch it off.
    #[serde(default)]
    pub dht: Option<DhtStatus>,
}

/// A host that this one is connected with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Host {
    /// Who.
    pub peer: PeerId,
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub addr: std::net::SocketAddr,
    /// How it was found.
    pub found: Option<Source>,
}

/// A tracker, as this host sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tracker {
    /// `HOST:PORT` as in the settings.
    pub address: String,
    /// Whether it answers.
    pub reachable: bool,
    /// What it answered last, if that was an error.
    #[serde(default)]
    pub problem: Option<String>,
    /// What is wrong with its node of the hash table, while it answers.
    #[serde(default)]
    pub node_problem: Option<String>,
}

/// One swarm that the daemon is in.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// Of which image.
    pub image: ImageId,
    /// What it is called: `NAME@VERSION`, several if the same image was released more than once.
    pub names: Vec<String>,
    /// How far it is.
    pub phase: Phase,
    /// Why, if the phase is paused or failed.
    #[serde(default)]
    pub reason: Option<String>,
    /// Data bytes held.
    pub held_bytes: u64,
    /// Data bytes of the whole; 0 while the manifest is not known.
    pub data_bytes: u64,
    /// Length of the master.
    pub content_len: u64,
    /// Bytes that came twice or for nothing.
    pub wasted_bytes: u64,
    /// What this host gave to others.
    pub given_bytes: u64,
    /// What this host took from others.
    pub taken_bytes: u64,
    /// Neighbours, now and before.
    pub peers: Vec<Peer>,
    /// Parts of the master that no host within reach holds, as `[begin, end)` byte ranges.
    pub unavailable: Vec<(u64, u64)>,
    /// Hosts that this host banned, in whatever swarm, and why.
    pub banned: Vec<Banned>,
    /// Hosts that hold all of it, as far as the trackers know.
    pub seeders: u32,
    /// Hosts that do not yet, as far as the trackers know.
    pub leechers: u32,
    /// How multicast of it stands here.
    #[serde(default)]
    pub multicast: MulticastStatus,
}

/// How far a transfer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Looks for a host that has the manifest.
    Manifest,
    /// Fetches data.
    Fetching,
    /// Serves, but asks for nothing: `reason` says why.
    Paused,
    /// All is there and is made durable.
    Sealing,
    /// Sealed; serves others.
    Complete,
    /// Given up: `reason` says why.
    Failed,
}

/// A neighbour in a swarm.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Who.
    pub peer: PeerId,
    /// What it is called, once it was connected.
    #[serde(default)]
    pub name: Option<String>,
    /// How it was found, once it was connected.
    #[serde(default)]
    pub found: Option<Source>,
    /// Whether it is a neighbour now.
    pub connected: bool,
    /// What it gave us.
    pub taken_bytes: u64,
    /// What we gave it.
    pub given_bytes: u64,
    /// Its rate to us.
    pub rate_bytes_per_s: u64,
}

/// A host that misbehaved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Banned {
    /// Who.
    pub peer: PeerId,
    /// What it did.
    pub misdeed: String,
}

/// One master on this host, under one of its names.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Master {
    /// Its name; `None` if no release of it is known here.
    pub name: Option<Name>,
    /// Its version under that name.
    pub version: Option<u64>,
    /// Which image.
    pub image: ImageId,
    /// The raw content, once complete.
    pub path: Option<PathBuf>,
    /// Length of the content.
    pub content_len: u64,
    /// Bytes of it that are not in chunks of zeros.
    pub data_len: u64,
    /// BLAKE3 of the content.
    pub content_hash: Option<ContentHash>,
    /// Complete, spoilt, incoming or failed.
    pub state: MasterState,
    /// How much of the data is held, in percent.
    pub percent: f64,
    /// How it is protected from change (`immutable`, `mode`); `None` while incoming.
    pub sealed: Option<String>,
    /// Whether `path` is a file of the publisher's, outside of the state folder.
    pub in_place: bool,
    /// When all of it was last compared with its manifest, as it came in or later; `None` while incoming.
    #[serde(default)]
    pub checked_unix_s: Option<u64>,
    /// What its file was when that was last found right; `None` while incoming, and of one that an earlier version sealed.
    #[serde(default)]
    pub verified: Option<FileIdentity>,
    /// Why its bytes may have changed since: its file is another. No clones are made of it until verifying settles that.
    #[serde(default)]
    pub doubt: Option<String>,
    /// Whether no newer release of the name is known.
    pub newest: bool,
    /// Why it is not served (it was found damaged, or its file changed or is gone), or why fetching it failed.
    /// Fetching it again mends it, if another host has it; publishing the file again does, if none has.
    #[serde(default)]
    pub problem: Option<String>,
    /// Names of the clones that need it.
    pub clones: Vec<String>,
}

/// Whether a master is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MasterState {
    /// Whole, verified and sealed.
    Complete,
    /// Was whole, but is damaged, changed or gone, and is not served any more: `problem` says why.
    Spoilt,
    /// On its way.
    Incoming,
    /// Was on its way, and was given up: `problem` says why.
    Failed,
}

/// Take a file in as a master and seed it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Publish {
    /// Absolute path, readable by the daemon.
    pub path: PathBuf,
    /// Its format; guessed from its first bytes if not given.
    #[serde(default)]
    pub format: Option<Format>,
    /// Where its bytes shall lie.
    #[serde(default)]
    pub mode: ImportMode,
}

/// Formats that can be published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Format {
    /// The content itself.
    Raw,
    /// QEMU's format.
    Qcow2,
    /// VMware's format.
    Vmdk,
    /// Virtual PC's, Xen's and Hyper-V's first format.
    Vhd,
    /// Hyper-V's second format.
    Vhdx,
}

/// Where the bytes of a published master lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportMode {
    /// Reflinked into the state folder where the file system can, else copied.
    #[default]
    Auto,
    /// Copied into the state folder.
    Copy,
    /// Served from the given file, which must not change any more.
    InPlace,
}

/// Take a release, offer it to the trackers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PostRelease {
    /// The signed release, in JSON as protocol gives it.
    pub release: SignedRelease,
    /// What lets hosts find it in the cluster's hash table: the publisher's signature over the item that holds it.
    #[serde(default)]
    pub item: Option<ItemSignature>,
}

/// What became of a release.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Posted {
    /// Which name.
    pub name: Name,
    /// Which version.
    pub version: u64,
    /// Trackers that took it. Empty: it is kept here and posted as soon as one can be reached.
    pub taken_by: Vec<String>,
    /// What the others said.
    pub problems: Vec<String>,
}

/// What a publisher has to know before it makes a release of a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NextRelease {
    /// The newest version known.
    pub newest: Option<u64>,
    /// The version to give to the next.
    pub next: u64,
    /// Publishers that this host trusts.
    pub publishers: Vec<PublisherKey>,
    /// How many of them have to sign a release before it counts here.
    #[serde(default = "one")]
    pub signatures: usize,
    /// What the item of a release for the cluster's hash table is made with, if this host takes part in that.
    #[serde(default)]
    pub secret: Option<NameSecret>,
    /// What the newest version known states, if it is not damaged.
    #[serde(default)]
    pub release: Option<Release>,
}

fn one() -> usize {
    1
}

/// Bring a master here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fetch {
    /// Which.
    pub master: MasterRef,
    /// Whether to send events until it is sealed, or only to start it.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// Read a master again and compare it with its manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verify {
    /// Which.
    pub master: MasterRef,
}

/// Remove what no name and no clone needs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Gc {
    /// Only say what would be removed.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was removed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removed {
    /// Which image.
    pub image: ImageId,
    /// What it was called: `NAME@VERSION`.
    pub names: Vec<String>,
    /// Data bytes that it had on this host.
    pub bytes: u64,
    /// Something to know about it: that a subscription will bring it back, for instance.
    #[serde(default)]
    pub note: Option<String>,
}

/// Asks whether the network carries multicast.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProbeMulticast {
    /// To these hosts, named as in their certificates; to all that there is a connection with, if none is named.
    pub hosts: Vec<String>,
}

/// Whether it does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProbedMulticast {
    /// The highest rate that was sent, in bytes per second.
    pub rate_bytes_per_s: u64,
    /// What was found of each host.
    pub hosts: Vec<ProbedHost>,
}

/// Whether the network carries multicast to one host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProbedHost {
    /// Which.
    pub host: String,
    /// What was found.
    pub found: Fitness,
    /// The same for people, with what to do.
    pub text: String,
}

/// What `gc` removed, or would.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Collected {
    /// Whether nothing was really removed.
    pub dry_run: bool,
    /// These went.
    pub removed: Vec<Removed>,
    /// Superseded, but kept.
    pub kept: Vec<Kept>,
}

/// A superseded master that is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Which image.
    pub image: ImageId,
    /// What it is called.
    pub names: Vec<String>,
    /// Why it stays.
    pub why: String,
}

/// One line of a stream of events.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// [`API_VERSION`].
    pub v: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happens during a long operation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Bytes were worked through.
    Progress {
        /// What is being done: `reading`, `verifying`.
        step: String,
        /// So far.
        done_bytes: u64,
        /// In all.
        total_bytes: u64,
    },
    /// A fetch stands so.
    Transfer(Box<Transfer>),
    /// A fetch was started and goes on by itself.
    Started {
        /// Which image.
        image: ImageId,
    },
    /// The file is a master now, and is seeded.
    Imported(Imported),
    /// The master is here.
    Fetched(Box<Master>),
    /// The release is out.
    Released(Box<Released>),
    /// The master was read again.
    Verified(Verified),
    /// The operation was not done. Nothing follows.
    Error(Problem),
}

/// A file that was taken in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Imported {
    /// Which image it is.
    pub image: ImageId,
    /// Length of its content.
    pub content_len: u64,
    /// BLAKE3 of its content.
    pub content_hash: ContentHash,
    /// Bytes of it that are not in chunks of zeros.
    pub data_len: u64,
    /// The sealed content.
    pub path: PathBuf,
    /// Whether it was not on this host before.
    #[serde(default)]
    pub new: bool,
    /// What the publisher should know.
    pub warnings: Vec<String>,
}

/// A release that was made from a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Released {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: u64,
    /// The master.
    #[serde(flatten)]
    pub imported: Imported,
    /// Trackers that took it. Empty: it is kept by the daemon, which posts it later.
    pub taken_by: Vec<String>,
    /// What the others said.
    pub problems: Vec<String>,
}

/// What reading a master again has shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// Which image.
    pub image: ImageId,
    /// Bytes read and compared; the rest are holes.
    pub bytes: u64,
    /// Numbers of the chunks that are not what the manifest says, at most [`MAX_DAMAGED`] of them.
    pub damaged: Vec<u32>,
    /// How many there are.
    pub damaged_count: u64,
    /// Names of the clones that read them.
    #[serde(default)]
    pub clones: Vec<String>,
    /// Names of the clones that were made from the master and do not read it, but may share its blocks.
    #[serde(default)]
    pub others: Vec<String>,
}

/// Most damaged chunks that are named one by one.
pub const MAX_DAMAGED: usize = 1000;

impl From<Event> for Line {
    fn from(event: Event) -> Self {
        Line { v: API_VERSION, event }
    }
}

impl Phase {
    /// The word that people and scripts see.
    pub const fn word(self) -> &'static str {
        match self {
            Phase::Manifest => "manifest",
            Phase::Fetching => "fetching",
            Phase::Paused => "paused",
            Phase::Sealing => "sealing",
            Phase::Complete => "complete",
            Phase::Failed => "failed",
        }
    }
}

impl Master {
    /// `NAME@VERSION`, or the image id if it has no name.
    pub fn label(&self) -> String {
        match (&self.name, self.version) {
            (Some(name), Some(version)) => format!("{name}@{version}"),
            _ => self.image.to_string(),
        }
    }
}

impl FromStr for MasterRef {
    type Err = ParseMasterError;
    fn from_str(text: &str) -> Result<Self, ParseMasterError> {
        // 64 hexadecimal digits could be a name, too; nobody gives such a name, everybody pastes ids.
        if let Ok(image) = text.parse() {
            return Ok(MasterRef::Image(image));
        }
        let Some((name, version)) = text.split_once('@') else {
            return Ok(MasterRef::Named { name: text.parse()?, version: None });
        };
        let name = name.parse()?;
        let number = version.parse().ok().filter(|&number: &u64| number > 0);
        let version = number.ok_or_else(|| ParseMasterError::Version(version.chars().take(40).collect()))?;
        Ok(MasterRef::Named { name, version: Some(version) })
    }
}

impl fmt::Display for MasterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MasterRef::Named { name, version: None } => write!(f, "{name}"),
            MasterRef::Named { name, version: Some(version) } => write!(f, "{name}@{version}"),
            MasterRef::Image(image) => write!(f, "{image}"),
        }
    }
}

impl Serialize for MasterRef {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MasterRef {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_is_named_in_three_ways() {
        let named = |text: &str, version| MasterRef::Named { name: text.parse().expect("a name"), version };
        assert_eq!("base".parse(), Ok(named("base", None)));
        assert_eq!("base@12".parse(), Ok(named("base", Some(12))));
        let id = "ab".repeat(32);
        assert!(matches!(id.parse(), Ok(MasterRef::Image(_))));
        for text in ["", "base@", "base@0", "base@x", "Base", "a/b", "../x", "base@1@2", "@1"] {
            assert!(text.parse::<MasterRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn events_are_one_flat_object_with_event_and_version() {
        let event = Event::Progress { step: "reading".to_owned(), done_bytes: 1, total_bytes: 2 };
        let json = serde_json::to_string(&Line::from(event.clone())).expect("plain JSON");
        assert_eq!(json, r#"{"v":1,"event":"progress","step":"reading","done_bytes":1,"total_bytes":2}"#);
        let back: Line = serde_json::from_str(&json).expect("what was written");
        assert_eq!(back.event, event);
        let error = Line::from(Event::Error(Problem::failed("a", "b")));
        let json = serde_json::to_value(&error).expect("plain JSON");
        assert_eq!((json["event"].as_str(), json["code"].as_str()), (Some("error"), Some("failed")));
    }
}
