//! An agent that dies at any moment goes on from what its journal claims, and the journal never claims too much.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use drover_agent::store::Store;
use drover_harness::{Fleet, FleetOptions, Host, LONG, TestImage, seed};
use drover_protocol::rng::Rng;

const KILLS: usize = 20;
const RATE: u64 = 16 << 20;
/// A checkpoint is due every two seconds; what arrived since the last may be fetched again. Half of that again is
/// for the time that a checkpoint takes on a loaded machine.
const LOSS_MOST: u64 = 3 * RATE;

#[test]
fn twenty_kills_lose_no_more_than_a_sync_interval_each() {
    let seed = seed("twenty_kills_lose_no_more_than_a_sync_interval_each");
    let mut rng = Rng::seeded(seed);
    let settings = "upload_limit = \"16MiB\"".to_owned();
    let fleet = Fleet::with(&FleetOptions { hosts: 1, settings });
    let data_len = KILLS as u64 * 2 * RATE;
    let image = TestImage::make(&fleet.path("disk.raw"), data_len + (64 << 20), data_len, seed);
    let id = fleet.publish(&image.path, "golden", &["--in-place"])["image"].as_str().expect("an id").to_owned();

    let mut host = fleet.join_host("");
    host.start();
    host.spawn_fetch("golden");
    let mut durable = 0;
    for kill in 1..=KILLS {
        std::thread::sleep(Duration::from_millis(u64::from(rng.below(3000))));
        let held = host.transfer(&id).map_or(0, |transfer| transfer["held_bytes"].as_u64().unwrap_or(0));
        host.kill();
        let claimed = check_claims(&host, &image.path);
        eprintln!("kill {kill}: {} MiB were held, the journal claims {} MiB", held >> 20, claimed >> 20);
        assert!(claimed >= durable, "what was durable once stays so");
        assert!(held <= claimed + LOSS_MOST, "{held} bytes were held, only {claimed} are claimed");
        durable = claimed;
        host.start();
    }
    image.assert_same(&host.wait_sealed("golden@1", LONG).path);
}

/// Compares every chunk that the dead agent's journal claims with the source; gives how many bytes they are.
fn check_claims(host: &Host, source: &Path) -> u64 {
    let store = Store::open(&host.state).expect("a dead agent's state opens");
    let source = File::open(source).expect("the source exists");
    let mut bytes = 0;
    for image in store.incoming().into_iter().filter_map(|id| store.image(id)) {
        let geometry = image.manifest().geometry();
        for chunk in image.held().iter() {
            let len = geometry.chunk_len(chunk) as usize;
            let (mut claimed, mut wanted) = (vec![0; len], vec![0; len]);
            image.read(chunk, &mut claimed).expect("a claimed chunk can be read");
            source.read_exact_at(&mut wanted, geometry.chunk_offset(chunk)).expect("the source is long enough");
            assert!(claimed == wanted, "the journal claims chunk {}, which is not there", chunk.number());
            bytes += len as u64;
        }
    }
    bytes
}
