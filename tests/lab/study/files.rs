//! A file system on the clone, loaded by Bonnie++.
//!
//! The clone is served as a file, a loop device made of that, and an ext4 on it: what a guest would do inside. The
//! page cache is kept empty of Bonnie++'s file, so that the host's memory, of which a guest has less, does not answer for
//! the clone. Its tests of many small files are left out: they load the guest's caches, not its disk.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use super::export::{Place, Server};
use super::figures::Sample;
use super::filesystem::Filesystem;
use super::operation::{Operation, Part};
use super::technique::Technique;
use crate::contenders::program;

/// Every technique that can be written, one after the other.
pub(super) fn measure(
    server: &Server<'_>,
    techniques: &[Technique],
    round: usize,
    seed: u64,
) -> Result<Vec<Sample>, Box<dyn Error>> {
    let mut samples = Vec::new();
    for &technique in techniques {
        let clone = server.workshop.make(technique, true)?;
        let export = server.fuse(technique, &clone)?;
        let Place::File(file) = &export.place else { return Err("it was to be served as a file".into()) };
        let filesystem = Filesystem::ext4(file, &server.folder.join("ext4"))?;
        let line = bonnie(&filesystem.root, server.workshop.disk_len(), seed)?;
        for &operation in Part::Files.operations() {
            let per_s = speed(&line, operation)?;
            samples.extend(per_s.map(|per_s| Sample { part: Part::Files, operation, technique, round, per_s }));
        }
    }
    Ok(samples)
}

/// Runs Bonnie++ and gives its line of figures. Its file takes three quarters of the disk: what takes less than half a second
/// has no figure.
fn bonnie(folder: &Path, disk_len: u64, seed: u64) -> Result<String, Box<dyn Error>> {
    let mib = (disk_len >> 20) * 3 / 4;
    let mut bonnie = Command::new("bonnie++");
    // Blocks of 64 KiB, since by 8 KiB the way through two FUSE and NBD servers would be most of what is timed. It refuses files of less than twice the memory; with -D memory is out of the way.
    bonnie.arg("-d").arg(folder).args(["-s", &format!("{mib}:64k"), "-r", &(mib / 2).to_string()]);
    // -f leaves out reading and writing by the character, -n 0 the small files.
    bonnie.args(["-D", "-f", "-n", "0", "-q", "-u", "root", "-m", "study", "-z", &(seed as u32).to_string()]);
    let done = AtomicBool::new(false);
    let printed = std::thread::scope(|scope| {
        scope.spawn(|| forget_until(&done, folder));
        let printed = program::output(&mut bonnie);
        done.store(true, Ordering::Relaxed);
        printed
    })?;
    Ok(printed.lines().last().unwrap_or_default().to_owned())
}

/// Keeps what Bonnie++ has read or written out of the page cache: it writes directly, and then reads by way of the cache.
fn forget_until(done: &AtomicBool, folder: &Path) {
    while !done.load(Ordering::Relaxed) {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for file in files.filter_map(|entry| File::open(entry.path()).ok()) {
            // It may be gone by now; then there is nothing to forget.
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
        std::thread::sleep(FORGET_EACH);
    }
}

/// In which the fastest disk here reads some megabytes of a file that has hundreds.
const FORGET_EACH: Duration = Duration::from_millis(20);

/// What Bonnie++'s line of figures says was done in a second, in the operation's unit; nothing if it was done too quickly
/// to be timed. Its fields are listed in bon_csv2html(1).
fn speed(line: &str, operation: Operation) -> Result<Option<f64>, String> {
    let at = match operation {
        Operation::FileWrite => 11,
        Operation::FileRewrite => 13,
        Operation::FileRead => 17,
        Operation::FileSeeks => 19,
        _ => return Err(format!("Bonnie++ does no {operation}")),
    };
    let unclear = || format!("Bonnie++ said something unexpected of {operation}: {line}");
    let field = line.split(',').nth(at).ok_or_else(unclear)?;
    if field.starts_with("++") {
        return Ok(None);
    }
    let value: f64 = field.parse().map_err(|_| unclear())?;
    Ok(Some(if operation == Operation::FileSeeks { value } else { value / 1024.0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "1.98,2.00,study,1,7,128M,64M,8192,5,,,102400,30,51200,20,,,204800,25,3000.5,90,0,,,,,,,,,,,,,,,,,,\
        1ms,2ms,,3ms,4ms,,,,,,";

    #[test]
    fn a_line_of_figures_is_read() {
        let figures = Part::Files.operations().iter().map(|&operation| speed(LINE, operation));
        assert_eq!(figures.collect::<Vec<_>>(), [Ok(Some(100.0)), Ok(Some(50.0)), Ok(Some(200.0)), Ok(Some(3000.5))]);
    }

    #[test]
    fn what_was_too_quick_has_no_figure() {
        assert_eq!(speed(&LINE.replace("51200", "+++++"), Operation::FileRewrite), Ok(None));
        assert!(speed("Can't open file ./Bonnie.123", Operation::FileRewrite).is_err());
        assert!(speed(LINE, Operation::RandomRead).is_err());
    }
}
