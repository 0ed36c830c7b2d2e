//! Reads a raw file once, on all cores, and hashes it two ways: each chunk as a message of its own, and the whole.
//!
//! The file is divided into spans, which threads take in turn. Within a span a block is read, its chunks are hashed
//! while it is in the cache, and so is its subtree of the whole content's BLAKE3 tree; subtrees are joined into the
//! span's, and at the end the spans' into the root. So no byte is read twice, and the result does not depend on how
//! many threads there are. What lies in a hole is hashed from a block of zeros without reading the disk.
//!
//! Two hashes a byte cannot be avoided: the leaves of the big tree are numbered from the beginning of the content, so a
//! chunk's hash, which must not depend on where the chunk lies, is never among them. Chunks of zeros have no hash.
//!
//! With a `sink`, the very bytes that were hashed are written to it, chunks of zeros left out, so that a copy is what
//! the hashes say even if the file changes under us. The disk begins at once, driven by a thread that syncs whenever
//! enough was written: left to itself the kernel waits until a tenth of the memory is dirty, and the disk's time is added
//! to the processors' instead of running beside it.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use drover_protocol::geometry::CHUNK_LEN;
use drover_protocol::id::{ChunkHash, ContentHash};
use drover_protocol::manifest::{hash_chunk, is_zeros};
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::Errno;

use super::disk_error::{DiskError, Doing};

/// What to read.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) file: &'a File,
    /// For errors.
    pub(super) path: &'a Path,
    /// How many bytes; at least one.
    pub(super) len: u64,
    /// Where to write what was read, and its path.
    pub(super) sink: Option<(&'a File, &'a Path)>,
    /// Whether a chunk that can't be read is noted, instead of ending the scan.
    pub(super) tolerant: bool,
    pub(super) pace: Pace,
    /// Ends the scan early.
    pub(super) cancel: &'a AtomicBool,
}

/// How fast to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// On all cores, as fast as the disk goes.
    Full,
    /// On one, at most so many bytes a second, so that guests notice nothing.
    Limited(u64),
}

/// What was read.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Of each chunk its hash, or `None` of one of zeros.
    pub(super) chunks: Vec<Option<ChunkHash>>,
    /// The hash of the whole.
    pub(super) content_hash: ContentHash,
    /// Chunks that could not be read; their entries and the content's hash are worth nothing.
    pub(super) unread: Vec<u32>,
}

/// Why a scan ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("cancelled")]
    Cancelled,
}

/// Reads everything; calls `progress` with the bytes done so far, on this thread.
pub(super) fn scan(scan: Scan<'_>, progress: &dyn Fn(u64)) -> Result<Scanned, ScanError> {
    let threads = match scan.pace {
        Pace::Full => thread::available_parallelism().map_or(1, usize::from),
        Pace::Limited(_) => 1,
    };
    scan_on(threads, scan, progress)
}

fn scan_on(threads: usize, scan: Scan<'_>, progress: &dyn Fn(u64)) -> Result<Scanned, ScanError> {
    let span_count = scan.len.div_ceil(SPAN_LEN);
    let mut spans: Vec<Option<Span>> = (0..span_count).map(|_| None).collect();
    // Only advice: a filesystem that has no read-ahead may refuse it.
    let _ = fadvise(scan.file, 0, None, Advice::Sequential);
    let (next, stop, writing) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(()));
    let failure = thread::scope(|scope| {
        let flusher = scan.sink.map(|(sink, path)| {
            let (due, wake) = sync_channel(1);
            (due, scope.spawn(move || flush(sink, path, wake)))
        });
        // Bounded, so that a slow receiver of progress bounds what is in flight.
        let (results, arrived) = sync_channel(4 * threads);
        for _ in 0..threads.min(span_count as usize) {
            let worker = Worker { scan, next: &next, stop: &stop, writing: &writing, results: results.clone() };
            scope.spawn(move || worker.run());
        }
        drop(results);
        let (mut done, mut flushed, mut failure) = (0, 0, None);
        for (number, result) in arrived {
            match result {
                Ok(span) => {
                    done += len_of(&span_range(number, scan.len));
                    spans[number as usize] = Some(span);
                    // A flusher that is busy takes this with its next turn.
                    if let Some((due, _)) = flusher.as_ref().filter(|_| done - flushed >= FLUSH_LEN)
                        && due.try_send(()).is_ok()
                    {
                        flushed = done;
                    }
                    progress(done);
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        }
        if let Some((due, flusher)) = flusher {
            drop(due);
            failure = failure.or(flusher.join().expect("a flusher does not panic").err());
        }
        failure
    });
    if let Some(error) = failure {
        return Err(error.into());
    }
    if scan.cancel.load(Ordering::Relaxed) {
        return Err(ScanError::Cancelled);
    }
    Ok(join(spans.into_iter().map(|span| span.expect("every span was read")).collect(), scan.len))
}

/// Has the disk take what was written so far, whenever that is due. An error is told only once by the system, so it must
/// end the scan: the sync at the end would not tell of it.
fn flush(sink: &File, path: &Path, wake: Receiver<()>) -> Result<(), DiskError> {
    wake.into_iter().try_for_each(|()| sink.sync_data().doing("sync", path))
}

struct Worker<'a> {
    scan: Scan<'a>,
    next: &'a AtomicU64,
    stop: &'a AtomicBool,
    /// Whose turn it is to write.
    writing: &'a Mutex<()>,
    results: SyncSender<(u64, Result<Span, DiskError>)>,
}

struct Span {
    chunks: Vec<Option<ChunkHash>>,
    root: SpanRoot,
    unread: Vec<u32>,
}

enum SpanRoot {
    /// Of a span that is part of a larger content.
    Part(ChainingValue),
    /// Of a span that is all of the content.
    Whole(blake3::Hash),
}

impl Worker<'_> {
    fn run(self) {
        let mut buffer = vec![0; BLOCK_LEN];
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let stop = self.stop.load(Ordering::Relaxed) || self.scan.cancel.load(Ordering::Relaxed);
            if stop || number * SPAN_LEN >= self.scan.len {
                return;
            }
            let result = self.read_span(span_range(number, self.scan.len), &mut buffer);
            if self.results.send((number, result)).is_err() {
                return;
            }
        }
    }

    fn read_span(&self, span: Range<u64>, buffer: &mut [u8]) -> Result<Span, DiskError> {
        let mut read = Span { chunks: Vec::new(), root: SpanRoot::Whole(blake3::hash(b"")), unread: Vec::new() };
        let whole = len_of(&span) == self.scan.len;
        let (mut values, mut hasher) = (Vec::new(), blake3::Hasher::new());
        let mut holes = Holes::new(self.scan.file, self.scan.len);
        let mut offset = span.start;
        while offset < span.end {
            let end = span.end.min(offset + BLOCK_LEN as u64);
            let block = if holes.cover(offset..end) {
                read.chunks.extend((0..(end - offset).div_ceil(u64::from(CHUNK_LEN))).map(|_| None));
                &ZEROS[..(end - offset) as usize]
            } else {
                let block = &mut buffer[..(end - offset) as usize];
                let begun = Instant::now();
                self.read_block(block, offset, &mut read.unread)?;
                self.wait(block.len(), begun);
                let chunks = block.chunks(CHUNK_LEN as usize);
                read.chunks.extend(chunks.map(|chunk| (!is_zeros(chunk)).then(|| hash_chunk(chunk))));
                self.write_block(
                    block,
                    offset,
                    &read.chunks[((offset - span.start) / u64::from(CHUNK_LEN)) as usize..],
                )?;
                &*block
            };
            if whole {
                hasher.update(block);
            } else {
                values.push(blake3::Hasher::new().set_input_offset(offset).update(block).finalize_non_root());
            }
            offset = end;
        }
        read.root = match whole {
            true => SpanRoot::Whole(hasher.finalize()),
            false => SpanRoot::Part(merge(&values, len_of(&span), BLOCK_LEN as u64)),
        };
        Ok(read)
    }

    /// Waits until so much may have been read since then. Short enough never to keep anybody waiting who cancels.
    fn wait(&self, len: usize, begun: Instant) {
        let Pace::Limited(bytes_per_s) = self.scan.pace else { return };
        let due = Duration::from_secs_f64(len as f64 / bytes_per_s.max(1) as f64);
        let mut left = due.saturating_sub(begun.elapsed());
        while !left.is_zero() && !self.scan.cancel.load(Ordering::Relaxed) {
            let part = left.min(Duration::from_millis(100));
            thread::sleep(part);
            left -= part;
        }
    }

    fn read_block(&self, block: &mut [u8], offset: u64, unread: &mut Vec<u32>) -> Result<(), DiskError> {
        let result = self.scan.file.read_exact_at(block, offset);
        if result.is_ok() || !self.scan.tolerant {
            return result.doing("read", self.scan.path);
        }
        for (chunk, at) in block.chunks_mut(CHUNK_LEN as usize).zip((offset..).step_by(CHUNK_LEN as usize)) {
            if self.scan.file.read_exact_at(chunk, at).is_err() {
                unread.push((at / u64::from(CHUNK_LEN)) as u32);
            }
        }
        Ok(())
    }

    /// Writes the chunks that are not zeros, each by itself: that measured two to three times faster than a megabyte at a
    /// time, for which the page cache looks for large pages (see the lab's notes). File systems let in one writer at a
    /// time and have the others spin; so one thread writes its whole block while the others hash theirs.
    fn write_block(&self, block: &[u8], offset: u64, chunks: &[Option<ChunkHash>]) -> Result<(), DiskError> {
        let Some((sink, path)) = self.scan.sink else { return Ok(()) };
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let places = (offset..).step_by(CHUNK_LEN as usize);
        for ((bytes, at), chunk) in block.chunks(CHUNK_LEN as usize).zip(places).zip(chunks) {
            if chunk.is_some() {
                sink.write_all_at(bytes, at).doing("write", path)?;
            }
        }
        Ok(())
    }
}

/// Where a file has no data, asked of the filesystem only when what is known runs out.
struct Holes<'a> {
    file: &'a File,
    len: u64,
    /// From where to where is known.
    known: Range<u64>,
    /// Whether that is a hole.
    hole: bool,
}

impl<'a> Holes<'a> {
    fn new(file: &'a File, len: u64) -> Self {
        Holes { file, len, known: 0..0, hole: false }
    }

    /// Whether all of `range` lies in a hole. A filesystem that does not know its holes has none.
    fn cover(&mut self, range: Range<u64>) -> bool {
        if !self.known.contains(&range.start) {
            let (end, hole) = match seek(self.file, SeekFrom::Data(range.start)) {
                Ok(data) if data > range.start => (data, true),
                Ok(_) => (seek(self.file, SeekFrom::Hole(range.start)).unwrap_or(self.len), false),
                Err(Errno::NXIO) => (self.len, true),
                Err(_) => (self.len, false),
            };
            self.known = range.start..end.max(range.end.min(range.start + 1));
            self.hole = hole;
        }
        self.hole && range.end <= self.known.end
    }
}

fn join(spans: Vec<Span>, len: u64) -> Scanned {
    let mut chunks = Vec::with_capacity(len.div_ceil(u64::from(CHUNK_LEN)) as usize);
    let (mut values, mut unread, mut whole) = (Vec::with_capacity(spans.len()), Vec::new(), None);
    for span in spans {
        chunks.extend(span.chunks);
        unread.extend(span.unread);
        match span.root {
            SpanRoot::Part(value) => values.push(value),
            SpanRoot::Whole(hash) => whole = Some(hash),
        }
    }
    let hash = whole.unwrap_or_else(|| {
        let (left, right, left_len) = halves(&values, len, SPAN_LEN);
        let (left, right) = (merge(left, left_len, SPAN_LEN), merge(right, len - left_len, SPAN_LEN));
        merge_subtrees_root(&left, &right, Mode::Hash)
    });
    Scanned { chunks, content_hash: ContentHash::from_bytes(hash.into()), unread }
}

/// The value of the subtree over `len` bytes whose units of `unit` bytes have these values.
fn merge(values: &[ChainingValue], len: u64, unit: u64) -> ChainingValue {
    if let [value] = values {
        return *value;
    }
    let (left, right, left_len) = halves(values, len, unit);
    let (left, right) = (merge(left, left_len, unit), merge(right, len - left_len, unit));
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

fn halves(values: &[ChainingValue], len: u64, unit: u64) -> (&[ChainingValue], &[ChainingValue], u64) {
    let left_len = left_subtree_len(len);
    let (left, right) = values.split_at((left_len / unit) as usize);
    (left, right, left_len)
}

const fn len_of(range: &Range<u64>) -> u64 {
    range.end - range.start
}

fn span_range(number: u64, len: u64) -> Range<u64> {
    number * SPAN_LEN..len.min((number + 1) * SPAN_LEN)
}

/// What is read at once, and then hashed twice while the second-level cache or the third holds it. Of a 4 GiB file in the
/// page cache, on two threads with a cache of 1 MiB each: 0.91 s with 256 KiB, 0.88 s with this, for it means fewer calls.
const BLOCK_LEN: usize = 1 << 20;
/// What a thread takes at once: large enough that taking it costs nothing, small enough that all threads end together.
const SPAN_LEN: u64 = 4 << 20;
/// What is written before the disk is made to begin with it. Of 4 GiB on a disk of 1.3 GB/s: 3.2 s without this, 2.7 s with.
const FLUSH_LEN: u64 = 64 << 20;
static ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// Scans a file of `len` bytes in which only `data` is written.
    fn scan_of(len: u64, data: &[(u64, Vec<u8>)], threads: usize) -> (Scanned, Vec<u8>, Vec<u8>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.flush().unwrap();
        file.as_file().set_len(len).unwrap();
        for (offset, bytes) in data {
            let end = bytes.len().min((len - offset) as usize);
            file.as_file().write_all_at(&bytes[..end], *offset).unwrap();
        }
        let sink = tempfile::NamedTempFile::new().unwrap();
        sink.as_file().set_len(len).unwrap();
        let cancel = AtomicBool::new(false);
        let job = Scan {
            file: file.as_file(),
            path: file.path(),
            len,
            sink: Some((sink.as_file(), sink.path())),
            tolerant: false,
            pace: Pace::Full,
            cancel: &cancel,
        };
        let scanned = scan_on(threads, job, &|_| {}).unwrap();
        (scanned, std::fs::read(file.path()).unwrap(), std::fs::read(sink.path()).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_scan_gives_what_hashing_everything_gives(
            len in prop_oneof![1..600_000u64, 4_000_000..4_400_000u64, 8_380_000..8_400_000u64, 12_000_000..17_000_000u64],
            data in proptest::collection::vec((0.0..1.0f64, 1..400_000usize, any::<u8>()), 0..5),
            threads in 1..4usize,
        ) {
            let data: Vec<_> = data
                .into_iter()
                .map(|(at, count, byte)| ((at * len as f64) as u64, vec![byte; count]))
                .collect();
            let (scanned, content, copy) = scan_of(len, &data, threads);
            prop_assert_eq!(*scanned.content_hash.as_bytes(), <[u8; 32]>::from(blake3::hash(&content)));
            let chunks = content.chunks(CHUNK_LEN as usize);
            let expected: Vec<_> = chunks.map(|chunk| (!is_zeros(chunk)).then(|| hash_chunk(chunk))).collect();
            prop_assert_eq!(scanned.chunks, expected);
            prop_assert!(content == copy, "the copy is another");
        }
    }
}
