//! Which host keys are believed: the pinned ones, or those of a known_hosts file.
//!
//! The file's format is the one of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": patterns, negation, hashed names and
//! `@revoked` are understood; `@cert-authority` lines are passed over, as no certificate is asked for.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::{Algorithm, HashAlg, PublicKey};
use sha1::Sha1;

use crate::error::Error;
use crate::target::Target;

/// The key that a host proved to have, once it has.
pub(crate) type Shown = Arc<OnceLock<PublicKey>>;

/// What is known about one host's keys.
#[derive(Debug)]
pub(crate) struct Trust {
    host: String,
    address: String,
    known: Vec<PublicKey>,
    fingerprints: Vec<String>,
    shown: Shown,
    revoked: Vec<PublicKey>,
    record: Option<(PathBuf, String)>,
}

impl Trust {
    /// Gathers the keys that a target names.
    pub(crate) fn of(target: &Target) -> Result<Trust, Error> {
        let mut trust = Trust {
            host: target.name.clone(),
            address: target.address(),
            known: Vec::new(),
            fingerprints: Vec::new(),
            shown: Shown::default(),
            revoked: Vec::new(),
            record: None,
        };
        for text in &target.host_keys {
            if text.starts_with("SHA256:") {
                trust.fingerprints.push(text.clone());
                continue;
            }
            let key = PublicKey::from_openssh(text.trim()).map_err(|source| Error::PinnedKey {
                host: target.name.clone(),
                key: text.clone(),
                source: Box::new(source),
            })?;
            trust.known.push(key);
        }
        if let (true, Some(path)) = (target.host_keys.is_empty(), &target.known_hosts) {
            let name = file_name(&target.host, target.port);
            let text = match std::fs::read(path) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
                Err(source) => return Err(Error::Io { doing: "read", path: path.clone(), source }),
            };
            for (revoked, key) in text.lines().filter_map(|line| entry(line, &name)) {
                if revoked { trust.revoked.push(key) } else { trust.known.push(key) }
            }
            if target.accept_new {
                trust.record = Some((path.clone(), name));
            }
        }
        Ok(trust)
    }

    /// Where the key that is believed is found after the handshake.
    pub(crate) fn shown(&self) -> Shown {
        self.shown.clone()
    }

    /// The algorithms to ask for: those of the known keys first, so that the server shows one of them.
    pub(crate) fn prefer(&self, all: &[Algorithm]) -> Vec<Algorithm> {
        let known =
            |algorithm: &Algorithm| self.known.iter().any(|key| same_kind(&key.algorithm(), algorithm));
        let (mut first, rest): (Vec<_>, Vec<_>) = all.iter().cloned().partition(known);
        first.extend(rest);
        first
    }

    /// Believes a key or refuses it; a new one is recorded when the target says so.
    pub(crate) fn judge(&mut self, key: &PublicKey) -> Result<(), Error> {
        let host = || self.host.clone();
        let address = || self.address.clone();
        let found = fingerprint(key);
        let is = |other: &PublicKey| other.key_data() == key.key_data();
        if self.revoked.iter().any(is) {
            return Err(Error::HostKeyRevoked { host: host(), address: address(), found });
        }
        if self.known.iter().any(is) || self.fingerprints.contains(&found) {
            self.shown.get_or_init(|| key.clone());
            return Ok(());
        }
        if !self.known.is_empty() || !self.fingerprints.is_empty() {
            let expected =
                self.known.iter().map(fingerprint).chain(self.fingerprints.iter().cloned()).collect();
            return Err(Error::HostKeyChanged { host: host(), address: address(), expected, found });
        }
        let line = plain(key);
        let Some((path, name)) = &self.record else {
            return Err(Error::HostKeyUnknown { host: host(), address: address(), found, key: line });
        };
        tracing::info!(host = self.host, fingerprint = found, "new host key recorded");
        append(path, &format!("{name} {line}\n")).map_err(|source| Error::Io {
            doing: "write",
            path: path.clone(),
            source,
        })?;
        self.known.push(key.clone());
        self.shown.get_or_init(|| key.clone());
        Ok(())
    }
}

/// A key's fingerprint as OpenSSH prints it: `SHA256:` and base64 without padding.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// A key in OpenSSH form, without its comment.
pub(crate) fn plain(key: &PublicKey) -> String {
    let mut key = key.clone();
    key.set_comment("");
    key.to_openssh().unwrap_or_default()
}

// An RSA key is one kind, whatever hash it signs with.
fn same_kind(a: &Algorithm, b: &Algorithm) -> bool {
    a == b || matches!((a, b), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }))
}

// sshd(8): a host on another port is written as `[host]:port`; names are compared in lower case.
fn file_name(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

// The key of a line that speaks of the host, and whether it is revoked.
fn entry(line: &str, name: &str) -> Option<(bool, PublicKey)> {
    let mut words = line.split_ascii_whitespace().peekable();
    let marker = words.next_if(|word| word.starts_with('@'));
    let revoked = match marker {
        None => false,
        Some("@revoked") => true,
        Some(_) => return None,
    };
    let hosts = words.next().filter(|word| !word.starts_with('#'))?;
    if !names(hosts, name) {
        return None;
    }
    let (kind, blob) = (words.next()?, words.next()?);
    PublicKey::from_openssh(&format!("{kind} {blob}")).ok().map(|key| (revoked, key))
}

fn names(hosts: &str, name: &str) -> bool {
    let mut hit = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern, name) => return false,
            Some(_) => {}
            None => hit |= matches(pattern, name),
        }
    }
    hit
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("|1|") {
        Some(hashed) => is_hash_of(hashed, name).unwrap_or(false),
        None => glob(pattern.to_lowercase().as_bytes(), name.as_bytes()),
    }
}

// OpenSSH's HashKnownHosts: base64(salt) | base64(HMAC-SHA1(salt, name)).
fn is_hash_of(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let (salt, hash) = (STANDARD.decode(salt).ok()?, STANDARD.decode(hash).ok()?);
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&hash).is_ok())
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

// One write of one whole line, so that hosts met at the same time do not mix theirs.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let start = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{start}{line}").as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    #[test]
    fn a_fingerprint_believes_its_key_and_tells_it() {
        let mut target = Target::new("lb-1", "10.0.0.1", "root");
        target.host_keys = vec![fingerprint(&key(A)), "SHA256:of-another-kind".to_owned()];
        let mut trust = Trust::of(&target).unwrap();
        match trust.judge(&key(B)) {
            Err(Error::HostKeyChanged { expected, .. }) => assert_eq!(expected, target.host_keys),
            other => panic!("{other:?}"),
        }
        assert!(trust.shown().get().is_none());
        trust.judge(&key(&format!("{A} root@lb-1"))).unwrap();
        assert_eq!(trust.shown().get().map(plain).as_deref(), Some(A));
        // A known_hosts file is not asked beside it.
        target.accept_new = true;
        target.known_hosts = Some("/nonexistent/known_hosts".into());
        assert!(matches!(Trust::of(&target).unwrap().judge(&key(B)), Err(Error::HostKeyChanged { .. })));
    }

    fn target(folder: &Path, lines: &str) -> Target {
        let path = folder.join("known_hosts");
        std::fs::write(&path, lines).unwrap();
        Target { known_hosts: Some(path), ..Target::new("lb-1", "LB-1.example.com", "root") }
    }

    #[test]
    fn pinned_keys_rule_out_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut target = target(dir.path(), &format!("lb-1.example.com {B}\n"));
        target.host_keys = vec![format!("{A} root@lb-1")];
        let mut trust = Trust::of(&target).unwrap();
        trust.judge(&key(A)).unwrap();
        match trust.judge(&key(B)).unwrap_err() {
            Error::HostKeyChanged { expected, found, .. } => {
                assert_eq!(expected, [fingerprint(&key(A))]);
                assert!(found.starts_with("SHA256:") && !found.ends_with('='));
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn file_lines() {
        let name = "lb-1.example.com";
        for (line, hit) in [
            (format!("lb-1.example.com {A}"), true),
            (format!("other,lb-1.example.com {A} comment here"), true),
            (format!("*.example.com {A}"), true),
            (format!("lb-?.example.com {A}"), true),
            (format!("*.example.com,!lb-1.example.com {A}"), false),
            (format!("[lb-1.example.com]:2222 {A}"), false),
            (format!("# lb-1.example.com {A}"), false),
            (format!("@cert-authority lb-1.example.com {A}"), false),
            ("lb-1.example.com ssh-new AAAA".to_owned(), false),
            ("lb-1.example.com".to_owned(), false),
        ] {
            assert_eq!(entry(&line, name).is_some(), hit, "{line}");
        }
        assert_eq!(file_name("H", 2222), "[h]:2222");
    }

    #[test]
    fn hashed_and_revoked() {
        // Made by ssh-keygen -H for example.com.
        let hashed = "|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak=";
        assert!(entry(&format!("{hashed} {A}"), "example.com").is_some());
        assert!(entry(&format!("{hashed} {A}"), "example.org").is_none());
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path(), &format!("lb-1.example.com {A}\n@revoked * {A}\n"));
        assert!(matches!(Trust::of(&target).unwrap().judge(&key(A)), Err(Error::HostKeyRevoked { .. })));
    }

    #[test]
    fn a_new_host_is_recorded_and_a_changed_one_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/known_hosts");
        let mut target = Target { known_hosts: Some(path.clone()), ..Target::new("n", "10.0.0.1", "root") };
        assert!(matches!(Trust::of(&target).unwrap().judge(&key(A)), Err(Error::HostKeyUnknown { .. })));
        assert!(!path.exists());
        target.accept_new = true;
        Trust::of(&target).unwrap().judge(&key(A)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("10.0.0.1 {A}\n"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        Trust::of(&target).unwrap().judge(&key(A)).unwrap();
        assert!(matches!(Trust::of(&target).unwrap().judge(&key(B)), Err(Error::HostKeyChanged { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_file_without_a_last_newline_keeps_its_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut target = target(dir.path(), &format!("other {B}"));
        target.accept_new = true;
        Trust::of(&target).unwrap().judge(&key(A)).unwrap();
        let text = std::fs::read_to_string(target.known_hosts.unwrap()).unwrap();
        assert_eq!(text, format!("other {B}\nlb-1.example.com {A}\n"));
    }
}
