//! Paths, addresses of services, schedules and digests.

use std::fmt;
use std::path::PathBuf;

use super::word;

/// A path on the operator's machine; relative ones and `~` are taken against the working directory and home.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

impl FilePath {
    fn parse(text: &str) -> Result<FilePath, String> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err("is no path of a file; write for example \"secrets/pve-token\"".to_owned());
        }
        Ok(FilePath(text.to_owned()))
    }

    /// The path as the document has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path with a leading `~` replaced by `home`.
    pub fn expand(&self, home: Option<&str>) -> PathBuf {
        match (self.0.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => PathBuf::from(&self.0),
        }
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

word!(FilePath, example "secrets/pve-token");

/// An absolute path on a machine, without `.`, `..`, spaces or quotes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountPath(String);

impl MountPath {
    /// The path when it is one.
    ///
    /// # Errors
    /// A sentence that says what would do.
    pub fn parse(text: &str) -> Result<MountPath, String> {
        let part = |p: &str| {
            !p.is_empty()
                && p != "."
                && p != ".."
                && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+@".contains(c))
        };
        match text.strip_prefix('/') {
            Some(rest) if rest.split('/').all(part) => Ok(MountPath(text.to_owned())),
            _ => Err("is no absolute path of a folder; write for example \"/srv/nfs/k8s-prod\" \
                      (letters, digits and - _ . + @ in each part)"
                .to_owned()),
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when `other` is this folder or lies inside it.
    pub fn holds(&self, other: &MountPath) -> bool {
        other.0 == self.0 || other.0.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for MountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

word!(MountPath, example "/srv/nfs/k8s-prod");

/// The https address of a service without path, query or user, such as `https://pve1.lab.example:8006`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    host: String,
    port: Option<u16>,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Endpoint, String> {
        let wrong = "is no https address; write for example \"https://pve1.lab.example:8006\"";
        let rest = text.strip_prefix("https://").ok_or(wrong)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse::<u16>().ok().filter(|p| *p > 0).ok_or(wrong)?)),
            None => (rest, None),
        };
        let good = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
        if good { Ok(Endpoint { host: host.to_owned(), port }) } else { Err(wrong.to_owned()) }
    }

    /// The host name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, when one is given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

word!(Endpoint, example "https://pve1.lab.example:8006");

/// When something runs, as systemd's `OnCalendar=` writes it (systemd.time(7)), such as `*-*-* 02:00:00`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Calendar(String);

impl Calendar {
    fn parse(text: &str) -> Result<Calendar, String> {
        let words =
            ["minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly"];
        let known = |c: char| c.is_ascii_alphanumeric() || "*-:/., ~".contains(c);
        let shaped = text.contains(':') && text.chars().all(known) && text.len() <= 80;
        if shaped || words.contains(&text) {
            return Ok(Calendar(text.to_owned()));
        }
        Err("is no calendar event of systemd; write for example \"*-*-* 02:00:00\" (test one with: \
             systemd-analyze calendar)"
            .to_owned())
    }

    /// The expression as systemd reads it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

word!(Calendar, example "*-*-* 02:00:00");

/// A SHA-256 digest in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(String);

impl Sha256 {
    fn parse(text: &str) -> Result<Sha256, String> {
        let bare = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        if bare.len() == 64 && bare.chars().all(|c| c.is_ascii_hexdigit()) {
            return Ok(Sha256(bare));
        }
        Err("is no SHA-256 digest: 64 hex digits (print one with: sha256sum FILE)".to_owned())
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

word!(Sha256, example "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
