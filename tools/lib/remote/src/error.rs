//! What can go wrong between here and a host.

use std::path::PathBuf;
use std::time::Duration;

use crate::quote;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failure to reach a host, to believe it, or to get something done on it.
///
/// No message prints its source: that is the next link of the chain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there, or not in time, or the connection breaks before the log-in.
    #[error("cannot reach {host} at {address}")]
    Unreachable {
        /// The machine's name.
        host: String,
        /// Where it was looked for.
        address: String,
        /// What the network said.
        source: Source,
    },
    /// Something answers there that is no SSH server we can talk to.
    #[error("cannot agree with {host} at {address} on how to talk SSH")]
    Handshake {
        /// The machine's name.
        host: String,
        /// Where it answers.
        address: String,
        /// What did not fit.
        source: Source,
    },
    /// The host key is not the one that is known; nothing was sent.
    #[error("the host key of {host} at {address} has changed: expected {}, found {found}; nothing was sent", expected.join(" or "))]
    HostKeyChanged {
        /// The machine's name.
        host: String,
        /// Where it answers.
        address: String,
        /// The fingerprints that would do.
        expected: Vec<String>,
        /// The fingerprint of the key that was shown.
        found: String,
    },
    /// No host key of this host is known; nothing was sent.
    #[error("no host key of {host} at {address} is known; it shows {found}; nothing was sent")]
    HostKeyUnknown {
        /// The machine's name.
        host: String,
        /// Where it answers.
        address: String,
        /// The fingerprint of the key that was shown.
        found: String,
        /// The key that was shown, in OpenSSH's form.
        key: String,
    },
    /// The host key is marked as revoked in the known_hosts file; nothing was sent.
    #[error("the host key {found} of {host} at {address} is marked as revoked; nothing was sent")]
    HostKeyRevoked {
        /// The machine's name.
        host: String,
        /// Where it answers.
        address: String,
        /// The fingerprint of the key that was shown.
        found: String,
    },
    /// A pinned host key cannot be read.
    #[error("the pinned host key {key:?} of {host} is no OpenSSH public key")]
    PinnedKey {
        /// The machine's name.
        host: String,
        /// What was given as a key.
        key: String,
        /// What is wrong with it.
        source: Source,
    },
    /// The host takes none of the keys that we have.
    #[error("{host} does not let {user} in; tried: {}", if tried.is_empty() { "nothing, there is no key".to_owned() } else { tried.join(", ") })]
    Auth {
        /// The machine's name.
        host: String,
        /// As whom.
        user: String,
        /// The keys tried, in order, and what could not be.
        tried: Vec<String>,
    },
    /// The private key file cannot be used.
    #[error("cannot use the key file {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Source,
    },
    /// Others can read the private key file.
    #[error("the key file {} has mode {mode:04o}: others can read it", path.display())]
    KeyFileOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file on this side, known_hosts, cannot be read or written.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A new host key cannot be made.
    #[error("cannot make a host key")]
    NewKey {
        /// Why.
        source: russh::keys::ssh_key::Error,
    },
    /// The connection broke in mid command: what came of it is unknown.
    #[error("the connection to {host} was lost during: {doing}")]
    Lost {
        /// The machine's name.
        host: String,
        /// The command.
        doing: String,
    },
    /// The command did not end in time.
    #[error("not done on {host} after {after:?}: {line}")]
    TimedOut {
        /// The machine's name.
        host: String,
        /// The command.
        line: String,
        /// How long was waited.
        after: Duration,
    },
    /// The command ended with an exit code that is not 0.
    #[error("exit code {exit} on {host} from: {line}{}{stderr}", if stderr.is_empty() { "" } else { "\n" })]
    Command {
        /// The machine's name.
        host: String,
        /// The command.
        line: String,
        /// Its exit code.
        exit: i32,
        /// The end of what it said.
        stderr: String,
    },
    /// Somebody else works on this host.
    #[error("{host} is locked by {holder}")]
    Locked {
        /// The machine's name.
        host: String,
        /// Who holds the lock.
        holder: String,
    },
    /// Our lock went away with its connection; nothing more is done without it.
    #[error("the lock on {host} was lost with the connection")]
    LockLost {
        /// The machine's name.
        host: String,
    },
    /// More bytes than are taken.
    #[error("{what} on {host} has more than {limit} bytes")]
    TooLarge {
        /// The machine's name.
        host: String,
        /// What is too large.
        what: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// What arrived is not what was sent.
    #[error("{path} did not come through whole between here and {host}")]
    Damaged {
        /// The machine's name.
        host: String,
        /// The path.
        path: String,
    },
    /// This side of a transfer failed.
    #[error("cannot {doing}: this side of the transfer with {host} failed")]
    Here {
        /// The machine's name.
        host: String,
        /// The verb and the file there.
        doing: String,
        /// Why.
        source: std::io::Error,
    },
    /// A directory stands where a file is meant.
    #[error("{path} on {host} is a directory")]
    Directory {
        /// The machine's name.
        host: String,
        /// The path.
        path: String,
    },
    /// The SSH server grants no more sessions, no command, or no forwarding.
    #[error("the SSH server of {host} refused {what}")]
    Refused {
        /// The machine's name.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The caller asked for what cannot be sent.
    #[error("cannot send to {host}: {why}")]
    Unsendable {
        /// The machine's name.
        host: String,
        /// Why not.
        why: String,
    },
}

/// What an error means for the one who has to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The host cannot be reached: others may be, so the rest can be done.
    Unreachable,
    /// Running again may do.
    Transient,
    /// The operator must act.
    Precondition,
    /// A fault of the caller.
    Internal,
}

impl Error {
    /// What the error means for the one who has to go on.
    pub fn class(&self) -> Class {
        match self {
            Error::Unreachable { .. } => Class::Unreachable,
            Error::Lost { .. }
            | Error::TimedOut { .. }
            | Error::Locked { .. }
            | Error::LockLost { .. }
            | Error::Damaged { .. }
            | Error::Refused { .. } => Class::Transient,
            Error::Handshake { .. }
            | Error::HostKeyChanged { .. }
            | Error::HostKeyUnknown { .. }
            | Error::HostKeyRevoked { .. }
            | Error::PinnedKey { .. }
            | Error::Auth { .. }
            | Error::KeyFile { .. }
            | Error::KeyFileOpen { .. }
            | Error::Io { .. }
            | Error::Here { .. }
            | Error::Command { .. }
            | Error::TooLarge { .. }
            | Error::Directory { .. } => Class::Precondition,
            Error::Unsendable { .. } | Error::NewKey { .. } => Class::Internal,
        }
    }

    /// A line that the operator can run, or act on, when there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::HostKeyChanged { found, .. } => Some(format!(
                "if the machine was made anew, give its new key; on its console this must print {found}: \
                 ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
            )),
            Error::HostKeyUnknown { found, key, .. } => Some(format!(
                "if ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub prints {found} on the machine's console, \
                 give the key '{key}', or use --accept-new-host-keys"
            )),
            Error::KeyFileOpen { path, .. } => {
                Some(format!("chmod 600 {}", quote(&path.display().to_string())))
            }
            Error::Auth { tried, .. } if tried.is_empty() => Some("ssh-add -l".to_owned()),
            Error::Command { stderr, .. } if stderr.contains("sudo: a password is required") => {
                Some("let the user run sudo without a password: USER ALL=(ALL) NOPASSWD: ALL".to_owned())
            }
            _ => None,
        }
    }
}
