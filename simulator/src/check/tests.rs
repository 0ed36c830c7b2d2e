//! What the check found, told as stories: each failed before it was mended.

use drover_protocol::geometry::{CHUNK_LEN, Geometry};
use drover_protocol::manifest::Manifest;
use drover_protocol::rng::Rng;
use drover_protocol::time::Instant;

use super::crash::{Crash, Keep};
use super::disk::SimDisk;
use super::host::{self, Opened};
use super::invariants::Expected;
use super::{seek, token};

/// The tag of the image in these stories.
const TAG: u64 = 7;
/// More syncs than any of these stories takes.
const SYNCS: u32 = 16;

fn manifest() -> Manifest {
    let geometry = Geometry::new(8 * u64::from(CHUNK_LEN), 2 * CHUNK_LEN).expect("lengths of an image");
    token::manifest(TAG, geometry, |_| false)
}

fn open(disk: &SimDisk) -> Opened {
    host::open(disk, manifest().image_id()).expect("a disk that works again")
}

fn write(image: &drover_durability::Image<SimDisk>, number: u32) {
    let chunk = manifest().geometry().chunk(number).expect("a chunk of the image");
    let verified = token::verify(&manifest(), chunk, token::right(TAG, number)).expect("the right token");
    image.write(Instant::START, &verified).expect("a disk that takes it");
}

/// A crash that keeps nothing that was not synced.
fn lose_power(disk: &SimDisk) {
    let crash = Crash { files: Keep::None, names: Keep::None };
    disk.with(|inner| inner.crash(crash, &mut Rng::seeded(1)));
}

fn promised(numbers: &[u32]) -> Expected {
    Expected {
        tag: TAG,
        promised: numbers.to_vec(),
        was_sealed: false,
        highest_version: 0,
        may_lack_records: false,
        reads_fail: false,
    }
}

#[test]
fn a_release_is_kept_although_the_sync_of_its_folder_failed_at_first() {
    for nth in 0..SYNCS {
        let disk = SimDisk::new(1);
        let opened = open(&disk);
        disk.with(|inner| inner.sync_fails_after = Some(nth));
        let first = seek::accept(&opened.catalog, 1);
        disk.with(|inner| inner.sync_fails_after = None);
        assert!(first.is_ok() || seek::accept(&opened.catalog, 1).is_ok());
        lose_power(&disk);
        assert_eq!(open(&disk).catalog.highest_seen(&seek::name()), Some(2), "sync {nth} failed");
    }
}

#[test]
fn a_release_that_a_killed_process_left_counts_only_when_it_lasts() {
    for nth in 0..SYNCS {
        let disk = SimDisk::new(1);
        let opened = open(&disk);
        disk.with(|inner| inner.sync_fails_after = Some(nth));
        let _ = seek::accept(&opened.catalog, 1);
        disk.with(|inner| inner.sync_fails_after = None);
        let seen = open(&disk).catalog.highest_seen(&seek::name());
        lose_power(&disk);
        assert!(open(&disk).catalog.highest_seen(&seek::name()) >= seen, "sync {nth} failed");
    }
}

#[test]
fn what_a_killed_process_left_is_not_built_upon_before_it_is_durable() {
    for nth in 0..SYNCS {
        let disk = SimDisk::new(1);
        let image = host::begin_image(&open(&disk).layout, &manifest()).expect("a sound disk");
        write(&image, 0);
        image.checkpoint(Instant::START).expect("a sound disk");
        write(&image, 1);
        // The journal is written anew.
        image.give_up(&[manifest().geometry().chunk(0).expect("a chunk")]);
        disk.with(|inner| inner.sync_fails_after = Some(nth));
        let _ = image.checkpoint(Instant::START);
        write(&image, 2);
        let _ = image.checkpoint(Instant::START);
        disk.with(|inner| inner.sync_fails_after = None);
        drop(image);

        let image = open(&disk).image.expect("it was coming in");
        (0..5).for_each(|number| write(&image, number));
        image.checkpoint(Instant::START).expect("a disk that works again");
        drop(image);
        lose_power(&disk);
        let found = promised(&[0, 1, 2, 3, 4]).compare(&open(&disk));
        assert_eq!(found, Ok(()), "sync {nth} failed");
    }
}

#[test]
fn a_folder_that_a_killed_process_left_is_made_durable_before_anything_is_put_into_it() {
    for nth in 0..SYNCS {
        let disk = SimDisk::new(1);
        let opened = open(&disk);
        disk.with(|inner| inner.sync_fails_after = Some(nth));
        let _ = host::begin_image(&opened.layout, &manifest());
        disk.with(|inner| inner.sync_fails_after = None);
        let Some(image) = open(&disk).image else { continue };
        write(&image, 3);
        image.checkpoint(Instant::START).expect("a disk that works again");
        lose_power(&disk);
        assert_eq!(promised(&[3]).compare(&open(&disk)), Ok(()), "sync {nth} failed");
    }
}

#[test]
fn a_seal_that_failed_behind_its_move_can_lose_a_chunk_and_still_come_to_its_end() {
    for nth in 0..SYNCS {
        let disk = SimDisk::new(1);
        let opened = open(&disk);
        let image = host::begin_image(&opened.layout, &manifest()).expect("a sound disk");
        (0..8).for_each(|number| write(&image, number));
        image.checkpoint(Instant::START).expect("a sound disk");
        disk.with(|inner| inner.sync_fails_after = Some(nth));
        let first = host::seal(Instant::START, &opened.layout, &image);
        disk.with(|inner| inner.sync_fails_after = None);
        if first.is_err() {
            image.give_up(&[manifest().geometry().chunk(5).expect("a chunk")]);
            // Unless the seal had come so far that the master is in its place.
            if host::seal(Instant::START, &opened.layout, &image).is_err() {
                write(&image, 5);
                host::seal(Instant::START, &opened.layout, &image).expect("a disk that works again");
            }
        }
        lose_power(&disk);
        let expected = Expected { was_sealed: true, ..promised(&[0, 1, 2, 3, 4, 5, 6, 7]) };
        assert_eq!(expected.compare(&open(&disk)), Ok(()), "sync {nth} failed");
    }
}

/// Seed 7435: a master that was complete again before its failed seal was told of was never sealed. Seed 16179: a host took
/// the silence of the last peer that it had asked for its own. Seed 6437: a long sleep, and dials that outlast it.
#[test]
fn seeds_that_found_something_end_as_they_must() {
    for seed in [6437, 7435, 16179] {
        assert_eq!(super::run_seed(seed, false).violation, None, "seed {seed}");
    }
}
