//! Versions of Kubernetes.

use std::fmt;

use super::word;

/// A release of Kubernetes, such as `1.36.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubeVersion {
    minor: u16,
    patch: u16,
}

impl KubeVersion {
    /// The oldest minor that the tools configure (kubeadm's v1beta4 exists since 1.31).
    pub const OLDEST_MINOR: u16 = 31;

    /// The version that a program reports, with or without a leading `v`.
    ///
    /// # Errors
    /// A sentence that says what would do.
    pub fn parse(text: &str) -> Result<KubeVersion, String> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        let wrong = || "is no Kubernetes version; write minor and patch, for example \"1.36.2\"".to_owned();
        let mut parts = bare.split('.');
        let (major, minor, patch) = (parts.next(), parts.next(), parts.next());
        let number = |s: Option<&str>| {
            s.filter(|s| s.len() == 1 || !s.starts_with('0'))
                .and_then(|s| s.parse::<u16>().ok())
                .ok_or_else(wrong)
        };
        let (major, minor, patch) = (number(major)?, number(minor)?, number(patch)?);
        if parts.next().is_some() || major != 1 {
            return Err(wrong());
        }
        if minor < KubeVersion::OLDEST_MINOR {
            return Err(format!(
                "is too old; the oldest that is known here is 1.{}.0",
                KubeVersion::OLDEST_MINOR
            ));
        }
        Ok(KubeVersion { minor, patch })
    }

    /// The minor: 36 of `1.36.2`.
    pub fn minor(&self) -> u16 {
        self.minor
    }

    /// The patch: 2 of `1.36.2`.
    pub fn patch(&self) -> u16 {
        self.patch
    }

    /// As Kubernetes tags its releases: `v1.36.2`.
    pub fn tag(&self) -> String {
        format!("v{self}")
    }

    /// Major and minor: `1.36`.
    pub fn release(&self) -> String {
        format!("1.{}", self.minor)
    }
}

impl fmt::Display for KubeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}.{}", self.minor, self.patch)
    }
}

word!(KubeVersion, example "1.36.2");
