//! What is on this host, under which names, and what may go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use drover_protocol::id::ImageId;
use drover_protocol::release::{Name, Release};

use super::Daemon;
use crate::control::api::{self, MasterRef, MasterState};
use crate::control::{Code, Problem};
use crate::exchange::Phase;
use crate::handover::record::clones_of;
use crate::store::{MasterInfo, MasterUse, RemoveError, SealLevel};

/// What removing needs to know of an image.
struct Doomed {
    image: ImageId,
    releases: Vec<Release>,
    bytes: u64,
    clones: Vec<String>,
}

impl Daemon {
    /// Everything on this host, a row for each name and version.
    pub(crate) async fn masters(&self) -> Result<Vec<api::Master>, Problem> {
        self.blocking("list", |daemon| daemon.list_masters()).await
    }

    /// What a person means by `wanted`: of a name without a version, the newest that is complete, else the newest.
    pub(crate) async fn master(&self, wanted: MasterRef) -> Result<api::Master, Problem> {
        let wanted = self.meant(wanted).await?;
        let masters = self.masters().await?;
        let mut found: Vec<api::Master> = masters.into_iter().filter(|master| fits(master, &wanted)).collect();
        found.sort_by_key(|master| (master.path.is_some(), master.version));
        found.pop().ok_or_else(|| self.not_here(&wanted))
    }

    fn not_here(&self, wanted: &MasterRef) -> Problem {
        let newest = match wanted {
            MasterRef::Named { name, version: Some(_) } => self.store().catalog().newest(name),
            _ => None,
        };
        let (why, todo) = match newest {
            _ if self.knows(wanted) => ("it is not on this host", format!("`drover fetch {wanted}` brings it")),
            Some(newest) => (
                "that version is not known here",
                format!("the newest is {0}@{1}: `drover fetch {0}` brings it", newest.name, newest.version),
            ),
            None => {
                let todo = format!("`drover fetch {wanted}` brings it if a tracker or another host has it");
                ("nothing of that name is known here", todo)
            }
        };
        Problem::new(Code::NotFound, format!("master {wanted}"), why)
            .todo(format!("{todo}; `drover list` shows what is here"))
    }

    /// An image that is known here, if a word that is no name known here is how its id begins, as people are shown it.
    pub(super) async fn meant(&self, wanted: MasterRef) -> Result<MasterRef, Problem> {
        let MasterRef::Named { name, version: None } = &wanted else { return Ok(wanted) };
        if name.as_str().len() < SHORTEST_ID || self.knows(&wanted) {
            return Ok(wanted);
        }
        let what = format!("master {wanted}");
        let known = self.blocking(&what, |daemon| Ok(daemon.known_images())).await?;
        let mut begin_so = known.into_iter().filter(|image| image.to_string().starts_with(name.as_str()));
        match (begin_so.next(), begin_so.next()) {
            (Some(image), None) => Ok(MasterRef::Image(image)),
            (None, _) => Ok(wanted),
            (Some(one), Some(other)) => {
                let why = format!("more than one image id begins so, as {one} and {other}");
                Err(Problem::new(Code::Refused, what, why).todo("give more of it"))
            }
        }
    }

    fn known_images(&self) -> BTreeSet<ImageId> {
        let held = self.store().masters().into_iter().map(|master| master.image);
        let released = self.store().catalog().all().into_iter().map(|release| release.image);
        held.chain(released).chain(self.exchange().status().iter().map(|status| status.image)).collect()
    }

    /// Removes an image, if nothing needs it.
    pub(crate) async fn remove(&self, wanted: MasterRef) -> Result<api::Removed, Problem> {
        let wanted = self.meant(wanted).await?;
        let what = format!("rm {wanted}");
        let found: Vec<_> = self.masters().await?.into_iter().filter(|master| fits(master, &wanted)).collect();
        let images: BTreeSet<ImageId> = found.iter().map(|master| master.image).collect();
        if images.len() > 1 {
            let labels = found.iter().map(api::Master::label).collect::<Vec<_>>().join(", ");
            return Err(Problem::new(Code::Refused, what, format!("more than one version is here: {labels}"))
                .todo("say which one, as in base@1"));
        }
        let Some(master) = found.first() else {
            return Err(
                Problem::new(Code::NotFound, what, "it is not on this host").todo("`drover list` shows what is")
            );
        };
        let doomed = Doomed {
            image: master.image,
            releases: self.releases_of(master.image),
            bytes: held_bytes(master),
            clones: master.clones.clone(),
        };
        let comes_back = doomed.releases.iter().find(|release| self.follows(release)).map(|release| {
            format!(
                "{0} is subscribed to: {0}@{1} is fetched again when the daemon starts",
                release.name, release.version
            )
        });
        let image = doomed.image;
        let removed = self.discard(&what, doomed).await?;
        let outlive = self.blocking(&what, move |daemon| Ok(outliving(daemon.store().state(), image))).await?;
        let notes: Vec<String> = comes_back.into_iter().chain(outlive).collect();
        Ok(api::Removed { note: (!notes.is_empty()).then(|| notes.join("; ")), ..removed })
    }

    /// Removes what neither a name nor a clone nor a person needs any more.
    pub(crate) async fn collect(&self, dry_run: bool) -> Result<api::Collected, Problem> {
        let (garbage, kept) = self.blocking("gc", |daemon| daemon.find_garbage()).await?;
        let mut removed = Vec::new();
        for doomed in garbage {
            if dry_run {
                removed.push(doomed.removed());
                continue;
            }
            match self.discard("gc", doomed).await {
                Ok(done) => removed.push(done),
                // A clone made in this very moment: what needs it, keeps it.
                Err(problem) if problem.code == Code::Refused => tracing::info!("{problem}"),
                Err(problem) => return Err(problem),
            }
        }
        Ok(api::Collected { dry_run, removed, kept })
    }

    /// Leaves the swarm and removes the image. If that is refused, the swarm is joined again.
    async fn discard(&self, what: &str, doomed: Doomed) -> Result<api::Removed, Problem> {
        if !doomed.clones.is_empty() {
            return Err(refuse_for_clones(what, &doomed.clones));
        }
        let image = doomed.image;
        self.exchange().stop(image).await;
        let removed = self.blocking(what, move |daemon| Ok(daemon.store().remove(image))).await?;
        match removed {
            // A fetch that had not got its manifest yet has nothing in the store.
            Ok(()) | Err(RemoveError::Unknown(_)) => {}
            Err(error) => {
                self.join_again(image);
                return Err(match error {
                    RemoveError::Cloned { clones, .. } => refuse_for_clones(what, &clones),
                    error => Problem::failed(what, error),
                });
            }
        }
        let removed = doomed.removed();
        tracing::info!("removed {} ({image})", removed.names.join(", "));
        self.blocking(what, move |daemon| {
            if let Err(error) = daemon.notes().forget(image) {
                tracing::warn!("{error}");
            }
            for release in &doomed.releases {
                // The newest stays known, whatever is held of it: it is what a lower version is refused by.
                if let Err(error) = daemon.store().catalog().forget(&release.name, release.version) {
                    tracing::warn!("release {}@{} is not forgotten: {error}", release.name, release.version);
                }
            }
            Ok(())
        })
        .await?;
        Ok(removed)
    }

    fn list_masters(&self) -> Result<Vec<api::Master>, Problem> {
        let uses = self.store().known_master_uses().map_err(|error| Problem::failed("list", error))?;
        let mut masters: Vec<api::Master> = uses.iter().flat_map(complete_rows).collect();
        let held: BTreeSet<ImageId> = uses.iter().map(|used| used.master.image).collect();
        let under_way: BTreeSet<ImageId> =
            self.exchange().status().iter().map(|status| status.image).chain(self.store().incoming()).collect();
        masters.extend(under_way.difference(&held).flat_map(|&image| self.incoming_rows(image)));
        masters.sort_by(|a, b| (&a.name, a.version, a.image).cmp(&(&b.name, b.version, b.image)));
        Ok(masters)
    }

    fn incoming_rows(&self, image: ImageId) -> Vec<api::Master> {
        let (mut content_len, mut data_len, mut content_hash, mut percent) = (0, 0, None, 0.0);
        if let Some(image) = self.store().image(image) {
            let manifest = image.manifest();
            (content_len, data_len) = (manifest.geometry().len(), manifest.data_len());
            content_hash = Some(manifest.content_hash());
            let (held, data) = (image.held().count(), manifest.data_chunks().count());
            percent = if data == 0 { 100.0 } else { f64::from(held) * 100.0 / f64::from(data) };
        }
        let problem = match self.exchange().status_of(image).map(|status| status.phase) {
            Some(Phase::Failed(why)) => Some(why),
            _ => None,
        };
        let state = if problem.is_some() { MasterState::Failed } else { MasterState::Incoming };
        let row = |release: Option<&Release>| api::Master {
            name: release.map(|release| release.name.clone()),
            version: release.map(|release| release.version),
            image,
            path: None,
            content_len: release.map_or(content_len, |release| release.content_len),
            data_len,
            content_hash: release.map_or(content_hash, |release| Some(release.content_hash)),
            state,
            percent,
            sealed: None,
            in_place: false,
            checked_unix_s: None,
            verified: None,
            doubt: None,
            newest: release.is_some_and(|release| self.is_newest(release)),
            problem: problem.clone(),
            clones: Vec::new(),
        };
        let releases = self.releases_of(image);
        if releases.is_empty() { vec![row(None)] } else { releases.iter().map(|release| row(Some(release))).collect() }
    }

    fn find_garbage(&self) -> Result<(Vec<Doomed>, Vec<api::Kept>), Problem> {
        let uses = self.store().master_uses().map_err(|error| Problem::failed("gc", error))?;
        let recent = recent_versions(&uses, self.settings().keep_versions);
        let (mut garbage, mut kept) = (Vec::new(), Vec::new());
        for used in &uses {
            if used.releases.iter().any(|release| release.newest) {
                continue;
            }
            let image = used.master.image;
            let versions = used.releases.iter().map(|release| (release.name.clone(), release.version));
            let nameless = versions.len() == 0;
            let why = if nameless && self.notes().is_by_id(image) {
                Some("it was asked for by its image id, or its release is held back; `drover rm` removes it".to_owned())
            } else if nameless && self.notes().is_fresh(image) {
                Some("it was published a moment ago, and may not have its release yet".to_owned())
            } else if !used.clones.is_empty() {
                Some(format!("the clones {} need it", used.clones.join(", ")))
            } else if versions.clone().any(|version| recent.contains(&version)) {
                Some(format!("it is among the newest complete {} of its name", self.settings().keep_versions))
            } else {
                None
            };
            match why {
                Some(why) => {
                    let names = versions.map(|(name, version)| format!("{name}@{version}")).collect();
                    kept.push(api::Kept { image, names, why });
                }
                None => garbage.push(Doomed {
                    image,
                    releases: self.releases_of(image),
                    bytes: used.master.data_len,
                    clones: Vec::new(),
                }),
            }
        }
        let complete: BTreeSet<ImageId> = uses.iter().map(|used| used.master.image).collect();
        let wanted = self.notes().wanted();
        for image in self.store().incoming() {
            if !complete.contains(&image) && !wanted.contains(&image) && self.is_superseded(image) {
                let bytes = self.incoming_rows(image).first().map_or(0, held_bytes);
                garbage.push(Doomed { image, releases: self.releases_of(image), bytes, clones: Vec::new() });
            }
        }
        Ok((garbage, kept))
    }

    /// Every release that names an image.
    pub(super) fn releases_of(&self, image: ImageId) -> Vec<Release> {
        self.store().catalog().all().into_iter().filter(|release| release.image == image).collect()
    }

    /// Whether an image has releases, none of which is the newest of its name.
    pub(super) fn is_superseded(&self, image: ImageId) -> bool {
        let releases = self.releases_of(image);
        !releases.is_empty() && !releases.iter().any(|release| self.is_newest(release))
    }

    fn is_newest(&self, release: &Release) -> bool {
        self.store().catalog().newest(&release.name).is_some_and(|newest| newest.version == release.version)
    }

    fn knows(&self, wanted: &MasterRef) -> bool {
        match wanted {
            MasterRef::Named { name, version } => self.store().catalog().resolve(name, *version).is_some(),
            MasterRef::Image(image) => !self.releases_of(*image).is_empty(),
        }
    }

    /// What to say of masters that were whole and are not any more.
    pub(super) fn spoilt_masters(&self) -> Vec<String> {
        let text = |master: MasterInfo| {
            let problem = problem_of(&master)?;
            let label = self.labels_of(master.image).pop().unwrap_or_else(|| master.image.to_string());
            Some(format!("{label} is spoilt: {problem}; `drover fetch {label}` mends it if another host has it"))
        };
        self.store().masters().into_iter().filter_map(text).collect()
    }
}

impl Doomed {
    fn removed(&self) -> api::Removed {
        let names = self.releases.iter().map(|release| format!("{}@{}", release.name, release.version)).collect();
        api::Removed { image: self.image, names, bytes: self.bytes, note: None }
    }
}

/// What to say of the clones that a master was removed from.
fn outliving(state: &Path, image: ImageId) -> Option<String> {
    let clones = clones_of(state, image).unwrap_or_default();
    let named = clones.join(", ");
    (!clones.is_empty()).then(|| format!("clones that were made from it stay, and do not need it: {named}"))
}

fn refuse_for_clones(what: &str, clones: &[String]) -> Problem {
    Problem::new(Code::Refused, what, format!("clones need it: {}", clones.join(", ")))
        .todo("remove them first with `drover clone rm`, if nothing needs them any more")
}

fn complete_rows(used: &MasterUse) -> Vec<api::Master> {
    let MasterUse { master, releases, clones } = used;
    let problem = problem_of(master);
    let doubt = master.doubt().filter(|_| problem.is_none());
    let row = |name: Option<&Name>, version: Option<u64>, newest: bool| api::Master {
        name: name.cloned(),
        version,
        image: master.image,
        path: Some(master.path.clone()),
        content_len: master.content_len,
        data_len: master.data_len,
        content_hash: Some(master.content_hash),
        state: if problem.is_some() { MasterState::Spoilt } else { MasterState::Complete },
        percent: 100.0,
        sealed: Some(seal_word(master).to_owned()),
        in_place: master.in_place,
        checked_unix_s: Some(master.checked_at_unix_s),
        verified: master.verified,
        doubt: doubt.clone(),
        newest,
        problem: problem.clone(),
        clones: clones.clone(),
    };
    if releases.is_empty() {
        return vec![row(None, None, false)];
    }
    releases.iter().map(|release| row(Some(&release.name), Some(release.version), release.newest)).collect()
}

/// Why a master is not served.
pub(super) fn problem_of(master: &MasterInfo) -> Option<String> {
    let gone = || master.is_gone().then(|| format!("its file {} is not there any more", master.path.display()));
    let damaged = (master.damaged_chunks > 0).then(|| format!("{} of its chunks are damaged", master.damaged_chunks));
    master.withdrawn.clone().or_else(gone).or(damaged)
}

fn seal_word(master: &MasterInfo) -> &'static str {
    match master.sealing {
        SealLevel::Broken => "broken",
        SealLevel::Watched => "watched",
        SealLevel::Mode => "mode",
        SealLevel::Immutable => "immutable",
    }
}

/// Of each name, the newest versions that are complete, `keep` of them.
fn recent_versions(uses: &[MasterUse], keep: usize) -> BTreeSet<(Name, u64)> {
    let mut versions: BTreeMap<&Name, BTreeSet<u64>> = BTreeMap::new();
    for release in uses.iter().flat_map(|used| &used.releases) {
        versions.entry(&release.name).or_default().insert(release.version);
    }
    let newest = |(name, versions): (&Name, BTreeSet<u64>)| {
        let name = name.clone();
        versions.into_iter().rev().take(keep).map(move |version| (name.clone(), version)).collect::<Vec<_>>()
    };
    versions.into_iter().flat_map(newest).collect()
}

fn held_bytes(master: &api::Master) -> u64 {
    (master.data_len as f64 * master.percent / 100.0) as u64
}

fn fits(master: &api::Master, wanted: &MasterRef) -> bool {
    match wanted {
        MasterRef::Image(image) => master.image == *image,
        MasterRef::Named { name, version } => {
            master.name.as_ref() == Some(name) && version.is_none_or(|version| master.version == Some(version))
        }
    }
}

/// How much of an image id is taken for it: a little less than people are shown.
const SHORTEST_ID: usize = 8;
