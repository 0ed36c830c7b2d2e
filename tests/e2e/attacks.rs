//! What a machine with a stolen token, or another user of this one, tries.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};

use drover_harness::{Fleet, drover, run, tracker_program};

/// How many hosts have the same token.
const RACERS: usize = 50;

#[test]
fn of_fifty_hosts_with_the_same_token_one_joins() {
    let fleet = Fleet::start(0);
    let token = fleet.token("host");
    let join = |number: usize| -> Child {
        let mut command = drover();
        command.arg("--state").arg(fleet.path(&format!("racer{number}")));
        command.args(["join", &fleet.tracker_addr(), &token, "--name", &format!("racer{number}")]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        spawned.expect("`drover join` can be started")
    };
    let racers: Vec<Child> = (0..RACERS).map(join).collect();
    let mut joined = Vec::new();
    for (number, racer) in racers.into_iter().enumerate() {
        let ended = racer.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&ended.stderr);
        match ended.status.code() {
            Some(0) => joined.push(format!("racer{number}")),
            code => assert!(code == Some(4) && said.contains("used before"), "racer{number}: {code:?} {said}"),
        }
    }
    assert_eq!(joined.len(), 1, "{joined:?}");
    let identities = (0..RACERS).filter(|number| fleet.path(&format!("racer{number}/identity")).exists()).count();
    assert_eq!(identities, 1, "nothing is left of those that were refused");
    let mut members = tracker_program();
    let members = run(members.arg("members").arg("--state").arg(fleet.tracker_state())).ok();
    assert_eq!(members.matches("racer").count(), 1, "{members}");
}

#[test]
fn a_state_folder_that_others_can_write_to_is_refused_and_nothing_in_it_is_followed() {
    let mut fleet = Fleet::start(1);
    let (victim, open) = (fleet.path("victim"), fleet.path("open"));
    std::fs::create_dir(&victim).expect("a test's folder can be written");
    std::fs::create_dir(&open).expect("a test's folder can be written");
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).expect("it is ours");
    for planted in ["identity", "incoming", "masters", "clones", "hosts.json", "items.json"] {
        symlink(&victim, open.join(planted)).expect("it was just made");
    }
    let words = ["state folder", "every local user", "chmod o-w"];
    let (tracker, token) = (fleet.tracker_addr(), fleet.token("host"));
    run(drover().arg("--state").arg(&open).args(["join", &tracker, &token, "--name", "late"])).refused(&words);
    run(drover().arg("--state").arg(&open).arg("daemon")).refused(&words);

    // The same for folders that were fine when they were made.
    let all_may = |state: &std::path::Path| {
        std::fs::set_permissions(state, PermissionsExt::from_mode(0o757)).expect("it is ours");
    };
    fleet.hosts[0].terminate();
    all_may(&fleet.hosts[0].state);
    run(fleet.hosts[0].command().arg("daemon")).refused(&words);
    fleet.kill_tracker();
    all_may(&fleet.tracker_state());
    let mut tracker: Command = tracker_program();
    run(tracker.arg("run").arg("--state").arg(fleet.tracker_state())).refused(&words[1..]);
    assert_eq!(std::fs::read_dir(&victim).expect("it is there").count(), 0, "something was written there");
}
