//! What an agent may cost the host that it is a guest on.

use drover_harness::{Fleet, LONG, TestImage, seed};

#[test]
fn a_large_master_is_served_and_fetched_in_little_memory() {
    const MOST_RESIDENT: u64 = 256 << 20;
    let seed = seed("a_large_master_is_served_and_fetched_in_little_memory");
    let fleet = Fleet::start(3);
    let image = TestImage::make(&fleet.path("disk.raw"), 10 << 30, 1 << 30, seed);
    fleet.publish(&image.path, "large", &["--in-place"]);
    for host in &fleet.hosts[1..] {
        host.spawn_fetch("large");
    }
    for host in &fleet.hosts[1..] {
        host.wait_sealed("large@1", LONG);
    }
    for host in &fleet.hosts {
        let peak = host.agent().peak_resident();
        eprintln!("{}: peak resident {} MiB", host.name, peak >> 20);
        assert!(peak < MOST_RESIDENT, "{} had {} MiB resident", host.name, peak >> 20);
    }
}
