//! What is remembered of one swarm: a record for each host, the pool that peers are picked from, and running sums, so
//! that progress is told without counting.

use std::collections::BTreeMap;

use crate::announce::Cohort;
use crate::id::PeerId;
use crate::time::Instant;

use super::selection::{Kind, Place, Pool};

/// What one host last said about one swarm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// Never more than `data_chunks`.
    pub(super) held_chunks: u32,
    /// 0 while the host does not know.
    pub(super) data_chunks: u32,
    /// When it is forgotten.
    pub(super) expires: Instant,
}

/// All that is remembered of one swarm.
#[derive(Debug, Default)]
pub(super) struct SwarmRecords {
    entries: BTreeMap<PeerId, Entry>,
    pool: Pool,
    seeders: u32,
    /// Sum of [`Record::permille`]. Shares are added, not chunks: a host that lies about the size of the image spoils
    /// no more than its own share.
    permille: u64,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    /// Where it lies in the pool; a host without an address is counted but can't be handed out.
    place: Option<Place>,
}

impl Record {
    pub(super) fn kind(&self) -> Kind {
        if self.data_chunks > 0 && self.held_chunks == self.data_chunks { Kind::Seeder } else { Kind::Leecher }
    }

    fn permille(&self) -> u64 {
        (u64::from(self.held_chunks) * 1000).checked_div(u64::from(self.data_chunks)).unwrap_or(0)
    }
}

impl SwarmRecords {
    /// Adds or replaces the record of `peer`.
    pub(super) fn put(&mut self, peer: PeerId, record: Record, reachable: bool, rack: Option<&str>) {
        let known = self.entries.get_mut(&peer);
        let (before, place) = known.map_or((None, None), |entry| (Some(entry.record), entry.place));
        if let Some(before) = before {
            self.seeders -= u32::from(before.kind() == Kind::Seeder);
            self.permille -= before.permille();
        }
        self.seeders += u32::from(record.kind() == Kind::Seeder);
        self.permille += record.permille();
        self.entries.insert(peer, Entry { record, place });
        if before.is_none_or(|before| before.kind() != record.kind()) {
            self.settle(peer, reachable, rack);
        }
    }

    /// Puts `peer` where it belongs in the pool, after something about it changed.
    pub(super) fn settle(&mut self, peer: PeerId, reachable: bool, rack: Option<&str>) {
        self.lift(peer);
        let entry = self.entries.get_mut(&peer).expect("who is settled has a record");
        entry.place = reachable.then(|| self.pool.insert(peer, rack, entry.record.kind()));
    }

    /// Removes the record of `peer`.
    pub(super) fn take(&mut self, peer: PeerId) -> Option<Record> {
        self.lift(peer);
        let record = self.entries.remove(&peer)?.record;
        self.seeders -= u32::from(record.kind() == Kind::Seeder);
        self.permille -= record.permille();
        Some(record)
    }

    /// Lets the record of `peer` live until `expires`.
    pub(super) fn renew(&mut self, peer: PeerId, expires: Instant) {
        self.entries.get_mut(&peer).expect("who is renewed has a record").record.expires = expires;
    }

    pub(super) fn record(&self, peer: PeerId) -> Option<Record> {
        self.entries.get(&peer).map(|entry| entry.record)
    }

    pub(super) fn place(&self, peer: PeerId) -> Option<Place> {
        self.entries.get(&peer)?.place
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, Record)> + '_ {
        self.entries.iter().map(|(&peer, entry)| (peer, entry.record))
    }

    pub(super) fn cohort(&self) -> Cohort {
        let hosts = self.entries.len() as u64;
        Cohort {
            seeders: self.seeders,
            leechers: hosts as u32 - self.seeders,
            held_permille: self.permille.checked_div(hosts).unwrap_or(0) as u16,
        }
    }

    /// Takes `peer` out of the pool, if it is in there.
    fn lift(&mut self, peer: PeerId) {
        let Some(place) = self.entries.get_mut(&peer).and_then(|entry| entry.place.take()) else { return };
        if let Some(moved) = self.pool.remove(place) {
            self.entries.get_mut(&moved).expect("who is in the pool has a record").place = Some(place);
        }
    }
}
