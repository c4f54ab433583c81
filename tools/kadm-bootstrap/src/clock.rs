//! Moments as the API and the backups have them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment in UTC as RFC 3339, to the second.
pub(crate) fn rfc3339(moment: OffsetDateTime) -> String {
    let whole = moment.truncate_to_second();
    // It fails for years of more than four digits alone, which no clock tells.
    whole.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_as_the_api_reads_it() {
        let at = |seconds| rfc3339(OffsetDateTime::from_unix_timestamp(seconds).unwrap());
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_709_210_096), "2024-02-29T12:34:56Z");
        assert_eq!(at(4_102_444_799), "2099-12-31T23:59:59Z");
        let within = OffsetDateTime::from_unix_timestamp_nanos(1_709_210_096_999_999_999).unwrap();
        assert_eq!(rfc3339(within), "2024-02-29T12:34:56Z");
    }
}
