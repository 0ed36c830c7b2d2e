//! The first thing that is fetched of an image, and the first that is handed out.
//!
//! Whoever has the manifest hands it out, whether it has the rest or not, so that a fleet that starts together does not
//! wait for one host. It is asked of a few of the [`Candidates`] at a time. Nothing that comes is looked into
//! before its hash is the image's id, and no more is read than an image of the released length can need.

use std::sync::Arc;
use std::time::Duration;

use drover_link::frame::{read_frame, write_frame};
use drover_protocol::geometry::MAX_IMAGE_LEN;
use drover_protocol::hints::{Candidates, MANIFEST_ASK_AGAIN, MANIFEST_ASKED_AT_ONCE, Source};
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::manifest::{Manifest, ManifestError, max_manifest_len};
use drover_protocol::message::{DataReply, DataRequest, LeaveReason, PeerMessage, SwarmMessage};
use drover_protocol::rng::Rng;
use quinn::{RecvStream, SendStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::streams::answer;
use super::{End, Inlets, Input, Parts};
use crate::clock;
use crate::store::Image;
use crate::transport::{Event, Link, Links};

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
    Image(Arc<Image>, Candidates),
    /// It has not.
    Nothing(End),
}

/// What a candidate had to say.
enum Answer {
    Manifest(Box<Manifest>),
    /// To be asked again after this time.
    Later(Duration),
    /// None: it can't be reached, or does not go on.
    Nothing,
    /// It sent something else, as if it were the manifest.
    Lie(String),
    /// The manifest, but of no use to this host.
    Unusable(String),
}

struct Search<'a> {
    parts: &'a Parts,
    image: ImageId,
    most_len: u64,
    /// One that is asked counts as dialled until it has answered.
    candidates: Candidates,
    asking: JoinSet<(PeerId, Answer)>,
    /// For those whose manifest is being read.
    reading: Arc<Semaphore>,
    rng: Rng,
}

/// Finds the manifest of `image` and begins to bring it in.
pub(super) async fn find(parts: &Parts, image: ImageId, content_len: Option<u64>, inlets: &mut Inlets) -> Found {
    let most_len = max_manifest_len(content_len.unwrap_or(MAX_IMAGE_LEN));
    let (asking, rng) = (JoinSet::new(), Rng::seeded(clock::seed()));
    let (candidates, reading) = (Candidates::default(), Arc::new(Semaphore::new(MANIFEST_ASKED_AT_ONCE)));
    let search = Search { parts, image, most_len, candidates, asking, reading, rng };
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
    async fn run(mut self, inlets: &mut Inlets) -> Result<(Manifest, Candidates), End> {
        loop {
            self.ask_some();
            let wake = self.candidates.next_dial_at(clock::now(), MANIFEST_ASKED_AT_ONCE, |_| false);
            tokio::select! {
                Some(event) = inlets.events.recv() => self.on_event(event),
                Some(input) = inlets.inputs.recv() => {
                    if let Input::Stop(done) = input {
                        return Err(End::Stopped(Some(done)));
                    }
                }
                Some(Ok((peer, answer))) = self.asking.join_next() => {
                    if let Some(manifest) = self.on_answer(peer, answer)? {
                        return Ok((manifest, self.candidates));
                    }
                }
                () = sleep_until(clock::timer_at(wake.unwrap_or_default())), if wake.is_some() => {}
            }
        }
    }

    fn ask_some(&mut self) {
        let now = clock::now();
        while let Some(peer) = self.candidates.dial(now, &mut self.rng, MANIFEST_ASKED_AT_ONCE, |_| false) {
            let (links, reading) = (self.parts.links.clone(), self.reading.clone());
            let ask = Ask { links, image: self.image, most_len: self.most_len, reading };
            let sync = self.parts.sync.clone();
            self.asking.spawn(async move { (peer, ask.run(peer, sync).await) });
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Candidates(source, peers) => {
                let now = clock::now();
                peers.into_iter().for_each(|peer| self.candidates.add(now, source, peer));
            }
            Event::Message { link, message } => {
                self.see(link.peer());
                if let SwarmMessage::Join { .. } = message {
                    // Nothing can be said about pieces yet. This host comes back as soon as it knows them.
                    let message = SwarmMessage::Leave { reason: LeaveReason::NotHere };
                    link.send(PeerMessage::Swarm { image: self.image, message });
                }
            }
            // It exchanges the image or wants to, and may find the manifest first. There is nobody to name yet.
            Event::AskedPeers(link) => self.see(link.peer()),
            Event::Asked(asked) => answer(asked.send, DataReply::NotHeld),
            // Whoever does not know yet what to lack takes part in no session.
            Event::Multicast { .. } | Event::Disconnected(_) => {}
        }
    }

    /// A peer showed that it is there.
    fn see(&mut self, peer: PeerId) {
        let now = clock::now();
        self.candidates.add(now, Source::DialledHere, peer);
        self.candidates.seen(now, peer);
    }

    fn on_answer(&mut self, peer: PeerId, answer: Answer) -> Result<Option<Manifest>, End> {
        let now = clock::now();
        match answer {
            Answer::Manifest(manifest) => return Ok(Some(*manifest)),
            Answer::Unusable(why) => return Err(End::Failed(why)),
            Answer::Later(after) => {
                self.candidates.reached(now, peer);
                self.candidates.postpone(now, peer, after);
            }
            Answer::Nothing => self.candidates.failed(now, peer),
            Answer::Lie(why) => {
                self.parts.links.ban(peer, why);
                self.candidates.remove(&peer);
            }
        }
        Ok(None)
    }
}

/// One question to one candidate.
struct Ask {
    links: Links,
    image: ImageId,
    most_len: u64,
    reading: Arc<Semaphore>,
}

impl Ask {
    async fn run(self, peer: PeerId, sync: crate::transfer::workers::Workers) -> Answer {
        let Some(link) = self.links.reach(peer).await else { return Answer::Nothing };
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
        let Ok(Some(mut stream)) = asked else { return Err(Answer::Nothing) };
        match timeout(PROGRESS_DEADLINE, read_frame::<DataReply>(&mut stream)).await {
            Ok(Ok(Some(DataReply::Accepted { len }))) if len <= self.most_len => {
                // As many others are handing it out.
                let _permit = self.reading.try_acquire().map_err(|_| Answer::Later(MANIFEST_ASK_AGAIN))?;
                let deadline = PROGRESS_DEADLINE + Duration::from_secs(len / RATE_LEAST);
                let bytes = timeout(deadline, read_all(&mut stream, len)).await.ok().flatten();
                bytes.ok_or(Answer::Nothing)
            }
            Ok(Ok(Some(DataReply::Accepted { len }))) => {
                Err(Answer::Lie(format!("it offered a manifest of {len} bytes, the most is {}", self.most_len)))
            }
            Ok(Ok(Some(DataReply::Busy { retry_after_ms, .. }))) => {
                let after = Duration::from_millis(u64::from(retry_after_ms)).min(BUSY_MOST);
                Err(Answer::Later(clock::jittered(after * 2)))
            }
            Ok(Ok(Some(DataReply::NotHeld))) => Err(Answer::Later(MANIFEST_ASK_AGAIN)),
            _ => Err(Answer::Nothing),
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
