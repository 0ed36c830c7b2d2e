//! Where a command's words go: what it found to standard output, everything else to standard error.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use crate::control::Problem;

/// Standard output of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// As JSON or for people.
    pub(crate) const fn new(json: bool) -> Self {
        Output { json }
    }

    /// Whether JSON was asked for.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Prints what was found: as one line of JSON, or as the text that `text` makes of it.
    pub(crate) fn print<T: Serialize>(self, found: &T, text: impl FnOnce(&T) -> String) -> Result<(), Problem> {
        if self.json {
            let json = serde_json::to_string(found).map_err(|error| Problem::failed("print", error))?;
            return self.line(&json);
        }
        let text = text(found);
        text.lines().try_for_each(|line| self.line(line))
    }

    /// Prints one line as it is.
    pub(crate) fn line(self, text: &str) -> Result<(), Problem> {
        let mut stdout = std::io::stdout().lock();
        match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            // `drover list | head` has seen enough: no failure of ours, and nobody is left to tell.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => Err(Problem::failed("write to standard output", error)),
        }
    }
}

/// Says something to people, beside the output.
pub(crate) fn say(text: &str) {
    // Standard error may be closed; a command does its work all the same.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Tells what went wrong.
pub(crate) fn complain(problem: &Problem) {
    let (red, plain) = if colours() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    say(&format!("{red}drover:{plain} {problem}"));
}

/// Warns of something that does not stop the command.
pub(crate) fn warn(text: &str) {
    let (yellow, plain) = if colours() { ("\x1b[1;33m", "\x1b[0m") } else { ("", "") };
    say(&format!("{yellow}drover: warning:{plain} {text}"));
}

/// Whether standard error may be coloured: it is a terminal and nobody set NO_COLOR (https://no-color.org).
pub(crate) fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && animated()
}

/// Whether progress may be drawn and redrawn in place.
pub(crate) fn animated() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Columns as wide as their widest cell, two spaces apart. `right` names the columns whose cells are numbers.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_its_columns_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "100".to_owned()]];
        assert_eq!(table(&["HOST", "MiB"], &rows, &[1]), "HOST  MiB\na       1\nlong  100");
    }
}
