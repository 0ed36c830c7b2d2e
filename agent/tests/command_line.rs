//! The `drover` command as a script meets it: output, errors, exit codes.

use std::path::Path;
use std::process::{Command, Output};

use drover_agent::handover::{Choice, CloneRecord, CloneSpec, DriverName, FileIdentity, Handover, Master};
use drover_protocol::id::{ContentHash, ImageId};

struct Story {
    state: tempfile::TempDir,
}

impl Story {
    fn new() -> Self {
        Story { state: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self) -> &Path {
        self.state.path()
    }

    fn drover(&self, args: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_drover"))
            .args(args)
            .env_clear()
            .env("DROVER_STATE", self.path())
            .output()
            .expect("run drover");
        Run(output)
    }
}

struct Run(Output);

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

    #[track_caller]
    fn assert_refused(&self, exit: i32, parts: &[&str]) {
        let stderr = self.stderr();
        assert_eq!(self.exit(), exit, "{stderr}");
        assert_eq!(self.stdout(), "", "nothing was found, so nothing is on standard output");
        for part in parts {
            assert!(stderr.contains(part), "{part:?} is missing in: {stderr}");
        }
    }
}

#[test]
fn help_explains_the_exit_codes() {
    let run = Story::new().drover(&["--help"]);
    assert_eq!(run.exit(), 0);
    assert!(run.stdout().contains("5  the daemon does not answer"), "{}", run.stdout());
}

#[test]
fn a_wrong_command_line_is_2() {
    let story = Story::new();
    for args in [&["fetch"][..], &["fly"], &["fetch", "../etc"], &["rm", "base@0"], &["publish", "x", "--name", "BIG"]]
    {
        story.drover(args).assert_refused(2, &["error"]);
    }
}

#[test]
fn without_a_daemon_every_command_says_so_and_what_to_do() {
    let story = Story::new();
    for args in [&["list"][..], &["status"], &["fetch", "base"], &["verify", "base"], &["rm", "base"], &["gc"]] {
        let run = story.drover(args);
        run.assert_refused(5, &["drover: daemon of ", "agent.sock, so it does not run", "drover daemon --state"]);
        assert!(!run.stderr().contains('\x1b'), "no colours where nobody sees them");
    }
}

#[test]
fn a_settings_file_is_checked_without_a_daemon() {
    let story = Story::new();
    let file = story.path().join("drover.toml");
    std::fs::write(&file, "subscribe = ['base']\nupload_limit = '800Mbit'\n").expect("write settings");
    let run = story.drover(&["check-config", "--json"]);
    assert_eq!(run.exit(), 0, "{}", run.stderr());
    let settings: serde_json::Value = serde_json::from_str(&run.stdout()).expect("JSON");
    assert_eq!(settings["subscribe"][0], "base");
    assert_eq!(settings["upload_limit"], 100_000_000);

    std::fs::write(&file, "subscribed = ['base']\n").expect("write settings");
    story
        .drover(&["check-config"])
        .assert_refused(2, &["drover.toml", "\"subscribed\"", "did you mean \"subscribe\"?"]);
}

#[test]
fn an_address_outside_of_the_networks_is_warned_of_without_a_daemon() {
    let story = Story::new();
    let warned = |settings: &str| {
        std::fs::write(story.path().join("drover.toml"), settings).expect("write settings");
        let run = story.drover(&["check-config"]);
        assert_eq!(run.exit(), 0, "{}", run.stderr());
        run.stderr()
    };
    let outside = warned("listen = '192.0.2.5:7444'\nnetworks = ['10.7.0.0/16']\npeers = ['192.0.2.6:7444']\n");
    assert!(
        outside.contains("warning: this host's own address 192.0.2.5 is outside of networks (10.7.0.0/16)"),
        "{outside}"
    );
    assert!(outside.contains("warning: the static peer 192.0.2.6:7444"), "{outside}");
    let not_private = warned("listen = '192.0.2.5:7444'\n");
    assert!(not_private.contains("192.0.2.5 is not private, and networks is not set"), "{not_private}");
    for good in
        ["listen = '192.0.2.5:7444'\nnetworks = ['192.0.2.0/24']\n", "listen = '192.0.2.5:7444'\ndht = false\n", ""]
    {
        let said = warned(good);
        assert!(!said.contains("warning"), "{said}");
    }
}

#[test]
fn a_drop_in_lets_the_daemon_reach_what_the_settings_name_and_nothing_else() {
    let story = Story::new();
    let file = story.path().join("drover.toml");
    let settings = "trackers = ['192.0.2.1:7440']\npeers = ['10.7.1.5:7444', '[fd00::5]:7444']\n";
    std::fs::write(&file, settings).expect("write settings");
    story
        .drover(&["check-config", "--systemd"])
        .assert_refused(2, &["networks is not set", "networks = [\"10.7.0.0/16\"]"]);

    std::fs::write(&file, format!("{settings}networks = ['10.7.0.0/16', 'fd00::/8']\n")).expect("write settings");
    let allowed = |more: &[&str]| {
        let run = story.drover(&["check-config", "--systemd"]);
        assert_eq!(run.exit(), 0, "{}", run.stderr());
        let text = run.stdout();
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.next(), Some("[Service]"));
        assert_eq!(lines.next(), Some("IPAddressDeny=any"));
        let allowed: Vec<&str> = lines.map(|line| line.strip_prefix("IPAddressAllow=").expect(line)).collect();
        let mut expected = vec!["localhost", "10.7.0.0/16", "fd00::/8", "10.7.1.5", "192.0.2.1", "fd00::5"];
        expected.extend(more);
        assert_eq!(allowed, expected);
    };
    allowed(&[]);
    std::fs::write(&file, format!("{settings}networks = ['10.7.0.0/16', 'fd00::/8']\nmulticast = 'on'\n"))
        .expect("write settings");
    allowed(&["239.255.0.0/16"]);
}

#[test]
fn the_demo_refuses_what_it_can_not_spread_before_it_starts_anything() {
    let story = Story::new();
    let missing = story.path().join("none.raw");
    let missing = missing.to_str().expect("text");
    story.drover(&["demo", missing]).assert_refused(3, &["there is no such file"]);
    let folder = story.path().to_str().expect("text");
    story.drover(&["demo", folder]).assert_refused(2, &["no regular file"]);
    story.drover(&["demo", "--hosts", "0"]).assert_refused(2, &["--hosts"]);
}

#[test]
fn a_key_is_made_for_its_owner_only_and_never_over_another() {
    use std::os::unix::fs::PermissionsExt;

    let story = Story::new();
    let path = |name: &str| story.path().join(name).to_str().expect("text").to_owned();
    let make = |name: &str| story.drover(&["keygen", &path(name)]);
    let made = |name: &str| {
        let output = make(name).0;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let (one, other) = (made("one.key"), made("other.key"));
    assert!(one.trim().parse::<drover_protocol::id::PublisherKey>().is_ok() && one != other, "{one}");
    let before = std::fs::read(path("one.key")).expect("a key");
    let mode = std::fs::metadata(path("one.key")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    make("one.key").assert_refused(4, &["something is there"]);
    assert_eq!(std::fs::read(path("one.key")).expect("a key"), before);
}

#[test]
fn a_key_with_a_passphrase_is_of_no_use_without_it() {
    use std::os::unix::fs::PermissionsExt;

    let story = Story::new();
    let path = |name: &str| story.path().join(name).to_str().expect("text").to_owned();
    let passphrase = |name: &str, text: &str| {
        std::fs::write(path(name), text).expect("write");
        std::fs::set_permissions(path(name), PermissionsExt::from_mode(0o600)).expect("chmod");
        path(name)
    };
    let (short, right) = (passphrase("short", "1234567\n"), passphrase("right", "correct horse\n"));
    let key = path("one.key");
    story.drover(&["keygen", &key, "--encrypt"]).assert_refused(2, &["at a terminal only", "--passphrase-file"]);
    story.drover(&["keygen", &key, "--passphrase-file", &short]).assert_refused(2, &["fewer than 8 characters"]);
    assert!(!story.path().join("one.key").exists());
    let made = story.drover(&["keygen", &key, "--passphrase-file", &right]);
    assert_eq!(made.exit(), 0, "{}", made.stderr());
    let text = std::fs::read_to_string(&key).expect("a key");
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{text}");

    let disk = passphrase("disk.raw", "a disk");
    let publish =
        |more: &[&str]| story.drover(&[&["publish", &disk, "--name", "base", "--key", &key][..], more].concat());
    publish(&[]).assert_refused(2, &["at a terminal only", "--passphrase-file"]);
    publish(&["--passphrase-file", &short]).assert_refused(2, &["the passphrase is wrong"]);
    publish(&["--passphrase-file", &path("none")]).assert_refused(3, &["passphrase file"]);
    // From here on the daemon is asked, and there is none.
    publish(&["--passphrase-file", &right]).assert_refused(5, &["daemon"]);
}

#[test]
fn publishing_is_refused_before_anything_is_read() {
    use std::os::unix::fs::PermissionsExt;

    let story = Story::new();
    let (disk, key) = (story.path().join("disk.raw"), story.path().join("publisher.key"));
    let (disk, key) = (disk.to_str().expect("text"), key.to_str().expect("text"));
    let publish = || story.drover(&["publish", disk, "--name", "base", "--key", key]);
    publish().assert_refused(3, &["publisher's key", "drover-tracker init"]);

    std::fs::write(key, "not a key").expect("write");
    for mode in [0o644, 0o640, 0o602] {
        std::fs::set_permissions(key, PermissionsExt::from_mode(mode)).expect("chmod");
        publish().assert_refused(4, &["others on this machine can read it", "chmod 600"]);
    }
    std::fs::set_permissions(key, PermissionsExt::from_mode(0o600)).expect("chmod");
    publish().assert_refused(2, &["no Ed25519 key"]);
}

/// A clone of a small master that is in no store, at `out/vm` in the story's folder.
fn make_clone(story: &Story) -> CloneRecord {
    let (path, out) = (story.path().join("disk.raw"), story.path().join("out"));
    std::fs::write(&path, [7; 4096]).expect("a master");
    std::fs::create_dir(&out).expect("a folder");
    let hash = *blake3::hash(&[7; 4096]).as_bytes();
    let (image, content_hash) = (ImageId::from_bytes(hash), ContentHash::from_bytes(hash));
    let verified = Some(FileIdentity::of(&path.metadata().expect("it was just written")));
    let master = Master { image, release: None, path, content_len: 4096, content_hash, in_place: true, verified };
    let spec = CloneSpec::new("vm".parse().expect("a name"), out.join("vm"));
    let spec = CloneSpec { driver: Choice::Named(DriverName::Copy), ..spec };
    Handover::new(story.path()).create(&master, &spec).expect("a clone").record
}

#[test]
fn a_clone_that_a_crash_kept_from_its_name_is_told_as_unfinished_and_finished_by_activate() {
    let story = Story::new();
    let record = make_clone(&story);
    std::fs::rename(&record.path, &record.temporary).expect("as if killed before it got its name");
    let listed = story.drover(&["clone", "list"]);
    assert!(listed.stdout().contains("unfinished"), "{}", listed.stdout());
    assert!(listed.stderr().contains("drover clone activate --all"), "{}", listed.stderr());
    for command in [&["clone", "info", "vm"][..], &["clone", "list", "--json"]] {
        let told = story.drover(command).stdout();
        assert!(told.contains("unfinished") && !told.contains("ready"), "{told}");
    }
    let finished = story.drover(&["clone", "activate", "--all"]);
    assert_eq!(finished.exit(), 0, "{}", finished.stderr());
    assert!(record.path.exists());
    let listed = story.drover(&["clone", "list"]);
    assert!(listed.stdout().contains("ready") && listed.stderr().is_empty(), "{}", listed.stderr());
}

#[test]
fn activate_all_fails_with_the_names_of_what_it_leaves_unfinished() {
    let story = Story::new();
    let record = make_clone(&story);
    let (file, away) = (story.path().join("clones/vm.json"), story.path().join("away"));
    let text = std::fs::read_to_string(&file).expect("a record").replace("\"ready\"", "\"removing\"");
    std::fs::write(&file, text).expect("as if killed while it was removed");
    std::fs::rename(story.path().join("out"), &away).expect("not mounted, so to speak");
    story.drover(&["clone", "activate", "--all"]).assert_refused(1, &["vm is unfinished", "is it mounted?"]);
    story.drover(&["clone", "rm", "vm"]).assert_refused(4, &["is it mounted?", "--forget vm"]);
    std::fs::rename(&away, story.path().join("out")).expect("mounted again");
    assert_eq!(story.drover(&["clone", "activate", "--all"]).exit(), 0);
    assert!(!record.path.exists() && !file.exists());
}

#[test]
fn forgetting_an_unfinished_clone_names_what_stays_of_it() {
    let story = Story::new();
    let record = make_clone(&story);
    std::fs::rename(&record.path, &record.temporary).expect("as if killed before it got its name");
    let file = story.path().join("clones/vm.json");
    let text = std::fs::read_to_string(&file).expect("a record").replace("\"ready\"", "\"making\"");
    std::fs::write(&file, text).expect("as if killed before it was whole");
    std::fs::rename(story.path().join("out"), story.path().join("away")).expect("not mounted, so to speak");
    let forgot = story.drover(&["clone", "rm", "--forget", "vm"]);
    assert_eq!(forgot.exit(), 0, "{}", forgot.stderr());
    let temporary = record.temporary.to_str().expect("text");
    assert!(forgot.stderr().contains(temporary) && forgot.stderr().contains("by hand"), "{}", forgot.stderr());
    assert!(!file.exists());
}
