//! Where to connect, as whom, and which host keys to believe.

use std::path::PathBuf;
use std::time::Duration;

/// One machine as SSH sees it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The machine's name, for messages.
    pub name: String,
    /// The address or DNS name to connect to.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The user to log in as; anyone but root needs sudo without a password.
    pub user: String,
    /// The private key, tried first; the agent at `$SSH_AUTH_SOCK` comes after it, or alone.
    ///
    /// A public key, or a key with a passphrase, names the agent's key to offer first.
    pub identity_file: Option<PathBuf>,
    /// The pinned host keys, as `ssh-ed25519 AAAA...`, or their fingerprints, as OpenSSH prints them
    /// (`SHA256:` and base64 without padding); when there are any, `known_hosts` is not asked.
    pub host_keys: Vec<String>,
    /// A known_hosts file as OpenSSH writes it, hashed names too.
    pub known_hosts: Option<PathBuf>,
    /// Whether an unknown host is recorded in `known_hosts`; a changed key is refused all the same.
    pub accept_new: bool,
    /// The machine to go through.
    pub jump: Option<Box<Target>>,
    /// How long reaching the port, the handshake and the log-in may take together.
    pub connect_timeout: Duration,
}

impl Target {
    /// A target on port 22 with no key and no host key yet, and ten seconds to connect.
    pub fn new(name: impl Into<String>, host: impl Into<String>, user: impl Into<String>) -> Target {
        Target {
            name: name.into(),
            host: host.into(),
            port: 22,
            user: user.into(),
            identity_file: None,
            host_keys: Vec::new(),
            known_hosts: None,
            accept_new: false,
            jump: None,
            connect_timeout: Duration::from_secs(10),
        }
    }

    /// The address for messages: `host:port`, an IPv6 address in brackets.
    pub fn address(&self) -> String {
        address(&self.host, self.port)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.user == "root"
    }
}

pub(crate) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
