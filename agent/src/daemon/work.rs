//! What reads a lot of the disk: taking a file in, and reading a master again. Runs on blocking threads, and stops when
//! whoever asked for it goes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use drover_protocol::id::ImageId;

use super::Daemon;
use crate::control::api::{self, Event, MAX_DAMAGED};
use crate::control::server::EventSink;
use crate::control::{Code, Problem};
use crate::handover::record::MadeFrom;
use crate::store::import::{Format, ImportError, ImportMethod, ImportMode, ImportSource, ImportStage, import};
use crate::store::{Pace, VerifyError, VerifyReport};

impl Daemon {
    /// Makes a file a master and seeds it.
    pub(crate) async fn publish(&self, request: api::Publish, events: &EventSink) -> Result<Event, Problem> {
        let what = format!("publish {}", request.path.display());
        if !request.path.is_absolute() {
            return Err(Problem::new(Code::Usage, what, "the daemon needs an absolute path"));
        }
        let mut source = ImportSource::new(request.path);
        source.format = request.format.map(format_of);
        source.mode = match request.mode {
            api::ImportMode::Auto => ImportMode::Auto,
            api::ImportMode::Copy => ImportMode::Copy,
            api::ImportMode::InPlace => ImportMode::InPlace,
        };
        let (sink, cancel) = (Throttle::new(events), Arc::clone(&source.cancel));
        let work = self.blocking(&what, move |daemon| {
            let progress = |progress: crate::store::import::ImportProgress| {
                let step = match progress.stage {
                    ImportStage::Converting => "converting",
                    ImportStage::Hashing => "reading",
                };
                sink.send(step, progress.done, progress.total);
            };
            Ok(import(daemon.store(), &source, &progress))
        });
        let imported = until_gone(work, &cancel, events).await?.map_err(|error| refuse_import(&what, &error))?;
        self.notes().taken_in(imported.image);
        if imported.method != ImportMethod::AlreadyHeld {
            // Whoever exchanges it does so with what was here before.
            self.exchange().stop(imported.image).await;
        }
        self.join_again(imported.image);
        let (image, content_len, content_hash) = (imported.image, imported.content_len, imported.content_hash);
        let (data_len, path) = (imported.master.data_len, imported.master.path);
        tracing::info!("{what}: image {image}, {data_len} bytes of data in {content_len}");
        Ok(Event::Imported(api::Imported {
            image,
            content_len,
            content_hash,
            data_len,
            path,
            new: imported.method != ImportMethod::AlreadyHeld,
            warnings: imported.warnings,
        }))
    }

    /// Reads a master again and compares it with its manifest.
    pub(crate) async fn verify(&self, request: api::Verify, events: &EventSink) -> Result<Event, Problem> {
        let what = format!("verify {}", request.master);
        let image = self.master(request.master).await?.image;
        self.verify_image(&what, image, events).await.map(Event::Verified)
    }

    /// The same of an image.
    pub(super) async fn verify_image(
        &self,
        what: &str,
        image: ImageId,
        events: &EventSink,
    ) -> Result<api::Verified, Problem> {
        let (sink, cancel) = (Throttle::new(events), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&cancel);
        let work = self.blocking(what, move |daemon| {
            let show = |done, total| sink.send("verifying", done, total);
            let report = daemon.store().verify(image, Pace::Full, &show, &flag);
            let bytes = daemon.store().image(image).map_or(0, |image| image.manifest().data_len());
            let clones = MadeFrom::read(daemon.store().state(), image).unwrap_or_default();
            Ok(report.map(|report| told(image, &report, bytes, clones)))
        });
        match until_gone(work, &cancel, events).await? {
            Ok(verified) => Ok(verified),
            Err(error @ VerifyError::Unknown(_)) => Err(Problem::new(Code::NotFound, what, error)),
            Err(error) => Err(Problem::failed(what, error)),
        }
    }
}

/// Passes progress on, at most ten times a second, and never waits for who reads it.
struct Throttle {
    events: EventSink,
    last: std::cell::Cell<Option<Instant>>,
}

impl Throttle {
    fn new(events: &EventSink) -> Self {
        Throttle { events: events.clone(), last: std::cell::Cell::new(None) }
    }

    fn send(&self, step: &str, done_bytes: u64, total_bytes: u64) {
        let now = Instant::now();
        if self.last.get().is_some_and(|last| now - last < PROGRESS_INTERVAL) && done_bytes < total_bytes {
            return;
        }
        self.last.set(Some(now));
        // A full channel means a slow reader, which the next event will do for as well.
        let _ = self.events.try_send(Event::Progress { step: step.to_owned(), done_bytes, total_bytes });
    }
}

/// Does the work, and has it end early when nobody is there any more to hear of it.
async fn until_gone<T>(
    work: impl Future<Output = Result<T, Problem>>,
    cancel: &AtomicBool,
    events: &EventSink,
) -> Result<T, Problem> {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => done,
        () = events.closed() => {
            cancel.store(true, Ordering::Relaxed);
            work.await
        }
    }
}

fn told(image: ImageId, report: &VerifyReport, bytes: u64, clones: MadeFrom) -> api::Verified {
    let damaged = report.bad.iter().take(MAX_DAMAGED).map(|chunk| chunk.number()).collect();
    // Every chunk right and the whole wrong can't be, short of a broken machine; it must not look good.
    let whole_is_wrong = report.bad.is_empty() && report.content_ok == Some(false);
    let damaged_count = report.bad.len() as u64 + u64::from(whole_is_wrong);
    let MadeFrom { readers, others } = if damaged_count > 0 { clones } else { MadeFrom::default() };
    api::Verified { image, bytes, damaged, damaged_count, clones: readers, others }
}

fn format_of(format: api::Format) -> Format {
    match format {
        api::Format::Raw => Format::Raw,
        api::Format::Qcow2 => Format::Qcow2,
        api::Format::Vmdk => Format::Vmdk,
        api::Format::Vhd => Format::Vhd,
        api::Format::Vhdx => Format::Vhdx,
    }
}

fn refuse_import(what: &str, error: &ImportError) -> Problem {
    let code = match error {
        ImportError::NotAFile(_) | ImportError::Geometry { .. } | ImportError::InPlace { .. } => Code::Usage,
        ImportError::Format(_) => Code::Refused,
        _ => Code::Failed,
    };
    Problem::explained(code, what, error)
}

const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
