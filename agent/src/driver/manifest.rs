//! The first thing that is fetched of an image, and the first that is handed out.
//!
//! Whoever has the manifest hands it out, whether it has the rest or not, so that a fleet that starts together does not
//! wait for one host. It is asked of a few candidates at a time, in random order. Nothing that comes is looked into
//! before its hash is the image's id, and no more is read than an image of the released length can need.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_link::frame::{read_frame, write_frame};
use drover_protocol::geometry::MAX_IMAGE_LEN;
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::manifest::{Manifest, ManifestError, max_manifest_len};
use drover_protocol::message::{DataReply, DataRequest, LeaveReason, PeerMessage, SwarmMessage};
use drover_protocol::rng::Rng;
use drover_protocol::time::Instant;
use quinn::{RecvStream, SendStream};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::streams::answer;
use super::{End, Inlets, Input, Parts};
use crate::clock;
use crate::store::Image;
use crate::transport::{Event, Link, Links};

/// Candidates asked at the same time: one of them may be slow or lie.
const ASKED_AT_ONCE: usize = 3;
/// Candidates remembered.
const CANDIDATES_MOST: usize = 512;
/// A peer that does not have it may have it soon.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A peer that could not be reached is tried again so late.
const DIAL_AGAIN: Duration = Duration::from_secs(2);
/// Longest "ask again after" that is believed.
const BUSY_MOST: Duration = Duration::from_secs(5);
/// The answer, and each part of the manifest, must come or be taken within this time.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(5);
/// The slowest peer that is of use, in bytes per second.
const RATE_LEAST: u64 = 256 * 1024;
/// Room made before anything has come.
const ROOM_AT_FIRST: u64 = 1 << 20;
/// What is written at once.
const PART_LEN: usize = 64 * 1024;
/// What one manifest counts at the most, in KiB: as much as all that may be handed out at a time.
const MOST_KIB: u64 = 32 << 10;
/// When to ask again, for those who are told "busy".
const BUSY_MS: u32 = 200;

/// How the search ended.
pub(super) enum Found {
    /// The image has begun to come in, or is here. These peers are known to exchange it, or said to.
    Image(Arc<Image>, Vec<PeerId>),
    /// It has not.
    Nothing(End),
}

/// What a candidate had to say.
enum Answer {
    Manifest(Box<Manifest>),
    /// To be asked again after this time.
    Later(Duration),
    /// It sent something else, as if it were the manifest.
    Lie(String),
    /// The manifest, but of no use to this host.
    Unusable(String),
}

struct Search<'a> {
    parts: &'a Parts,
    image: ImageId,
    most_len: u64,
    /// When each may be asked next; `None` while it is being asked.
    candidates: BTreeMap<PeerId, Option<Instant>>,
    asking: JoinSet<(PeerId, Answer)>,
    rng: Rng,
}

/// Finds the manifest of `image` and begins to bring it in.
pub(super) async fn find(parts: &Parts, image: ImageId, content_len: Option<u64>, inlets: &mut Inlets) -> Found {
    let most_len = max_manifest_len(content_len.unwrap_or(MAX_IMAGE_LEN));
    let (asking, rng) = (JoinSet::new(), Rng::seeded(clock::seed()));
    let search = Search { parts, image, most_len, candidates: BTreeMap::new(), asking, rng };
    let (manifest, candidates) = match search.run(inlets).await {
        Ok(found) => found,
        Err(end) => return Found::Nothing(end),
    };
    let found_len = manifest.geometry().len();
    if let Some(len) = content_len.filter(|&len| len != found_len) {
        let why = format!("the release says {len} bytes, the image it names has {found_len}; publish it anew");
        return Found::Nothing(End::Failed(why));
    }
    let store = parts.store.clone();
    match parts.sync.run(move || store.begin(manifest)).await {
        Ok(image) => Found::Image(image, candidates),
        Err(error) => Found::Nothing(End::Failed(error.to_string())),
    }
}

impl Search<'_> {
    async fn run(mut self, inlets: &mut Inlets) -> Result<(Manifest, Vec<PeerId>), End> {
        loop {
            self.ask_some();
            let wake = self.candidates.values().flatten().min().copied();
            let wake = wake.filter(|_| self.asking.len() < ASKED_AT_ONCE);
            tokio::select! {
                Some(event) = inlets.events.recv() => self.on_event(event),
                Some(input) = inlets.inputs.recv() => {
                    if let Input::Stop(done) = input {
                        return Err(End::Stopped(Some(done)));
                    }
                }
                Some(Ok((peer, answer))) = self.asking.join_next() => {
                    if let Some(manifest) = self.on_answer(peer, answer)? {
                        return Ok((manifest, self.candidates.into_keys().collect()));
                    }
                }
                () = sleep_until(clock::timer_at(wake.unwrap_or_default())), if wake.is_some() => {}
            }
        }
    }

    fn ask_some(&mut self) {
        let now = clock::now();
        while self.asking.len() < ASKED_AT_ONCE {
            let ready = |next: &Option<Instant>| next.is_some_and(|at| at <= now);
            let ready: Vec<PeerId> =
                self.candidates.iter().filter(|(_, next)| ready(next)).map(|(&peer, _)| peer).collect();
            let Some(&peer) = self.rng.pick(&ready) else { return };
            self.candidates.insert(peer, None);
            let ask = Ask { links: self.parts.links.clone(), image: self.image, most_len: self.most_len };
            let sync = self.parts.sync.clone();
            self.asking.spawn(async move { (peer, ask.run(peer, sync).await) });
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Candidates(peers) => peers.into_iter().for_each(|peer| self.add(peer)),
            Event::Message { link, message } => {
                self.add(link.peer());
                if let SwarmMessage::Join { .. } = message {
                    // Nothing can be said about pieces yet. This host comes back as soon as it knows them.
                    let message = SwarmMessage::Leave { reason: LeaveReason::NotHere };
                    link.send(PeerMessage::Swarm { image: self.image, message });
                }
            }
            // It exchanges the image or wants to, and may find the manifest first. There is nobody to name yet.
            Event::AskedPeers(link) => self.add(link.peer()),
            Event::Asked(asked) => answer(asked.send, DataReply::NotHeld),
            // Whoever does not know yet what to lack takes part in no session.
            Event::Multicast { .. } | Event::Disconnected(_) => {}
        }
    }

    fn add(&mut self, peer: PeerId) {
        if self.candidates.len() < CANDIDATES_MOST {
            self.candidates.entry(peer).or_insert(Some(clock::now()));
        }
    }

    fn on_answer(&mut self, peer: PeerId, answer: Answer) -> Result<Option<Manifest>, End> {
        let again = match answer {
            Answer::Manifest(manifest) => return Ok(Some(*manifest)),
            Answer::Unusable(why) => return Err(End::Failed(why)),
            Answer::Later(after) => after,
            Answer::Lie(why) => {
                self.parts.links.ban(peer, why);
                self.candidates.remove(&peer);
                return Ok(None);
            }
        };
        self.candidates.insert(peer, Some(clock::now() + again));
        Ok(None)
    }
}

/// One question to one candidate.
struct Ask {
    links: Links,
    image: ImageId,
    most_len: u64,
}

impl Ask {
    async fn run(self, peer: PeerId, sync: crate::transfer::workers::Workers) -> Answer {
        let Some(link) = self.links.reach(peer).await else { return Answer::Later(DIAL_AGAIN) };
        link.hold();
        let bytes = self.ask(&link).await;
        link.release();
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(answer) => return answer,
        };
        let image = self.image;
        match sync.run(move || Manifest::from_bytes_of(image, &bytes)).await {
            Ok(manifest) => Answer::Manifest(Box::new(manifest)),
            Err(error @ ManifestError::OtherImage { .. }) => Answer::Lie(format!("it sent a wrong manifest: {error}")),
            Err(error) => Answer::Unusable(format!("the image has a manifest that is of no use: {error}")),
        }
    }

    async fn ask(&self, link: &Link) -> Result<Vec<u8>, Answer> {
        let question = DataRequest::Manifest { image: self.image };
        let asked = timeout(PROGRESS_DEADLINE, link.ask(&question)).await;
        let Ok(Some(mut stream)) = asked else { return Err(Answer::Later(DIAL_AGAIN)) };
        match timeout(PROGRESS_DEADLINE, read_frame::<DataReply>(&mut stream)).await {
            Ok(Ok(Some(DataReply::Accepted { len }))) if len <= self.most_len => {
                let deadline = PROGRESS_DEADLINE + Duration::from_secs(len / RATE_LEAST);
                let bytes = timeout(deadline, read_all(&mut stream, len)).await.ok().flatten();
                bytes.ok_or(Answer::Later(DIAL_AGAIN))
            }
            Ok(Ok(Some(DataReply::Accepted { len }))) => {
                Err(Answer::Lie(format!("it offered a manifest of {len} bytes, the most is {}", self.most_len)))
            }
            Ok(Ok(Some(DataReply::Busy { retry_after_ms, .. }))) => {
                let after = Duration::from_millis(u64::from(retry_after_ms)).min(BUSY_MOST);
                Err(Answer::Later(clock::jittered(after * 2)))
            }
            Ok(Ok(Some(DataReply::NotHeld))) => Err(Answer::Later(ASK_AGAIN)),
            _ => Err(Answer::Later(DIAL_AGAIN)),
        }
    }
}

/// The next `len` bytes; `None` if they do not come.
async fn read_all(stream: &mut RecvStream, len: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len.min(ROOM_AT_FIRST) as usize);
    while (bytes.len() as u64) < len {
        let left = (len - bytes.len() as u64).min(ROOM_AT_FIRST) as usize;
        let chunk = timeout(PROGRESS_DEADLINE, stream.read_chunk(left, true)).await.ok()?.ok()??;
        bytes.extend_from_slice(&chunk.bytes);
    }
    Some(bytes)
}

/// Hands out the manifest of `image`, if not too many are being handed out.
pub(super) async fn serve(parts: Arc<Parts>, image: Arc<Image>, mut stream: SendStream) {
    let kib = max_manifest_len(image.manifest().data_len()).div_ceil(1024).min(MOST_KIB);
    let Ok(_permit) = parts.manifests.clone().try_acquire_many_owned(kib as u32) else {
        return answer(stream, DataReply::Busy { retry_after_ms: BUSY_MS, instead: None });
    };
    let bytes = parts.sync.run(move || image.manifest().to_bytes()).await;
    let accepted = DataReply::Accepted { len: bytes.len() as u64 };
    if !matches!(timeout(PROGRESS_DEADLINE, write_frame(&mut stream, &accepted)).await, Ok(Ok(()))) {
        return;
    }
    for part in bytes.chunks(PART_LEN) {
        if !matches!(timeout(PROGRESS_DEADLINE, stream.write_all(part)).await, Ok(Ok(()))) {
            return;
        }
    }
    // Fails only if the peer has stopped the stream.
    let _ = stream.finish();
}
