//! What root writes for another user, who owns the folder and may be against it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use crate::durable;

const SERVICE: u32 = 4711;

#[test]
fn what_root_writes_into_anothers_folder_is_that_others_and_no_link_is_followed() {
    if !rustix::process::geteuid().is_root() {
        return; // Nobody else can give files away.
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let precious = folder.path().join("precious");
    fs::write(&precious, "not to be touched").expect("written");
    let state = folder.path().join("state");
    fs::create_dir(&state).expect("a folder");
    chown(&state, Some(SERVICE), Some(SERVICE)).expect("root may");

    let owner = |name: &str| {
        let facts = fs::symlink_metadata(state.join(name)).expect("it is there");
        (facts.uid(), facts.gid(), facts.permissions().mode() & 0o777)
    };
    durable::private_folder(&state.join("a/b")).expect("made");
    durable::create(&state.join("a/b/new"), b"new", durable::PRIVATE).expect("made");
    durable::create_own(&state.join("a/b/own"), b"own", durable::PRIVATE).expect("made");
    assert_eq!([owner("a"), owner("a/b")], [(SERVICE, SERVICE, 0o700); 2]);
    assert_eq!((owner("a/b/new"), owner("a/b/own")), ((SERVICE, SERVICE, 0o600), (0, 0, 0o600)));

    // Links in the place of a file, and of the file that it is written to first.
    symlink(&precious, state.join("key")).expect("a link");
    symlink(&precious, state.join(format!(".key.{}.tmp", std::process::id()))).expect("a link");
    durable::replace(&state.join("key"), b"key", durable::PRIVATE).expect("replaced");
    assert_eq!(owner("key"), (SERVICE, SERVICE, 0o600));
    assert!(!state.join("key").is_symlink());
    symlink(&precious, state.join("other")).expect("a link");
    durable::create(&state.join("other"), b"other", durable::PRIVATE).expect_err("something is there");
    let facts = fs::symlink_metadata(&precious).expect("it is there");
    assert_eq!((facts.uid(), fs::read_to_string(&precious).expect("read").as_str()), (0, "not to be touched"));
}
