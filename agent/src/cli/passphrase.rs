//! The passphrase of a key: from a file, or asked for at a terminal.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;

use super::key::read_secret;
use crate::control::{Code, Problem};

/// The shortest that a key is encrypted with, in characters. It is no measure of how good one is.
const SHORTEST: usize = 8;

/// Where a passphrase is, if a key has one.
#[derive(Args, Debug, Default)]
pub(super) struct Passphrase {
    /// Where the passphrase of the private key is: the first line of a file that only its owner may read (default: it is asked
    /// for at the terminal, if the key has one)
    #[arg(long, env = "DROVER_PASSPHRASE_FILE", value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
}

impl Passphrase {
    /// Whether a file is named.
    pub(super) fn is_named(&self) -> bool {
        self.passphrase_file.is_some()
    }

    /// That of a key which has one.
    pub(super) fn of_key(&self, key: &Path) -> Result<String, Problem> {
        match &self.passphrase_file {
            Some(file) => first_line(file),
            None => ask(&format!("passphrase of {}: ", key.display())),
        }
    }

    /// One for a new key, typed twice if it is typed.
    pub(super) fn for_new_key(&self, key: &Path) -> Result<String, Problem> {
        let refuse = |why: &str| Problem::new(Code::Usage, format!("passphrase for {}", key.display()), why);
        let passphrase = match &self.passphrase_file {
            Some(file) => first_line(file)?,
            None => {
                let passphrase = ask(&format!("new passphrase for {}: ", key.display()))?;
                if ask("the same again: ")? != passphrase {
                    return Err(refuse("the two are not the same").todo("try again"));
                }
                passphrase
            }
        };
        if passphrase.chars().count() < SHORTEST {
            return Err(refuse("it has fewer than 8 characters").todo("take a longer one, such as some words"));
        }
        Ok(passphrase)
    }
}

fn first_line(file: &Path) -> Result<String, Problem> {
    let text = read_secret(file, &format!("passphrase file {}", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn ask(prompt: &str) -> Result<String, Problem> {
    if !std::io::stdin().is_terminal() {
        let why = "it can be asked for at a terminal only";
        return Err(Problem::new(Code::Usage, prompt.trim_end_matches(": "), why)
            .todo("name a file that it is in with --passphrase-file"));
    }
    rpassword::prompt_password(prompt).map_err(|error| Problem::failed(prompt.trim_end_matches(": "), error))
}
