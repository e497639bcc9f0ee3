//! Kubernetes quantities of bytes: `500M`, `10Gi`, `1.5Ti`, or plain bytes.

use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quantity(pub(super) u64);

/// An invalid quantity of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a size such as 500M, 10Gi or 1.5Ti")]
pub(super) struct InvalidQuantity;

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let digits_end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits_end);
        let unit: u128 = match unit {
            "" => 1,
            "k" => 1000,
            "M" => 1000_u128.pow(2),
            "G" => 1000_u128.pow(3),
            "T" => 1000_u128.pow(4),
            "P" => 1000_u128.pow(5),
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            "Pi" => 1 << 50,
            _ => return Err(InvalidQuantity),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        // More than nine decimal places is surely a mistake.
        if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
            return Err(InvalidQuantity);
        }
        let parse = |digits: &str| digits.parse::<u64>().map(u128::from).map_err(|_| InvalidQuantity);
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| InvalidQuantity)?);
        let bytes = parse(whole)? * unit + parse(fraction)? * unit / scale;
        u64::try_from(bytes).map(Self).map_err(|_| InvalidQuantity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_quantities() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("500M", 500_000_000),
            ("10Gi", 10 << 30),
            ("1.5Ki", 1536),
            ("0.5T", 500_000_000_000),
            ("16383Pi", 16383 << 50),
        ] {
            assert_eq!(text.parse(), Ok(Quantity(bytes)), "{text}");
        }
        for text in
            ["", "Gi", "10GB", "10gi", "-1", "1e3", ".5Gi", "1.Gi", "1.2.3", "1 Gi", "16384Pi", "100m", "٣"]
        {
            assert_eq!(text.parse::<Quantity>(), Err(InvalidQuantity), "{text}");
        }
    }
}
