//! The certificate, renewed after two thirds of its life, so that trackers may be away for the last third, and the
//! publishers whom the cluster trusts, whom trackers name with every certificate.
//!
//! A host whose certificate has expired is no member any more, and no tracker talks to it. Its masters stay, and clones
//! can be made of them; when somebody joins it again (`drover join`), the daemon goes on with the new certificate.

use std::collections::BTreeSet;
use std::time::Duration;

use drover_link::identity::Identity;
use drover_protocol::id::PublisherKey;
use tokio::sync::watch;

use super::{Daemon, unix_now_s};
use crate::clock;
use crate::control::problem::chain;
use crate::exchange::Renewal;

impl Daemon {
    /// Renews the certificate whenever it is time, until dropped.
    pub(super) async fn renew_certificate(self) {
        let mut said_expired = false;
        loop {
            let identity = self.identity();
            let wait = identity.renew_after_unix_s().saturating_sub(unix_now_s());
            if wait > 0 {
                said_expired = false;
                // Not all at once: the clock may be set meanwhile.
                tokio::time::sleep(Duration::from_secs(wait.min(LONGEST_SLEEP_S))).await;
                continue;
            }
            let left = identity.expires_unix_s().saturating_sub(unix_now_s());
            if left > 0 {
                if let Err(why) = self.renew().await {
                    tracing::warn!(
                        "the certificate is good for {left} s more and was not renewed: {why}; trying again"
                    );
                }
            } else if self.adopt_identity().await {
                continue;
            } else if !said_expired {
                let state = self.store().state().display();
                tracing::error!(
                    "the certificate is expired: no tracker and no host talks to this one; get a token with \
                     `drover-tracker token`, then: drover join TRACKER TOKEN --state {state}"
                );
                said_expired = true;
            }
            // Also after a success: a certificate that is due at once, since a clock is wrong, must not make a storm.
            let retry_s = if left > 0 { (left / 10).clamp(1, LONGEST_RETRY_S) } else { LOOK_S };
            tokio::time::sleep(Duration::from_secs(retry_s)).await;
        }
    }

    /// Asks the trackers whom the cluster trusts whenever one of them names others than this host knows: each tracker has a
    /// list of its own, and what counts is what all of them name.
    pub(super) async fn follow_publishers(self, mut told: watch::Receiver<Vec<PublisherKey>>) {
        while told.changed().await.is_ok() {
            let named: BTreeSet<PublisherKey> = told.borrow_and_update().iter().copied().collect();
            if !self.learns() || named == self.identity().publishers().iter().copied().collect() {
                continue;
            }
            // Not all hosts at once.
            tokio::time::sleep(clock::part_of(ASK_WITHIN)).await;
            match self.renew().await {
                Ok(()) => tracing::info!("whom the cluster trusts has changed: {} publishers", self.trusted().len()),
                Err(why) => tracing::warn!("whom the cluster trusts has changed, and is not known: {why}"),
            }
        }
        // The exchange is over, and the daemon with it.
        std::future::pending::<()>().await;
    }

    /// Gets a new certificate, and with it the publishers whom the cluster trusts now.
    pub(super) async fn renew(&self) -> Result<(), String> {
        // One at a time: two tasks ask, and what they write are the same files.
        let _turn = self.inner.renewing.lock().await;
        let identity = self.identity();
        let renewal = self.exchange().renew(identity.key().request()).await.map_err(|error| error.to_string())?;
        let renewed = newest(&identity, renewal)?;
        let (folder, saved) = (self.identity_folder(), renewed.clone());
        let save = tokio::task::spawn_blocking(move || saved.save(&folder)).await;
        save.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.use_identity(renewed)
    }

    /// Takes over the identity on disk, if somebody has joined this host again; whether that is so.
    async fn adopt_identity(&self) -> bool {
        let folder = self.identity_folder();
        let Ok(Ok(found)) = tokio::task::spawn_blocking(move || Identity::load(&folder)).await else { return false };
        let now = self.identity();
        if found.peer_id() != now.peer_id() || found.expires_unix_s() <= now.expires_unix_s() {
            return false;
        }
        self.use_identity(found).is_ok()
    }

    fn use_identity(&self, identity: Identity) -> Result<(), String> {
        self.endpoint().set_identity(&identity).map_err(|error| chain(&error))?;
        tracing::info!("certificate renewed, good until {} (seconds since 1970)", identity.expires_unix_s());
        self.set_identity(identity);
        self.seek_releases();
        Ok(())
    }
}

/// The identity with the longest-lived of the new certificates, and all publishers that any tracker names. One whom no
/// tracker names any more is dropped only when all were asked: the one that is away may be the one that knows it.
fn newest(identity: &Identity, renewal: Renewal) -> Result<Identity, String> {
    let mut publishers: Vec<PublisherKey> = if renewal.by_all { Vec::new() } else { identity.publishers().to_vec() };
    for key in renewal.enrolments.iter().flat_map(|enrolment| &enrolment.publishers) {
        if !publishers.contains(key) {
            publishers.push(*key);
        }
    }
    let made = renewal.enrolments.into_iter();
    let made = made.map(|enrolment| identity.renewed(enrolment.certificate, enrolment.ca, publishers.clone()));
    let (good, bad): (Vec<_>, Vec<_>) = made.partition(Result::is_ok);
    if let Some(newest) = good.into_iter().flatten().max_by_key(Identity::expires_unix_s) {
        return Ok(newest);
    }
    let why = bad.into_iter().find_map(Result::err).map_or("there is none".to_owned(), |error| chain(&error));
    Err(format!("the tracker's answer can't be used: {why}"))
}

/// Hosts that are told of other publishers ask for them within this time.
const ASK_WITHIN: Duration = Duration::from_secs(1);
const LONGEST_SLEEP_S: u64 = 600;
/// The next try is after a tenth of what is left of the certificate, but no later than this.
const LONGEST_RETRY_S: u64 = 60;
/// How often it is looked whether somebody has joined a host again whose certificate is expired.
const LOOK_S: u64 = 3;
