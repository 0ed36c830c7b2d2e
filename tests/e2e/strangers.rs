//! Every message and every request, from those who have no right to say it: without a certificate, with one of another
//! cluster, an expired one, a revoked one, or that of another role.
//!
//! The lists of messages name every kind there is: a kind that is added does not compile until it has a number here, and a
//! number without a message fails the test.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use drover_agent::control::Route;
use drover_harness::{Fleet, LONG, Reaction, Stranger, Stream, run, seed, tracker_program, wait_until};
use drover_link::ca::CertificateAuthority;
use drover_link::identity::{Identity, MemberKey, Role};
use drover_protocol::announce::{Announce, JoinRequest, TrackerReply, TrackerRequest};
use drover_protocol::codec::{self, Message};
use drover_protocol::discovery::DiscoveryMessage;
use drover_protocol::have::{WireDelta, WireHave};
use drover_protocol::id::{ImageId, PublisherKey};
use drover_protocol::message::{DataRequest, LeaveReason, PageRange, PeerMessage, SwarmMessage};
use drover_protocol::multicast::election::LeaseRequest;
use drover_protocol::multicast::message::MulticastMessage;
use drover_protocol::multicast::packet::SessionId;
use drover_protocol::multicast::probe::ProbeMessage;
use drover_protocol::release::SignedRelease;

const IMAGE: ImageId = ImageId::from_bytes([7; 32]);

#[test]
fn no_message_is_answered_without_the_right_certificate() {
    let seed = seed("no_message_is_answered_without_the_right_certificate");
    let fleet = Fleet::start(1);
    let image = drover_harness::TestImage::make(&fleet.path("disk.raw"), 1 << 20, 1 << 20, seed);
    let published = fleet.publish(&image.path, "golden", &[]);
    let image: ImageId = published["image"].as_str().expect("an image id").parse().expect("an image id");
    let (tracker, agent) = (fleet.tracker_addr().parse().expect("an address"), fleet.hosts[0].listen());
    let papers = Papers::make(&fleet);
    let ca = fleet.tracker_state().join("ca/ca.pem");

    // Those who belong here get answers, or the rest shows nothing.
    let member = Stranger::new(&ca, Some(&papers.member));
    for (name, frame) in tracker_requests() {
        let reaction = member.say(tracker, Stream::Request, &frame);
        assert!(!reaction.answer.is_empty(), "the tracker answers a member's {name}: {reaction:?}");
    }
    for (name, frame) in data_requests(image) {
        let reaction = member.say(agent, Stream::Request, &frame);
        assert!(!reaction.answer.is_empty(), "the agent answers a member's {name}: {reaction:?}");
    }

    let strangers: [(&str, Option<&Path>, &[&str]); 4] = [
        ("nobody", None, &["must join first", "only members"]),
        ("a member of another cluster", Some(&papers.elsewhere), &["not from that cluster's CA"]),
        ("an expired member", Some(&papers.expired), &["expired"]),
        ("a revoked member", Some(&papers.revoked), &["revoked"]),
    ];
    for (who, papers, words) in strangers {
        let stranger = Stranger::new(&ca, papers);
        let mut count = 0;
        for to in [tracker, agent] {
            for (stream, name, frame) in everything(image) {
                assert_unheard(&stranger.say(to, stream, &frame), &format!("{name} by {who} to {to}"), words);
                count += 1;
            }
        }
        eprintln!("{count} messages by {who}: none answered");
    }
    // The first listens: it was not taken down by any of this.
    assert!(!member.say(tracker, Stream::Request, &tracker_requests()[2].1).answer.is_empty());
}

#[test]
fn no_role_gets_what_is_for_another() {
    let fleet = Fleet::start(1);
    let (tracker, agent): (SocketAddr, _) =
        (fleet.tracker_addr().parse().expect("an address"), fleet.hosts[0].listen());
    let papers = Papers::make(&fleet);
    let ca = fleet.tracker_state().join("ca/ca.pem");

    // A tracker's certificate opens no host.
    let other_tracker = Stranger::new(&ca, Some(&papers.tracker));
    for (stream, name, frame) in everything(IMAGE) {
        let reaction = other_tracker.say(agent, stream, &frame);
        assert!(reaction.answer.is_empty(), "{name}: {reaction:?}");
        let why = reaction.closed.unwrap_or_else(|| panic!("{name} by a tracker leaves the connection open"));
        assert!(why.contains("only hosts and publishers"), "{name}: {why}");
    }
    // A host's certificate makes no publisher: what it signs itself is nothing to the tracker.
    let host = Stranger::new(&ca, Some(&papers.member));
    let post = frame(&TrackerRequest::Post(SignedRelease {
        body: vec![1; 40],
        publisher: PublisherKey::from_bytes([8; 32]),
        signatures: vec![0; 64],
    }));
    assert!(refusal(&host.say(tracker, Stream::Request, &post)).contains("publisher"));
    // And it gets a certificate for its own key only, with its own role.
    let csr = MemberKey::generate().request();
    let renew = frame(&TrackerRequest::Renew { csr });
    assert!(refusal(&host.say(tracker, Stream::Request, &renew)).contains("only for the key"));
    // Joining is for trackers to allow, and for a token.
    let reaction = host.say(agent, Stream::Join, &join_request());
    assert!(reaction.answer.is_empty() && reaction.closed.is_some(), "{reaction:?}");
    let reaction = Stranger::new(&ca, None).say(tracker, Stream::Join, &join_request());
    assert!(String::from_utf8_lossy(&reaction.answer).contains("does not know the join token"), "{reaction:?}");
}

#[test]
fn no_request_of_the_control_socket_is_for_another_user() {
    if !rustix::process::geteuid().is_root() {
        return; // Nobody else can become another user.
    }
    let fleet = Fleet::start(1);
    // Everybody may come as far as the state folder; the socket itself is what is in the way.
    for folder in [fleet.dir(), &fleet.hosts[0].state] {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("it is ours");
    }
    let socket = fleet.hosts[0].state.join("agent.sock");
    let nobody = || {
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        nobody
    };
    run(nobody().args(["test", "-S"]).arg(&socket)).ok();
    for route in Route::ALL {
        let (method, path) = route.method_and_path();
        let url = format!("http://drover{}", path.replace("{master}", "none").replace("{name}", "none"));
        let ask = |mut command: Command| {
            command.args(["curl", "-sS", "-X", method, "-d", "{", "--max-time", "20", "-o", "-", "--unix-socket"]);
            run(command.arg(&socket).arg(&url))
        };
        let refused = ask(nobody());
        assert!(refused.code != Some(0) && refused.stdout.is_empty(), "{method} {path} for another user: {refused:?}");
        let owner = ask(Command::new("env"));
        assert!(owner.code == Some(0) && !owner.stdout.contains("no such request"), "{method} {path}: {owner:?}");
    }
}

/// What the tracker tells without asking who it is: on this machine only unless it is told otherwise, and it changes nothing.
#[test]
fn the_trackers_status_is_for_this_machine_and_only_to_be_read() {
    assert!(drover_tracker_http().ip().is_loopback());
    let fleet = Fleet::start(0);
    let http = format!("http://{}:7441", fleet.tracker_addr().split(':').next().expect("an address"));
    let code = |method: &str, path: &str| {
        let mut curl = Command::new("curl");
        let url = format!("{http}{path}");
        run(curl.args(["-sS", "-X", method, "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", &url])).ok()
    };
    for path in ["/livez", "/readyz", "/status"] {
        assert_eq!(code("GET", path), "200", "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert_eq!(code(method, path), "405", "{method} {path}");
        }
    }
    for path in ["/", "/metrics", "/status/", "/v1/status", "/../publisher.key"] {
        assert_eq!(code("GET", path), "404", "{path}");
    }
}

fn drover_tracker_http() -> SocketAddr {
    let help = run(tracker_program().args(["run", "--help"])).ok();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut defaults = help.split("[default: ").filter_map(|rest| rest.split_once(']')).map(|(default, _)| default);
    let default = defaults.find(|default| default.ends_with(":7441")).expect("the help names the default");
    default.parse().expect("an address")
}

/// Identities, each laid out in a folder as a member has it.
struct Papers {
    member: PathBuf,
    elsewhere: PathBuf,
    expired: PathBuf,
    revoked: PathBuf,
    tracker: PathBuf,
}

impl Papers {
    #[track_caller]
    fn make(fleet: &Fleet) -> Self {
        let ours = CertificateAuthority::load(&fleet.tracker_state().join("ca")).expect("the cluster's CA");
        let theirs = CertificateAuthority::create(&fleet.path("other-ca"), "other").expect("another CA");
        let hour = Duration::from_secs(3600);
        let papers = |ca: &CertificateAuthority, role, name: &str, life| {
            let key = Arc::new(MemberKey::generate());
            let request = CertificateAuthority::check(&key.request()).expect("our own request");
            let certificate = ca.issue_checked(&request, role, name, life).expect("a certificate");
            let identity = Identity::new(key, certificate, ca.certificate().to_vec(), Vec::new(), Vec::new());
            let (identity, folder) = (identity.expect("an identity"), fleet.path(&format!("papers-{name}")));
            identity.save(&folder).expect("a test's folder can be written");
            (folder, identity)
        };
        let (revoked, identity) = papers(&ours, Role::Host, "revoked", hour);
        let peer = identity.peer_id().to_string();
        run(tracker_program().args(["revoke", &peer, "--state"]).arg(fleet.tracker_state())).ok();
        let (expired, identity) = papers(&ours, Role::Host, "expired", Duration::ZERO);
        let now = drover_link::identity::unix_now_s;
        wait_until("a certificate to be over", LONG, now, |&now| now > identity.expires_unix_s() + 1);
        for host in &fleet.hosts {
            let known = || std::fs::read_to_string(host.state.join("revoked.json")).unwrap_or_default();
            wait_until("the host to know who is revoked", LONG, known, |known| known.contains(&peer));
        }
        Papers {
            member: papers(&ours, Role::Host, "member", hour).0,
            elsewhere: papers(&theirs, Role::Host, "elsewhere", hour).0,
            expired,
            revoked,
            tracker: papers(&ours, Role::Tracker, "tracker", hour).0,
        }
    }
}

/// Nothing came back, not even a hello, and the connection was ended for one of these reasons.
#[track_caller]
fn assert_unheard(reaction: &Reaction, what: &str, words: &[&str]) {
    assert!(reaction.heard.is_empty() && reaction.answer.is_empty(), "{what}: {reaction:?}");
    let why = reaction.closed.as_ref().unwrap_or_else(|| panic!("{what} leaves the connection open"));
    assert!(words.iter().any(|word| why.contains(word)), "{what}: {why}");
}

#[track_caller]
fn refusal(reaction: &Reaction) -> String {
    match codec::decode::<TrackerReply>(reaction.answer.get(4..).unwrap_or_default()) {
        Ok(TrackerReply::Refused(why)) => why,
        other => panic!("not refused: {other:?}, {reaction:?}"),
    }
}

fn frame(message: &impl Message) -> Vec<u8> {
    codec::encode_frame(message).expect("a message of ours")
}

fn join_request() -> Vec<u8> {
    let csr = MemberKey::generate().request();
    frame(&JoinRequest { token: [3; 16], csr, host: "stranger".to_owned(), publisher: None })
}

/// Every kind of message that members say, and where it is said.
fn everything(image: ImageId) -> Vec<(Stream, String, Vec<u8>)> {
    let requests = tracker_requests().into_iter().chain(data_requests(image));
    let requests = requests.map(|(name, frame)| (Stream::Request, name, frame));
    let control = peer_messages().into_iter().map(|(name, frame)| (Stream::Control, name, frame));
    requests.chain(control).collect()
}

/// Names and frames; fails if there are not exactly `count` kinds among them.
#[track_caller]
fn all_kinds<M: Message + core::fmt::Debug>(
    messages: Vec<M>,
    count: usize,
    kind: impl Fn(&M) -> usize,
) -> Vec<(String, Vec<u8>)> {
    let mut kinds: Vec<usize> = messages.iter().map(kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, (0..count).collect::<Vec<_>>(), "one of each kind");
    let name = |message: &M| format!("{message:?}").chars().take(40).collect();
    messages.iter().map(|message| (name(message), frame(message))).collect()
}

fn tracker_requests() -> Vec<(String, Vec<u8>)> {
    let group = "239.255.1.2:50000".parse().expect("an address");
    let release =
        SignedRelease { body: vec![1; 40], publisher: PublisherKey::from_bytes([8; 32]), signatures: vec![0; 64] };
    let requests = vec![
        TrackerRequest::Announce(Announce { listen: Vec::new(), rack: None, swarms: Vec::new() }),
        TrackerRequest::Post(release),
        TrackerRequest::Releases { names: Vec::new() },
        TrackerRequest::Watch,
        TrackerRequest::Renew { csr: MemberKey::generate().request() },
        TrackerRequest::Lease(LeaseRequest { number: 1, image: IMAGE, session: SessionId(1), group }),
        TrackerRequest::EndLease { image: IMAGE, session: SessionId(1) },
        TrackerRequest::Secret,
    ];
    all_kinds(requests, 8, |request| match request {
        TrackerRequest::Announce(_) => 0,
        TrackerRequest::Post(_) => 1,
        TrackerRequest::Releases { .. } => 2,
        TrackerRequest::Watch => 3,
        TrackerRequest::Renew { .. } => 4,
        TrackerRequest::Lease(_) => 5,
        TrackerRequest::EndLease { .. } => 6,
        TrackerRequest::Secret => 7,
    })
}

fn data_requests(image: ImageId) -> Vec<(String, Vec<u8>)> {
    let ranges = vec![PageRange { first: 0, count: 16 }];
    let requests = vec![DataRequest::Manifest { image }, DataRequest::Pages { image, piece: 0, ranges }];
    all_kinds(requests, 2, |request| match request {
        DataRequest::Manifest { .. } => 0,
        DataRequest::Pages { .. } => 1,
    })
}

/// One of each kind by its first two numbers: what it is about, and what it says of that.
fn peer_messages() -> Vec<(String, Vec<u8>)> {
    let about = |message| PeerMessage::Swarm { image: IMAGE, message };
    let messages = vec![
        about(SwarmMessage::Join { have: WireHave::Runs(Vec::new()) }),
        about(SwarmMessage::Leave { reason: LeaveReason::NotHere }),
        about(SwarmMessage::HaveDelta { delta: WireDelta(vec![(0, 1)]) }),
        PeerMessage::Peers { image: IMAGE, peers: Vec::new() },
        PeerMessage::Multicast {
            image: IMAGE,
            message: MulticastMessage::Join {
                session: SessionId(1),
                held: WireHave::Runs(Vec::new()),
                link_bytes_per_s: 0,
            },
        },
        PeerMessage::Probe(ProbeMessage::Ready { session: SessionId(1) }),
        PeerMessage::Discovery(DiscoveryMessage::AskHosts),
        PeerMessage::Discovery(DiscoveryMessage::AskPeers { image: IMAGE }),
        PeerMessage::Discovery(DiscoveryMessage::Hosts { peers: Vec::new() }),
        PeerMessage::Discovery(DiscoveryMessage::Releases { releases: Vec::new() }),
    ];
    all_kinds(messages, 10, |message| match message {
        PeerMessage::Swarm { message: SwarmMessage::Join { .. } | SwarmMessage::Have { .. }, .. } => 0,
        PeerMessage::Swarm { message: SwarmMessage::Leave { .. }, .. } => 1,
        PeerMessage::Swarm {
            message:
                SwarmMessage::HaveDelta { .. }
                | SwarmMessage::Partial { .. }
                | SwarmMessage::Rack { .. }
                | SwarmMessage::Importing { .. },
            ..
        } => 2,
        PeerMessage::Peers { .. } => 3,
        PeerMessage::Multicast { .. } => 4,
        PeerMessage::Probe(_) => 5,
        PeerMessage::Discovery(DiscoveryMessage::AskHosts) => 6,
        PeerMessage::Discovery(DiscoveryMessage::AskPeers { .. }) => 7,
        PeerMessage::Discovery(DiscoveryMessage::Hosts { .. }) => 8,
        PeerMessage::Discovery(DiscoveryMessage::Releases { .. }) => 9,
    })
}
