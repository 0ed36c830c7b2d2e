//! The journal never claims more than it was told, whatever happens to its bytes.

use drover_protocol::have::ChunkSet;
use drover_protocol::id::ImageId;

use super::*;
use crate::store::DiskError;
use crate::store::fault::with_hook;
use crate::store::host_disk::HostDisk;

type Journal = drover_durability::Journal<HostDisk>;

const IMAGE: ImageId = ImageId::from_bytes([7; 32]);

fn geometry() -> Geometry {
    Geometry::of_len(300 * u64::from(CHUNK_LEN)).unwrap()
}

fn set(numbers: impl IntoIterator<Item = u32>) -> ChunkSet {
    let mut set = ChunkSet::empty(&geometry());
    for number in numbers {
        set.insert(geometry().chunk(number).unwrap());
    }
    set
}

fn union(sets: &[ChunkSet]) -> ChunkSet {
    set(sets.iter().flat_map(|set| set.iter().map(ChunkIndex::number)))
}

fn open(path: &Path) -> Journal {
    Journal::open(&HostDisk, path, IMAGE, &geometry()).unwrap()
}

/// A journal with a record for each of some sets; the sets; where each record ends.
fn example(path: &Path) -> (Vec<ChunkSet>, Vec<u64>) {
    let mut journal = Journal::create(&HostDisk, path, IMAGE, &geometry()).unwrap();
    let sets = vec![set([0]), set(10..20), set((20..120).step_by(3)), set([299]), set([1, 2, 3, 200])];
    let mut ends = vec![fs::metadata(path).unwrap().len()];
    for set in &sets {
        journal.append(set).unwrap();
        ends.push(fs::metadata(path).unwrap().len());
    }
    (sets, ends)
}

#[test]
fn a_journal_is_read_back_and_gone_on_with() {
    let state = TestState::new();
    let path = state.file("journal");
    let (mut sets, _) = example(&path);
    for number in 210..220 {
        let mut journal = open(&path);
        assert_eq!(*journal.claimed(), union(&sets));
        sets.push(set([number]));
        journal.append(sets.last().unwrap()).unwrap();
    }
    assert_eq!(*open(&path).claimed(), union(&sets));
}

#[test]
fn a_journal_cut_anywhere_claims_the_whole_records_before_the_cut() {
    let state = TestState::new();
    let path = state.file("journal");
    let (sets, ends) = example(&path);
    let bytes = fs::read(&path).unwrap();
    for len in 0..=bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        let whole = ends[1..].iter().filter(|&&end| end <= len as u64).count();
        assert_eq!(*open(&path).claimed(), union(&sets[..whole]), "cut at {len}");
        let mut journal = open(&path);
        journal.append(&set([250])).unwrap();
        let mut expected = sets[..whole].to_vec();
        expected.push(set([250]));
        assert_eq!(*open(&path).claimed(), union(&expected), "cut at {len}, then gone on with");
    }
}

#[test]
fn a_journal_with_any_byte_altered_claims_the_records_before_that_byte() {
    let state = TestState::new();
    let path = state.file("journal");
    let (sets, ends) = example(&path);
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut altered = bytes.clone();
            altered[at] ^= flip;
            fs::write(&path, &altered).unwrap();
            let whole = ends[1..].iter().filter(|&&end| end <= at as u64).count();
            assert_eq!(*open(&path).claimed(), union(&sets[..whole]), "byte {at} ^ {flip}");
        }
    }
}

#[test]
fn records_out_of_turn_or_of_another_image_claim_nothing() {
    let state = TestState::new();
    let path = state.file("journal");
    let (sets, ends) = example(&path);
    let bytes = fs::read(&path).unwrap();
    let record = |number: usize| &bytes[ends[number] as usize..ends[number + 1] as usize];
    let twice = [&bytes[..ends[1] as usize], record(0)].concat();
    let skipped = [&bytes[..ends[1] as usize], record(2)].concat();
    for odd in [twice, skipped] {
        fs::write(&path, odd).unwrap();
        assert_eq!(*open(&path).claimed(), sets[0]);
    }
    fs::write(&path, &bytes).unwrap();
    let other = ImageId::from_bytes([8; 32]);
    assert!(Journal::open(&HostDisk, &path, other, &geometry()).unwrap().claimed().is_empty());
}

#[test]
fn a_record_that_can_not_be_written_or_synced_is_not_claimed_and_can_be_tried_again() {
    for step in [Step::AppendJournal, Step::SyncJournal] {
        let state = TestState::new();
        let path = state.file("journal");
        let (mut sets, _) = example(&path);
        let mut journal = open(&path);
        // One that was read back is written anew first.
        journal.append(&set([149])).unwrap();
        sets.push(set([149]));
        let error: DiskError =
            with_hook(failing(step, io::ErrorKind::StorageFull), || journal.append(&set([150])).unwrap_err());
        assert_eq!(error.trouble(), crate::store::Trouble::Full);
        assert!(!journal.claimed().contains(geometry().chunk(150).unwrap()));
        journal.append(&set([150])).unwrap();
        sets.push(set([150]));
        assert_eq!(*journal.claimed(), union(&sets));
        assert_eq!(*open(&path).claimed(), union(&sets), "after {step:?}");
    }
}

#[test]
fn claims_that_are_taken_back_stay_so() {
    let state = TestState::new();
    let path = state.file("journal");
    let (sets, _) = example(&path);
    let mut journal = open(&path);
    journal.revoke(set(10..15).iter());
    assert!(journal.is_suspect());
    journal.append(&set([])).unwrap();
    let left = set(union(&sets).iter().map(ChunkIndex::number).filter(|number| !(10..15).contains(number)));
    assert_eq!(*open(&path).claimed(), left);
}

#[test]
fn a_long_journal_is_written_anew() {
    let state = TestState::new();
    let path = state.file("journal");
    let mut journal = Journal::create(&HostDisk, &path, IMAGE, &geometry()).unwrap();
    let mut longest = 0;
    for round in 0..1100 {
        journal.append(&set([round % 300])).unwrap();
        longest = longest.max(fs::metadata(&path).unwrap().len());
    }
    assert!(fs::metadata(&path).unwrap().len() < longest / 2);
    assert_eq!(*open(&path).claimed(), set(0..300));
}
