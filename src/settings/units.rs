//! Durations, sizes and rates in readable form: `15s`, `10 MiB`, `8 Mbit/s`.
//!
//! No crate is used, because none accepts all numbers that the original Python program accepts: humantime rejects bare
//! seconds, and bytesize reads `10 K` as 10,000 bytes.

use std::time::Duration;

/// Parses a duration, such as `15s`. A number without a unit is in seconds.
pub(crate) fn duration(text: &str) -> Option<Duration> {
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

/// Parses a size, such as `10 MiB`, into bytes. A number without a unit is in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
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

/// Parses a rate, such as `10 MiB/s` or `8 Mbit/s`, into bytes per second.
pub(super) fn rate(text: &str) -> Option<u64> {
    let amount = text.strip_suffix("/s")?.trim_end();
    size(amount).or_else(|| Some(bits(amount)? / 8))
}

/// Parses a number of bits, with units in powers of 1000 as usual for networks.
fn bits(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let unit = match unit.to_ascii_lowercase().as_str() {
        "bit" => 1,
        "kbit" => 1000,
        "mbit" => 1000_u64.pow(2),
        "gbit" => 1000_u64.pow(3),
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Splits `10 MiB` into 10 and `MiB`; the unit may be empty.
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
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "-1", "+1", "1.5s", "1 h 30", "10 S", "1w", "99999999999999999999", "999999999999999999d"]
        {
            assert_eq!(duration(bad), None, "{bad}");
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
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5 MiB", "1 PiB", "10 MiB each", "99999999999 TiB"] {
            assert_eq!(size(bad), None, "{bad}");
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
            assert_eq!(rate(text), Some(bytes), "{text}");
        }
        for bad in ["", "/s", "10 MiB", "10 MiB/m", "10 MiB/s/s", "1.5 Mbit/s", "8 Mibit/s", "99999999999 Gbit/s"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_units_panic(text: String) {
            let _ = (duration(&text), size(&text), rate(&text));
        }
    }
}
