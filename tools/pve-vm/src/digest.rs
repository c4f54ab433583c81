//! Digests of images: as people write them, in lists of publishers, and in hexadecimal digits; pure.

/// A digest with its algorithm in front, such as `sha512:ab12...`.
///
/// # Errors
/// A sentence that says what would do.
pub fn digest(text: &str) -> Result<(String, String), String> {
    let wrong = || "is no digest; write sha256: or sha512: and the hex digits".to_owned();
    let (algorithm, hex) = text.split_once(':').ok_or_else(wrong)?;
    let hex = hex.to_ascii_lowercase();
    match (algorithm, hex.len(), hex.bytes().all(|b| b.is_ascii_hexdigit())) {
        ("sha256", 64, true) | ("sha512", 128, true) => Ok((algorithm.to_owned(), hex)),
        _ => Err(wrong()),
    }
}

/// The digest of a file in a list such as `SHA512SUMS`; the algorithm follows from its length.
pub fn listed(list: &str, file: &str) -> Option<(String, String)> {
    let line = list.lines().find_map(|line| {
        let (hex, name) = line.split_once(char::is_whitespace)?;
        (name.trim().trim_start_matches('*').trim_start_matches("./") == file).then_some(hex)
    })?;
    let algorithm = if line.len() == 64 { "sha256" } else { "sha512" };
    digest(&format!("{algorithm}:{line}")).ok()
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_in_lists() {
        let hex = "ab".repeat(64);
        let list = format!("{}  other.qcow2\n{hex}  image.qcow2\n", "cd".repeat(64));
        assert_eq!(listed(&list, "image.qcow2"), Some(("sha512".to_owned(), hex)));
        let short = format!("{} *image.img\n", "ab".repeat(32));
        assert_eq!(listed(&short, "image.img").unwrap().0, "sha256");
        assert_eq!(listed(&list, "none"), None);
        assert!(digest("md5:abc").is_err() && digest("sha256:zz").is_err());
    }
}
