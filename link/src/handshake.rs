//! From a finished TLS handshake to a connection that can be used: who is it, and which version do we speak.
//!
//! The side that dialled opens the control stream; each side sends its `Hello` at once and then reads the other's. A side
//! that finds no common version closes with a code and a text; the other shows the text, or has found the same itself.

use drover_protocol::message::{Hello, VersionError};
use quinn::{RecvStream, SendStream};
use rustls::pki_types::CertificateDer;

use crate::close;
use crate::frame::{FrameError, expect_frame, prompt, write_frame};
use crate::identity::validity;
use crate::member::{Member, MemberError};

/// Why a connection did not come about, in either direction.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It ended.
    #[error("{}", close::reason(.0))]
    Connection(#[from] quinn::ConnectionError),
    /// The other side's first words were none.
    #[error("the other side's hello is unreadable: {0}")]
    Hello(FrameError),
    /// No common version.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The other side showed no certificate.
    #[error("the other side showed no certificate; only members of the cluster are served")]
    NoCertificate,
    /// The other side's certificate names nobody.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The other side's key is revoked.
    #[error(
        "{0} was revoked: it is no member of the cluster any more; it can join again with a new key and a new token"
    )]
    Revoked(Box<Member>),
    /// It took too long.
    #[error("the handshake took longer than {0:?}")]
    TimedOut(std::time::Duration),
    /// As many connections as allowed are open.
    #[error("all {0} connections that this host allows are in use")]
    Full(usize),
    /// The other side's address has as many connections as one may.
    #[error("this address has {0} connections with this host already, all that one address may have")]
    Crowded(usize),
}

/// What both sides know after their hellos.
pub(crate) struct Greeting {
    pub(crate) version: u16,
    pub(crate) agent: String,
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
}

/// The protocol that TLS settled on.
pub(crate) fn protocol(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    data.protocol
}

/// The member whose certificate TLS verified, and until when that is valid, in seconds since 1970.
pub(crate) fn member(connection: &quinn::Connection) -> Result<(Member, u64), HandshakeError> {
    let chain = connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_ref().and_then(|chain| chain.first()).ok_or(HandshakeError::NoCertificate)?;
    Ok((Member::of_certificate(leaf)?, validity(leaf)?.until_unix_s))
}

pub(crate) async fn greet_dialled(connection: &quinn::Connection, hello: &Hello) -> Result<Greeting, HandshakeError> {
    let (send, receive) = connection.open_bi().await?;
    greet(connection, send, receive, hello).await
}

pub(crate) async fn greet_accepted(connection: &quinn::Connection, hello: &Hello) -> Result<Greeting, HandshakeError> {
    let (send, receive) = connection.accept_bi().await?;
    greet(connection, send, receive, hello).await
}

/// Closes the connection for the reason that its handshake failed for, unless it is closed already.
pub(crate) fn refuse(connection: &quinn::Connection, error: &HandshakeError) {
    let code = match error {
        HandshakeError::Connection(_) => return,
        HandshakeError::Hello(_) | HandshakeError::TimedOut(_) => close::HANDSHAKE,
        HandshakeError::Version(_) => close::VERSION,
        HandshakeError::NoCertificate => close::NOT_A_MEMBER,
        HandshakeError::Member(_) => close::WRONG_PEER,
        HandshakeError::Revoked(_) => close::REVOKED,
        HandshakeError::Full(_) | HandshakeError::Crowded(_) => close::FULL,
    };
    close::close(connection, code, &error.to_string());
}

async fn greet(
    connection: &quinn::Connection,
    mut send: SendStream,
    mut receive: RecvStream,
    hello: &Hello,
) -> Result<Greeting, HandshakeError> {
    prompt(&send);
    let exchange = async {
        write_frame(&mut send, hello).await?;
        expect_frame::<Hello>(&mut receive).await
    };
    // If the connection is gone, why it went says more than what that did to a stream.
    let theirs = exchange.await.map_err(|error| match connection.close_reason() {
        Some(reason) => HandshakeError::Connection(reason),
        None => HandshakeError::Hello(error),
    })?;
    let version = theirs.agree()?;
    let agent = theirs.agent.chars().filter(|c| !c.is_control()).take(64).collect();
    Ok(Greeting { version, agent, send, receive })
}
