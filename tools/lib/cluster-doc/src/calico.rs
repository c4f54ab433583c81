//! Which minor versions of Kubernetes the releases of Calico are for.

use std::ops::RangeInclusive;

/// Releases of Calico with the minors of Kubernetes 1 that they are tested with (docs.tigera.io, "Kubernetes requirements"
/// of each release).
pub const RELEASES: [(&str, RangeInclusive<u16>); 3] =
    [("v3.31", 32..=35), ("v3.32", 34..=36), ("v3.33", 35..=37)];

/// The minors that a version of Calico, such as `v3.32.1`, is for; `None` for one that is not known.
pub fn minors(version: &str) -> Option<RangeInclusive<u16>> {
    let of = |release: &str| {
        version.strip_prefix(release).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    RELEASES.iter().find(|(release, _)| of(release)).map(|(_, minors)| minors.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_by_its_release_alone() {
        assert_eq!(minors("v3.32.1"), Some(34..=36));
        assert_eq!(minors("v3.31"), Some(32..=35));
        assert_eq!((minors("v3.3.1"), minors("v3.310.1"), minors("3.32.1")), (None, None, None));
    }
}
