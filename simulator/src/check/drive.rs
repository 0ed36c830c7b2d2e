//! What a swarm says is done here: dials, messages, requests and serves, as streams of the made-up network.

use core::ops::Range;
use core::time::Duration;

use drover_protocol::geometry::CHUNK_LEN;
use drover_protocol::message::{LeaveReason, PeerMessage, SwarmMessage};
use drover_protocol::planted::{Bug, is_planted};
use drover_protocol::swarm::{Output, Refusal, RequestEnd, RequestId, ServeId};

use super::fault::Fault;
use super::host::{Asked, Serve, host_of};
use super::plan::Lie;
use super::token::{self, TOKEN_LEN, Token};
use super::world::{Event, World};

impl World {
    pub(super) fn obey(&mut self, host: usize, output: Output) {
        let image = self.plan.manifest.image_id();
        match output {
            Output::Connect { peer } => self.dial(host, host_of(peer)),
            Output::Send { peer, message } => {
                if let Some(link) = self.link_to(host, host_of(peer)) {
                    let message = self.twisted(host, message);
                    self.say(host, link, &PeerMessage::Swarm { image, message });
                }
            }
            Output::SendPeers { peer, about } => {
                if let Some(link) = self.link_to(host, host_of(peer)) {
                    let Some(run) = &self.hosts[host].run else { return };
                    let peers: Vec<_> = about.into_iter().filter_map(|peer| run.book.tell(peer)).collect();
                    if !peers.is_empty() {
                        self.say(host, link, &PeerMessage::Peers { image, peers });
                    }
                }
            }
            Output::Request { peer, request, piece, chunks } => {
                self.ask(host, host_of(peer), request, piece.number(), chunks);
            }
            Output::Cancel { peer, request } => self.cancel(host, host_of(peer), request),
            Output::Serve { serve, .. } => self.grant(host, serve),
            Output::Refuse { serve, refusal, .. } => self.refuse(host, serve, refusal),
            Output::Ban { peer, misdeed } => {
                let peer = host_of(peer);
                self.note(|| format!("host {host} bans {peer}: {misdeed}"));
                self.check_ban(host, peer, misdeed);
                self.shut_out(host, peer);
            }
            Output::Dropped { .. } => {}
            Output::Complete => {
                self.trace.note(self.now, "complete", [host as u64, 0]);
                self.note(|| format!("host {host} is complete"));
                self.completed_at = self.now;
                self.seal_if_complete(host);
            }
        }
    }

    fn link_to(&self, host: usize, peer: usize) -> Option<usize> {
        self.hosts[host].run.as_ref()?.peers.get(&peer).copied()
    }

    /// Never lets a peer in again.
    pub(super) fn shut_out(&mut self, host: usize, peer: usize) {
        let link = self.link_to(host, peer);
        self.forget(host, peer);
        if let Some(run) = &mut self.hosts[host].run {
            run.banned.insert(peer);
        }
        if let Some(link) = link {
            let end = self.links[link].end_of(host);
            self.links[link].is_open[end] = false;
            self.break_link(link);
        }
    }

    /// Who does not know the manifest yet is no neighbour.
    pub(super) fn turn_away(&mut self, host: usize, link: usize, message: &SwarmMessage) {
        if let SwarmMessage::Join { .. } = message {
            let (image, message) =
                (self.plan.manifest.image_id(), SwarmMessage::Leave { reason: LeaveReason::NotHere });
            self.say(host, link, &PeerMessage::Swarm { image, message });
        }
    }

    fn ask(&mut self, host: usize, peer: usize, request: RequestId, piece: u32, chunks: Vec<Range<u32>>) {
        self.trace.note(self.now, "ask", [host as u64, u64::from(piece)]);
        self.note(|| format!("{host} asks {peer}: {request:?} piece {piece} chunks {chunks:?}"));
        let numbers = chunks.iter().cloned().flatten().collect();
        if let Some(run) = &mut self.hosts[host].run {
            run.requests.insert(request, Asked { peer, chunks: numbers });
        }
        self.check_request(host, peer, piece, &chunks);
        let Some(link) = self.link_to(host, peer) else {
            return self.unasked(host, request);
        };
        if let Some(arrives) = self.transit(link, host, false) {
            self.queue.push(arrives, Event::Asked { link, at: peer, request, piece, chunks });
        }
    }

    /// There is no connection any more by which it could be asked. What the swarm has to say to that is said next.
    fn unasked(&mut self, host: usize, request: RequestId) {
        let now = self.now;
        let Some(run) = &mut self.hosts[host].run else { return };
        run.requests.remove(&request);
        if let Some(swarm) = &mut run.swarm {
            swarm.handle_request_ended(now, request, RequestEnd::Failed);
        }
    }

    fn cancel(&mut self, host: usize, peer: usize, request: RequestId) {
        if let Some(run) = &mut self.hosts[host].run {
            run.requests.remove(&request);
        }
        if let Some(link) = self.link_to(host, peer)
            && let Some(arrives) = self.transit(link, host, false)
        {
            self.queue.push(arrives, Event::Cancelled { link, at: peer, request });
        }
    }

    /// A peer asks for chunks.
    pub(super) fn asked(&mut self, link: usize, at: usize, request: RequestId, piece: u32, chunks: Vec<Range<u32>>) {
        let from = self.links[link].other(at);
        if self.links[link].is_cut || !self.admit(at, link) {
            return;
        }
        let now = self.now;
        let Some(run) = &mut self.hosts[at].run else { return };
        if run.swarm.is_none() {
            return self.answer(at, link, request, RequestEnd::NotHeld);
        }
        run.last_serve += 1;
        let serve = ServeId(run.last_serve);
        let numbers = chunks.iter().take(300).cloned().flat_map(|run| run.take(300)).collect();
        let what = Serve { peer: from, link, request, chunks: numbers, sent_bytes: 0, is_granted: false, arrives: now };
        run.serves.insert(serve, what);
        let peer = super::host::peer_id(from);
        self.tell(at, |swarm, now| swarm.handle_request(now, peer, serve, piece, chunks));
    }

    pub(super) fn cancelled(&mut self, link: usize, at: usize, request: RequestId) {
        if self.links[link].is_cut || !self.admit(at, link) {
            return;
        }
        let Some(run) = &mut self.hosts[at].run else { return };
        let is_it = |serve: &Serve| serve.link == link && serve.request == request;
        let Some(serve) = run.serves.iter().find(|(_, serve)| is_it(serve)).map(|(serve, _)| *serve) else { return };
        let sent = run.serves.remove(&serve).map_or(0, |serve| serve.sent_bytes);
        if !is_planted(Bug::IgnoreCancel) {
            self.tell(at, |swarm, now| swarm.handle_serve_cancelled(now, serve, sent));
        }
    }

    /// What became of a request, in short.
    pub(super) fn answered(&mut self, link: usize, at: usize, request: RequestId, end: RequestEnd) {
        if self.links[link].is_cut || !self.is_standing(at, link) {
            return;
        }
        let Some(run) = &mut self.hosts[at].run else { return };
        if run.requests.remove(&request).is_some() {
            self.tell(at, |swarm, now| swarm.handle_request_ended(now, request, end));
        }
    }

    fn is_standing(&self, host: usize, link: usize) -> bool {
        self.link_to(host, self.links[link].other(host)) == Some(link)
    }

    fn answer(&mut self, from: usize, link: usize, request: RequestId, end: RequestEnd) {
        let at = self.links[link].other(from);
        if let Some(arrives) = self.transit(link, from, false) {
            self.queue.push(arrives, Event::Answered { link, at, request, end });
        }
    }

    fn refuse(&mut self, host: usize, serve: ServeId, refusal: Refusal) {
        let Some(serve) = self.hosts[host].run.as_mut().and_then(|run| run.serves.remove(&serve)) else { return };
        let end = match refusal {
            Refusal::Busy { retry_after, instead } => {
                RequestEnd::Busy { retry_after, instead: instead.map(|piece| piece.number()) }
            }
            Refusal::NotHeld => RequestEnd::NotHeld,
        };
        self.answer(host, serve.link, serve.request, end);
    }

    fn grant(&mut self, host: usize, serve: ServeId) {
        let life = self.hosts[host].life;
        let Some(granted) = self.hosts[host].run.as_mut().and_then(|run| run.serves.get_mut(&serve)) else {
            return self.fail(format!("host {host} serves a request that was cancelled, or of a peer that has gone"));
        };
        granted.is_granted = true;
        self.check_serves(host);
        if let Some(Lie::Stalls(share)) = self.plan.hosts[host].lie
            && !self.rng.chance(share)
        {
            return self.counts.add(Fault::StallingPeer);
        }
        self.plan_send(host, life, serve);
    }

    fn plan_send(&mut self, host: usize, life: u32, serve: ServeId) {
        let time = Duration::from_nanos(u64::from(CHUNK_LEN) * 1_000_000_000 / self.plan.hosts[host].rate.max(1));
        let at = &mut self.hosts[host];
        at.uplink_free_at = at.uplink_free_at.max(self.now).max(at.stalled_until) + time;
        self.queue.push(at.uplink_free_at, Event::Send { host, life, serve });
    }

    /// Sends the next chunk of a request that is served.
    pub(super) fn send_next(&mut self, host: usize, life: u32, serve: ServeId) {
        let Some(run) = self.running(host, life) else { return };
        let Some(serving) = run.serves.get_mut(&serve) else { return };
        let Some(chunk) = serving.chunks.pop_front() else { return };
        let (link, request, is_last) = (serving.link, serving.request, serving.chunks.is_empty());
        let Some(token) = self.read_chunk(host, serve, chunk) else { return };
        let Some(serving) = self.hosts[host].run.as_mut().and_then(|run| run.serves.get_mut(&serve)) else { return };
        serving.sent_bytes += u64::from(CHUNK_LEN);
        let (sent, before) = (serving.sent_bytes, serving.arrives);
        self.trace.note(self.now, "send", [host as u64, u64::from(chunk)]);
        let at = self.links[link].other(host);
        if let Some(arrives) = self.transit(link, host, false) {
            let arrives = arrives.max(before);
            if let Some(serving) = self.hosts[host].run.as_mut().and_then(|run| run.serves.get_mut(&serve)) {
                serving.arrives = arrives;
            }
            self.queue.push(arrives, Event::Came { link, at, request, chunk, token, is_last });
        }
        if !is_last {
            return self.plan_send(host, life, serve);
        }
        if let Some(run) = self.running(host, life) {
            run.serves.remove(&serve);
        }
        if !is_planted(Bug::NeverReleaseSlot) {
            self.tell(host, |swarm, now| swarm.handle_served(now, serve, sent));
        }
    }

    /// What a host sends for a chunk; `None` if its disk does not give it, which ends the request.
    fn read_chunk(&mut self, host: usize, serve: ServeId, number: u32) -> Option<Token> {
        let chunk = self.plan.manifest.geometry().chunk(number)?;
        let mut token: Token = Box::new([0; TOKEN_LEN]);
        let image = self.hosts[host].run.as_ref()?.image.as_ref()?;
        let read = match is_planted(Bug::ServeUnheld) {
            false => image.read(chunk, &mut token[..]),
            true => {
                let offset = image.manifest().geometry().chunk_offset(chunk);
                let _ =
                    image.with_file(|file| drover_durability::DiskFile::read_exact_at(file, &mut token[..], offset));
                Ok(())
            }
        };
        match read {
            Ok(()) => {
                self.check_sent(host, number, &token[..]);
                self.lie_about(host, number, &mut token);
                Some(token)
            }
            Err(error) => {
                self.note(|| format!("host {host} lost chunk {number}: {error}"));
                self.lose_promise(host, number);
                self.set_untold(host, true);
                let ended = self.hosts[host].run.as_mut()?.serves.remove(&serve)?;
                self.answer(host, ended.link, ended.request, RequestEnd::Failed);
                self.tell(host, |swarm, now| swarm.handle_serve_cancelled(now, serve, ended.sent_bytes));
                self.set_untold(host, false);
                self.withdraw_or_lose(host, chunk);
                None
            }
        }
    }

    /// A chunk has come: it is verified and written as soon as the disk has time.
    pub(super) fn came(&mut self, link: usize, at: usize, request: RequestId, chunk: u32, token: Token, is_last: bool) {
        if self.links[link].is_cut || !self.is_standing(at, link) {
            return;
        }
        let life = self.hosts[at].life;
        let is_wanted = self.hosts[at].run.as_ref().is_some_and(|run| run.requests.contains_key(&request));
        if !is_wanted {
            // A chunk that was taken off the stream before the request was cancelled goes its way.
            let late = self.net.late();
            if !self.rng.chance(late) {
                return;
            }
            self.counts.add(Fault::Duplicate);
        }
        if is_planted(Bug::AnnounceBeforeWrite)
            && let Some(chunk) = self.plan.manifest.geometry().chunk(chunk)
        {
            self.tell(at, |swarm, now| swarm.handle_chunk_stored(now, chunk, Some(request)));
        }
        let peer = self.links[link].other(at);
        let disk_time = self.plan.hosts[at].disk_time * (1 + self.rng.below(100)) / 100;
        let ready = self.hosts[at].stalled_until.max(self.now) + disk_time;
        self.queue.push(ready, Event::Store { host: at, life, peer, request, chunk, token, is_last });
    }
}

impl World {
    /// Whether a token is the right one.
    pub(super) fn is_right(&self, chunk: u32, token: &[u8]) -> bool {
        token == &token::right(self.plan.tag, chunk)[..]
    }
}
