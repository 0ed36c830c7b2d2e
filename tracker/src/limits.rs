//! How much of the tracker one host may use.

use std::time::Duration;

use tokio::time::Instant;

/// How long a question may take to come in, once its stream is open.
pub(crate) const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take to go out. Who reads more slowly asks again.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a host that joins may take for all of it.
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one member. It needs one; a second exists while the first, of a process that was killed, is not yet
/// known to be dead. The oldest gives way.
pub(crate) const CONNECTIONS_PER_MEMBER: usize = 3;
/// Releases that a watcher may be behind before it is cut off and has to watch anew.
pub(crate) const WATCH_BACKLOG: usize = 64;
/// How often it is looked whether somebody was revoked, or a publisher added or removed: with this and a push, hosts follow
/// within two seconds.
pub(crate) const LISTS_CHECK: Duration = Duration::from_secs(1);
/// Times at which keys came to be revoked that a watcher may be behind before it has to watch anew.
pub(crate) const REVOCATION_BACKLOG: usize = 64;
/// Questions of one connection that are worked on at a time.
pub(crate) const QUESTIONS_AT_A_TIME: usize = 16;
/// Questions per second that one member may ask in the long run: an announce for 64 swarms every 3 s needs one.
const QUESTIONS_PER_S: u32 = 20;
/// Questions that one member may ask at once: a host with thousands of images has just started.
const QUESTIONS_AT_ONCE: u32 = 60;

/// A member's allowance of questions.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// When it would be full again; at most `QUESTIONS_AT_ONCE` questions in the future.
    full_at: Instant,
}

impl Allowance {
    pub(crate) fn full(now: Instant) -> Self {
        Allowance { full_at: now }
    }

    /// Counts a question, and gives the time from which on it may be worked on.
    pub(crate) fn take(&mut self, now: Instant) -> Instant {
        let one = Duration::from_secs(1) / QUESTIONS_PER_S;
        self.full_at = self.full_at.max(now) + one;
        let in_advance = one * QUESTIONS_AT_ONCE;
        if self.full_at > now + in_advance { self.full_at - in_advance } else { now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_rest_waits_its_turn() {
        let start = Instant::now();
        let mut allowance = Allowance::full(start);
        for _ in 0..QUESTIONS_AT_ONCE {
            assert_eq!(allowance.take(start), start);
        }
        let wait = |allowance: &mut Allowance, now| allowance.take(now) - now;
        assert_eq!(wait(&mut allowance, start), Duration::from_millis(50));
        assert_eq!(wait(&mut allowance, start), Duration::from_millis(100));
        let later = start + Duration::from_secs(60);
        assert_eq!(allowance.take(later), later, "it fills up again");
    }
}
