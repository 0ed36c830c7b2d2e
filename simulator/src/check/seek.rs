//! How a host comes to know the manifest and releases: by peers, each of which may lie.

use core::time::Duration;
use std::sync::OnceLock;

use drover_durability::AcceptError;
use drover_protocol::hints::MANIFEST_ASK_AGAIN;
use drover_protocol::id::{ContentHash, ImageId, PublisherKey};
use drover_protocol::manifest::Manifest;
use drover_protocol::release::{Name, RELEASE_FORMAT, Release, SignedRelease};
use ed25519_dalek::SigningKey;

use super::fault::Fault;
use super::host::{self, Running, peer_id};
use super::plan::Lie;
use super::token;
use super::world::{Event, World};

/// When a host whose disk did not let it begin asks the same peer again.
const BEGIN_AGAIN: Duration = Duration::from_secs(3);
/// What all clocks show that were not moved, in seconds since 1970.
const NOW_UNIX_S: u64 = 1_800_000_000;
/// Versions of the one name that there are.
const VERSIONS: u64 = 4;

impl World {
    /// Some candidate may be asked again.
    pub(super) fn seek(&mut self, host: usize, life: u32) {
        let now = self.now;
        let Some(run) = self.running(host, life) else { return };
        if run.seek_at.is_some_and(|at| at <= now) {
            run.seek_at = None;
            self.search(host);
        }
    }

    /// Asks a peer that was reached for the manifest.
    pub(super) fn ask_manifest(&mut self, host: usize, from: usize) {
        let life = self.hosts[host].life;
        let is_known = self.hosts[from].run.as_ref().is_some_and(|run| run.image.is_some());
        let lies = self.plan.hosts[from].lie == Some(Lie::WrongManifest);
        let bytes =
            is_known.then(|| if lies { self.plan.wrong_manifest.to_bytes() } else { self.plan.manifest.to_bytes() });
        if is_known && lies {
            self.counts.add(Fault::WrongManifest);
        }
        self.after(self.net.latency() * 4, Event::Manifest { host, life, from, bytes });
    }

    pub(super) fn take_manifest(&mut self, host: usize, life: u32, from: usize, bytes: Option<&[u8]>) {
        let (now, id) = (self.now, self.plan.manifest.image_id());
        let Some(run) = self.running(host, life).filter(|run| run.image.is_none()) else { return };
        let Some(bytes) = bytes else {
            run.search.reached(now, peer_id(from));
            run.search.postpone(now, peer_id(from), MANIFEST_ASK_AGAIN);
            return self.search(host);
        };
        let manifest = match Manifest::from_bytes_of(id, bytes) {
            Ok(manifest) => manifest,
            Err(_) => {
                run.banned.insert(from);
                run.search.remove(&peer_id(from));
                return self.search(host);
            }
        };
        if manifest != self.plan.manifest {
            return self.fail(format!("host {host} takes a manifest of another image"));
        }
        let Some(run) = self.running(host, life) else { return };
        match host::begin_image(&run.layout, &manifest) {
            Ok(image) => {
                run.image = Some(image);
                self.join_swarm(host);
            }
            Err(error) => {
                self.note(|| format!("host {host} can't begin: {error}"));
                if let Some(run) = self.running(host, life) {
                    run.search.postpone(now, peer_id(from), BEGIN_AGAIN);
                }
                self.search(host);
            }
        }
        self.notice_power(host);
    }

    /// When which release comes to which host, newer and older ones in any order.
    pub(super) fn draw_releases(&mut self) {
        if !self.plan.has_releases {
            return;
        }
        let millis = (self.plan.heals_at.as_nanos() / 1_000_000) as u32;
        for host in 0..self.hosts.len() {
            for _ in 0..2 + self.rng.below(4) {
                let number = self.rng.below(releases().len() as u32) as usize;
                let at = Duration::from_millis(u64::from(self.rng.below(millis)));
                self.after(at, Event::Release { host, number });
            }
        }
    }

    /// A host hears of a release. What it accepts must be newer than all that it ever accepted.
    pub(super) fn hear_release(&mut self, host: usize, number: usize) {
        let signed = &releases()[number];
        let off = self.hosts[host].clock_off_s;
        let now_unix_s = NOW_UNIX_S.saturating_add_signed(off);
        let Some(Running { catalog, .. }) = &self.hosts[host].run else { return };
        let accepted = catalog.accept(signed, &[publisher()], now_unix_s);
        self.trace.note(self.now, "release", [host as u64, u64::from(accepted.is_ok())]);
        let before = self.hosts[host].highest_version;
        match accepted {
            Ok(accepted) if accepted.new => {
                let version = accepted.release.version;
                self.note(|| format!("host {host} accepts version {version}"));
                if version < before {
                    self.fail(format!("host {host} accepts version {version} after version {before}"));
                }
                if signed.publisher != publisher() {
                    self.fail(format!("host {host} accepts a release of a stranger"));
                }
                let at = &mut self.hosts[host];
                at.highest_version = at.highest_version.max(version);
            }
            Ok(_) => {}
            Err(AcceptError::Release(error)) => self.note(|| format!("host {host} refuses a release: {error}")),
            // It must not be used; whether it is on the disk, nobody knows.
            Err(AcceptError::Disk(error)) => {
                self.note(|| format!("host {host} can't keep a release: {error}"));
                self.notice_power(host);
            }
        }
    }

    /// What the publisher, and perhaps others, have before anything happens.
    pub(super) fn fill_publisher(&mut self) {
        let manifest = self.plan.manifest.clone();
        for host in 0..self.hosts.len() {
            let is_publisher = host == 0;
            if self.plan.hosts[host].is_bystander || !is_publisher && !self.rng.chance(0.15) {
                continue;
            }
            let (disk, share) = (self.hosts[host].disk.clone(), f64::from(self.rng.below(100)) / 100.0);
            let dice = disk.with(|inner| std::mem::take(&mut inner.dice));
            let opened = host::open(&disk, manifest.image_id()).expect("a sound disk");
            let image = host::begin_image(&opened.layout, &manifest).expect("a sound disk");
            for chunk in manifest.data_chunks().iter() {
                if is_publisher || self.rng.chance(share) {
                    let right = token::right(self.plan.tag, chunk.number());
                    let verified = token::verify(&manifest, chunk, right).expect("the right token");
                    image.write(self.now, &verified).expect("a sound disk");
                }
            }
            if is_publisher {
                host::seal(self.now, &opened.layout, &image).expect("a sound disk");
            } else {
                image.checkpoint(self.now).expect("a sound disk");
            }
            let at = &mut self.hosts[host];
            at.was_sealed = is_publisher;
            at.promised = image.held().iter().map(drover_protocol::geometry::ChunkIndex::number).collect();
            disk.with(|inner| inner.dice = dice);
        }
    }
}

/// The name that all releases have.
pub(super) fn name() -> Name {
    "image".parse().expect("a name")
}

fn publisher() -> PublisherKey {
    PublisherKey::from_bytes(key(1).verifying_key().to_bytes())
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

/// Versions of the name, each with an image of its own; one by a stranger, and one whose time is over.
fn releases() -> &'static [SignedRelease] {
    static RELEASES: OnceLock<Vec<SignedRelease>> = OnceLock::new();
    RELEASES.get_or_init(|| {
        let make = |version: u64, lasts_s: u64| Release {
            format: RELEASE_FORMAT,
            name: name(),
            version,
            image: ImageId::from_bytes([version as u8; 32]),
            content_len: 1 << 20,
            content_hash: ContentHash::from_bytes([version as u8; 32]),
            created_unix_s: NOW_UNIX_S - 1000,
            expires_unix_s: NOW_UNIX_S + lasts_s,
        };
        let mut releases: Vec<SignedRelease> =
            (1..=VERSIONS).map(|version| make(version, 30 * 86_400).sign(&key(1))).collect();
        releases.push(make(VERSIONS + 1, 30 * 86_400).sign(&key(2)));
        releases.push(make(VERSIONS + 2, 0).sign(&key(1)));
        releases
    })
}

/// Has a catalog accept the release of this number; gives its version if it was.
pub(super) fn accept(
    catalog: &drover_durability::Catalog<super::disk::SimDisk>,
    number: usize,
) -> Result<u64, AcceptError> {
    catalog.accept(&releases()[number], &[publisher()], NOW_UNIX_S).map(|accepted| accepted.release.version)
}
