//! The folder in which the hosts keep their files, gone when the lab ends. A lab that was killed can't remove its own,
//! in which sealed masters are immutable: the next one does.

use std::io;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A fresh folder in `parent`, after those of labs that do not run any more are removed.
pub(crate) fn make(parent: &Path) -> io::Result<TempDir> {
    for entry in std::fs::read_dir(parent)?.flatten() {
        if entry.file_name().to_str().and_then(owner).is_some_and(|pid| !runs(pid)) {
            eprintln!("lab: removing what a lab left that was killed: {}", entry.path().display());
            remove(&entry.path());
        }
    }
    tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir_in(parent)
}

/// Removes a folder, also if masters in it are immutable.
pub(crate) fn remove(folder: &Path) {
    let _ = Command::new("chattr").args(["-R", "-f", "-i"]).arg(folder).output();
    if let Err(cause) = std::fs::remove_dir_all(folder) {
        eprintln!("lab: {} stays: {cause}", folder.display());
    }
}

/// The process that made a folder of this name. What was kept on purpose has another name.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

fn runs(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

const PREFIX: &str = "drover-lab-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_labs_that_were_killed_are_removed() {
        let parent = tempfile::tempdir().expect("a folder");
        // No process has the greatest number.
        let left = parent.path().join(format!("{PREFIX}{}-abc", u32::MAX));
        let others = [parent.path().join(format!("{PREFIX}kept")), parent.path().join("something")];
        for folder in others.iter().chain([&left]) {
            std::fs::create_dir_all(folder.join("host1")).expect("a folder");
        }
        let own = make(parent.path()).expect("a folder");
        let again = make(parent.path()).expect("another");
        assert!(!left.exists() && own.path().exists() && again.path().exists());
        assert!(others.iter().all(|folder| folder.exists()));
    }
}
