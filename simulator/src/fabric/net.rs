//! Links and the flows over them, in rows: a flow or a link is a number, and nothing is allocated once the rows are long
//! enough.
//!
//! What always holds: a link's load is the sum of its flows' rates, and never above its capacity.

use core::time::Duration;

use drover_protocol::time::Instant;

/// A link, by its number.
pub(crate) type LinkId = u32;
/// A flow, by its place in the row; it is used again when the flow has ended.
pub(super) type Slot = u32;

/// Nanoseconds in a second: bytes are counted in billionths, so that no rounding gathers.
const NANOS: u128 = 1_000_000_000;
/// Most links that a flow runs over: up, out of the rack, into a rack, down.
const HOPS_MOST: usize = 4;

/// All links and flows.
#[derive(Debug, Default)]
pub(super) struct Net {
    pub(super) links: Vec<Link>,
    pub(super) flows: Vec<Flow>,
    free: Vec<Slot>,
    open: usize,
    /// What links carry is counted from here on.
    window: Window,
}

/// The time since the first change that rates do not follow yet.
#[derive(Debug, Default, Clone, Copy)]
struct Window {
    number: u64,
    begun_at: Instant,
}

/// A link.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Bytes per second that flows may have: what the link carries without what is taken of it.
    pub(super) capacity: u64,
    carries: u64,
    /// Sum of the rates of its flows.
    pub(super) load: u64,
    /// Billionths of bytes that it has carried in the window of this number, up to a time.
    carried: u128,
    carried_until: Instant,
    window: u64,
    /// Who runs over it, in no order.
    pub(super) flows: Vec<Slot>,
}

/// A flow, or a place for one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    path: [LinkId; HOPS_MOST],
    /// Where it stands in the row of each of these links.
    places: [u32; HOPS_MOST],
    hops: u8,
    pub(super) is_open: bool,
    /// How often the place was used before.
    pub(super) generation: u32,
    /// Which of its predictions is the last.
    pub(super) prediction: u32,
    /// Its share of a full link beside others'.
    pub(super) weight: u32,
    /// Bytes per second.
    pub(super) rate: u64,
    /// When it began.
    pub(super) opened_at: Instant,
    /// Until when `left` is counted.
    counted_at: Instant,
    /// When it is to report, unless it ends before.
    pub(super) report_at: Instant,
    /// Billionths of bytes that are left, and how many were at most when it was told last.
    left: u128,
    told_left: u128,
    /// Bytes in all.
    len: u64,
}

impl Net {
    /// Links of these capacities, and no flow.
    pub(super) fn new(capacities: Vec<u64>) -> Self {
        let link = |capacity| Link { capacity, carries: capacity, ..Link::default() };
        Net { links: capacities.into_iter().map(link).collect(), ..Net::default() }
    }

    /// Adds a flow of `len` bytes that does not move yet.
    pub(super) fn open(&mut self, now: Instant, path: &[LinkId], weight: u32, len: u64) -> Slot {
        let slot = self.free.pop().unwrap_or(self.flows.len() as Slot);
        let generation = self.flows.get(slot as usize).map_or(0, |old| old.generation + 1);
        let mut flow = Flow {
            path: [0; HOPS_MOST],
            places: [0; HOPS_MOST],
            hops: path.len() as u8,
            is_open: true,
            generation,
            prediction: 0,
            weight,
            rate: 0,
            opened_at: now,
            counted_at: now,
            report_at: now,
            left: u128::from(len) * NANOS,
            told_left: u128::from(len) * NANOS,
            len,
        };
        for (hop, &link) in path.iter().enumerate() {
            let flows = &mut self.links[link as usize].flows;
            (flow.path[hop], flow.places[hop]) = (link, flows.len() as u32);
            flows.push(slot);
        }
        if slot as usize == self.flows.len() {
            self.flows.push(flow);
        } else {
            self.flows[slot as usize] = flow;
        }
        self.open += 1;
        slot
    }

    /// Takes a flow off its links. It can still be asked how far it came, until its place is released.
    pub(super) fn close(&mut self, now: Instant, slot: Slot) {
        self.set_rate(now, slot, 0);
        let closed = self.flows[slot as usize];
        for (&link, &place) in closed.path().iter().zip(&closed.places) {
            let flows = &mut self.links[link as usize].flows;
            flows.swap_remove(place as usize);
            let Some(&moved) = flows.get(place as usize) else { continue };
            let moved = &mut self.flows[moved as usize];
            let hop = moved.path().iter().position(|&other| other == link).expect("it runs over this link");
            moved.places[hop] = place;
        }
        self.flows[slot as usize].is_open = false;
        self.open -= 1;
    }

    /// Lets the place of a closed flow be used again.
    pub(super) fn release(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// Changes the rate of a flow from now on.
    pub(super) fn set_rate(&mut self, now: Instant, slot: Slot, rate: u64) {
        let flow = &mut self.flows[slot as usize];
        flow.count(now);
        let old = core::mem::replace(&mut flow.rate, rate);
        for &link in &flow.path[..usize::from(flow.hops)] {
            let link = &mut self.links[link as usize];
            link.count(now, self.window);
            link.load = link.load - old + rate;
        }
    }

    /// From now on it is counted anew what links carry.
    pub(super) fn begin_window(&mut self, now: Instant) {
        self.window = Window { number: self.window.number + 1, begun_at: now };
    }

    /// Takes back what a flow has sent since `since` above a rate, as far as that was not told.
    pub(super) fn take_back(&mut self, now: Instant, slot: Slot, rate: u64, since: Instant) {
        let flow = &mut self.flows[slot as usize];
        flow.count(now);
        let too_much = u128::from(flow.rate - rate) * now.since(since).as_nanos();
        let taken = too_much.min(flow.told_left - flow.left);
        flow.left += taken;
        for &link in &flow.path[..usize::from(flow.hops)] {
            let link = &mut self.links[link as usize];
            link.count(now, self.window);
            link.carried = link.carried.saturating_sub(taken);
        }
    }

    /// Gives a flow what it would have sent more since `since` at a rate, as far as its links had not carried all that they can.
    pub(super) fn make_good(&mut self, now: Instant, slot: Slot, rate: u64, since: Instant) {
        let flow = &mut self.flows[slot as usize];
        flow.count(now);
        let mut given = (u128::from(rate - flow.rate) * now.since(since).as_nanos()).min(flow.left);
        let window_len = now.since(self.window.begun_at).as_nanos();
        for &link in &flow.path[..usize::from(flow.hops)] {
            let link = &mut self.links[link as usize];
            link.count(now, self.window);
            given = given.min((u128::from(link.capacity) * window_len).saturating_sub(link.carried));
        }
        flow.left -= given;
        flow.path[..usize::from(flow.hops)].iter().for_each(|&link| self.links[link as usize].carried += given);
    }

    /// Takes so much of a link, in bytes per second, for what is no flow. The rates of its flows must be found anew before
    /// anything else happens.
    pub(super) fn take(&mut self, link: LinkId, bytes_per_s: u64) {
        let link = &mut self.links[link as usize];
        link.capacity = link.carries.saturating_sub(bytes_per_s);
    }

    /// What a flow could have more without anybody having less.
    pub(super) fn slack(&self, slot: Slot) -> u64 {
        let links = self.flows[slot as usize].path().iter().map(|&link| &self.links[link as usize]);
        links.map(|link| link.capacity - link.load).min().unwrap_or(0)
    }

    /// The flows that are open.
    pub(super) fn open_flows(&self) -> impl Iterator<Item = (Slot, &Flow)> {
        (0..).zip(&self.flows).filter(|(_, flow)| flow.is_open)
    }

    /// Whether no flow is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }
}

impl Link {
    /// Counts what was carried in this window until `now`.
    fn count(&mut self, now: Instant, window: Window) {
        if core::mem::replace(&mut self.window, window.number) != window.number {
            (self.carried, self.carried_until) = (0, window.begun_at);
        }
        self.carried += u128::from(self.load) * now.since(self.carried_until).as_nanos();
        self.carried_until = now;
    }
}

impl Flow {
    /// The links that it runs over.
    pub(super) fn path(&self) -> &[LinkId] {
        &self.path[..usize::from(self.hops)]
    }

    /// Counts what was sent until `now`.
    pub(super) fn count(&mut self, now: Instant) {
        let moved = u128::from(self.rate) * u128::from(now.as_nanos() - self.counted_at.as_nanos());
        self.left = self.left.saturating_sub(moved);
        self.counted_at = now;
    }

    /// Bytes sent, as of the last count.
    pub(super) fn sent(&self) -> u64 {
        self.len - self.left.div_ceil(NANOS) as u64
    }

    /// What was sent as of the last count is told, and not taken back any more.
    pub(super) fn tell(&mut self) {
        self.told_left = self.left;
    }

    /// Whether all was sent, as of the last count.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Whether it ends or reports until `by`, if its rate stays.
    pub(super) fn is_due(&self, by: Instant) -> bool {
        let time = by.as_nanos().saturating_sub(self.counted_at.as_nanos());
        self.report_at <= by || self.left <= u128::from(self.rate) * u128::from(time)
    }

    /// When it ends or reports, if its rate stays.
    pub(super) fn due_at(&self) -> Instant {
        if self.rate == 0 && self.left > 0 {
            return self.report_at;
        }
        let nanos = self.left.div_ceil(u128::from(self.rate.max(1)));
        let end = self.counted_at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        end.min(self.report_at)
    }
}
