//! Daemons and the commands that speak to them: real processes, a real tracker, one machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use drover_link::identity::Role;
use drover_tracker::{Tracker, cluster};
use serde_json::Value;

const MIB: usize = 1 << 20;
/// Far more than anything here takes, also on a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster with its tracker, and the daemons of a story.
struct Story {
    folder: tempfile::TempDir,
    tracker: Option<RunningTracker>,
    address: SocketAddr,
}

/// A tracker on a thread of its own.
struct RunningTracker {
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// A host that has joined; its daemon may run.
struct Host {
    state: PathBuf,
    daemon: Option<Child>,
}

struct Run(Output);

impl Story {
    fn begin() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listen = "127.0.0.1:0".parse().expect("an address");
        cluster::init(&folder.path().join("tracker"), listen).expect("a cluster");
        let mut story = Story { folder, tracker: None, address: listen };
        story.start_tracker();
        story
    }

    /// Starts the tracker, where it was before if it was.
    fn start_tracker(&mut self) {
        let (dir, listen) = (self.path("tracker"), self.address);
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let tracker = Tracker::start(&dir, listen, None).expect("a tracker");
                tell.send(tracker.local_addr()).expect("the story goes on");
                let _ = stopped.await;
                tracker.shutdown().await;
            });
        });
        self.address = told.recv_timeout(PATIENCE).expect("the tracker listens");
        self.tracker = Some(RunningTracker { stop, thread });
    }

    fn stop_tracker(&mut self) {
        let tracker = self.tracker.take().expect("it runs");
        drop(tracker.stop);
        tracker.thread.join().expect("it ends well");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn token(&self) -> String {
        let token = cluster::new_token(&self.path("tracker"), Role::Host, Duration::from_secs(600));
        token.expect("a token").to_string()
    }

    /// A host that joined and runs its daemon with these settings.
    fn host(&self, name: &str, settings: &str) -> Host {
        let mut host = Host { state: self.path(name), daemon: None };
        let joined = host.drover(&["join", &self.address.to_string(), &self.token(), "--name", name]);
        assert_eq!(joined.exit(), 0, "{}", joined.stderr());
        std::fs::write(host.state.join("drover.toml"), format!("immutable = false\n{settings}")).expect("settings");
        host.start();
        host
    }

    /// A disk of `len` bytes that is half holes, the data of which `seed` decides.
    fn disk(&self, name: &str, len: usize, seed: u8) -> PathBuf {
        use std::os::unix::fs::FileExt;

        let path = self.path(name);
        let file = std::fs::File::create(&path).expect("a file");
        file.set_len(len as u64).expect("its length");
        let mut data = vec![0; len / 2];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut data);
        file.write_all_at(&data, (len / 4) as u64).expect("its data");
        path
    }

    fn publish(&self, host: &Host, disk: &Path, name: &str) -> Run {
        let key = self.path("tracker").join("publisher.key");
        host.drover(&["publish", text(disk), "--name", name, "--key", text(&key), "--json"])
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if let Some(tracker) = self.tracker.take() {
            drop(tracker.stop);
            let _ = tracker.thread.join();
        }
    }
}

impl Host {
    fn start(&mut self) {
        let log = std::fs::File::create(self.state.join("log")).expect("a log");
        let mut command = drover(&self.state, &["daemon", "--listen", "127.0.0.1:0", "--stop-with-stdin"]);
        let daemon = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().expect("a daemon");
        self.daemon = Some(daemon);
        self.wait_for("the tracker", |status| status["trackers"][0]["reachable"] == true);
    }

    fn drover(&self, args: &[&str]) -> Run {
        Run(drover(&self.state, args).output().expect("run drover"))
    }

    fn json(&self, args: &[&str]) -> Value {
        let run = self.drover(&[args, &["--json"]].concat());
        assert_eq!(run.exit(), 0, "{args:?}: {}", run.stderr());
        serde_json::from_str(&run.stdout()).expect("JSON")
    }

    /// Waits until the daemon's status is as it should be.
    #[track_caller]
    fn wait_for(&self, what: &str, good: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < deadline {
            let run = self.drover(&["status", "--json"]);
            last = run.stdout() + &run.stderr();
            if run.exit() == 0 && good(&serde_json::from_str(&run.stdout()).expect("JSON")) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = std::fs::read_to_string(self.state.join("log")).unwrap_or_default();
        panic!("waited too long for {what}; status: {last}; log:\n{log}");
    }

    fn wait_for_complete(&self, name: &str) {
        let complete = |transfer: &Value| transfer["names"][0] == name && transfer["phase"] == "complete";
        self.wait_for(name, |status| status["transfers"].as_array().is_some_and(|list| list.iter().any(complete)));
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.daemon.as_ref().expect("it runs").id();
        let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    fn wait(&mut self) -> Option<i32> {
        self.daemon.take().expect("it runs").wait().expect("it ends").code()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Run {
    fn exit(&self) -> i32 {
        self.0.status.code().expect("it ended by itself")
    }

    fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("text")
    }

    fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).expect("text")
    }

    fn events(&self) -> Vec<Value> {
        self.stdout().lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }

    #[track_caller]
    fn assert(&self, exit: i32, parts: &[&str]) {
        let stderr = self.stderr();
        assert_eq!(self.exit(), exit, "{stderr}{}", self.stdout());
        for part in parts {
            assert!(stderr.contains(part), "{part:?} is missing in: {stderr}");
        }
    }
}

fn drover(state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(args).env_clear().env("DROVER_STATE", state).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

fn same_content(a: &Path, b: &Path) -> bool {
    std::fs::read(a).expect("a file") == std::fs::read(b).expect("a file")
}

#[test]
fn a_master_goes_from_a_file_to_a_clone_and_away_again() {
    let story = Story::begin();
    let (publisher, host) = (story.host("publisher", ""), story.host("host", ""));
    host.drover(&["fetch", "base"]).assert(3, &["nobody released base", "drover publish"]);

    let (first, second) = (story.disk("first.raw", 5 * MIB + 512, 1), story.disk("second.raw", 4 * MIB, 2));
    let published = story.publish(&publisher, &first, "base");
    published.assert(0, &[]);
    let released = published.events().pop().expect("a result");
    assert_eq!((&released["event"], &released["version"]), (&"released".into(), &1.into()));

    let fetched = host.drover(&["fetch", "base"]);
    fetched.assert(0, &[]);
    let path = PathBuf::from(fetched.stdout().trim());
    assert!(same_content(&path, &first));
    host.drover(&["verify", "base@1"]).assert(0, &[]);

    let clone = story.path("vm.img");
    let made = host.drover(&["clone", "create", "base", "vm", "--out", text(&clone), "--driver", "qcow2"]);
    made.assert(0, &["made by qcow2"]);
    assert_eq!(made.stdout().trim(), text(&clone));
    host.drover(&["rm", "base"]).assert(4, &["vm", "drover clone rm"]);
    let whole = story.path("whole.img");
    host.drover(&["clone", "create", "base", "whole", "--out", text(&whole), "--driver", "copy"]).assert(0, &[]);
    host.drover(&["clone", "create", "nothing", "x", "--out", "/tmp/x"]).assert(3, &["nothing"]);

    story.publish(&publisher, &second, "base").assert(0, &[]);
    host.drover(&["fetch", "base@2"]).assert(0, &[]);
    let list = host.json(&["list"]);
    let row = |at: usize| (&list[at]["version"], &list[at]["newest"], &list[at]["clones"]);
    assert_eq!(row(0), (&1.into(), &false.into(), &serde_json::json!(["vm"])));
    assert_eq!(row(1), (&2.into(), &true.into(), &serde_json::json!([])));
    host.drover(&["rm", "base"]).assert(4, &["more than one version", "base@1, base@2"]);
    assert_eq!(host.json(&["gc"])["removed"], serde_json::json!([]), "a clone needs the old version");

    host.drover(&["clone", "rm", "vm"]).assert(0, &[]);
    assert!(!clone.exists());
    assert_eq!(host.json(&["gc", "--dry-run"])["removed"][0]["names"][0], "base@1");
    assert!(path.exists(), "a dry run removes nothing");
    assert_eq!(host.json(&["gc"])["removed"][0]["names"][0], "base@1");
    assert!(!path.exists());
    let outlives = host.drover(&["clone", "verify", "whole"]);
    outlives.assert(0, &[]);
    assert!(outlives.stdout().contains("does not hold the master"), "{}", outlives.stdout());
    let last = story.path("last.img");
    host.drover(&["clone", "create", "base@2", "last", "--out", text(&last), "--driver", "copy"]).assert(0, &[]);
    host.drover(&["rm", "base@2"]).assert(0, &["clones that were made from it stay", "last"]);
    assert_eq!(host.json(&["list"]), serde_json::json!([]));
}

#[test]
fn a_release_that_is_refused_is_told_apart_from_none() {
    let story = Story::begin();
    let publisher = story.host("publisher", "");
    let host = story.host("host", &format!("publishers = ['{}']", "01".repeat(32)));
    story.publish(&publisher, &story.disk("web.raw", 2 * MIB, 1), "web").assert(0, &[]);
    host.drover(&["fetch", "web"]).assert(4, &["a release of web exists", "is not one of the publishers", "setting"]);
    host.drover(&["fetch", "other"]).assert(3, &["nobody released other"]);
}

#[test]
fn a_publish_that_is_refused_leaves_nothing() {
    let story = Story::begin();
    let publisher = story.host("publisher", "");
    let (first, second) = (story.disk("first.raw", 2 * MIB, 1), story.disk("second.raw", 2 * MIB, 2));
    story.publish(&publisher, &first, "base").assert(0, &[]);
    let key = story.path("tracker").join("publisher.key");
    let again = |disk: &Path| {
        publisher.drover(&["publish", text(disk), "--name", "base", "--version", "1", "--key", text(&key)])
    };
    again(&second).assert(4, &["another image"]);
    let list = publisher.json(&["list"]);
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!((&list[0]["version"], &list[0]["state"]), (&1.into(), &"complete".into()));
}

#[test]
fn what_is_subscribed_to_comes_by_itself_and_the_newest_wins() {
    let story = Story::begin();
    let (publisher, host) = (story.host("publisher", ""), story.host("host", "subscribe = ['base']"));
    for version in 1..=3 {
        let disk = story.disk(&format!("{version}.raw"), 2 * MIB, version);
        story.publish(&publisher, &disk, "base").assert(0, &[]);
        story.publish(&publisher, &disk, "other").assert(0, &[]);
    }
    host.wait_for_complete("base@3");
    let list = host.json(&["list"]);
    let newest = list.as_array().expect("a list").iter().find(|row| row["newest"] == true).expect("the newest");
    assert_eq!((&newest["name"], &newest["version"]), (&"base".into(), &3.into()));
}

#[test]
fn a_release_made_while_trackers_are_away_is_posted_when_they_are_back() {
    let mut story = Story::begin();
    let (mut publisher, host) = (story.host("publisher", ""), story.host("host", ""));
    story.stop_tracker();
    let disk = story.disk("disk.raw", MIB, 7);
    let published = story.publish(&publisher, &disk, "base");
    published.assert(6, &["no tracker took the release", "posted as soon as"]);
    publisher.wait_for("the release to wait", |status| status["unposted"][0] == "base@1");
    // It is not forgotten over a restart.
    publisher.signal(rustix::process::Signal::KILL);
    publisher.wait();
    story.start_tracker();
    publisher.start();
    publisher.wait_for("the release to be posted", |status| status["unposted"] == serde_json::json!([]));
    host.wait_for("the tracker", |status| status["trackers"][0]["reachable"] == true);
    let fetched = host.drover(&["fetch", "base"]);
    fetched.assert(0, &[]);
    assert!(same_content(Path::new(fetched.stdout().trim()), &disk));
}

#[test]
fn damage_on_the_disk_is_found_named_and_mended() {
    use std::os::unix::fs::{FileExt, PermissionsExt};

    let story = Story::begin();
    let (publisher, host) = (story.host("publisher", ""), story.host("host", ""));
    let disk = story.disk("disk.raw", 4 * MIB, 3);
    story.publish(&publisher, &disk, "base").assert(0, &[]);
    let fetched = host.drover(&["fetch", "base"]);
    fetched.assert(0, &[]);
    let path = PathBuf::from(fetched.stdout().trim());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("chmod");
    let file = std::fs::File::options().write(true).open(&path).expect("the master");
    file.write_all_at(b"damage", 2 * MIB as u64).expect("damage");
    let verified = host.drover(&["verify", "base"]);
    verified.assert(1, &["1 chunks are damaged", "drover fetch base"]);
    assert!(verified.stdout().contains("DAMAGED, chunks 32"), "{}", verified.stdout());
    let clone = story.path("vm.img");
    host.drover(&["clone", "create", "base", "vm", "--out", text(&clone)]).assert(4, &["damaged", "mends it"]);

    let mended = host.drover(&["fetch", "base"]);
    mended.assert(0, &[]);
    assert!(same_content(Path::new(mended.stdout().trim()), &disk));
    host.drover(&["verify", "base"]).assert(0, &[]);
    assert_eq!(host.json(&["list"])[0]["problem"], Value::Null);
}

#[test]
fn joining_is_refused_with_a_reason_and_leaves_nothing() {
    let story = Story::begin();
    let (host, address, token) = (story.host("host", ""), story.address.to_string(), story.token());
    host.drover(&["join", &address, &token]).assert(4, &["already holds an identity"]);

    let stranger = Host { state: story.path("stranger"), daemon: None };
    let join = |token: &str| stranger.drover(&["join", &address, token, "--name", "stranger"]);
    let mut mistyped = token.clone();
    let last = if mistyped.pop() == Some('a') { 'b' } else { 'a' };
    mistyped.push(last);
    join(&mistyped).assert(2, &["mistyped"]);
    join("hello").assert(2, &["no join token"]);
    stranger.drover(&["join", &address, &token, "--name", "Big Host"]).assert(2, &["can't be a host's name"]);
    stranger.drover(&["daemon"]).assert(4, &["has not joined a cluster", "drover join TRACKER TOKEN"]);

    assert!(!stranger.state.exists(), "a join that was refused leaves nothing");
    join(&token).assert(0, &["joined; next: drover daemon"]);
    let late = Host { state: story.path("late"), daemon: None };
    late.drover(&["join", &address, &token, "--name", "late"]).assert(4, &["refused"]);
    assert!(!late.state.exists());
}

#[test]
fn publishing_what_can_not_be_a_master_is_refused() {
    let story = Story::begin();
    let publisher = story.host("publisher", "");
    let (disk, key) = (story.disk("disk.raw", MIB, 1), story.path("tracker").join("publisher.key"));
    let (disk, key) = (text(&disk), text(&key));
    let publish = |args: &[&str]| publisher.drover(&[&["publish", "--key", key], args].concat());
    publish(&[disk, "--name", "base", "--version", "5"]).assert(0, &[]);
    publish(&[disk, "--name", "base", "--version", "4"]).assert(4, &["version 5 is out already", "versions only grow"]);
    let empty = story.path("empty.raw");
    std::fs::write(&empty, "").expect("an empty file");
    publish(&[text(&empty), "--name", "empty"]).assert(2, &["empty.raw"]);
    let odd = story.path("odd.raw");
    std::fs::write(&odd, vec![1; 1000]).expect("an odd file");
    publish(&[text(&odd), "--name", "odd", "--format", "raw"]).assert(0, &["warning", "512"]);
    let stranger = story.path("stranger");
    cluster::init(&stranger, "127.0.0.1:0".parse().expect("an address")).expect("another cluster");
    let other_key = stranger.join("publisher.key");
    let run = publisher.drover(&["publish", disk, "--name", "base", "--key", text(&other_key)]);
    run.assert(4, &["do not trust the publisher"]);
}

#[test]
fn one_state_folder_serves_one_daemon_which_ends_in_order() {
    let story = Story::begin();
    let mut host = story.host("host", "");
    host.drover(&["daemon", "--listen", "127.0.0.1:0"]).assert(4, &["in use by", "one state folder serves one daemon"]);
    host.drover(&["status"]).assert(0, &[]);
    let begun = Instant::now();
    host.signal(rustix::process::Signal::TERM);
    assert_eq!(host.wait(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    assert!(!host.state.join("agent.sock").exists());
    host.drover(&["status"]).assert(5, &["it does not run"]);
}

#[test]
fn the_socket_speaks_plain_http_and_is_for_owner_and_group() {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    let story = Story::begin();
    let host = story.host("host", "");
    let socket = host.state.join("agent.sock");
    assert_eq!(std::fs::metadata(&socket).expect("the socket").permissions().mode() & 0o777, 0o660);
    let ask = |request: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("the daemon");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let get = |path: &str| ask(&format!("GET {path} HTTP/1.1\r\nHost: drover\r\nConnection: close\r\n\r\n"));
    let status = get("/v1/status");
    assert!(status.starts_with("HTTP/1.1 200") && status.contains("\"host\":\"host\""), "{status}");
    let none = get("/v1/masters/none");
    assert!(none.starts_with("HTTP/1.1 404") && none.contains("\"code\":\"not-found\""), "{none}");
    assert!(get("/v1/masters/..%2F..").starts_with("HTTP/1.1 400"));
    assert!(get("/etc/passwd").starts_with("HTTP/1.1 404"));
    let post = |body: &str| {
        let len = body.len();
        ask(&format!("POST /v1/fetch HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}"))
    };
    assert!(post("{").starts_with("HTTP/1.1 400"));
    assert!(post(&" ".repeat(100_000)).starts_with("HTTP/1.1 413"));
}

#[test]
fn the_demo_does_the_whole_job_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = folder.path().join("disk.raw");
    let mut data = vec![0; 3 * MIB];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    std::fs::write(&disk, &data).expect("a disk");
    let work = folder.path().join("work");
    let run = Run(drover(folder.path(), &["demo", text(&disk), "--hosts", "2", "--json", "--dir", text(&work)])
        .output()
        .expect("run drover"));
    run.assert(0, &[]);
    let report: Value = serde_json::from_str(&run.stdout()).expect("JSON");
    let hosts = report["hosts"].as_array().expect("hosts");
    assert_eq!(hosts.len(), 2);
    for host in hosts {
        let taken = host["from_publisher_bytes"].as_u64().zip(host["from_peers_bytes"].as_u64()).expect("bytes");
        assert!(taken.0 + taken.1 >= data.len() as u64, "{host}");
    }
    assert_eq!(std::fs::read_dir(&work).expect("its folder").count(), 0, "it cleaned up");

    std::fs::write(&disk, []).expect("a disk of nothing");
    let failed = drover(folder.path(), &["demo", text(&disk), "--hosts", "1", "--dir", text(&work)]).output();
    assert_ne!(Run(failed.expect("run drover")).exit(), 0);
    assert_eq!(std::fs::read_dir(&work).expect("its folder").count(), 0, "it cleaned up though it failed");
}

#[test]
fn the_demo_waits_for_no_tracker_that_is_to_go_later_and_cleans_up_when_it_is_ended() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (disk, work) = (folder.path().join("disk.raw"), folder.path().join("work"));
    std::fs::write(&disk, vec![7; MIB]).expect("a disk");
    let demo = || {
        drover(folder.path(), &["demo", text(&disk), "--hosts", "1", "--no-tracker-after", "1h", "--dir", text(&work)])
    };
    let run = Run(demo().output().expect("run drover"));
    run.assert(0, &["the tracker is gone; hosts have 100 % to 100 %", "without a tracker"]);

    let mut ended = demo().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run drover");
    let begun = Instant::now();
    while std::fs::read_dir(&work).expect("its folder").next().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it makes no folder");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&ended);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(ended.wait().expect("it ends").code(), Some(130));
    assert_eq!(std::fs::read_dir(&work).expect("its folder").count(), 0, "it cleaned up");
}
