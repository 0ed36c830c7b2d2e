//! What is to happen: events by time, and at the same time in the order in which they were put in.
//!
//! Most events happen one latency after they are put in, so they are put in by their time, too: those stand in a row. The
//! others, timers above all, lie in a heap.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use drover_protocol::time::Instant;

/// Events that wait for their time.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    row: VecDeque<Entry<E>>,
    sequence: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    sequence: u64,
    event: E,
}

impl<E> Queue<E> {
    /// Puts in an event that happens at `at`.
    pub fn push(&mut self, at: Instant, event: E) {
        let entry = self.entry(at, event);
        self.heap.push(Reverse(entry));
    }

    /// Puts in an event that happens at `at`, which is rarely before that of the last event that was put in this way.
    pub fn push_in_order(&mut self, at: Instant, event: E) {
        let entry = self.entry(at, event);
        if self.row.back().is_none_or(|last| last.at <= at) {
            self.row.push_back(entry);
        } else {
            self.heap.push(Reverse(entry));
        }
    }

    /// The next event and its time.
    pub fn pop(&mut self) -> Option<(Instant, E)> {
        let next = match (self.row.front(), self.heap.peek()) {
            (Some(first), Some(Reverse(least))) if least < first => self.heap.pop().map(|Reverse(entry)| entry),
            (None, _) => self.heap.pop().map(|Reverse(entry)| entry),
            _ => self.row.pop_front(),
        };
        next.map(|entry| (entry.at, entry.event))
    }

    /// When the next event happens.
    pub fn next_at(&self) -> Option<Instant> {
        let least = self.heap.peek().map(|Reverse(entry)| entry.at);
        least.into_iter().chain(self.row.front().map(|entry| entry.at)).min()
    }

    fn entry(&mut self, at: Instant, event: E) -> Entry<E> {
        self.sequence += 1;
        Entry { at, sequence: self.sequence, event }
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Queue { heap: BinaryHeap::new(), row: VecDeque::new(), sequence: 0 }
    }
}

impl<E> Entry<E> {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.sequence)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_order() {
        let mut queue = Queue::default();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            queue.push(Instant::from_millis(at), event);
        }
        assert_eq!(queue.next_at(), Some(Instant::from_millis(1)));
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, "abcd");
    }

    #[test]
    fn those_in_order_stand_among_the_others() {
        let mut queue = Queue::default();
        for (at, event) in [(3, 'b'), (5, 'd'), (4, 'c')] {
            queue.push_in_order(Instant::from_millis(at), event);
        }
        for (at, event) in [(5, 'e'), (1, 'a'), (6, 'f')] {
            queue.push(Instant::from_millis(at), event);
        }
        assert_eq!(queue.next_at(), Some(Instant::from_millis(1)));
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, "abcdef");
    }
}
