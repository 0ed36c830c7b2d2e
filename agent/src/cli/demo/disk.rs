//! A small disk to spread when none is given: a real file system with files in it where `mke2fs` is installed, without a
//! partition table; else a sparse file with data here and there. Most of it is holes, as in any fresh disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A disk that was made.
pub(super) struct Disk {
    pub(super) path: PathBuf,
    /// What it is, for people.
    pub(super) what: String,
}

/// Length of the disk, and of the data in it, in bytes.
const DISK_LEN: u64 = 256 << 20;
const DATA_LEN: u64 = 64 << 20;
const FILES: u64 = 16;

/// Makes one in `folder`.
pub(super) fn make(folder: &Path) -> io::Result<Disk> {
    let path = folder.join("disk.raw");
    File::create_new(&path)?.set_len(DISK_LEN)?;
    match find_program("mke2fs") {
        Some(mke2fs) => {
            let tree = folder.join("tree");
            fill(&tree)?;
            format(&mke2fs, &tree, &path)?;
            fs::remove_dir_all(&tree)?;
            let what = "256 MiB with an ext4 file system that holds 64 MiB of files".to_owned();
            Ok(Disk { path, what })
        }
        None => {
            scatter(&path)?;
            let what = "256 MiB with 64 MiB of data here and there (mke2fs would give it a file system)".to_owned();
            Ok(Disk { path, what })
        }
    }
}

/// Where a program lies. File system tools are in folders that are not always in a user's PATH.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder: PathBuf| folder.join(name)).find(|file| file.is_file())
}

/// Files of random bytes, which nothing can compress, and files of text.
fn fill(tree: &Path) -> io::Result<()> {
    let (random, text) = (tree.join("random"), tree.join("text"));
    fs::create_dir_all(&random)?;
    fs::create_dir_all(&text)?;
    for number in 0..FILES {
        if number % 2 == 0 {
            let mut file = File::create_new(random.join(format!("{number:02}.bin")))?;
            io::copy(&mut noise(number)?.take(DATA_LEN / FILES), &mut file)?;
        } else {
            let mut file = io::BufWriter::new(File::create_new(text.join(format!("{number:02}.txt")))?);
            let mut written = 0;
            let mut line = 0u64;
            while written < DATA_LEN / FILES {
                let words =
                    format!("file {number}, line {line}: a master goes to every host, and every host checks it\n");
                file.write_all(words.as_bytes())?;
                written += words.len() as u64;
                line += 1;
            }
            file.flush()?;
        }
    }
    Ok(())
}

fn format(mke2fs: &Path, tree: &Path, disk: &Path) -> io::Result<()> {
    let mut command = Command::new(mke2fs);
    command.args(["-q", "-F", "-t", "ext4", "-L", "drover-demo", "-d"]).arg(tree).arg(disk);
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(io::Error::other(format!("{} ended with {}: {said}", mke2fs.display(), done.status)))
}

fn scatter(disk: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(disk)?;
    let mut buffer = vec![0; (DATA_LEN / FILES) as usize];
    for number in 0..FILES {
        noise(number)?.read_exact(&mut buffer)?;
        file.write_all_at(&buffer, number * (DISK_LEN / FILES))?;
    }
    Ok(())
}

/// Endless random bytes, others for each number and each run.
fn noise(number: u64) -> io::Result<impl Read> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(blake3::Hasher::new_keyed(&seed).update(&number.to_le_bytes()).finalize_xof())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_disk_is_sparse_and_has_data() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = make(folder.path()).expect("a disk");
        let facts = fs::metadata(&disk.path).expect("the disk");
        assert_eq!(facts.len(), DISK_LEN);
        let on_disk = facts.blocks() * 512;
        assert!((DATA_LEN..DATA_LEN * 3 / 2).contains(&on_disk), "{on_disk} bytes on the disk");
        assert!(!folder.path().join("tree").exists(), "what it was made of is gone");
    }
}
