//! Whole exchanges on loopback: what is real about sockets, disks and a tracker.

mod villain;
mod world;

use drover_agent::exchange::Phase;
use drover_agent::store::import::ImportMode;

use self::villain::{Habit, Villain};
use self::world::{Cluster, content, eventually, is_complete, reaches};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_master_comes_from_one_host_to_others_whole() {
    let cluster = Cluster::start().await;
    let publisher = cluster.host("publisher");
    let content = content(1, 20 * MIB + 4321);
    let imported = publisher.publish(&content, ImportMode::Auto).await;

    let hosts: Vec<_> = (1..=3).map(|number| cluster.host(&format!("host{number}"))).collect();
    let mut transfers: Vec<_> =
        hosts.iter().map(|host| host.exchange.fetch(imported.image, Some(imported.content_len))).collect();
    for (host, transfer) in hosts.iter().zip(&mut transfers) {
        let status = reaches(transfer, "complete", is_complete).await;
        assert_eq!(host.master(imported.image), content);
        assert_eq!((status.held_bytes, status.unavailable), (status.data_bytes, Vec::new()));
        assert!(status.ended_unix_s.is_some());
    }
}

#[tokio::test]
async fn a_master_of_nothing_but_zeros_needs_no_byte() {
    let cluster = Cluster::start().await;
    let publisher = cluster.host("publisher");
    let imported = publisher.publish(&vec![0; 3 * MIB], ImportMode::Auto).await;
    let host = cluster.host("host");
    let status = reaches(&mut host.exchange.fetch(imported.image, None), "complete", is_complete).await;
    assert_eq!((status.data_bytes, status.taken_bytes), (0, 0));
    assert_eq!(host.master(imported.image), vec![0; 3 * MIB]);
}

#[tokio::test]
async fn who_sends_wrong_bytes_is_banned_and_the_transfer_completes() {
    let cluster = Cluster::start().await;
    // Slow, so that the liar is asked, too.
    let publisher = cluster.host_with("publisher", |settings| settings.swarm.upload_limit = Some(8 * MIB as u64));
    let content = content(2, 16 * MIB);
    let imported = publisher.publish(&content, ImportMode::Auto).await;
    let manifest = publisher.store.image(imported.image).unwrap();
    let liar = Villain::start(&cluster, Habit::WrongBytes, manifest.manifest()).await;

    let host = cluster.host("host");
    let mut transfer = host.exchange.fetch(imported.image, None);
    reaches(&mut transfer, "complete", is_complete).await;
    let status = reaches(&mut transfer, "the liar is named", |status| !status.banned.is_empty()).await;
    assert_eq!(status.banned[0].peer, liar.peer());
    assert_eq!(host.exchange.banned()[0].0, liar.peer());
    assert_eq!(host.master(imported.image), content);
}

#[tokio::test]
async fn who_stalls_or_sends_a_wrong_manifest_holds_nobody_up() {
    let cluster = Cluster::start().await;
    let publisher = cluster.host("publisher");
    let content = content(3, 16 * MIB);
    let imported = publisher.publish(&content, ImportMode::Auto).await;
    let image = publisher.store.image(imported.image).unwrap();
    let mut villains = Vec::new();
    for habit in [Habit::Stalls, Habit::WrongManifest, Habit::Stalls] {
        villains.push(Villain::start(&cluster, habit, image.manifest()).await);
    }
    let host = cluster.host("host");
    reaches(&mut host.exchange.fetch(imported.image, None), "complete", is_complete).await;
    assert_eq!(host.master(imported.image), content);
}

#[tokio::test]
async fn a_host_whose_only_source_goes_says_what_is_missing_and_goes_on_when_it_is_back() {
    let cluster = Cluster::start().await;
    let slow = |settings: &mut drover_agent::exchange::ExchangeSettings| {
        settings.swarm.upload_limit = Some(8 * MIB as u64);
    };
    let publisher = cluster.host_with("publisher", slow);
    let content = content(4, 24 * MIB);
    let imported = publisher.publish(&content, ImportMode::Auto).await;
    let host = cluster.host("host");
    let mut transfer = host.exchange.fetch(imported.image, None);
    reaches(&mut transfer, "some of it has come", |status| status.held_bytes > 2 * MIB as u64).await;
    let publisher = publisher.stop().await;

    let status = reaches(&mut transfer, "the missing parts are named", |status| !status.unavailable.is_empty()).await;
    let missing: u64 = status.unavailable.iter().map(|range| range.end - range.start).sum();
    assert_eq!(status.phase, Phase::Fetching);
    assert!(missing >= status.data_bytes - status.held_bytes, "{missing} {status:?}");

    let publisher = publisher.start().await;
    publisher.exchange.seed(imported.image);
    reaches(&mut transfer, "complete", is_complete).await;
    assert_eq!(host.master(imported.image), content);
}

#[tokio::test]
async fn a_host_that_is_stopped_half_way_goes_on_from_there() {
    let cluster = Cluster::start().await;
    let publisher = cluster.host_with("publisher", |settings| settings.swarm.upload_limit = Some(8 * MIB as u64));
    let content = content(5, 24 * MIB);
    let imported = publisher.publish(&content, ImportMode::Auto).await;
    let host = cluster.host("host");
    let mut transfer = host.exchange.fetch(imported.image, None);
    let before = reaches(&mut transfer, "some of it has come", |status| status.held_bytes > 4 * MIB as u64).await;
    let host = host.stop().await.start().await;
    let mut transfer = host.exchange.seed(imported.image);
    let after = reaches(&mut transfer, "it begins again", |status| status.data_bytes > 0).await;
    assert!(after.held_bytes >= before.held_bytes, "{} of {}", after.held_bytes, before.held_bytes);
    reaches(&mut transfer, "complete", is_complete).await;
    assert_eq!(host.master(imported.image), content);
}

#[tokio::test]
async fn a_tracker_that_dies_and_comes_back_empty_stops_nothing() {
    let mut cluster = Cluster::start().await;
    let publisher = cluster.host_with("publisher", |settings| settings.swarm.upload_limit = Some(8 * MIB as u64));
    let content = content(6, 16 * MIB);
    let imported = publisher.publish(&content, ImportMode::Auto).await;
    let host = cluster.host("host");
    let mut transfer = host.exchange.fetch(imported.image, None);
    reaches(&mut transfer, "some of it has come", |status| status.held_bytes > MIB as u64).await;
    cluster.stop_tracker().await;
    reaches(&mut transfer, "complete", is_complete).await;
    assert_eq!(host.master(imported.image), content);
    eventually("the tracker is missed", async || (!host.exchange.trackers()[0].reachable).then_some(())).await;

    // Back with nothing in its memory, it introduces a newcomer to those who hold the master.
    cluster.restart_tracker().await;
    let newcomer = cluster.host("newcomer");
    reaches(&mut newcomer.exchange.fetch(imported.image, None), "complete", is_complete).await;
    assert_eq!(newcomer.master(imported.image), content);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_served_in_place_is_withdrawn_and_never_spread() {
    let cluster = Cluster::start().await;
    let publisher = cluster.host_with("publisher", |settings| settings.swarm.upload_limit = Some(4 * MIB as u64));
    let content = content(7, 16 * MIB);
    let imported = publisher.publish(&content, ImportMode::InPlace).await;
    let mut offered = publisher.exchange.seed(imported.image);
    let host = cluster.host("host");
    let mut transfer = host.exchange.fetch(imported.image, None);
    reaches(&mut transfer, "some of it has come", |status| status.held_bytes > MIB as u64).await;
    let mut changed = content.clone();
    changed[10 * MIB] ^= 1;
    std::fs::write(publisher.source(), &changed).unwrap();

    let failed = |status: &drover_agent::exchange::TransferStatus| matches!(status.phase, Phase::Failed(_));
    reaches(&mut offered, "the file is withdrawn", failed).await;
    let status = reaches(&mut transfer, "the source is missed", |status| !status.unavailable.is_empty()).await;
    assert!(status.banned.is_empty(), "nobody lied: {:?}", status.banned);
    assert_eq!(host.exchange.banned(), []);
}
