//! A release that is held back, in a file: written by `publish` and `renew`, added to by `cosign`, handed out by `post`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use drover_link::durable;
use drover_protocol::codec::{self, Message};
use drover_protocol::release::{Release, SignedRelease};

use crate::control::{Code, Problem};

/// Everybody may read it: it says nothing that is not told to all hosts.
const MODE: u32 = 0o644;

/// Refuses a file that is there already, before anything is done.
pub(super) fn check_free(path: &Path, what: &str) -> Result<(), Problem> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Problem::new(Code::Refused, what, format!("{} is there, and no file is overwritten", path.display()))
        .todo("name a new file with --hold, or remove that one"))
}

/// Writes a release into a new file.
pub(super) fn write(path: &Path, signed: &SignedRelease, what: &str) -> Result<(), Problem> {
    durable::create_own(path, &encoded(signed), MODE).map_err(|error| Problem::explained(Code::Failed, what, &error))
}

/// Writes it in place of the form that is there.
pub(super) fn replace(path: &Path, signed: &SignedRelease, what: &str) -> Result<(), Problem> {
    durable::replace(path, &encoded(signed), MODE).map_err(|error| Problem::explained(Code::Failed, what, &error))
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

fn encoded(signed: &SignedRelease) -> Vec<u8> {
    codec::encode(signed).expect("a release that was signed keeps its limits")
}
