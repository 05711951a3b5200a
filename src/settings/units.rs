//! Durations, sizes and rates as people write them: `15s`, `10 MiB`, `8 Mbit/s`.
//!
//! Ours, because no crate takes the original's bare numbers: humantime has no bare seconds, bytesize takes `10 K` for
//! 10,000 bytes.

use std::time::Duration;

use super::problems::Diagnostic;

/// Reads a duration between two bounds, both inclusive and written as durations themselves.
pub(super) fn duration(min: &'static str, max: &'static str) -> impl Fn(&str) -> Result<Duration, Diagnostic> {
    let bounds = [min, max].map(|bound| parse_duration(bound).expect("the bounds in the code are durations"));
    move |text| {
        let found = parse_duration(text).ok_or_else(|| {
            Diagnostic::new(
                format!("`{text}` is no duration"),
                "give a whole number of seconds, or one with ms, s, m, h or d, such as 15s",
            )
        })?;
        within(found, bounds, text, min, max)
    }
}

/// Reads a size in bytes between two bounds, both inclusive and written as sizes themselves.
pub(super) fn size(min: &'static str, max: &'static str) -> impl Fn(&str) -> Result<u64, Diagnostic> {
    let bounds = [min, max].map(|bound| parse_size(bound).expect("the bounds in the code are sizes"));
    move |text| {
        let found = parse_size(text).ok_or_else(|| {
            Diagnostic::new(
                format!("`{text}` is no size"),
                "give a whole number of bytes, or one with KiB, MiB, GiB (or kB, MB, GB), such as 10 MiB",
            )
        })?;
        within(found, bounds, text, min, max)
    }
}

/// Reads a rate in bytes per second between two bounds, both inclusive and written as rates themselves.
pub(super) fn rate(min: &'static str, max: &'static str) -> impl Fn(&str) -> Result<u64, Diagnostic> {
    let bounds = [min, max].map(|bound| parse_rate(bound).expect("the bounds in the code are rates"));
    move |text| {
        let found = parse_rate(text).ok_or_else(|| {
            Diagnostic::new(
                format!("`{text}` is no rate"),
                "give a size per second, such as 10 MiB/s, or 8 Mbit/s, or none",
            )
        })?;
        within(found, bounds, text, min, max)
    }
}

fn within<T: PartialOrd>(found: T, [low, high]: [T; 2], text: &str, min: &str, max: &str) -> Result<T, Diagnostic> {
    if found < low || found > high {
        return Err(Diagnostic::new(format!("{text} is out of range"), format!("give {min} to {max}")));
    }
    Ok(found)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000_u64.pow(2),
        "gb" => 1000_u64.pow(3),
        "tb" => 1000_u64.pow(4),
        "k" | "kib" => 1024,
        "m" | "mib" => 1024_u64.pow(2),
        "g" | "gib" => 1024_u64.pow(3),
        "t" | "tib" => 1024_u64.pow(4),
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn parse_rate(text: &str) -> Option<u64> {
    let amount = text.strip_suffix("/s")?.trim_end();
    parse_size(amount).or_else(|| Some(parse_bits(amount)? / 8))
}

/// Bits, as networks count them: in powers of 1000.
fn parse_bits(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let bits = match unit.to_ascii_lowercase().as_str() {
        "bit" => 1,
        "kbit" => 1000,
        "mbit" => 1000_u64.pow(2),
        "gbit" => 1000_u64.pow(3),
        _ => return None,
    };
    number.checked_mul(bits)
}

/// `10 MiB` as 10 and `MiB`; the unit may be empty.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_take_units_and_bare_seconds() {
        for (text, millis) in [
            ("10", 10_000),
            ("15s", 15_000),
            ("15 s", 15_000),
            ("250ms", 250),
            ("2m", 120_000),
            ("3h", 10_800_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "-1", "+1", "1.5s", "1 h 30", "10 S", "1w", "99999999999999999999", "999999999999999999d"]
        {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_take_units_and_bare_bytes() {
        for (text, bytes) in [
            ("10485760", 10 << 20),
            ("10 MiB", 10 << 20),
            ("10mib", 10 << 20),
            ("64K", 64 << 10),
            ("64 KiB", 64 << 10),
            ("5 KB", 5_000),
            ("5MB", 5_000_000),
            ("1G", 1 << 30),
            ("1 GB", 1_000_000_000),
            ("7 B", 7),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5 MiB", "1 PiB", "10 MiB each", "99999999999 TiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn rates_are_sizes_or_bits_per_second() {
        for (text, bytes) in [
            ("10 MiB/s", 10 << 20),
            ("10M/s", 10 << 20),
            ("5 MB /s", 5_000_000),
            ("4096/s", 4096),
            ("8 Mbit/s", 1_000_000),
            ("800kbit/s", 100_000),
            ("1 Gbit/s", 125_000_000),
            ("80000 bit/s", 10_000),
        ] {
            assert_eq!(parse_rate(text), Some(bytes), "{text}");
        }
        for bad in ["", "/s", "10 MiB", "10 MiB/m", "10 MiB/s/s", "1.5 Mbit/s", "8 Mibit/s", "99999999999 Gbit/s"] {
            assert_eq!(parse_rate(bad), None, "{bad}");
        }
    }

    #[test]
    fn bounds_are_inclusive_and_named() {
        let timeout = duration("1s", "1h");
        assert_eq!(timeout("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(timeout("60m"), Ok(Duration::from_secs(3600)));
        let refused = timeout("3601").unwrap_err();
        assert_eq!((refused.message.as_str(), refused.remedy.as_str()), ("3601 is out of range", "give 1s to 1h"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_units_panic(text: String) {
            let _ = (parse_duration(&text), parse_size(&text), parse_rate(&text));
        }
    }
}
