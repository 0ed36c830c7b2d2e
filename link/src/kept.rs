//! Small files on which nothing depends, kept over restarts: one that is missing or damaged is as good as an empty one.

use std::fs;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

/// What the JSON file at `path` has, of `longest` bytes at most. Nothing if it is not there, or can't be understood, which is
/// logged.
pub fn load<T: DeserializeOwned>(path: &Path, longest: u64) -> Option<T> {
    let facts = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        facts => facts.ok(),
    };
    // Something else than a file might never end, or be waited for.
    let is_ours = facts.is_some_and(|facts| facts.is_file() && facts.len() <= longest);
    let bytes = is_ours.then(|| fs::read(path).ok()).flatten();
    let kept = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if kept.is_none() {
        tracing::warn!("{} can't be understood, and is written anew", path.display());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_ours_is_none_and_nobody_waits_for_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let load = |name: &str| super::load::<Vec<u32>>(&dir.path().join(name), 16);
        fs::write(dir.path().join("whole"), b"[1,2]").expect("written");
        fs::write(dir.path().join("cut"), b"[1,2").expect("written");
        fs::write(dir.path().join("long"), b"[1,2]            ").expect("written");
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe"), 0o600.into()).expect("made");
        fs::create_dir(dir.path().join("folder")).expect("made");
        assert_eq!(load("whole"), Some(vec![1, 2]));
        assert_eq!(["missing", "cut", "long", "pipe", "folder"].map(load), [const { None }; 5]);
    }
}
