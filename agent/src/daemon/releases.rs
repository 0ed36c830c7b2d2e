//! Releases: which are believed, what they set off, and how those made here reach the trackers, other hosts and the
//! cluster's hash table.
//!
//! Every release that a trusted publisher signed, or as many as this host asks for, is kept, whatever its name, so that a
//! version never goes back and the next one is known. What is subscribed to is fetched; a newer release ends the fetch of an
//! older one, which is left as it is until `gc`, unless a person asked for it.

use std::time::Duration;

use drover_protocol::id::{ImageId, PublisherKey};
use drover_protocol::release::{Name, Release, ReleaseError, SignedRelease, Trust};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until};

use super::{Daemon, unix_now_s};
use crate::control::api::{NextRelease, PostRelease, Posted};
use crate::control::{Code, Problem};
use crate::exchange::{AskTrackersError, PostOutcome};
use crate::quantity::show_duration;
use crate::store::{AcceptError, Accepted};

/// Why no tracker took a release.
enum PostError {
    /// None answers: what each was tried with. To be tried again.
    Unreachable(Vec<String>),
    /// At least one answers, and will not have it.
    Refused(String),
}

impl Daemon {
    /// Takes a release that somebody made here, seeds nothing by it, and offers it to the trackers. If none can be
    /// reached it is kept and offered again. What a tracker refuses is neither kept nor told to other hosts.
    ///
    /// With the item that its publisher signed it is put into the cluster's hash table, too.
    pub(crate) async fn post_release(&self, request: PostRelease) -> Result<Posted, Problem> {
        let PostRelease { release: signed, item } = request;
        let trusted = self.trusted();
        let checked = self.store().catalog().check(&signed, self.trust(&trusted), unix_now_s());
        let release = checked.map_err(|error| refuse(&AcceptError::Release(error)))?;
        let (name, version) = (release.name.clone(), release.version);
        let label = format!("{name}@{version}");
        let posted = match self.post(&name, version, signed.clone()).await {
            Ok(outcome) => Posted { name, version, taken_by: outcome.taken, problems: told(outcome.refused) },
            Err(PostError::Unreachable(problems)) => {
                tracing::warn!("release {label} is kept: no tracker answers; it is posted when one does");
                Posted { name, version, taken_by: Vec::new(), problems }
            }
            Err(PostError::Refused(why)) => {
                return Err(Problem::new(Code::Refused, format!("release {label}"), why)
                    .todo("no host was told of it; see whom and how many the trackers ask for (tracker.toml, `drover-tracker publishers`)"));
            }
        };
        self.accept(signed.clone()).await?.map_err(|error| refuse(&error))?;
        if posted.taken_by.is_empty() {
            // Only now: what is to be posted and is not in the catalog is taken for removed.
            let (name, version) = (posted.name.clone(), posted.version);
            self.blocking("release", move |daemon| {
                daemon.notes().to_post(&name, version).map_err(|error| Problem::failed("keep the release", error))
            })
            .await?;
        }
        self.exchange().spread(&signed);
        if let Some(signature) = item
            && let Err(error) = self.exchange().keep_in_table(&signed, signature).await
        {
            tracing::warn!("release {label} is not put into the DHT: {error}");
        }
        self.follow(&release).await;
        Ok(posted)
    }

    /// What is known of a name's releases.
    pub(crate) fn next_release(&self, name: &Name) -> NextRelease {
        let newest = self.store().catalog().highest_seen(name);
        let (publishers, secret) = (self.trusted(), self.exchange().name_secret(name));
        let release = newest.and_then(|newest| self.store().catalog().resolve(name, Some(newest)));
        let (next, signatures) = (newest.map_or(1, |version| version + 1), self.settings().signatures);
        NextRelease { newest, next, publishers, signatures, secret, release }
    }

    /// Whether more publishers have to sign than there are, if somebody is to be believed at all.
    pub(super) fn too_few_publishers(&self) -> Vec<String> {
        let (known, asked) = (self.trusted().len(), self.settings().signatures);
        let warning = || {
            format!(
                "no release can count here: the setting signatures asks for {asked} publishers, and this host knows {known}; have the \
                 cluster trust more (`drover-tracker publishers --add`)"
            )
        };
        if (1..asked).contains(&known) { vec![warning()] } else { Vec::new() }
    }

    /// What is wrong with the releases that this host follows: nobody says any more that they are the newest, or they would not
    /// be accepted now.
    pub(super) fn stale_releases(&self) -> Vec<String> {
        let now = unix_now_s();
        let newest = self.settings().subscribe.iter().filter_map(|name| self.store().catalog().newest(name));
        newest
            .filter_map(|release| {
                let Release { name, version, expires_unix_s, .. } = &release;
                if *expires_unix_s > now {
                    let error = self.check_still(&release).err()?;
                    return Some(format!("the release {name}@{version}, which was accepted, would not be now: {error}; publish a newer one"));
                }
                let since = show_duration(Duration::from_secs(now - expires_unix_s));
                Some(format!(
                    "the release {name}@{version} expired {since} ago: its publisher has not renewed it (`drover renew {name}`), \
                     or this host is not told of a newer one"
                ))
            })
            .collect()
    }

    /// Acts on releases as trackers and other hosts tell of them. Ends when the exchange does.
    ///
    /// A release by somebody unknown may be by a publisher who joined after this host: the trackers are asked whom they
    /// trust, at most once in [`LEARN_INTERVAL`], and it is looked at once more.
    pub(super) async fn hear_releases(self, mut releases: broadcast::Receiver<SignedRelease>) {
        let mut unknown: Vec<SignedRelease> = Vec::new();
        let mut ask_at = Instant::now();
        loop {
            tokio::select! {
                heard = releases.recv() => match heard {
                    Ok(signed) => match self.hear(signed.clone()).await {
                        Some(_) if self.learns() && unknown.len() < MOST_UNKNOWN => unknown.push(signed),
                        Some(error) => not_accepted(&signed, &error),
                        None => {}
                    },
                    // What was missed is told again when a tracker is connected anew, and a newer one supersedes it.
                    Err(broadcast::error::RecvError::Lagged(missed)) => tracing::warn!("{missed} releases were missed"),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = sleep_until(ask_at), if !unknown.is_empty() => {
                    ask_at = Instant::now() + LEARN_INTERVAL;
                    if let Err(why) = self.renew().await {
                        tracing::warn!("releases by unknown publishers, and whom the cluster trusts is not known: {why}");
                    }
                    for signed in std::mem::take(&mut unknown) {
                        if let Some(error) = self.hear(signed.clone()).await {
                            not_accepted(&signed, &error);
                        }
                    }
                }
            }
        }
    }

    /// Whether the cluster says whom this host trusts, and not its settings.
    pub(super) fn learns(&self) -> bool {
        self.settings().publishers.is_none()
    }

    /// Posts what no tracker has taken yet, for as long as there is any.
    pub(super) async fn post_kept(self) {
        let mut ticks = tokio::time::interval(POST_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for (name, version) in self.notes().unposted() {
                let catalog = self.store().catalog();
                // One that a newer release has superseded meanwhile is of no use to anybody, and trackers refuse it.
                let is_newest = catalog.highest_seen(&name) == Some(version);
                let Some(signed) = catalog.signed(&name, version).filter(|_| is_newest) else {
                    self.settle(&name, version).await;
                    continue;
                };
                match self.post(&name, version, signed).await {
                    Ok(outcome) => tracing::info!("release {name}@{version} taken by {}", outcome.taken.join(", ")),
                    Err(PostError::Unreachable(_)) => break,
                    Err(PostError::Refused(why)) => tracing::error!("release {name}@{version}: {why}"),
                }
            }
        }
    }

    /// Resumes what was under way when the last daemon of this state folder ended, and seeds what is here.
    pub(super) async fn resume(&self) {
        for master in self.store().masters().iter().filter(|master| self.holds(master.image)) {
            self.exchange().seed(master.image);
        }
        let wanted = self.notes().wanted();
        for image in self.store().incoming() {
            if wanted.contains(&image) || !self.is_superseded(image) {
                self.exchange().fetch(image, self.content_len(image));
            }
        }
        for &image in &wanted {
            if !self.holds(image) {
                self.exchange().fetch(image, self.content_len(image));
            }
        }
        for name in &self.settings().subscribe {
            if let Some(newest) = self.store().catalog().newest(name) {
                self.follow(&newest).await;
            }
        }
    }

    /// Joins the swarm of an image that is here, whole or not.
    pub(super) fn join_again(&self, image: ImageId) {
        if self.store().master(image).is_some() {
            self.exchange().seed(image);
        } else {
            self.exchange().fetch(image, self.content_len(image));
        }
    }

    /// Publishers whose releases count.
    pub(super) fn trusted(&self) -> Vec<PublisherKey> {
        match &self.settings().publishers {
            Some(publishers) => publishers.clone(),
            None => self.identity().publishers().to_vec(),
        }
    }

    /// What a release needs to count, when these publishers do.
    fn trust<'a>(&self, publishers: &'a [PublisherKey]) -> Trust<'a> {
        Trust { publishers, signatures: self.settings().signatures }
    }

    /// Has releases looked for that would count: again whenever publishers change.
    pub(super) fn seek_releases(&self) {
        self.exchange().seek_releases(self.trusted(), self.settings().subscribe.clone());
    }

    /// Whether a release that was accepted earlier would be now: it may have expired since, and its publisher may have
    /// been taken out of those that this host trusts.
    pub(super) fn check_still(&self, release: &Release) -> Result<(), ReleaseError> {
        match self.store().catalog().signed(&release.name, release.version) {
            Some(signed) => signed.verify(self.trust(&self.trusted()), unix_now_s()).map(drop),
            None => release.check_time(unix_now_s()),
        }
    }

    /// Whether a release is fetched by itself.
    pub(super) fn follows(&self, release: &Release) -> bool {
        let newest = self.store().catalog().newest(&release.name);
        self.settings().subscribe.contains(&release.name)
            && newest.is_some_and(|newest| newest.version == release.version)
    }

    /// The length that a release gives for an image.
    pub(super) fn content_len(&self, image: ImageId) -> Option<u64> {
        self.releases_of(image).first().map(|release| release.content_len)
    }

    /// Acts on a release; gives the error if too few of its publishers are known, who may have joined after this host.
    async fn hear(&self, signed: SignedRelease) -> Option<AcceptError> {
        let accepted = self.accept(signed.clone()).await;
        if let Ok(Err(AcceptError::Release(error))) = &accepted {
            self.refusals().note(&signed, error);
        }
        match accepted {
            Ok(Ok(Accepted { release, new })) => {
                if new {
                    tracing::info!("release {}@{}: image {}", release.name, release.version, release.image);
                    self.exchange().spread(&signed);
                }
                self.follow(&release).await;
            }
            // Trackers tell what they have; that this host knows better is nothing to report.
            Ok(Err(AcceptError::Release(error @ ReleaseError::Rollback { .. }))) => tracing::debug!("{error}"),
            Ok(Err(error)) if lacks_publishers(&error) => return Some(error),
            Ok(Err(error)) => not_accepted(&signed, &error),
            Err(problem) => tracing::error!("{problem}"),
        }
        None
    }

    async fn accept(&self, signed: SignedRelease) -> Result<Result<Accepted, AcceptError>, Problem> {
        let trusted = self.trusted();
        let accept =
            move |daemon: &Daemon| Ok(daemon.store().catalog().accept(&signed, daemon.trust(&trusted), unix_now_s()));
        self.blocking("release", accept).await
    }

    /// Fetches a release that is subscribed to, in place of older ones of its name.
    async fn follow(&self, release: &Release) {
        if !self.follows(release) {
            return;
        }
        let wanted = self.notes().wanted();
        for older in self.store().catalog().all() {
            let superseded = older.name == release.name && older.version < release.version;
            if superseded && !wanted.contains(&older.image) && self.is_superseded(older.image) {
                self.stop_unfinished(older.image).await;
            }
        }
        if self.holds(release.image) {
            return;
        }
        match self.check_still(release) {
            Ok(()) => drop(self.exchange().fetch(release.image, Some(release.content_len))),
            Err(error) => tracing::warn!("not fetched: {error}"),
        }
    }

    /// Whether a master is here; one whose file was removed by hand is not. In place the file is its owner's to bring back.
    fn holds(&self, image: ImageId) -> bool {
        self.store().master(image).is_some_and(|master| master.in_place || !master.is_gone())
    }

    async fn stop_unfinished(&self, image: ImageId) {
        let under_way = self.exchange().status_of(image).is_some() && self.store().master(image).is_none();
        if under_way {
            tracing::info!(
                "image {image} is superseded before it was complete: no longer fetched; `drover gc` removes it"
            );
            self.exchange().stop(image).await;
        }
    }

    async fn post(&self, name: &Name, version: u64, signed: SignedRelease) -> Result<PostOutcome, PostError> {
        let outcome = match self.exchange().post(signed).await {
            Ok(outcome) => Ok(outcome),
            Err(AskTrackersError::NoTracker) => return Err(PostError::Unreachable(Vec::new())),
            Err(AskTrackersError::Unreachable(tried)) => return Err(PostError::Unreachable(told(tried))),
            Err(AskTrackersError::Refused(refused)) => Err(PostError::Refused(told(refused).join("; "))),
        };
        self.settle(name, version).await;
        outcome
    }

    async fn settle(&self, name: &Name, version: u64) {
        let name = name.clone();
        let noted = self.blocking("release", move |daemon| {
            daemon.notes().posted(&name, version).map_err(|error| Problem::failed("note a posted release", error))
        });
        if let Err(problem) = noted.await {
            // It is posted once more after a restart, which changes nothing.
            tracing::warn!("{problem}");
        }
    }
}

/// Whether it might be accepted if more publishers were known.
fn lacks_publishers(error: &AcceptError) -> bool {
    let AcceptError::Release(error) = error else { return false };
    matches!(error, ReleaseError::UnknownPublisher(_) | ReleaseError::TooFewSignatures { .. })
}

fn not_accepted(signed: &SignedRelease, error: &AcceptError) {
    let claim = signed.claim().map_or("of no name".to_owned(), |(name, version)| format!("{name}@{version}"));
    let signers: Vec<String> = signed.signers().iter().map(PublisherKey::to_string).collect();
    tracing::warn!(
        "a release that was heard of, {claim}, said to be signed by {}, is not accepted: {error}",
        signers.join(" and ")
    );
}

fn told(refused: Vec<(String, String)>) -> Vec<String> {
    refused.into_iter().map(|(address, why)| format!("tracker {address}: {why}")).collect()
}

fn refuse(error: &AcceptError) -> Problem {
    match error {
        AcceptError::Release(error @ ReleaseError::TooFewSignatures { .. }) => {
            Problem::explained(Code::Refused, "release", error)
                .todo("have further publishers sign it (`drover cosign`)")
        }
        AcceptError::Release(error) => Problem::explained(Code::Refused, "release", error),
        AcceptError::Disk(error) => Problem::explained(Code::Failed, "release", error),
    }
}

/// How often trackers are asked for publishers who are unknown here, so that a tracker that makes up releases sets off no
/// more than that.
const LEARN_INTERVAL: Duration = Duration::from_secs(60);
/// Releases by unknown publishers that wait for that.
const MOST_UNKNOWN: usize = 64;
/// How often trackers that were away are tried with releases that wait for one.
const POST_INTERVAL: Duration = Duration::from_secs(2);
