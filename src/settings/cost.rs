//! `Cost`: the price of the bytes on a link.

use std::fmt;

use super::problems::Diagnostic;
use super::units;

/// Maximum number of digits after the decimal point of a price.
const DIGITS: u32 = 6;
const ONE: u64 = 10_u64.pow(DIGITS);
/// The amount of data, in bytes, for the price `0`, which may be written without an amount of data.
const MEGABYTE: u64 = 1_000_000;

/// The price of bytes on a link. The default costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Millionths of the currency's unit for [`Self::bytes`] bytes.
    price: u64,
    bytes: u64,
    /// The currency as written; it may be empty.
    currency: String,
}

impl Cost {
    /// Returns whether bytes cost nothing.
    pub fn is_free(&self) -> bool {
        self.price == 0
    }

    /// Returns the price of one terabyte in millionths of the currency's unit, so that prices can be compared.
    pub fn per_terabyte(&self) -> u128 {
        u128::from(self.price) * 1_000_000_000_000 / u128::from(self.bytes.max(1))
    }

    /// Returns the cost of a number of bytes.
    pub fn of(&self, bytes: u64) -> Amount<'_> {
        let millionths = u128::from(self.price) * u128::from(bytes) / u128::from(self.bytes.max(1));
        Amount { millionths: u64::try_from(millionths).unwrap_or(u64::MAX), currency: &self.currency }
    }

    /// Returns the currency as written; it may be empty.
    pub fn currency(&self) -> &str {
        &self.currency
    }
}

/// An amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount<'a> {
    millionths: u64,
    currency: &'a str,
}

impl Amount<'_> {
    /// Returns the amount in units of the currency.
    pub fn units(&self) -> f64 {
        self.millionths as f64 / ONE as f64
    }
}

impl fmt::Display for Amount<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cents = self.millionths.saturating_add(ONE / 200) / (ONE / 100);
        write!(f, "{}.{:02}", cents / 100, cents % 100)?;
        if self.currency.is_empty() { Ok(()) } else { write!(f, " {}", self.currency) }
    }
}

/// Parses a price such as `0.25 EUR/MB`, `12/GB` or `0`.
pub(super) fn cost(text: &str) -> Result<Cost, Diagnostic> {
    let diagnostic = || {
        let remedy = "expected a price per amount of data, such as 0.25 EUR/MB, 12/GB, or 0";
        Diagnostic::new(format!("invalid cost `{text}`"), remedy)
    };
    let (price, unit) = text.split_once('/').map_or((text, None), |(price, unit)| (price, Some(unit.trim())));
    let end = price.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(price.len());
    let (number, currency) = price.split_at(end);
    let currency = currency.trim();
    let price = millionths(number).ok_or_else(diagnostic)?;
    let bytes = match unit {
        Some(unit) if unit.starts_with(|c: char| c.is_ascii_digit()) => units::size(unit),
        Some(unit) => units::size(&format!("1 {unit}")).filter(|_| !unit.is_empty()),
        None if price == 0 => Some(MEGABYTE),
        None => None,
    };
    let bytes = bytes.filter(|bytes| *bytes > 0).ok_or_else(diagnostic)?;
    let is_name = currency.chars().count() <= 8 && currency.chars().all(|c| c.is_alphabetic() || "$€£¥".contains(c));
    if is_name { Ok(Cost { price, bytes, currency: currency.to_owned() }) } else { Err(diagnostic()) }
}

/// Parses a decimal number into millionths.
fn millionths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > DIGITS as usize {
        return None;
    }
    let whole: u64 = whole.parse().ok().filter(|whole| *whole <= 1_000_000_000)?;
    let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
    Some(whole * ONE + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prices_are_for_an_amount_of_data() {
        for (text, bytes, amount) in [
            ("0.25 EUR/MB", 10_000_000, "2.50 EUR"),
            ("12/GB", 500_000_000, "6.00"),
            ("4.99€/ 10 MB", 20_000_000, "9.98 €"),
            ("0", u64::MAX, "0.00"),
            ("0.000001 USD/B", 1_234_567, "1.23 USD"),
            ("1 USD/MiB", 1 << 20, "1.00 USD"),
        ] {
            assert_eq!(cost(text).unwrap().of(bytes).to_string(), amount, "{text}");
        }
        assert!(cost("0 EUR/MB").unwrap().is_free() && Cost::default().is_free());
        assert!(cost("1/MB").unwrap().per_terabyte() > cost("999/GB").unwrap().per_terabyte());
    }

    #[test]
    fn texts_that_are_no_price_are_refused() {
        for bad in ["", "1", "EUR/MB", "1 EUR", "-1/MB", "1/", "1/0 MB", "1/MBit", "1.0000001/MB", ".5/MB", "1 E U/MB"]
        {
            assert!(cost(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_cost_panic(any: String, near in "[0-9.]{0,9} ?[A-Z€]{0,4}/?[0-9a-zA-Z ]{0,6}", bytes: u64) {
            let _ = cost(&any);
            if let Ok(cost) = cost(&near) {
                let _ = cost.of(bytes).to_string();
            }
        }
    }
}
