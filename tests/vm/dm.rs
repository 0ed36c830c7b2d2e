//! Clones by device-mapper, made, filled and removed by Drover in a machine that has one.

use drover_harness::seed;

use crate::rig::GuestHost;

/// Length of the master in bytes: whole sectors, and no whole number of pages, extents or chunks of a thin pool.
const MASTER_LEN: u64 = (10 << 20) + 3 * 512;

#[test]
fn snapshots_of_the_masters_file_live_as_clones_do() {
    let seed = seed("snapshots_of_the_masters_file_live_as_clones_do");
    let mut host = GuestHost::start("dm", MASTER_LEN, seed);
    three_at_once(&mut host);
    devices_come_and_go(&mut host);
    somebody_elses_loop_device(&mut host);
    a_longer_disk(&mut host);
    a_full_store(&mut host);
    what_is_refused(&mut host);

    host.drover("rm golden").refused(&["c-1", "c-2", "c-3"]);
    host.drover("clone rm c-1 c-2 c-3 big small").ok();
    host.assert_nothing_left();
    host.drover("rm golden").ok();
}

fn three_at_once(host: &mut GuestHost) {
    let drivers = host.drover("clone drivers golden --at /clones --json").json();
    let dm =
        drivers.as_array().and_then(|all| all.iter().find(|driver| driver["driver"] == "dm")).expect("it is known");
    assert!(dm["unusable"].is_null(), "{dm}");

    let made = host.drover("clone create golden c-{} --count 3 --driver dm --out /clones/c-{}.store");
    assert_eq!(made.ok().lines().collect::<Vec<_>>(), [device("c-1"), device("c-2"), device("c-3")]);
    for clone in ["c-1", "c-2", "c-3"] {
        host.assert_is_master(&device(clone));
        host.drover(&format!("clone verify {clone} --full")).ok();
    }
    host.write(&device("c-1"), 512, 256).ok();
    assert!(host.has_written(&device("c-1"), 512, 256));
    host.assert_is_master(&device("c-2"));
    host.drover("verify golden").ok();
    let table = host.sh("dmsetup table drover-c-1").ok();
    assert!(table.contains(" snapshot ") && table.trim().ends_with(" PO 8"), "{table}");
    let loops = host.sh("/tools/losetup --list --noheadings --output AUTOCLEAR").ok();
    assert!(loops.lines().count() >= 4 && loops.lines().all(|line| line.trim() == "1"), "{loops}");
}

fn devices_come_and_go(host: &mut GuestHost) {
    host.drover("clone deactivate c-1").ok();
    host.sh("test -e /dev/mapper/drover-c-1").fails();
    let verified = host.drover("clone verify c-1").ok();
    assert!(verified.contains("clone activate c-1"), "{verified}");
    host.drover("clone activate c-1").ok();
    assert!(host.has_written(&device("c-1"), 512, 256), "what was written survives");

    host.hold_open(&device("c-2"));
    host.drover("clone deactivate c-2").refused(&["c-2", "in use"]);
    host.drover("clone rm c-2").refused(&["c-2", "in use"]);
    host.let_go();

    host.sh("for clone in 1 2 3; do dmsetup remove --noudevsync drover-c-$clone || exit 1; done").ok();
    assert_eq!(
        host.sh("/tools/losetup --list --noheadings").ok(),
        "",
        "loop devices go with the last who has them open"
    );
    let activated = host.drover("clone activate --all").ok();
    assert_eq!(activated.matches(": activated").count(), 3, "{activated}");
    assert!(host.has_written(&device("c-1"), 512, 256), "what was written survives");
    host.assert_is_master(&device("c-3"));
    let again = host.drover("clone activate --all").ok();
    assert_eq!(again.matches("already").count(), 3, "{again}");
}

/// A loop device on the master or on a store that we did not make stays, whatever becomes of the clones.
fn somebody_elses_loop_device(host: &mut GuestHost) {
    let masters = host.drover("list --json").json();
    let master = masters[0]["path"].as_str().expect("it is complete").to_owned();
    let shown = host.sh(&format!("/tools/losetup --find --show --read-only {master}")).ok();
    let shown = shown.trim();
    host.drover("clone deactivate c-1").ok();
    host.drover("clone activate c-1").ok();
    let listed = host.sh("/tools/losetup --list --noheadings --output NAME,BACK-FILE").ok();
    assert!(listed.lines().any(|line| line.starts_with(&format!("{shown} "))), "{shown} is gone: {listed}");
    host.sh(&format!("/tools/losetup --detach {shown}")).ok();
    assert!(host.has_written(&device("c-1"), 512, 256), "what was written survives");
}

fn a_longer_disk(host: &mut GuestHost) {
    host.drover("clone create golden big --size 16M --driver dm --out /clones/big.store").ok();
    assert_eq!(host.len(&device("big")), 16 << 20);
    host.assert_is_master(&device("big"));
    host.assert_zero(&device("big"), MASTER_LEN, (16 << 20) - MASTER_LEN);
    host.write(&device("big"), 15 << 10, 512).ok();
    host.drover("clone deactivate big").ok();
    host.drover("clone activate big").ok();
    assert!(host.has_written(&device("big"), 15 << 10, 512));
    host.assert_is_master(&device("big"));
}

fn a_full_store(host: &mut GuestHost) {
    host.drover("clone create golden small --room 1M --driver dm --out /clones/small.store").ok();
    let listed = host.drover("clone list");
    assert!(!listed.stderr.contains("small"), "there is nothing to warn of yet: {listed:#?}");
    host.write(&device("small"), 0, 900).ok();
    let listed = host.drover("clone list");
    assert!(listed.stderr.contains("small: its room is 8") && listed.stderr.contains("% full"), "{listed:#?}");
    let percent = host.clone("small").expect("it is listed")["usage"]["percent"].as_f64().expect("it has a level");
    assert!((80.0..100.0).contains(&percent), "{percent}");
    host.drover("clone verify small").ok();

    host.write(&device("small"), 4096, 2048).fails();
    let listed = host.drover("clone list");
    assert!(listed.stdout.lines().any(|line| line.starts_with("small") && line.contains("Overflow")), "{listed:#?}");
    assert!(listed.stderr.contains("small: Overflow"), "{listed:#?}");
    host.drover("clone verify small").refused(&[]);
    assert!(host.has_written(&device("small"), 0, 900), "what was written before can be read");

    // The kernel forgets the word with the device, and the store is as full as before.
    host.drover("clone deactivate small").ok();
    host.drover("clone activate small").ok();
    let listed = host.drover("clone list");
    assert!(listed.stderr.contains("small: its room is 100 % full"), "{listed:#?}");
    assert!(host.has_written(&device("small"), 0, 900), "what was written before can be read");
    host.assert_is_master(&device("c-2"));
}

fn what_is_refused(host: &mut GuestHost) {
    let mut refused = |arguments: &str, words: &[&str]| {
        host.drover(&format!("clone create golden {arguments}")).refused(words);
    };
    refused("c-1 --driver dm --out /clones/other.store", &["c-1"]);
    refused("other --driver dm --out /clones/c-1.store", &["exists"]);
    refused("other --driver dm --out /clones/other.store --room 1K", &["room"]);
    refused("other --driver dm --out /clones/other.store --size 1M", &["larger"]);
    refused("other --driver dm --out /clones/other.store --profile fast", &["profile"]);
    refused("other --driver dm --out /nowhere/other.store", &["/nowhere"]);
    refused("other --driver dm --out /dev/vg/other", &["volume"]);
    refused("other-{} --count 2 --driver dm --out /clones/other.store", &["{}"]);
    // The device of that name is somebody else's: it is neither taken for the clone's nor removed.
    host.sh("dmsetup create --noudevsync drover-other --table '0 8 zero'").ok();
    host.drover("clone create golden other --driver dm --out /clones/other.store").refused(&["drover-other"]);
    host.sh("dmsetup remove --noudevsync drover-other").ok();
    assert!(host.clone("other").is_none());
    host.sh("ls -A /clones | grep other").fails();
    // Of many, too: the first has its device already when the second can't.
    host.sh("dmsetup create --noudevsync drover-other-2 --table '0 8 zero'").ok();
    host.drover("clone create golden other-{} --count 3 --driver dm --out /clones/other-{}.store")
        .refused(&["drover-other-2"]);
    host.sh("dmsetup remove --noudevsync drover-other-2").ok();
    assert!(host.clone("other-1").is_none());
    host.sh("ls -A /clones | grep other").fails();
    host.sh("dmsetup info --columns --noheadings --options name | grep other").fails();
}

fn device(clone: &str) -> String {
    format!("/dev/mapper/drover-{clone}")
}
