//! A request at the host that serves it: asked, granted or refused, its bytes on their way, arrived or cancelled.

use core::ops::Range;

use drover_protocol::geometry::{CHUNK_LEN, Geometry};
use drover_protocol::swarm::{Refusal, RequestEnd, RequestId, ServeId, Swarm};

use super::{World, flow_of};
use crate::event::Event;
use crate::fabric::{FlowId, Progress};
use crate::host::{Serve, peer_id};

impl World<'_> {
    pub(super) fn asked(
        &mut self,
        (from, from_life): (usize, u32),
        to: usize,
        request: RequestId,
        piece: u32,
        chunks: Vec<Range<u32>>,
    ) {
        if !self.hosts[to].is_connected(from) || !self.lives(from, from_life) {
            return;
        }
        self.serve_count += 1;
        let id = ServeId(self.serve_count);
        let asked = chunks.clone();
        let (to_life, left_bytes, control) = (from_life, 0, 0);
        let serve = Serve { id, to: from, to_life, request, chunks: asked, left_bytes, control, flow: None };
        self.hosts[to].serves.push(serve);
        self.tell(to, |swarm, now| swarm.handle_request(now, peer_id(from), id, piece, chunks));
    }

    pub(super) fn cancelled(&mut self, (from, from_life): (usize, u32), to: usize, request: RequestId) {
        let mut serves = self.hosts[to].serves.iter();
        let is_it = |serve: &&Serve| (serve.to, serve.to_life, serve.request) == (from, from_life, request);
        let Some(serve) = serves.find(is_it).map(|serve| serve.id) else { return };
        let sent = self.stop_serving(to, serve);
        self.tell(to, |swarm, now| swarm.handle_serve_cancelled(now, serve, sent));
    }

    /// Ends a serve before its end; says how many bytes of it have left.
    pub(super) fn stop_serving(&mut self, host: usize, serve: ServeId) -> u64 {
        let Some(ended) = self.hosts[host].end_serve(serve) else { return 0 };
        let Some(flow) = ended.flow else { return 0 };
        let sent = self.close(flow).saturating_sub(ended.control);
        // What left as a part of a chunk, or after the last report, arrives in vain.
        self.hosts[host].counts.sent += sent - ended.left_bytes;
        self.hosts[ended.to].counts.wasted += sent - ended.left_bytes;
        sent
    }

    /// Closes a flow; says how many bytes of it have left.
    pub(super) fn close(&mut self, flow: FlowId) -> u64 {
        self.flows[flow.place()] = None;
        self.fabric.close(self.now, flow).unwrap_or(0)
    }

    /// Bytes have left a host.
    pub(super) fn progressed(&mut self, progress: Progress) {
        let Progress { flow, sent, is_done } = progress;
        let Some((_, from, serve)) = self.flows[flow.place()].filter(|(id, ..)| *id == flow) else { return };
        let host = &mut self.hosts[from];
        let serving = host.serve(serve).expect("a flow belongs to a serve");
        let sent = sent.saturating_sub(serving.control);
        let chunks = match is_done {
            true => core::mem::take(&mut serving.chunks),
            false => take_front(&mut serving.chunks, ((sent - serving.left_bytes) / u64::from(CHUNK_LEN)) as u32),
        };
        let len = bytes_of(&self.geometry, &chunks);
        serving.left_bytes += len;
        let (to, life, request) = (serving.to, serving.to_life, serving.request);
        host.counts.sent += len;
        let held = host.swarm.as_ref().expect("who sends runs").held();
        let is_held = |number| self.geometry.chunk(number).is_some_and(|chunk| held.contains(chunk));
        assert!(
            chunks.iter().all(|run| is_held(run.start) && is_held(run.end - 1)),
            "nothing is sent that is not held"
        );
        self.trace.note(self.now, "sent", [flow_of(from, to), len]);
        if is_done {
            self.flows[flow.place()] = None;
            self.hosts[from].end_serve(serve);
            self.call(from, |swarm, now| swarm.handle_served(now, serve, sent));
        }
        if !chunks.is_empty() || is_done {
            let latency = self.scenario.latency_between(from, to);
            self.after(latency, Event::Arrived { from, to, life, request, chunks, is_done });
        }
    }

    /// Chunks have come to a host; their bytes are right, so they are stored.
    pub(super) fn arrived(&mut self, from: usize, to: usize, request: RequestId, chunks: &[Range<u32>], is_done: bool) {
        let len = bytes_of(&self.geometry, chunks);
        if self.scenario.hosts[from].rack != self.scenario.hosts[to].rack {
            self.hosts[to].counts.from_other_racks += len;
        }
        if !self.hosts[to].requests.contains(&request) {
            self.hosts[to].counts.wasted += len;
            return;
        }
        let held_bytes = |world: &Self| world.hosts[to].swarm.as_ref().map_or(0, Swarm::held_bytes);
        let before = held_bytes(self);
        self.tell(to, |swarm, now| swarm.handle_chunks_stored(now, chunks, Some(request)));
        let held = held_bytes(self);
        self.tell_air(|air, now| {
            air.handle_held(to, held);
            air.handle_stored(now, to, chunks);
        });
        let new = held - before;
        let counts = &mut self.hosts[to].counts;
        *(if from == 0 { &mut counts.from_publisher } else { &mut counts.from_peers }) += new;
        counts.wasted += len - new;
        // That it has ended is no news to a swarm that has all of it.
        if is_done {
            self.hosts[to].end_request(request);
        }
    }

    pub(super) fn serve(&mut self, host: usize, serve: ServeId) {
        let Some((to, life)) = self.hosts[host].serve(serve).map(|serving| (serving.to, serving.to_life)) else {
            return;
        };
        // To a host that is dead, which is not known here yet, nothing gets through.
        if !self.lives(to, life) {
            return;
        }
        let control = core::mem::take(&mut self.hosts[host].unsent_control);
        let Some(serving) = self.hosts[host].serve(serve) else { return };
        let len = bytes_of(&self.geometry, &serving.chunks);
        let flow = self.fabric.open(self.now, host, to, len + control);
        (serving.flow, serving.control) = (Some(flow), control);
        if self.flows.len() <= flow.place() {
            self.flows.resize(flow.place() + 1, None);
        }
        self.flows[flow.place()] = Some((flow, host, serve));
    }

    pub(super) fn refuse(&mut self, host: usize, serve: ServeId, refusal: Refusal) {
        let Some((to, life, request)) =
            self.hosts[host].serve(serve).map(|serving| (serving.to, serving.to_life, serving.request))
        else {
            return;
        };
        self.stop_serving(host, serve);
        let end = match refusal {
            Refusal::Busy { retry_after, instead } => {
                RequestEnd::Busy { retry_after, instead: instead.map(|piece| piece.number()) }
            }
            Refusal::NotHeld => RequestEnd::NotHeld,
        };
        self.after(self.scenario.latency_between(host, to), Event::Refused { to, life, request, end });
    }
}

/// Bytes of these chunks.
fn bytes_of(geometry: &Geometry, chunks: &[Range<u32>]) -> u64 {
    let end = |number: u32| (u64::from(number) * u64::from(CHUNK_LEN)).min(geometry.len());
    chunks.iter().map(|run| end(run.end) - end(run.start)).sum()
}

/// Takes the first `count` numbers out of rising runs.
fn take_front(runs: &mut Vec<Range<u32>>, mut count: u32) -> Vec<Range<u32>> {
    let mut taken = Vec::new();
    while let Some(run) = runs.first_mut().filter(|_| count > 0) {
        let len = (run.end - run.start).min(count);
        taken.push(run.start..run.start + len);
        run.start += len;
        count -= len;
        if run.start == run.end {
            runs.remove(0);
        }
    }
    taken
}
