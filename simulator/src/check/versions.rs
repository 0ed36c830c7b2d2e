//! Whether two hosts have a version of the protocol in common: what `Hello` says, compared with plain arithmetic.

use drover_protocol::message::{Hello, PROTOCOL_VERSIONS};

/// Whether hosts with these versions (lowest and highest) talk to each other. An error is what must not be.
pub(super) fn agree(one: (u16, u16), other: (u16, u16)) -> Result<bool, String> {
    let common = one.1.min(other.1);
    let is_possible = common >= one.0.max(other.0);
    let mut agreed = is_possible;
    for (mine, theirs) in [(one, other), (other, one)] {
        if mine != PROTOCOL_VERSIONS {
            // Another program: it is assumed to do what is right.
            continue;
        }
        let hello = Hello { lowest: theirs.0, highest: theirs.1, agent: "simulated".to_owned() };
        match hello.agree() {
            Ok(version) if !is_possible || version != common => {
                return Err(format!("they agree on version {version} of {one:?} and {other:?}"));
            }
            Ok(_) => {}
            Err(_) if is_possible => return Err(format!("they don't agree on a version of {one:?} and {other:?}")),
            Err(_) => agreed = false,
        }
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_talk_if_they_have_a_version_in_common() {
        let (_, ours) = PROTOCOL_VERSIONS;
        assert_eq!(agree(PROTOCOL_VERSIONS, PROTOCOL_VERSIONS), Ok(true));
        assert_eq!(agree(PROTOCOL_VERSIONS, (ours, ours + 3)), Ok(true));
        assert_eq!(agree((ours + 1, ours + 2), PROTOCOL_VERSIONS), Ok(false));
    }
}
