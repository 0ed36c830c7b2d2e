//! Clones as logical volumes, thin and thick, made, filled and removed by Drover in a machine with a volume group.

use drover_harness::seed;

use crate::rig::GuestHost;

/// Length of the master in bytes: whole sectors, and no whole number of pages, extents or chunks of a thin pool.
const MASTER_LEN: u64 = (10 << 20) + 3 * 512;

#[test]
fn thin_volumes_live_as_clones_do() {
    let seed = seed("thin_volumes_live_as_clones_do");
    let mut host = GuestHost::start("lvm-thin", MASTER_LEN, seed);
    host.drover("clone create golden t-1 --driver lvm-thin --out /dev/nowhere/t-1").refused(&["volume group nowhere"]);
    host.drover("clone create golden t-1 --driver lvm-thin --out /dev/vg/t-1").refused(&["no thin pool", "lvcreate"]);
    host.make_pool("pool", "16m");
    let base = three_at_once(&mut host, "lvm-thin", "t");
    assert_eq!(host.attributes(&base), "ori-------");
    assert_eq!(host.attributes("t-1"), "Vwi-a-tz--");

    host.drover("clone deactivate t-1").ok();
    host.sh("test -e /dev/vg/t-1").fails();
    host.drover("clone activate t-1").ok();
    assert!(host.has_written("/dev/vg/t-1", 512, 256), "what was written survives");
    host.hold_open("/dev/vg/t-2");
    host.drover("clone deactivate t-2").refused(&["t-2", "in use"]);
    host.drover("clone rm t-2").refused(&["t-2", "in use"]);
    host.let_go();
    after_a_reboot(&mut host, "t");
    somebody_elses_volume_of_the_same_name(&mut host);

    host.drover("clone create golden big --size 16M --driver lvm --out /dev/vg/big").ok();
    assert_eq!(host.len("/dev/vg/big"), 16 << 20);
    host.assert_is_master("/dev/vg/big");
    host.assert_zero("/dev/vg/big", MASTER_LEN, (16 << 20) - MASTER_LEN);
    host.write("/dev/vg/big", 15 << 10, 512).ok();
    assert!(host.has_written("/dev/vg/big", 15 << 10, 512));

    a_full_pool(&mut host);
    more_than_one_pool(&mut host);
    host.drover("clone rm big").ok();
    a_damaged_copy_of_the_master(&mut host, &base);
    somebody_elses_volume_on_the_base(&mut host, "lvm-thin", &base, "--thinpool pool");
    the_master_stays_for_its_clones(&mut host, "lvm-thin", &base);
    host.sh("lvm lvremove -y vg/pool").ok();
    host.assert_nothing_left();
}

#[test]
fn thick_snapshots_live_as_clones_do() {
    let seed = seed("thick_snapshots_live_as_clones_do");
    let mut host = GuestHost::start("lvm-thick", MASTER_LEN, seed);
    let base = three_at_once(&mut host, "lvm-thick", "k");
    assert_eq!(host.attributes(&base), "ori-a-s---");
    assert_eq!(host.attributes("k-1"), "swi-a-s---");
    host.drover("clone deactivate k-1").refused(&["all together"]);
    after_a_reboot(&mut host, "k");
    a_full_snapshot(&mut host);

    let mut refused = |arguments: &str, words: &[&str]| {
        host.drover(&format!("clone create golden {arguments} --driver lvm-thick")).refused(words);
    };
    refused("other --out /dev/vg/other --size 16M", &["lvm-thin"]);
    refused("other --out /dev/vg/k-1", &["/dev/vg/k-1", "exists"]);
    refused("other --out /clones/other", &["/dev/GROUP/VOLUME"]);
    // Enough for one and not for three: then there is none.
    let free = host.sh("lvm vgs --noheadings --nosuffix --units m -o vg_free vg").ok();
    let free: f64 = free.trim().parse().expect("a number of MiB");
    host.sh(&format!("lvm lvcreate -y -Wn -Zn -L {}m -n filler vg", free as u64 - 16)).ok();
    let many = "clone create golden m-{} --count 3 --driver lvm-thick --out /dev/vg/m-{}";
    host.drover(many).refused(&["vg"]);
    host.sh("lvm lvs vg | grep -e m- -e part").fails();
    assert!(host.clone("m-1").is_none());
    host.sh("lvm lvextend -y -l +100%FREE vg/filler").ok();
    host.drover("clone create golden other --driver lvm-thick --out /dev/vg/other").refused(&["MiB free", "--room"]);
    host.sh("lvm lvremove -y vg/filler").ok();

    host.drover("clone rm small").ok();
    somebody_elses_volume_on_the_base(&mut host, "lvm-thick", &base, "-L 4m");
    host.assert_nothing_left();

    the_master_stays_for_its_clones(&mut host, "lvm-thick", &base);
    host.assert_nothing_left();
}

/// A master that clones rest on by their group's copy is not removed, and neither is the copy, before the last of them.
fn the_master_stays_for_its_clones(host: &mut GuestHost, driver: &str, base: &str) {
    for clone in ["first", "second"] {
        host.drover(&format!("clone create golden {clone} --driver {driver} --out /dev/vg/{clone}")).ok();
    }
    host.write("/dev/vg/second", 512, 256).ok();
    host.drover("rm golden").refused(&["first", "second"]);
    host.drover("gc").ok();
    host.drover("verify golden").ok();
    host.assert_is_master("/dev/vg/first");
    host.drover("clone verify first --full").ok();

    host.drover("clone rm first").ok();
    host.drover("rm golden").refused(&["second"]);
    host.sh(&format!("lvm lvs vg/{base}")).ok();
    assert!(host.has_written("/dev/vg/second", 512, 256), "what was written survives");
    host.drover("clone verify second --full").ok();

    host.drover("clone rm second").ok();
    host.sh(&format!("lvm lvs vg/{base}")).fails();
    host.drover("rm golden").ok();
}

/// Makes three clones by one command, and gives the name of what they rest on.
fn three_at_once(host: &mut GuestHost, driver: &str, letter: &str) -> String {
    let create = format!("clone create golden {letter}-{{}} --count 3 --driver {driver} --out /dev/vg/{letter}-{{}}");
    let made = host.drover(&create).ok();
    let devices = ["1", "2", "3"].map(|number| format!("/dev/vg/{letter}-{number}"));
    assert_eq!(made.lines().collect::<Vec<_>>(), devices);
    for (number, device) in devices.iter().enumerate() {
        host.assert_is_master(device);
        host.drover(&format!("clone verify {letter}-{} --full", number + 1)).ok();
    }
    let first = host.clone(&format!("{letter}-1")).expect("it is listed");
    let base =
        first["base"].as_str().and_then(|base| base.strip_prefix("/dev/vg/")).expect("it rests on a volume").to_owned();
    host.write(&devices[0], 512, 256).ok();
    assert!(host.has_written(&devices[0], 512, 256));
    host.assert_is_master(&devices[1]);
    host.drover(&format!("clone verify {letter}-1 --full")).ok();
    base
}

/// What a reboot leaves: volumes that are not active.
fn after_a_reboot(host: &mut GuestHost, letter: &str) {
    host.sh("lvm vgchange -an vg").ok();
    let verified = host.drover(&format!("clone verify {letter}-1")).ok();
    assert!(verified.contains("not active"), "{verified}");
    host.drover("clone activate --all").ok();
    for number in 1..=3 {
        let verified = host.drover(&format!("clone verify {letter}-{number}")).ok();
        assert!(!verified.contains("not active"), "{verified}");
    }
    assert!(host.has_written(&format!("/dev/vg/{letter}-1"), 512, 256), "what was written survives");
    host.assert_is_master(&format!("/dev/vg/{letter}-3"));

    // Many hosts activate all that there is, also what clones rest on.
    host.sh("lvm vgchange -ay vg").ok();
    let driver = if letter == "t" { "lvm-thin" } else { "lvm-thick" };
    host.drover(&format!("clone create golden again --driver {driver} --out /dev/vg/again")).ok();
    host.assert_is_master("/dev/vg/again");
    host.drover("clone rm again").ok();
}

fn a_full_pool(host: &mut GuestHost) {
    let listed = host.drover("clone list");
    assert!(!listed.stderr.contains("full"), "there is nothing to warn of yet: {listed:#?}");
    host.write("/dev/vg/big", 0, 13 << 10).ok();
    let listed = host.drover("clone list");
    assert!(
        listed.stderr.contains("big: its pool data is 8") && listed.stderr.contains("t-3: its pool"),
        "{listed:#?}"
    );
    let percent = host.clone("big").expect("it is listed")["usage"]["percent"].as_f64().expect("it has a level");
    assert!((80.0..100.0).contains(&percent), "{percent}");

    host.write("/dev/vg/t-2", 0, 8 << 10).fails();
    let listed = host.drover("clone list");
    assert!(listed.stderr.contains("t-2: Out of data: its pool is full"), "{listed:#?}");
    assert!(host.has_written("/dev/vg/t-1", 512, 256), "what was written before can be read");
    host.sh("lvm vgchange -an vg").ok();
    host.sh("lvm lvchange -y -ay vg/pool_tmeta").ok();
    host.sh("thin_check /dev/vg/pool_tmeta").ok();
    host.sh("lvm lvchange -an vg/pool_tmeta").ok();
    host.drover("clone activate --all").ok();
}

fn more_than_one_pool(host: &mut GuestHost) {
    host.make_pool("other", "8m");
    host.drover("clone create golden p --driver lvm-thin --out /dev/vg/p").refused(&["--pool", "other, pool"]);
    host.drover("clone create golden p --driver lvm-thin --out /dev/vg/p --pool third")
        .refused(&["no thin pool third"]);
    host.drover("clone create golden p --driver lvm-thin --out /dev/vg/t-1 --pool other").refused(&["exists"]);
    host.drover("clone create golden p --driver lvm-thin --out /dev/vg/p --pool other --room 1M").refused(&["room"]);
    host.drover("clone create golden p --driver lvm-thin --out /dev/vg/p --pool other").ok();
    host.assert_is_master("/dev/vg/p");
    host.drover("clone rm p").ok();
    host.sh("lvm lvremove -y vg/other").ok();
}

/// A sector of the disk below the copy that clones rest on goes bad, and comes back.
fn a_damaged_copy_of_the_master(host: &mut GuestHost, base: &str) {
    let number =
        |host: &mut GuestHost, line: &str| -> u64 { host.sh(line).ok().trim().parse().expect("a number of sectors") };
    let extent = number(host, "lvm vgs --noheadings --nosuffix --units s -o vg_extent_size vg");
    let start = number(host, "lvm pvs --noheadings --nosuffix --units s -o pe_start /dev/vdb");
    let first = format!("lvm lvs --noheadings -o seg_pe_ranges vg/{base} | sed 's/.*:\\([0-9]*\\)-.*/\\1/'");
    let sector = start + number(host, &first) * extent;
    host.sh(&format!("dd if=/dev/vdb of=/tmp/sector bs=512 skip={sector} count=1")).ok();
    let write = |host: &mut GuestHost, from: &str| {
        host.sh(&format!("dd if={from} of=/dev/vdb bs=512 seek={sector} count=1 conv=notrunc,fsync")).ok();
    };
    write(host, "/pattern");
    let full = host.drover("clone verify t-3 --full");
    assert!(full.stdout.contains("does not have the master's content"), "{full:#?}");
    let create = "clone create golden more --driver lvm-thin --out /dev/vg/more";
    host.drover(create).refused(&[base, "found damaged", "t-3", "drover clone verify"]);
    let doubted = host.drover("clone verify t-3");
    assert!(doubted.code == Some(1) && doubted.stdout.contains("found damaged"), "{doubted:#?}");
    write(host, "/tmp/sector");
    host.drover("clone verify t-3 --full").ok();
    host.drover(create).ok();
    host.drover("clone rm more").ok();
}

fn a_full_snapshot(host: &mut GuestHost) {
    host.drover("clone create golden small --room 2M --driver lvm-thick --out /dev/vg/small").ok();
    host.write("/dev/vg/small", 0, 2600).ok();
    let listed = host.drover("clone list");
    assert!(listed.stderr.contains("small: its room is ") && listed.stderr.contains("% full"), "{listed:#?}");
    let percent = host.clone("small").expect("it is listed")["usage"]["percent"].as_f64().expect("it has a level");
    assert!((80.0..100.0).contains(&percent), "{percent}");
    host.write("/dev/vg/small", 4096, 4096).fails();
    let listed = host.drover("clone list");
    assert!(listed.stdout.lines().any(|line| line.starts_with("small") && line.contains("Invalid")), "{listed:#?}");
    assert!(listed.stderr.contains("small: Invalid"), "{listed:#?}");
    host.drover("clone verify small").refused(&[]);
    host.assert_is_master("/dev/vg/k-3");
}

/// A clone whose volume was removed by hand, and another made of that name, is not removed with that.
fn somebody_elses_volume_of_the_same_name(host: &mut GuestHost) {
    host.drover("clone create golden gone --driver lvm-thin --out /dev/vg/gone").ok();
    host.sh("lvm lvremove -y vg/gone").ok();
    assert!(host.drover("clone list").ok().contains("missing"));
    host.sh("lvm lvcreate -y -Wn -Zn -L 4m -n gone vg").ok();
    assert!(host.drover("clone list").ok().contains("replaced"));
    host.drover("clone rm gone").refused(&["not the disk that was made"]);
    host.drover("clone rm --forget gone").ok();
    host.sh("lvm lvs vg/gone && lvm lvremove -y vg/gone").ok();
}

/// `lvremove` of a base would remove all that rests on it. So it stays as long as anybody's volume does.
fn somebody_elses_volume_on_the_base(host: &mut GuestHost, driver: &str, base: &str, how: &str) {
    let letter = if driver == "lvm-thin" { "t" } else { "k" };
    host.sh(&format!("lvm lvcreate -y -s {how} --setactivationskip n -n byhand vg/{base}")).ok();
    host.drover(&format!("clone rm {letter}-1 {letter}-2")).ok();
    let last = host.drover(&format!("clone rm {letter}-3"));
    assert!(last.stderr.contains(base) && last.stderr.contains("byhand"), "{last:#?}");
    last.ok();
    host.sh(&format!("lvm lvs vg/{base}")).ok();
    host.assert_is_master("/dev/vg/byhand");

    // What stayed is used again, and goes with the next last clone.
    host.sh("lvm lvremove -y vg/byhand").ok();
    host.drover(&format!("clone create golden last --driver {driver} --out /dev/vg/last")).ok();
    host.assert_is_master("/dev/vg/last");
    host.drover("clone rm last").ok();
    host.sh(&format!("lvm lvs vg/{base}")).fails();

    // Somebody else's volume of that name is neither taken for the copy nor removed.
    host.sh(&format!("lvm lvcreate -y -Wn -Zn -L 4m -n {base} vg")).ok();
    host.drover(&format!("clone create golden last --driver {driver} --out /dev/vg/last"))
        .refused(&[base, "rename it"]);
    host.sh(&format!("lvm lvs vg/{base} && lvm lvremove -y vg/{base}")).ok();
}
