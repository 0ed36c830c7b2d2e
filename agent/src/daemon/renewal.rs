//! The certificate, renewed after two thirds of its life, so that trackers may be away for the last third.

use std::time::Duration;

use drover_link::identity::Identity;

use super::{Daemon, unix_now_s};
use crate::control::problem::chain;

impl Daemon {
    /// Renews the certificate whenever it is time, until dropped.
    pub(super) async fn renew_certificate(self) {
        loop {
            let identity = self.identity();
            let wait = identity.renew_after_unix_s().saturating_sub(unix_now_s());
            if wait > 0 {
                // Not all at once: the clock may be set meanwhile.
                tokio::time::sleep(Duration::from_secs(wait.min(LONGEST_SLEEP_S))).await;
                continue;
            }
            if let Err(why) = self.renew(&identity).await {
                let left = identity.expires_unix_s().saturating_sub(unix_now_s());
                tracing::warn!("the certificate is good for {left} s more and was not renewed: {why}; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn renew(&self, identity: &Identity) -> Result<(), String> {
        let enrolment = self.exchange().renew(identity.key().request()).await.map_err(|error| error.to_string())?;
        let renewed = identity
            .renewed(enrolment.certificate, enrolment.ca, enrolment.publishers)
            .map_err(|error| format!("the tracker's answer can't be used: {}", chain(&error)))?;
        let (folder, saved) = (self.identity_folder(), renewed.clone());
        let save = tokio::task::spawn_blocking(move || saved.save(&folder)).await;
        save.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.endpoint().set_identity(&renewed).map_err(|error| chain(&error))?;
        tracing::info!("certificate renewed, good until {} (seconds since 1970)", renewed.expires_unix_s());
        self.set_identity(renewed);
        Ok(())
    }
}

const LONGEST_SLEEP_S: u64 = 600;
const RETRY: Duration = Duration::from_secs(60);
