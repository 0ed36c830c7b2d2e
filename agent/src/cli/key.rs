//! The keys that releases are signed with: made, read, and kept from others.
//!
//! A key's file is PKCS#8 in PEM, as `openssl pkey` reads it, if need be encrypted with a passphrase (PBES2: scrypt and
//! AES-256). It is read only if nobody but its owner may read it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use drover_link::durable::{self, WriteError};
use drover_protocol::id::PublisherKey;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::KeypairBytes;
use pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};

use super::Common;
use super::join::PUBLISHER_KEY;
use super::passphrase::Passphrase;
use crate::control::{Code, Problem};
use crate::daemon::IDENTITY;

/// How a key's file begins that takes a passphrase.
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
/// A key has a few hundred bytes.
const LONGEST: u64 = 16 * 1024;

/// Which key to sign with.
#[derive(Args, Debug)]
pub(super) struct SigningArgs {
    /// The publisher's private key, as `drover-tracker init` makes it: PEM, PKCS#8, Ed25519 (default:
    /// STATE/identity/publisher.key, which `join` makes with a publisher's token)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    passphrase: Passphrase,
}

impl SigningArgs {
    /// Reads the key that is named or, if there is one, this host's own.
    pub(super) fn read_if_any(&self, common: &Common) -> Result<Option<SigningKey>, Problem> {
        let own = common.state.join(IDENTITY).join(PUBLISHER_KEY);
        match &self.key {
            Some(path) => read(path, &self.passphrase).map(Some),
            None if own.exists() => read(&own, &self.passphrase).map(Some),
            None => Ok(None),
        }
    }

    /// Reads the key, for `what` is to be done.
    pub(super) fn read(&self, common: &Common, what: &str) -> Result<SigningKey, Problem> {
        if let Some(path) = &self.key {
            return read(path, &self.passphrase);
        }
        let own = common.state.join(IDENTITY).join(PUBLISHER_KEY);
        read(&own, &self.passphrase).map_err(|problem| match problem.code {
            Code::NotFound if !own.exists() => {
                let why = format!("no --key is given, and this host has none of its own in {}", own.display());
                Problem::new(Code::Usage, what, why).todo(
                    "give the key that `drover-tracker init` made with --key, or join this host with a token from \
                     `drover-tracker token --role publisher`",
                )
            }
            _ => problem,
        })
    }
}

/// Makes a key and writes it, durably, for its owner only, encrypted if there is a passphrase; gives its public half. What is
/// there already stays.
pub(super) fn make(path: &Path, passphrase: Option<&str>) -> Result<PublisherKey, WriteError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the system's random numbers work");
    let key = SigningKey::from_bytes(&seed);
    // Without the public half, which OpenSSL before 3.2 does not read.
    let bytes = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    let text = match passphrase {
        None => bytes.to_pkcs8_pem(LineEnding::LF),
        Some(passphrase) => bytes.to_pkcs8_encrypted_pem(passphrase, LineEnding::LF),
    };
    let text = text.expect("an Ed25519 key has a PKCS#8 form");
    // Root's stays root's: the daemon has no use for it.
    durable::create_own(path, text.as_bytes(), durable::PRIVATE)?;
    Ok(public_half(&key))
}

/// Reads a key that nobody but its owner can read. One that is encrypted takes its passphrase.
pub(super) fn read(path: &Path, passphrase: &Passphrase) -> Result<SigningKey, Problem> {
    let what = format!("publisher's key {}", path.display());
    let pem = read_secret(path, &what).map_err(|problem| match problem.code {
        Code::Refused => {
            problem.todo(format!("chmod 600 {}, and make a new key if others use this machine", path.display()))
        }
        _ => problem.todo("`drover-tracker init --state DIR` makes the first one: DIR/publisher.key"),
    })?;
    if pem.trim_start().starts_with(ENCRYPTED) {
        let passphrase = passphrase.of_key(path)?;
        return SigningKey::from_pkcs8_encrypted_pem(&pem, passphrase).map_err(|_| {
            Problem::new(Code::Usage, what, "the passphrase is wrong, or the file is damaged")
                .todo("try again; nobody can open it without the passphrase")
        });
    }
    SigningKey::from_pkcs8_pem(&pem).map_err(|error| {
        Problem::new(Code::Usage, what, format!("it is no Ed25519 key in PKCS#8 PEM: {error}"))
            .todo("give the file that `drover-tracker init` or `drover keygen` made")
    })
}

/// Reads a short file that nobody but its owner can read.
pub(super) fn read_secret(path: &Path, what: &str) -> Result<String, Problem> {
    let opened = File::open(path).and_then(|file| {
        let (mode, mut text) = (file.metadata()?.permissions().mode() & 0o777, String::new());
        file.take(LONGEST).read_to_string(&mut text)?;
        Ok((mode, text))
    });
    let (mode, text) = opened.map_err(|error| {
        let code = if error.kind() == io::ErrorKind::NotFound { Code::NotFound } else { Code::Failed };
        Problem::new(code, what, error)
    })?;
    if mode & 0o077 != 0 {
        let why = format!("others on this machine can read it (mode {mode:o})");
        return Err(Problem::new(Code::Refused, what, why).todo(format!("chmod 600 {}", path.display())));
    }
    Ok(text)
}

/// What others know of a key.
pub(super) fn public_half(key: &SigningKey) -> PublisherKey {
    PublisherKey::from_bytes(key.verifying_key().to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl genpkey -algorithm ed25519 -aes-256-cbc -pass "pass:correct horse"`
    const BY_OPENSSL: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjsEyHw3kwQVAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEENZ85F8zbkqTlGg/CK/7MaUEQK2f
GwFzL8zuThpHDvss65e+FkQp1bHZYr2XLBh3gyYsTAR5IKgusluu6Bs/YOqV/Dnt
spWbAhc4YZLQYlWVIgk=
-----END ENCRYPTED PRIVATE KEY-----
";

    #[test]
    fn an_encrypted_key_is_read_with_its_passphrase_only_also_one_of_openssl() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let private = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
            path
        };
        let in_file = |name: &str, text: &str| Passphrase { passphrase_file: Some(private(name, text)) };
        let (right, wrong) = (in_file("right", "correct horse\nnot this\n"), in_file("wrong", "correct house"));

        let theirs = private("openssl.key", BY_OPENSSL);
        let public = public_half(&read(&theirs, &right).expect("the passphrase fits")).to_string();
        assert_eq!(
            public, "2a5321bd88756c7755901953cebea34da9e6c95d83b11c8939d8423f11e276d4",
            "as openssl pkey -pubout has it"
        );
        let ours = dir.path().join("ours.key");
        let made = make(&ours, Some("correct horse")).expect("made");
        assert_eq!(public_half(&read(&ours, &right).expect("the passphrase fits")), made);
        for key in [&theirs, &ours] {
            let refused = read(key, &wrong).expect_err("the passphrase is wrong");
            assert_eq!(refused.code, Code::Usage, "{refused:?}");
        }
        std::fs::set_permissions(dir.path().join("right"), PermissionsExt::from_mode(0o640)).expect("its mode");
        assert_eq!(read(&ours, &right).expect_err("others can read the passphrase").code, Code::Refused);
    }
}
