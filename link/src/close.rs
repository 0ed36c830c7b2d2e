//! Why a connection ends: codes that travel, and texts that people read.

use quinn::{ConnectionError, VarInt};
use rustls::AlertDescription;

/// Nothing is wrong; the sender shuts down or has no more use for the connection.
pub const DONE: VarInt = VarInt::from_u32(0);
/// No version of the protocol in common.
pub const VERSION: VarInt = VarInt::from_u32(1);
/// The certificate shown is not that of the peer that was to be reached, or names no member at all.
pub const WRONG_PEER: VarInt = VarInt::from_u32(2);
/// The beginning of the connection was malformed or took too long.
pub const HANDSHAKE: VarInt = VarInt::from_u32(3);
/// As many connections as allowed are open.
pub const FULL: VarInt = VarInt::from_u32(4);
/// What was asked for is for members only.
pub const NOT_A_MEMBER: VarInt = VarInt::from_u32(5);
/// The other side broke the protocol.
pub const PROTOCOL: VarInt = VarInt::from_u32(6);
/// The key of the other side is revoked: it is no member any more.
pub const REVOKED: VarInt = VarInt::from_u32(7);

/// Longest reason that is sent or shown, in bytes: it must fit one packet.
const MAX_REASON_LEN: usize = 400;

/// Closes a connection with a reason that the other side can show.
pub fn close(connection: &quinn::Connection, code: VarInt, reason: &str) {
    connection.close(code, shown(reason.as_bytes()).as_bytes());
}

/// Why a connection ended, in words. What the other side wrote is shown without control characters.
pub fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) if close.reason.is_empty() => {
            format!("the other side closed the connection (code {})", close.error_code)
        }
        ConnectionError::ApplicationClosed(close) => format!("the other side says: {}", shown(&close.reason)),
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(alert) => format!("the other side refused the TLS handshake: {}", alert_text(alert)),
            None if close.error_code == quinn_proto::TransportErrorCode::CONNECTION_REFUSED => {
                "the other side takes no more connections now".to_owned()
            }
            None => format!("the other side broke off: {}", shown(close.to_string().as_bytes())),
        },
        ConnectionError::TransportError(error) => shown(error.to_string().as_bytes()),
        ConnectionError::TimedOut => "nothing was heard from the other side any more".to_owned(),
        ConnectionError::Reset => "the other side has restarted".to_owned(),
        ConnectionError::LocallyClosed => "closed here".to_owned(),
        ConnectionError::VersionMismatch => "the other side speaks no QUIC version that this one knows".to_owned(),
        ConnectionError::CidsExhausted => "no connection ids are left".to_owned(),
    }
}

/// The TLS alert that a QUIC error code stands for.
pub(crate) fn alert(code: quinn_proto::TransportErrorCode) -> Option<AlertDescription> {
    let code = u64::from(code);
    u8::try_from(code.wrapping_sub(0x100)).ok().map(AlertDescription::from)
}

fn alert_text(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => {
            "this host's certificate is expired, or one of the two clocks is wrong; with a new token from \
             `drover-tracker token`, `drover join TRACKER TOKEN` replaces an expired one"
                .to_owned()
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "this host's certificate is not from that cluster's CA".to_owned()
        }
        AlertDescription::CertificateRequired => "it asks for a certificate; this host must join first".to_owned(),
        AlertDescription::NoApplicationProtocol => "it does not speak this protocol".to_owned(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shown = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if shown.len() + c.len_utf8() > MAX_REASON_LEN {
            break;
        }
        shown.push(c);
    }
    shown
}
