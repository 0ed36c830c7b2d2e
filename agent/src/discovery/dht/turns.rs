//! When releases are looked up in the table.
//!
//! While a tracker answers it tells of releases, and each is looked up once an hour, so that this host can put its item
//! anew if the table has lost it. While none answers, ever more rarely up to once a minute. What was given here is
//! put at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drover_protocol::hints::{FIND_LEAST, FIND_MOST, TRACKERS_FIRST};
use drover_protocol::release::Name;
use tokio::time::Instant;

use super::ANNOUNCE_RETRY;
use crate::clock;
use crate::discovery::items::Wanted;

/// How often while a tracker answers.
const WITH_TRACKERS: Duration = Duration::from_secs(3600);
/// Lookups of releases at a time: the rest is for hosts.
const AT_ONCE: usize = 2;

/// The turns of all that is wanted.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turns: BTreeMap<Wanted, Turn>,
    no_tracker_since: Option<Instant>,
    alone: bool,
}

#[derive(Debug)]
struct Turn {
    at: Instant,
    tries: u32,
    busy: bool,
    /// Whether it was given here while it was busy.
    renewed: bool,
}

impl Turns {
    /// What to look up now. `fresh` are names whose items were just given here, `trackers` those that answer.
    pub(super) fn due(
        &mut self,
        now: Instant,
        wanted: BTreeSet<Wanted>,
        fresh: &BTreeSet<Name>,
        trackers: u32,
    ) -> Vec<Wanted> {
        self.turns.retain(|which, turn| turn.busy || wanted.contains(which));
        self.note_trackers(now, trackers);
        for which in wanted {
            let first = if self.alone { now } else { now + clock::part_of(WITH_TRACKERS) };
            let is_fresh = fresh.contains(&which.name);
            let turn = self.turns.entry(which).or_insert(Turn { at: first, tries: 0, busy: false, renewed: false });
            if is_fresh {
                (turn.at, turn.tries, turn.renewed) = (now, 0, turn.busy);
            }
        }
        let busy = self.turns.values().filter(|turn| turn.busy).count();
        let mut due: Vec<(&Wanted, &mut Turn)> =
            self.turns.iter_mut().filter(|(_, turn)| !turn.busy && turn.at <= now).collect();
        due.sort_by_key(|(_, turn)| turn.at);
        let due = due.into_iter().take(AT_ONCE.saturating_sub(busy));
        due.map(|(which, turn)| {
            turn.busy = true;
            which.clone()
        })
        .collect()
    }

    /// It was looked up; `is_there` unless an item of this host's was put and nobody took it.
    pub(super) fn done(&mut self, now: Instant, which: &Wanted, is_there: bool) {
        let Some(turn) = self.turns.get_mut(which) else { return };
        turn.busy = false;
        if std::mem::take(&mut turn.renewed) {
            return;
        }
        let doubled = |least: Duration, tries: u32| (least * 2u32.pow(tries.min(10))).min(FIND_MOST);
        let wait = match (is_there, self.alone) {
            (false, _) => doubled(ANNOUNCE_RETRY, turn.tries),
            (true, true) => doubled(FIND_LEAST, turn.tries),
            (true, false) => WITH_TRACKERS,
        };
        turn.at = now + clock::jittered(wait);
        turn.tries = turn.tries.saturating_add(1);
    }

    /// When the last tracker is lost, everything is looked up soon.
    fn note_trackers(&mut self, now: Instant, trackers: u32) {
        let since = *self.no_tracker_since.get_or_insert(now);
        if trackers > 0 {
            self.no_tracker_since = None;
        }
        let alone = trackers == 0 && now - since >= TRACKERS_FIRST;
        if alone && !self.alone {
            for turn in self.turns.values_mut() {
                (turn.at, turn.tries) = (turn.at.min(now + clock::part_of(TRACKERS_FIRST)), 0);
            }
        }
        self.alone = alone;
    }
}

#[cfg(test)]
mod tests {
    use drover_protocol::id::PublisherKey;

    use super::*;

    fn wanted(text: &str) -> Wanted {
        Wanted { publisher: PublisherKey::from_bytes([1; 32]), name: text.parse().expect("a name") }
    }

    /// How often each is looked up within so many seconds, each lookup taking one second.
    fn lookups(turns: &mut Turns, names: &[&str], begin: Instant, seconds: u64, trackers: u32) -> usize {
        let all: BTreeSet<Wanted> = names.iter().map(|name| wanted(name)).collect();
        let mut count = 0;
        let mut under_way: Vec<Wanted> = Vec::new();
        for second in 0..seconds {
            let now = begin + Duration::from_secs(second);
            under_way.drain(..).for_each(|which| turns.done(now, &which, true));
            under_way = turns.due(now, all.clone(), &BTreeSet::new(), trackers);
            assert!(under_way.len() <= AT_ONCE);
            count += under_way.len();
        }
        let now = begin + Duration::from_secs(seconds);
        under_way.drain(..).for_each(|which| turns.done(now, &which, true));
        count
    }

    #[test]
    fn a_tracker_that_answers_makes_lookups_rare_and_its_loss_makes_them_soon() {
        let begin = Instant::now();
        let mut turns = Turns::default();
        let a_day = 24 * 3600;
        let with_tracker = lookups(&mut turns, &["a", "b"], begin, a_day, 1);
        assert!((2 * 24..=2 * 33).contains(&with_tracker), "{with_tracker} in a day");
        let lost = begin + Duration::from_secs(a_day);
        assert_eq!(lookups(&mut turns, &["a", "b"], lost, TRACKERS_FIRST.as_secs(), 0), 0, "it may come back");
        let alone = lost + TRACKERS_FIRST;
        let soon = lookups(&mut turns, &["a", "b"], alone, 60, 0);
        assert!((2 * 4..=2 * 7).contains(&soon), "{soon} in the first minute");
        let later = lookups(&mut turns, &["a", "b"], alone + Duration::from_secs(60), 3600, 0);
        assert!((2 * 58..=2 * 85).contains(&later), "{later} in an hour");
    }

    #[test]
    fn what_is_given_here_is_put_at_once_and_again_until_somebody_takes_it() {
        let now = Instant::now();
        let mut turns = Turns::default();
        let all = BTreeSet::from([wanted("a")]);
        let (fresh, none) = (BTreeSet::from([wanted("a").name]), BTreeSet::new());
        assert_eq!(turns.due(now, all.clone(), &fresh, 1), [wanted("a")]);
        // Given once more while the first is under way.
        assert_eq!(turns.due(now, all.clone(), &fresh, 1), []);
        turns.done(now, &wanted("a"), true);
        assert_eq!(turns.due(now, all.clone(), &none, 1), [wanted("a")]);
        turns.done(now, &wanted("a"), false);
        assert_eq!(turns.due(now + ANNOUNCE_RETRY, all.clone(), &none, 1), [wanted("a")]);
        turns.done(now, &wanted("a"), true);
        assert_eq!(turns.due(now + FIND_MOST, all, &none, 1), []);
    }

    #[test]
    fn every_name_gets_its_turn() {
        let names: Vec<String> = (0..200).map(|number| format!("n{number}")).collect();
        let all: BTreeSet<Wanted> = names.iter().map(|name| wanted(name)).collect();
        let (begin, mut turns, mut seen) = (Instant::now(), Turns::default(), BTreeSet::new());
        for second in 0..300 {
            let now = begin + Duration::from_secs(second);
            for which in turns.due(now, all.clone(), &BTreeSet::new(), 0) {
                turns.done(now, &which, true);
                seen.insert(which);
            }
        }
        assert_eq!(seen, all);
    }
}
