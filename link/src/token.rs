//! One-use tokens that let a host join a cluster.
//!
//! A token carries the secret that the tracker gave out and the pin of the cluster's CA, so that the joining host knows
//! the tracker as surely as the tracker knows the host. Its text ends with a checksum: a token that lost a character on
//! its way through a chat or a terminal is told from one that is used up.
//!
//! The text is `drover-` and lower-case base32 of: role (1 byte: 1 host, 2 publisher), secret (16 bytes), pin (32 bytes),
//! and the first 4 bytes of a BLAKE3 over these.

use core::fmt;
use core::str::FromStr;

use data_encoding::{Encoding, Specification};
use zeroize::Zeroizing;

use crate::member::Role;

const PREFIX: &str = "drover-";
const BODY_LEN: usize = 1 + 16 + 32;
const CHECKSUM_LEN: usize = 4;
const CHECKSUM_CONTEXT: &[u8] = b"drover join token v1\0";

/// BLAKE3 of a CA's public key (DER SubjectPublicKeyInfo).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaPin([u8; 32]);

/// What an administrator hands to a host that is to join.
#[derive(Clone)]
pub struct JoinToken {
    /// What the host becomes: `Host` or `Publisher`.
    role: Role,
    secret: Zeroizing<[u8; 16]>,
    pin: CaPin,
}

/// A text that is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTokenError {
    /// Something else altogether.
    #[error("this is no join token: one begins with \"drover-\"; get one with `drover-tracker token`")]
    NoToken,
    /// Too few or too many characters.
    #[error("the join token has {found} characters instead of {expected}: copy it again, all of it")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there must be.
        expected: usize,
    },
    /// The right length, but not what the tracker printed.
    #[error("the join token is mistyped (its checksum does not fit): copy it again")]
    Mistyped,
    /// Whole, but made by a later version.
    #[error("the join token is of a kind that this version does not know; update drover on this host")]
    UnknownKind,
}

impl CaPin {
    /// The pin of a CA with this public key (DER SubjectPublicKeyInfo).
    pub(crate) fn of_public_key(public_key_info: &[u8]) -> Self {
        CaPin(*blake3::hash(public_key_info).as_bytes())
    }
}

impl JoinToken {
    /// A token with this secret for joining the cluster whose CA has this pin. Trackers are made by `init`, not by
    /// joining: a token for one counts as a host's.
    pub fn new(role: Role, secret: [u8; 16], pin: CaPin) -> Self {
        let role = if role == Role::Publisher { Role::Publisher } else { Role::Host };
        JoinToken { role, secret: Zeroizing::new(secret), pin }
    }

    /// What the host becomes. The tracker decides that by what it remembers, not by this.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What proves to the tracker that it gave this token out.
    pub fn secret(&self) -> &[u8; 16] {
        &self.secret
    }

    /// The CA that the tracker must show.
    pub fn pin(&self) -> CaPin {
        self.pin
    }
}

impl FromStr for JoinToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(ParseTokenError::NoToken)?;
        let expected = base32().encode_len(BODY_LEN + CHECKSUM_LEN);
        let found = encoded.chars().count();
        if found != expected {
            let prefix = PREFIX.len();
            return Err(ParseTokenError::Length { found: found + prefix, expected: expected + prefix });
        }
        let bytes = base32().decode(encoded.as_bytes()).map_err(|_| ParseTokenError::Mistyped)?;
        let bytes = Zeroizing::new(bytes);
        let (body, sum) = bytes.split_at(BODY_LEN);
        if checksum(body) != *sum {
            return Err(ParseTokenError::Mistyped);
        }
        let role = match body[0] {
            1 => Role::Host,
            2 => Role::Publisher,
            _ => return Err(ParseTokenError::UnknownKind),
        };
        let mut secret = Zeroizing::new([0; 16]);
        secret.copy_from_slice(&body[1..17]);
        let mut pin = [0; 32];
        pin.copy_from_slice(&body[17..]);
        Ok(JoinToken { role, secret, pin: CaPin(pin) })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BODY_LEN + CHECKSUM_LEN));
        bytes.push(if self.role == Role::Publisher { 2 } else { 1 });
        bytes.extend_from_slice(&*self.secret);
        bytes.extend_from_slice(&self.pin.0);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        write!(f, "{PREFIX}{}", base32().encode(&bytes))
    }
}

impl fmt::Debug for JoinToken {
    /// Without the secret, which has no business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("role", &self.role).field("pin", &self.pin).finish_non_exhaustive()
    }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaPin({self})")
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = blake3::Hasher::new().update(CHECKSUM_CONTEXT).update(body).finalize();
    core::array::from_fn(|index| hash.as_bytes()[index])
}

fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("32 different symbols make an encoding")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(role: Role) -> JoinToken {
        JoinToken::new(role, [7; 16], CaPin([9; 32]))
    }

    #[test]
    fn text_and_back() {
        for role in [Role::Host, Role::Publisher] {
            let read: JoinToken = format!(" {}\n", token(role)).parse().expect("our own text");
            assert_eq!((read.role(), *read.secret(), read.pin()), (role, [7; 16], CaPin([9; 32])));
        }
        assert!(!format!("{:?}", token(Role::Host)).contains("secret"));
    }

    #[test]
    fn a_token_that_was_cut_off_is_told_so() {
        let text = token(Role::Host).to_string();
        assert!(matches!(text[..text.len() - 1].parse::<JoinToken>(), Err(ParseTokenError::Length { .. })));
        assert_eq!("hunter2".parse::<JoinToken>().unwrap_err(), ParseTokenError::NoToken);
    }

    #[test]
    fn every_single_wrong_character_is_noticed() {
        let text = token(Role::Host).to_string();
        for place in PREFIX.len()..text.len() {
            for wrong in "abcdefghijklmnopqrstuvwxyz234567A1=é".chars() {
                let mistyped: String =
                    text.chars().enumerate().map(|(at, right)| if at == place { wrong } else { right }).collect();
                if mistyped != text {
                    assert_eq!(mistyped.parse::<JoinToken>().unwrap_err(), ParseTokenError::Mistyped, "{mistyped}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(drover-)?.{0,120}") {
            let _ = text.parse::<JoinToken>();
        }
    }
}
