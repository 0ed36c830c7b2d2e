//! The figures that README quotes, measured with real processes: `cargo run --release -p drover-tests --bin figures`.
//!
//! Nothing here passes or fails by a time; tests do not either. Build the programs first, in the same profile.

mod restart;

use drover_harness::{Fleet, LONG, TestImage, seed};

fn main() {
    let seed = seed("figures");
    restart::measure(seed);
    large_master(seed);
}

/// A 10 GiB master with 1 GiB of data from one publisher to five hosts: who sent what, and what it took.
#[expect(clippy::print_stdout, reason = "this program prints figures")]
fn large_master(seed: u64) {
    const DATA: u64 = 1 << 30;
    let fleet = Fleet::start(6);
    let image = TestImage::make(&fleet.path("disk.raw"), 10 << 30, DATA, seed);
    let id = fleet.publish(&image.path, "large", &["--in-place"])["image"].as_str().expect("an id").to_owned();
    let begun = std::time::Instant::now();
    for host in &fleet.hosts[1..] {
        host.spawn_fetch("large");
    }
    for host in &fleet.hosts[1..] {
        host.wait_sealed("large@1", LONG);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let source = fleet.hosts[0].transfer(&id).expect("the publisher seeds");
    let given = source["given_bytes"].as_u64().expect("a number of bytes");
    let wasted: u64 = fleet.hosts[1..]
        .iter()
        .filter_map(|host| host.transfer(&id).and_then(|transfer| transfer["wasted_bytes"].as_u64()))
        .sum();
    println!("10 GiB with 1 GiB of data to 5 hosts on one machine: {seconds:.1} s");
    println!("  the publisher sent {:.3} of the data", given as f64 / DATA as f64);
    println!("  came twice: {:.4} % of what was taken", wasted as f64 * 100.0 / (5 * DATA) as f64);
    let peak = |host: &drover_harness::Host| host.agent().peak_resident() >> 20;
    println!(
        "  peak resident memory: publisher {} MiB, hosts {:?} MiB",
        peak(&fleet.hosts[0]),
        fleet.hosts[1..].iter().map(peak).collect::<Vec<_>>()
    );
}
