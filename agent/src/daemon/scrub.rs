//! Masters are read again from time to time, slowly, and compared with their manifests: disks forget.
//!
//! One after the other, the one that was checked longest ago first, and before all others one whose file may have changed
//! since. A master that is damaged is not served and no clone is made of it from then on; it is fetched again into a new
//! file beside the old one, of which only the damaged chunks travel, so nothing changes under a running machine. The clones
//! that read the old one are named in the log. What VHDs and logical volumes rest on is not read here: the daemon may not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drover_protocol::id::ImageId;

use super::{Daemon, unix_now_s};
use crate::control::Problem;
use crate::handover::record::MadeFrom;
use crate::store::{MasterInfo, Pace, VerifyReport};

/// Ends a reading when the daemon stops.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Daemon {
    /// Reads masters again whenever one is due, until dropped.
    pub(super) async fn scrub(self) {
        let Some(every) = self.settings().scrub_every else { return std::future::pending().await };
        let pause = (every / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            tokio::time::sleep(pause).await;
            let scrubbed = match self.blocking("check", move |daemon| Ok(daemon.most_due(every))).await {
                Ok(Some(image)) => self.scrub_one(image).await,
                Ok(None) => Ok(()),
                Err(problem) => Err(problem),
            };
            if let Err(problem) = scrubbed {
                tracing::warn!("{problem}");
            }
        }
    }

    /// The master to be read next: one whose file is not the one that was compared, else the one that it is longest ago of.
    fn most_due(&self, every: Duration) -> Option<ImageId> {
        let age = |master: &MasterInfo| unix_now_s().saturating_sub(master.checked_at_unix_s);
        let sound = |master: &MasterInfo| super::masters::problem_of(master).is_none();
        let masters = self.store().masters().into_iter().filter(sound);
        let rated = masters.map(|master| (master.doubt().is_some(), age(&master), master.image));
        rated.filter(|(doubted, age, _)| *doubted || *age >= every.as_secs()).max().map(|(_, _, image)| image)
    }

    async fn scrub_one(&self, image: ImageId) -> Result<(), Problem> {
        let what = format!("check image {image}");
        let (pace, cancel) = (Pace::Limited(self.settings().scrub_rate), Arc::new(AtomicBool::new(false)));
        let _stop = Stop(Arc::clone(&cancel));
        let report = self
            .blocking(&what, move |daemon| {
                let report = daemon.store().verify(image, pace, &|_, _| {}, &cancel);
                report.map_err(|error| Problem::failed(format!("check image {image}"), error))
            })
            .await?;
        if report.is_good() {
            tracing::debug!("image {image} is as its manifest says");
            return Ok(());
        }
        self.mend(image, &report).await
    }

    async fn mend(&self, image: ImageId, report: &VerifyReport) -> Result<(), Problem> {
        let first = report.bad.iter().take(NAMED).map(|chunk| chunk.number().to_string());
        let damaged = format!("{} chunks are damaged ({} ...)", report.bad.len(), first.collect::<Vec<_>>().join(" "));
        tracing::error!(
            "image {image}: {damaged}, {}; check the disk; it is fetched again beside itself",
            MadeFrom::read(self.store().state(), image).unwrap_or_default()
        );
        let in_place = self.store().master(image).is_some_and(|master| master.in_place);
        if in_place {
            // It is its owner's file, and withdrawn.
            return Ok(());
        }
        let what = format!("mend image {image}");
        self.begin_anew(&what, image, &damaged).await?;
        let note = move |daemon: &Daemon| daemon.notes().want(image).map_err(|error| Problem::failed("mend", error));
        self.blocking(&what, note).await?;
        drop(self.exchange().fetch(image, self.content_len(image)));
        Ok(())
    }
}

/// How many damaged chunks are named.
const NAMED: usize = 8;
/// Between two looks for what is due.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
