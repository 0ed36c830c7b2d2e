//! What went wrong, as it is told over the control socket and to people: what failed, why, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An operation that was not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Which kind of failure.
    pub code: Code,
    /// What was being done, to what.
    pub what: String,
    /// Why it failed.
    pub why: String,
    /// What the reader can do about it; empty if nothing is known.
    #[serde(default)]
    pub todo: String,
}

/// The kinds of failure that a script can tell apart. Each has an exit code of `drover` and an HTTP status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// It was tried and failed.
    Failed,
    /// What was asked for makes no sense.
    Usage,
    /// There is no such master, release, clone or file.
    NotFound,
    /// A rule forbids it: an untrusted publisher, a lower version, clones that need the master, a token already used.
    Refused,
    /// The daemon does not answer.
    DaemonUnreachable,
    /// No tracker answers.
    TrackerUnreachable,
}

impl Problem {
    /// A problem with nothing to do about it yet; add that with [`Problem::todo`].
    pub fn new(code: Code, what: impl Into<String>, why: impl fmt::Display) -> Self {
        Problem { code, what: what.into(), why: why.to_string(), todo: String::new() }
    }

    /// Tried and failed.
    pub fn failed(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::new(Code::Failed, what, why)
    }

    /// From an error whose text says why and, after its first semicolon, what to do.
    pub(crate) fn explained(code: Code, what: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let text = chain(error);
        match text.split_once("; ") {
            Some((why, todo)) if !why.contains('\n') => Self::new(code, what, why).todo(todo),
            _ => Self::new(code, what, text),
        }
    }

    /// With what to do about it.
    pub fn todo(self, todo: impl Into<String>) -> Self {
        Problem { todo: todo.into(), ..self }
    }
}

impl Code {
    /// The status of the HTTP answer that carries it.
    pub const fn http_status(self) -> u16 {
        match self {
            Code::Failed => 500,
            Code::Usage => 400,
            Code::NotFound => 404,
            Code::Refused => 409,
            Code::DaemonUnreachable | Code::TrackerUnreachable => 503,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        self.todo.lines().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Problem {}

/// An error with its causes, as one line: most libraries leave the cause out of their own text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_why_and_what_to_do() {
        let problem =
            Problem::new(Code::Refused, "rm base@1", "the clones vm1, vm2 are on it").todo("remove them first");
        assert_eq!(problem.to_string(), "rm base@1: the clones vm1, vm2 are on it\n  remove them first");
        let json = serde_json::to_value(&problem).expect("a problem is plain JSON");
        assert_eq!(json["code"], "refused");
    }
}
