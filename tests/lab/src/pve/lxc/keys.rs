//! The SSH host keys that Proxmox makes for a new container.

use russh::keys::ssh_key::Fingerprint;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{HashAlg, PrivateKey};

use super::super::tasks::Log;

/// Makes the keys, tells their fingerprints in the task's log as ssh-keygen's `-l` would, and gives the one that the
/// container shows (pve-container, LXC/Setup.pm: `rewrite_ssh_host_keys`).
pub(super) fn make(hostname: &str, log: &Log) -> String {
    let own: PrivateKey = Ed25519Keypair::from_seed(&rand::random()).into();
    // The SSH server of the lab's machines has one key; the others are never shown.
    let other = || Fingerprint::Sha256(rand::random());
    let short = hostname.split('.').next().unwrap_or_default();
    let all = [
        ("ssh_host_ecdsa_key", other()),
        ("ssh_host_ed25519_key", own.fingerprint(HashAlg::Sha256)),
        ("ssh_host_rsa_key", other()),
    ];
    for (file, fingerprint) in all {
        log.line(format!("Creating SSH host key '{file}' - this may take some time ..."));
        log.line(format!("done: {fingerprint} root@{short}"));
    }
    own.to_openssh(LineEnding::LF).map(|text| text.to_string()).unwrap_or_default()
}
