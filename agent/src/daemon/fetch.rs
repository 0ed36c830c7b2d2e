//! A master that a person asks for: which one is meant, and how it comes.

use std::time::Duration;

use drover_protocol::id::ImageId;
use drover_protocol::release::{Name, Release};
use tokio::time::Instant;

use super::Daemon;
use super::masters::problem_of;
use crate::control::api::{self, Event, MasterRef};
use crate::control::server::EventSink;
use crate::control::{Code, Problem};
use crate::exchange::Phase;

impl Daemon {
    /// Brings a master here and reports on it until it is sealed. Goes on when nobody listens any more.
    pub(crate) async fn fetch(&self, request: api::Fetch, events: &EventSink) -> Result<Event, Problem> {
        let request = api::Fetch { master: self.meant(request.master).await?, ..request };
        let what = format!("fetch {}", request.master);
        let (image, content_len) = self.find(&what, &request.master).await?;
        if matches!(request.master, MasterRef::Image(_)) {
            // Without a release only this tells `gc` that somebody needs it.
            let note =
                move |daemon: &Daemon| daemon.notes().by_id(image).map_err(|error| Problem::failed("fetch", error));
            self.blocking(&what, note).await?;
        }
        match self.look_at(&what, image, events).await? {
            Some(None) => return self.fetched(image, &request.master).await,
            Some(Some(problem)) => self.begin_anew(&what, image, &problem).await?,
            None => {}
        }
        self.drop_failed().await;
        // Noted first: what a person asked for is resumed after a restart, superseded or not.
        let note = move |daemon: &Daemon| daemon.notes().want(image).map_err(|error| Problem::failed("fetch", error));
        self.blocking(&what, note).await?;
        let mut status = self.exchange().fetch(image, content_len);
        if !request.wait {
            return Ok(Event::Started { image });
        }
        let mut ticks = tokio::time::interval(REPORT_INTERVAL);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = status.changed() => {}
                () = events.closed() => return Ok(Event::Started { image }),
            }
            let now = status.borrow_and_update().clone();
            match &now.phase {
                Phase::Complete => return self.fetched(image, &request.master).await,
                Phase::Failed(why) => {
                    self.unwant(image).await;
                    return Err(Problem::failed(what, why));
                }
                _ => {}
            }
            let _ = events.try_send(Event::Transfer(Box::new(self.transfer(&now))));
            if status.has_changed().is_err() {
                // It came by another way: somebody published it here.
                if let Some(None) = self.look_at(&what, image, events).await? {
                    return self.fetched(image, &request.master).await;
                }
                return Err(Problem::failed(what, "it was stopped: removed, superseded, or the daemon is ending")
                    .todo("`drover list` shows what is here; fetch it by its version to have it all the same"));
            }
        }
    }

    /// What is wrong with the master that is here, if one is. A doubt is settled, which takes reading all of it.
    async fn look_at(&self, what: &str, image: ImageId, events: &EventSink) -> Result<Option<Option<String>>, Problem> {
        let look = move |daemon: &Daemon| {
            let Some(master) = daemon.store().master(image) else { return Ok((None, false)) };
            let problem = problem_of(&master);
            let is_doubted = problem.is_none() && master.doubt().is_some();
            Ok((Some(problem), is_doubted))
        };
        match self.blocking(what, look).await? {
            (_, true) => self.settle_doubt(what, image, events).await.map(Some),
            (found, _) => Ok(found),
        }
    }

    /// Reads a master whose bytes may have changed, and says what is wrong with it.
    async fn settle_doubt(&self, what: &str, image: ImageId, events: &EventSink) -> Result<Option<String>, Problem> {
        let verified = self.verify_image(what, image, events).await;
        // What was found is noted.
        let look = move |daemon: &Daemon| Ok(daemon.store().master(image).and_then(|master| problem_of(&master)));
        match self.blocking(what, look).await? {
            Some(problem) => Ok(Some(problem)),
            None => verified.map(|_| None),
        }
    }

    /// Leaves the swarms of fetches that failed before anything of them was on the disk: they say nothing any more.
    async fn drop_failed(&self) {
        for status in self.exchange().status() {
            if matches!(status.phase, Phase::Failed(_)) && self.store().image(status.image).is_none() {
                self.exchange().stop(status.image).await;
            }
        }
    }

    /// Lets a spoilt master come in anew, beside itself: what is good of it is not fetched.
    pub(super) async fn begin_anew(&self, what: &str, image: ImageId, problem: &str) -> Result<(), Problem> {
        tracing::info!("image {image} comes in anew: {problem}");
        // Held open from here on: what was removed by hand can be read as long as that.
        let spoilt = self.blocking(what, move |daemon| Ok(daemon.store().image(image))).await?;
        self.exchange().stop(image).await;
        let task = what.to_owned();
        let begin = move |daemon: &Daemon| {
            let Some(spoilt) = spoilt else { return Ok(()) };
            let begun = daemon.store().begin(spoilt.manifest().clone());
            begun.map(|_| ()).map_err(|error| Problem::explained(Code::Failed, task, &error))
        };
        let begun = self.blocking(what, begin).await;
        if begun.is_err() {
            self.join_again(image);
        }
        begun
    }

    async fn fetched(&self, image: ImageId, wanted: &MasterRef) -> Result<Event, Problem> {
        self.unwant(image).await;
        let rows = self.masters().await?.into_iter().filter(|master| master.image == image);
        let by_name = |master: &api::Master| match wanted {
            MasterRef::Named { name, .. } => master.name.as_ref() == Some(name),
            MasterRef::Image(_) => true,
        };
        let mut rows: Vec<api::Master> = rows.collect();
        let at = rows.iter().position(by_name).unwrap_or(0);
        if rows.is_empty() {
            return Err(Problem::failed(format!("fetch {wanted}"), "it was removed in the meantime"));
        }
        Ok(Event::Fetched(Box::new(rows.swap_remove(at))))
    }

    async fn unwant(&self, image: ImageId) {
        let note = move |daemon: &Daemon| daemon.notes().unwant(image).map_err(|error| Problem::failed("fetch", error));
        if let Err(problem) = self.blocking("fetch", note).await {
            // It is looked for once more after a restart, and found to be here.
            tracing::warn!("{problem}");
        }
    }

    async fn find(&self, what: &str, wanted: &MasterRef) -> Result<(ImageId, Option<u64>), Problem> {
        match wanted {
            MasterRef::Image(image) => Ok((*image, self.content_len(*image))),
            MasterRef::Named { name, version } => {
                let release = self.find_release(what, name, *version).await?;
                // What is here already stays usable; nothing new is begun by it.
                if self.store().master(release.image).is_none() {
                    self.check_still(&release).map_err(|error| Problem::explained(Code::Refused, what, &error))?;
                }
                Ok((release.image, Some(release.content_len)))
            }
        }
    }

    /// The release of a name. One that is not known yet may just not have been told: the trackers are given a moment.
    async fn find_release(&self, what: &str, name: &Name, version: Option<u64>) -> Result<Release, Problem> {
        let mut deadline = Instant::now() + TRACKER_PATIENCE;
        let mut answered = false;
        loop {
            if let Some(release) = self.store().catalog().resolve(name, version) {
                return Ok(release);
            }
            if !answered && self.exchange().trackers().iter().any(|tracker| tracker.reachable) {
                answered = true;
                // It tells all releases as soon as it is connected.
                deadline = Instant::now() + TELLING_PATIENCE;
            }
            if Instant::now() >= deadline {
                return Err(self.no_release(what, name, version));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn no_release(&self, what: &str, name: &Name, version: Option<u64>) -> Problem {
        if let Some(refusal) = self.refusals().of(name, version) {
            return refusal.problem(what);
        }
        let trackers = self.exchange().trackers();
        let addresses: Vec<String> = trackers.iter().map(|tracker| tracker.address.clone()).collect();
        let addresses = addresses.join(", ");
        if !trackers.iter().any(|tracker| tracker.reachable) {
            let why = format!("no release of it is known here, and no tracker answers ({addresses})");
            return Problem::new(Code::TrackerUnreachable, what, why)
                .todo("is drover-tracker running there, and does UDP to it get through? `drover status` shows each");
        }
        match (version, self.store().catalog().newest(name)) {
            (Some(version), Some(newest)) => Problem::new(
                Code::NotFound,
                what,
                format!("version {version} is not known; the newest is {}", newest.version),
            )
            .todo("trackers keep the newest release of a name; an older one can be fetched by its image id"),
            _ => Problem::new(Code::NotFound, what, format!("nobody released {name}; trackers asked: {addresses}"))
                .todo(format!("release it with `drover publish FILE --name {name} --key KEY`")),
        }
    }
}

const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// A tracker on the same site answers in milliseconds; one that does not within this is away.
const TRACKER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a tracker that answers may take to tell its releases.
const TELLING_PATIENCE: Duration = Duration::from_secs(1);
