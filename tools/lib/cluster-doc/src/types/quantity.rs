//! Sizes and spans of time.

use std::fmt;

use super::word;

const UNITS: [(&str, u64); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];

/// A size in binary units as Kubernetes writes it: `512Mi`, `8Gi`, `2Ti`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    bytes: u64,
}

impl Quantity {
    /// A size of this many bytes, `None` unless it is a whole number of KiB above zero.
    pub fn from_bytes(bytes: u64) -> Option<Quantity> {
        (bytes > 0 && bytes.is_multiple_of(1024)).then_some(Quantity { bytes })
    }

    fn parse(text: &str) -> Result<Quantity, String> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let suggest = || {
            let near = match unit.trim().to_lowercase().chars().next() {
                Some(c @ ('k' | 'm' | 'g' | 't')) if digits > 0 => {
                    format!("{number}{}i", c.to_ascii_uppercase())
                }
                _ => return "is no quantity; write for example \"8Gi\"".to_owned(),
            };
            format!("is no quantity; did you mean \"{near}\"?")
        };
        let factor = UNITS.iter().find(|(u, _)| *u == unit).map(|(_, f)| *f).ok_or_else(suggest)?;
        let number: u64 = number.parse().map_err(|_| suggest())?;
        match number.checked_mul(factor) {
            Some(0) => Err("is nothing; write a size above zero".to_owned()),
            Some(bytes) if bytes <= 1 << 53 => Ok(Quantity { bytes }),
            _ => Err("is larger than 8192Ti".to_owned()),
        }
    }

    /// The size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The size in MiB, rounded up.
    pub fn mib(&self) -> u64 {
        self.bytes.div_ceil(1 << 20)
    }

    /// The size in GiB, rounded up.
    pub fn gib(&self) -> u64 {
        self.bytes.div_ceil(1 << 30)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            UNITS.into_iter().find(|(_, f)| self.bytes.is_multiple_of(*f)).unwrap_or(("", 1));
        write!(f, "{}{unit}", self.bytes / factor)
    }
}

word!(Quantity, example "8Gi");

/// How long data is kept, as Prometheus writes it: `12h`, `15d`, `4w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Retention {
    hours: u32,
}

impl Retention {
    fn parse(text: &str) -> Result<Retention, String> {
        let wrong = || "is no span of time; write hours, days or weeks, for example \"15d\"".to_owned();
        let unit = match text.chars().last() {
            Some('h') => 1,
            Some('d') => 24,
            Some('w') => 24 * 7,
            _ => return Err(wrong()),
        };
        let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        let hours = number.checked_mul(unit).filter(|h| (1..=87_600).contains(h)).ok_or_else(wrong)?;
        Ok(Retention { hours })
    }

    /// The span in hours.
    pub fn hours(&self) -> u32 {
        self.hours
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hours.is_multiple_of(24) {
            write!(f, "{}d", self.hours / 24)
        } else {
            write!(f, "{}h", self.hours)
        }
    }
}

word!(Retention, example "15d");
