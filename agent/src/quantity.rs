//! Sizes, rates and spans of time as people write them, and back.
//!
//! Sizes count bytes: `64MiB` is 64 · 2²⁰, `64MB` is 64 · 10⁶, a bare number is bytes. Rates are sizes per second; a
//! unit that ends in `bit` counts bits, always in powers of ten as network people do: `800Mbit` and `100MB` are the same
//! rate. Units are read without regard to case except for that: `b` is never bits.

use std::fmt;
use std::time::Duration;

/// A number of bytes, shown as `1.2 GiB`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes(pub u64);

/// A text that is not the quantity it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    /// It can't be read.
    #[error("{text:?} is no {kind}: write it like {example}")]
    Unreadable {
        /// What was written.
        text: String,
        /// What it should be.
        kind: &'static str,
        /// How to write that.
        example: &'static str,
    },
    /// Nothing is so large.
    #[error("{text:?} is too large a {kind}: the most is {most}")]
    TooLarge {
        /// What was written.
        text: String,
        /// What it should be.
        kind: &'static str,
        /// The largest that there is.
        most: &'static str,
    },
}

/// Reads a size in bytes: `4096`, `64KiB`, `1.5 GB`.
pub fn parse_size(text: &str) -> Result<u64, ParseQuantityError> {
    let refuse = || refusal(text, "size", "4096, 64KiB, 20GiB or 1.5GB");
    let (number, unit) = split(text).ok_or_else(refuse)?;
    scale(number, byte_unit(&unit).ok_or_else(refuse)?).ok_or_else(|| too_large(text, "size", "8000 TiB"))
}

/// Reads the size of a disk as qemu does, where a bare `K`, `M`, `G`, `T`, `P` or `E` is a power of 1024: `20G` is `20GiB`.
pub fn parse_disk_size(text: &str) -> Result<u64, ParseQuantityError> {
    let text = text.trim();
    match text.chars().last() {
        Some('k' | 'K' | 'm' | 'M' | 'g' | 'G' | 't' | 'T' | 'p' | 'P' | 'e' | 'E') => parse_size(&format!("{text}iB"))
            .map_err(|error| match error {
                ParseQuantityError::Unreadable { .. } => refusal(text, "size", "4096, 20G, 20GiB or 1.5GB"),
                ParseQuantityError::TooLarge { kind, most, .. } => too_large(text, kind, most),
            }),
        _ => parse_size(text),
    }
}

/// Reads a rate in bytes per second: `100MiB`, `100MiB/s`, `800Mbit`, `2.5 Gbit/s`.
pub fn parse_rate(text: &str) -> Result<u64, ParseQuantityError> {
    let refuse = || refusal(text, "rate", "100MiB (bytes per second), 800Mbit or 2.5Gbit (bits per second)");
    let (number, unit) = split(text).ok_or_else(refuse)?;
    let unit = unit.strip_suffix("/s").unwrap_or(&unit);
    let factor = match unit.strip_suffix("bit") {
        Some(prefix) => decimal(prefix).ok_or_else(refuse)? / 8.0,
        None => byte_unit(unit).ok_or_else(refuse)?,
    };
    scale(number, factor).filter(|&rate| rate > 0).ok_or_else(refuse)
}

/// Reads a span of time: `90d`, `12h`, `30m`, `45s`, `2w`.
pub fn parse_duration(text: &str) -> Result<Duration, ParseQuantityError> {
    let refuse = || refusal(text, "span of time", "45s, 30m, 12h, 90d or 2w");
    let (number, unit) = split(text).ok_or_else(refuse)?;
    let seconds = match unit.as_str() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "w" => 7.0 * 86_400.0,
        _ => return Err(refuse()),
    };
    // A century is more than anybody means, and keeps every later sum far from overflow.
    scale(number, seconds).filter(|&s| s <= 100 * 366 * 86_400).map(Duration::from_secs).ok_or_else(refuse)
}

/// Shows a span of time to the second: `1 h 02 min`, `3 min 05 s`, `8 s`.
pub fn show_duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // 1,023.95 would be shown as 1024.0.
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

fn refusal(text: &str, kind: &'static str, example: &'static str) -> ParseQuantityError {
    ParseQuantityError::Unreadable { text: text.chars().take(80).collect(), kind, example }
}

fn too_large(text: &str, kind: &'static str, most: &'static str) -> ParseQuantityError {
    ParseQuantityError::TooLarge { text: text.chars().take(80).collect(), kind, most }
}

/// Number and lower-case unit.
fn split(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    Some((number.parse().ok()?, unit.trim().to_ascii_lowercase()))
}

fn byte_unit(unit: &str) -> Option<f64> {
    let prefix = unit.strip_suffix('b').unwrap_or(unit);
    match prefix.strip_suffix('i') {
        Some(prefix) => {
            ["k", "m", "g", "t", "p", "e"].iter().position(|&p| p == prefix).map(|at| 1024f64.powi(at as i32 + 1))
        }
        None => decimal(prefix),
    }
}

fn decimal(prefix: &str) -> Option<f64> {
    ["", "k", "m", "g", "t", "p", "e"].iter().position(|&p| p == prefix).map(|at| 1000f64.powi(at as i32))
}

fn scale(number: f64, factor: f64) -> Option<u64> {
    let value = (number * factor).round();
    // Above 2^53 a float skips integers; no disk and no wire is that large.
    (value.is_finite() && value <= 9.0e15).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_kinds_of_units() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64KiB", 65_536), ("1.5 GB", 1_500_000_000), ("20gib", 20 << 30), ("7k", 7000)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1..2", "5 parsecs", "1e9", "99999999PiB", "8Mbit"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_of_disks_are_read_as_qemu_reads_them() {
        for (text, bytes) in [("10M", 10 << 20), ("1.5g", 3 << 29), ("2GB", 2_000_000_000), ("7k", 7168), ("512", 512)]
        {
            assert_eq!(parse_disk_size(text), Ok(bytes), "{text}");
        }
        for text in ["M", "", "1MM", "5 parsecs"] {
            assert!(parse_disk_size(text).is_err(), "{text}");
        }
        for text in ["8388608T", "8192P", "8E", "8EiB"] {
            let too_large = parse_disk_size(text).expect_err("2^63 bytes").to_string();
            assert_eq!(too_large, format!("{text:?} is too large a size: the most is 8000 TiB"));
        }
    }

    #[test]
    fn rates_tell_bits_from_bytes() {
        for (text, rate) in [
            ("800Mbit", 100_000_000),
            ("100MB/s", 100_000_000),
            ("100MiB", 100 << 20),
            ("2.5 Gbit/s", 312_500_000),
            ("1000", 1000),
        ] {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for text in ["0", "fast", "10Mbps", "3 Mibit"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_of_time_are_read_and_shown() {
        assert_eq!(parse_duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5400)));
        for text in ["90", "1y", "999999999d", "d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(show_duration(Duration::from_secs(3725)), "1 h 02 min");
        assert_eq!(show_duration(Duration::from_secs(185)), "3 min 05 s");
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes(1 << 20).to_string(), "1.0 MiB");
        assert_eq!(Bytes((1 << 30) - 1).to_string(), "1.0 GiB");
        assert_eq!(format!("{:>10}", Bytes(1536)), "   1.5 KiB");
    }
}
