//! Going over to another CA: each step, and what a crash in the middle of one leaves.

use std::fs;

use super::*;
use crate::rotation::{Rotation, RotationError, begin, finish, join, state, switch};

const LIFE: Duration = Duration::from_secs(DAY_S);

fn renewed(identity: &Identity, ca: &CertificateAuthority) -> Result<Identity, crate::identity::IdentityError> {
    let request = CertificateAuthority::check(&identity.key().request()).expect("our own request");
    let now = unix_now_s();
    let validity = Validity { from_unix_s: now - 60, until_unix_s: now + DAY_S };
    let certificate = ca.issue_valid(&request, Role::Host, "host", validity).expect("a certificate");
    identity.renewed(certificate, ca.roots(), Vec::new())
}

async fn meet(one: &Identity, other: &Identity) -> bool {
    let (server, client) = (bind(one), bind(other));
    let addr = server.local_addr().expect("an address");
    let accepting = tokio::spawn(async move { server.accept().await.expect("it listens").handshake().await });
    let dialled = client.connect(addr, Expect::Peer(one.peer_id())).await;
    // Kept until here: an end that is dropped closes the connection under the other.
    let accepted = accepting.await.expect("no panic");
    dialled.is_ok() && accepted.is_ok()
}

#[tokio::test]
async fn members_go_on_while_the_cluster_goes_over_to_another_ca() {
    let cluster = Cluster::new();
    let dir = cluster.path().join("ca");
    let (ann, bert) = (cluster.member(Role::Host, "ann"), cluster.member(Role::Host, "bert"));
    let missed_all = cluster.member(Role::Host, "carl");
    let load = || CertificateAuthority::load(&dir).expect("a CA");
    let (first, secret) = (load().pin(), *load().cluster_secret().as_bytes());

    assert!(matches!(switch(&dir, LIFE, true), Err(RotationError::Turn(_))) && state(&dir) == Rotation::Settled);
    begin(&dir, "test").expect("begun");
    assert!(matches!(begin(&dir, "test"), Err(RotationError::Turn(_))));
    assert_eq!(load().pin(), first, "the first signs still");
    let ann = renewed(&ann, &load()).expect("it trusts both");
    assert!(meet(&ann, &bert).await && meet(&bert, &ann).await, "one that has renewed, and one that has not");
    let bert = renewed(&bert, &load()).expect("it trusts both");

    assert!(matches!(switch(&dir, LIFE, false), Err(RotationError::TooSoon(_))), "somebody may not have renewed");
    switch(&dir, Duration::ZERO, false).expect("all have renewed");
    assert!(matches!(state(&dir), Rotation::Switched(_)) && load().pin() != first);
    assert_eq!(*load().cluster_secret().as_bytes(), secret, "the hash table goes on");
    let ann = renewed(&ann, &load()).expect("the new CA is one that it trusts");
    assert!(meet(&ann, &bert).await && meet(&bert, &ann).await, "certificates of either CA are good");
    let bert = renewed(&bert, &load()).expect("the new CA is one that it trusts");

    finish(&dir, Duration::ZERO, false).expect("all have renewed");
    assert_eq!(state(&dir), Rotation::Settled);
    let ann = renewed(&ann, &load()).expect("it trusts the new one alone");
    assert!(meet(&ann, &bert).await && meet(&bert, &ann).await);
    assert!(!meet(&ann, &missed_all).await && !meet(&missed_all, &ann).await, "the old CA counts for nothing");
    assert!(renewed(&missed_all, &load()).is_err(), "it can't know whether this is its cluster");

    // What is on disk is what it was, and the next time goes the same way.
    ann.save(&cluster.path().join("ann")).expect("saved");
    assert_eq!(Identity::load(&cluster.path().join("ann")).expect("loaded").roots_der(), ann.roots_der());
    begin(&dir, "test").expect("begun again");
    switch(&dir, LIFE, true).expect("forced");
    assert_eq!(*load().cluster_secret().as_bytes(), secret);
}

#[test]
fn a_switch_that_is_interrupted_leaves_a_ca_and_can_be_repeated() {
    let cluster = Cluster::new();
    let dir = cluster.path().join("ca");
    let first = cluster.ca.pin();
    // A `begin` that was interrupted has written no key.
    fs::copy(dir.join("ca.pem"), dir.join("next.pem")).expect("copied");
    assert_eq!((state(&dir), CertificateAuthority::load(&dir).expect("a CA").pin()), (Rotation::Settled, first));
    begin(&dir, "test").expect("begun");
    // As `switch` does it, up to the middle.
    fs::copy(dir.join("ca.pem"), dir.join("old.pem")).expect("copied");
    assert_eq!(CertificateAuthority::load(&dir).expect("a CA").pin(), first, "nothing is renamed yet");
    fs::write(dir.join("cluster.secret"), cluster.ca.cluster_secret().as_bytes()).expect("written");
    fs::rename(dir.join("next.pem"), dir.join("ca.pem")).expect("renamed");
    let halfway = CertificateAuthority::load(&dir).expect("a CA").pin();
    assert_ne!(halfway, first);
    assert!(matches!(finish(&dir, LIFE, true), Err(RotationError::Turn(_))), "the old key is there still");
    switch(&dir, LIFE, false).expect("repeated");
    assert_eq!(CertificateAuthority::load(&dir).expect("a CA").pin(), halfway);
    assert!(!dir.join("next.key").exists() && matches!(state(&dir), Rotation::Switched(_)));
}

#[test]
fn another_tracker_takes_the_same_next_ca_and_no_other_clusters() {
    let (cluster, strangers) = (Cluster::new(), Cluster::new());
    let (dir, other) = (cluster.path().join("ca"), cluster.path().join("other"));
    CertificateAuthority::copy(&dir, &other).expect("another tracker");
    assert!(matches!(join(&other, &dir), Err(RotationError::Turn(_))), "there is none yet");
    begin(&dir, "test").expect("begun");
    begin(&strangers.path().join("ca"), "test").expect("begun");
    assert!(matches!(join(&other, &strangers.path().join("ca")), Err(RotationError::Turn(_))));
    join(&other, &dir).expect("taken over");
    let roots = |dir: &Path| CertificateAuthority::load(dir).expect("a CA").roots();
    assert_eq!(roots(&other), roots(&dir));
    // A tracker that is made in the middle of it is as far as the others.
    let third = cluster.path().join("third");
    CertificateAuthority::copy(&dir, &third).expect("a third tracker");
    assert_eq!(roots(&third), roots(&dir));
    for dir in [&dir, &other, &third] {
        switch(dir, LIFE, true).expect("forced");
    }
    assert!(roots(&other) == roots(&dir) && roots(&third) == roots(&dir));
}
