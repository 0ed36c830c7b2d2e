//! Images to spread: seeded content with holes, in a raw file.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::command::run;

/// A raw file and what is known of it.
#[derive(Debug, Clone)]
pub struct TestImage {
    /// Where it lies.
    pub path: PathBuf,
    /// Its length in bytes.
    pub len: u64,
    /// Bytes in it that were written, all of them random.
    pub data_len: u64,
}

impl TestImage {
    /// Makes a file of `len` bytes with `data_len` random bytes spread over it in runs of 1 MiB, holes between them.
    pub fn make(path: &Path, len: u64, data_len: u64, seed: u64) -> Self {
        const RUN: u64 = 1 << 20;
        let file = File::create(path).expect("a test's folder can be written");
        file.set_len(len).expect("a sparse file can be made");
        let runs = data_len.div_ceil(RUN);
        let places = len.div_ceil(RUN);
        assert!(runs <= places, "the data fits into the image");
        for run in 0..runs {
            let offset = (run * places / runs) * RUN;
            let run_len = RUN.min(data_len - run * RUN).min(len - offset);
            let bytes = random_bytes(seed.wrapping_add(run), run_len as usize);
            file.write_all_at(&bytes, offset).expect("there is room for a test image");
        }
        TestImage { path: path.to_owned(), len, data_len }
    }

    /// Makes a qcow2 file of it beside it.
    pub fn to_qcow2(&self) -> PathBuf {
        let path = self.path.with_extension("qcow2");
        let mut convert = std::process::Command::new("qemu-img");
        run(convert.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&self.path).arg(&path)).ok();
        path
    }

    /// Fails unless `other` has the same bytes (by `cmp`).
    #[track_caller]
    pub fn assert_same(&self, other: &Path) {
        run(std::process::Command::new("cmp").arg(&self.path).arg(other)).ok();
    }

    /// Bytes that a file takes on disk.
    pub fn disk_usage(path: &Path) -> u64 {
        std::fs::metadata(path).expect("the file exists").blocks() * 512
    }
}

/// `len` random bytes, always the same for a seed.
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut bytes);
    bytes
}
