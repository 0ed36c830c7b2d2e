//! A release that is held back, in a file: written by `publish` and `renew`, added to by `cosign`, handed out by `post`.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use drover_link::durable;
use drover_protocol::codec::{self, Message};
use drover_protocol::release::{Release, SignedRelease};
use rustix::fs::Access;

use crate::control::{Code, Problem};

/// Everybody may read it: it says nothing that is not told to all hosts.
const MODE: u32 = 0o644;
const TURN_TRIES: u32 = 50;
const TURN_WAIT: Duration = Duration::from_millis(100);

/// Refuses a file that is there already, or can't be made, before anything is done.
pub(super) fn check_free(path: &Path, what: &str) -> Result<(), Problem> {
    if path.symlink_metadata().is_ok() {
        let why = format!("{} is there, and no file is overwritten", path.display());
        return Err(Problem::new(Code::Refused, what, why).todo("name a new file with --hold, or remove that one"));
    }
    let folder = folder_of(path);
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        let why = format!("no file can be made in {}: {error}", folder.display());
        Problem::new(Code::Failed, what, why).todo("name a file in another folder with --hold")
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a release into a new file.
pub(super) fn write(path: &Path, signed: &SignedRelease, what: &str) -> Result<(), Problem> {
    durable::create_own(path, &encoded(signed), MODE).map_err(|error| Problem::explained(Code::Failed, what, &error))
}

/// Changes the release in a file; two who do so at the same time take turns. Gives the form that is there then.
pub(super) fn change<T>(
    path: &Path,
    what: &str,
    change: impl FnOnce(&mut SignedRelease, &Release) -> Result<T, Problem>,
) -> Result<(SignedRelease, T), Problem> {
    let failed = |error: io::Error| Problem::failed(what, error);
    // A link stays one.
    let path = path.canonicalize().map_err(failed)?;
    let turn = File::open(folder_of(&path)).map_err(failed)?;
    take_turn(&turn, what)?;
    let (mut signed, release) = read(&path, what)?;
    let given = change(&mut signed, &release)?;
    durable::replace(&path, &encoded(&signed), MODE).map_err(|error| Problem::explained(Code::Failed, what, &error))?;
    Ok((signed, given))
}

/// Reads a release that everybody signed who is named in it.
pub(super) fn read(path: &Path, what: &str) -> Result<(SignedRelease, Release), Problem> {
    let mut bytes = Vec::new();
    let longest = SignedRelease::MAX_LEN as u64;
    let opened = File::open(path).and_then(|file| file.take(longest + 1).read_to_end(&mut bytes));
    opened.map_err(|error| {
        let code = if error.kind() == io::ErrorKind::NotFound { Code::NotFound } else { Code::Failed };
        Problem::new(code, format!("{what} {}", path.display()), error)
    })?;
    let refuse = |why: String| {
        Problem::new(Code::Refused, format!("{what} {}", path.display()), why)
            .todo("give a file that `drover publish --hold` or `drover renew --hold` wrote, as it was written")
    };
    let signed: SignedRelease = codec::decode(&bytes).map_err(|_| refuse("it holds no release".to_owned()))?;
    let release = signed.verify_intact().map_err(|error| refuse(error.to_string()))?;
    Ok((signed, release))
}

/// Whoever changes a file in a folder locks that; it takes a moment.
fn take_turn(folder: &File, what: &str) -> Result<(), Problem> {
    for _ in 0..TURN_TRIES {
        match folder.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(TURN_WAIT),
            Err(TryLockError::Error(error)) => return Err(Problem::failed(what, error)),
        }
    }
    let why = "somebody has locked the folder of the file for five seconds";
    Err(Problem::new(Code::Failed, what, why).todo("put the file into a folder of your own, and try again"))
}

fn encoded(signed: &SignedRelease) -> Vec<u8> {
    codec::encode(signed).expect("a release that was signed keeps its limits")
}
