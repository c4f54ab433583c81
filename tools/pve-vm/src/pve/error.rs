//! What Proxmox refuses, and what a refusal means for the one who has to go on.

use std::collections::BTreeMap;

use stage::{Exit, Failure};

/// A request or a task that did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Proxmox answered with an error.
    #[error("Proxmox answered {status}: {said}{}", fields(errors))]
    Refused {
        /// The HTTP status; 595 to 599 are pveproxy's own.
        status: u16,
        /// The reason phrase or the body's message.
        said: String,
        /// What is wrong with single parameters.
        errors: BTreeMap<String, String>,
    },
    /// No answer came.
    #[error("{request}: no answer: {why}")]
    Silent {
        /// Method and path.
        request: String,
        /// What the network said.
        why: String,
        /// True when nothing was sent: no connection came about.
        unsent: bool,
    },
    /// A task ended with an error.
    #[error("the task {kind} on node {node} ended with: {exit}")]
    Task {
        /// The kind of task.
        kind: String,
        /// Where it ran.
        node: String,
        /// Its exit status.
        exit: String,
    },
    /// A task is gone from the node's list before its end was seen.
    #[error("the task {kind} on node {node} is not known there any more")]
    Vanished {
        /// The kind of task.
        kind: String,
        /// Where it ran.
        node: String,
    },
    /// A task runs for longer than is reasonable.
    #[error("the task {kind} on node {node} is still running after {seconds} s")]
    Slow {
        /// The kind of task.
        kind: String,
        /// Where it runs.
        node: String,
        /// How long was waited.
        seconds: u64,
    },
    /// An answer that is none of Proxmox's.
    #[error("{request}: the answer cannot be read: {why}")]
    Strange {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        why: String,
    },
}

fn fields(errors: &BTreeMap<String, String>) -> String {
    errors.iter().map(|(field, why)| format!("; {field}: {}", why.trim_end().replace('\n', "; "))).collect()
}

/// What an error means for the one who has to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A lock or the node's load: look again, then try again.
    Retry,
    /// It may have been done: look, and only then decide.
    Unknown,
    /// The guest is on another Proxmox node now.
    Moved,
    /// What was to be made is there already: look whose it is.
    Exists,
    /// An image that was to be put in, or is in a drive, is not there any more: another look finds out what is due.
    Gone,
    /// It is so already.
    Done,
    /// Trying again would not help.
    Fatal,
}

/// Texts by class, the first that is found wins. Sources: pve-common Tools.pm (lock texts), pve-cluster
/// Cluster.pm (quorum, cfs locks), RESTEnvironment.pm (workers), qemu-server API2/Qemu.pm, AbstractConfig.pm.
const TEXTS: &[(&str, Class)] = &[
    ("got correct file already", Class::Done),
    ("already running", Class::Done),
    ("not HA managed", Class::Done),
    ("got timeout", Class::Retry),
    ("got lock request timeout", Class::Retry),
    ("is locked (", Class::Retry),
    ("got no worker upid", Class::Retry),
    ("no quorum", Class::Retry),
    ("locked command timed out", Class::Retry),
    // Somebody changed the configuration between our look and our change (pve-common, Tools.pm: assert_if_modified).
    ("file change by other user?", Class::Retry),
    // Until the HA manager has woken up it knows no nodes (pve-ha-manager, HA/CRM.pm and Rules.pm).
    ("rule defines more resources than available nodes", Class::Retry),
    ("unexpected status", Class::Unknown),
    ("unable to get last line from task log", Class::Unknown),
    ("unable to find configuration file", Class::Moved),
    ("config file already exists", Class::Exists),
    ("already exists", Class::Exists),
    ("already defined", Class::Exists),
    ("already a pool member", Class::Exists),
    ("File exists", Class::Exists),
];

/// The class of an HTTP status, if it came by HTTP, with its text, or of a task's exit status.
pub fn class(status: Option<u16>, said: &str) -> Class {
    match status {
        // 595: pveproxy did not reach the daemon, so nothing was done (pve-http-server, AnyEvent.pm).
        Some(595) => return Class::Retry,
        Some(596 | 597 | 599) => return Class::Unknown,
        Some(401 | 403 | 501) => return Class::Fatal,
        _ => {}
    }
    if said.contains("Configuration file 'nodes/") && said.contains("does not exist") {
        return Class::Moved;
    }
    // pve-storage, Storage.pm, when a drive is set; qemu-server, QemuServer.pm, when the machine is switched on.
    if said.contains(":iso/") && said.contains("does not exist") {
        return Class::Gone;
    }
    match TEXTS.iter().find(|(text, _)| said.contains(text)) {
        Some((_, class)) => *class,
        None => Class::Fatal,
    }
}

impl Error {
    /// What the error means for the one who has to go on.
    pub fn class(&self) -> Class {
        match self {
            Error::Refused { status, said, errors } => {
                class(Some(*status), &format!("{said}{}", fields(errors)))
            }
            Error::Silent { unsent: true, .. } => Class::Retry,
            Error::Silent { .. } | Error::Vanished { .. } => Class::Unknown,
            Error::Task { exit, .. } => class(None, exit),
            Error::Slow { .. } | Error::Strange { .. } => Class::Fatal,
        }
    }

    /// True for the answer to a missing guest.
    pub fn is_absent(&self) -> bool {
        self.class() == Class::Moved
    }

    /// True for the answer to a missing resource pool (pve-manager, API2/Pool.pm).
    pub fn no_pool(&self, pool: &str) -> bool {
        self.to_string().contains(&format!("pool '{pool}' does not exist"))
    }

    /// True when the network or the node is at fault rather than the request.
    pub fn is_transport(&self) -> bool {
        matches!(self, Error::Silent { .. } | Error::Refused { status: 595..=599, .. })
    }

    /// The HTTP status, when there is one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// As the end of a run, with what helps.
    pub fn failure(&self, doing: impl Into<String>, grantee: &str) -> Failure {
        let exit = match (self, self.class()) {
            (Error::Slow { .. }, _) => Exit::Transient,
            (Error::Strange { .. }, _) => Exit::Precondition,
            (_, Class::Retry | Class::Unknown | Class::Moved | Class::Gone | Class::Done) => Exit::Transient,
            // A plain failure of a worker is Proxmox's fault or that of a disk or network: the operator looks.
            (_, Class::Exists | Class::Fatal) => Exit::Precondition,
        };
        let failure = Failure::new(exit, doing).because(self.to_string());
        let failure = match self {
            Error::Refused { status: 401, .. } => failure.hint("pveum user token list USER@REALM"),
            Error::Refused { status: 403, said, .. } => match missing(said) {
                Some((path, privileges)) => failure.hint(grant(path, &privileges, grantee)),
                None => failure,
            },
            Error::Slow { node, .. } => {
                failure.hint(format!("look at the tasks of node {node}; then run again"))
            }
            _ => failure,
        };
        match (self, exit) {
            _ if self.class() == Class::Moved => {
                failure.hint("somebody moved or removed it meanwhile; run again").confined()
            }
            _ if self.class() == Class::Gone => {
                failure.hint("its seed is gone: wait until nobody else is at it, then run again for another")
            }
            _ if !failure.hints.is_empty() => failure,
            (_, Exit::Transient) => failure.hint("run again: it goes on where it stopped"),
            (Error::Task { node, .. }, _) => {
                failure.hint(format!("on node {node}: pvenode task list --errors 1; then run again"))
            }
            _ => failure.hint("on the node: journalctl -u pvedaemon -u pveproxy --since -1h; then run again"),
        }
    }
}

/// Path and privileges in `Permission check failed (/vms/9000, VM.Clone|VM.Allocate)`.
fn missing(said: &str) -> Option<(&str, String)> {
    let inner = said.split_once("Permission check failed (")?.1.split_once(')')?.0;
    let (path, privileges) = inner.split_once(", ")?;
    path.starts_with('/').then(|| (path, privileges.split(['|', ',']).next().unwrap_or_default().to_owned()))
}

/// The commands that give somebody privileges on a path.
pub fn grant(path: &str, privileges: &str, grantee: &str) -> String {
    let role = role(path);
    // What concerns the site as a whole is not for all that lies below it.
    let path = if path == "/" { "/ --propagate 0" } else { path };
    format!(
        "pveum role modify {role} --append 1 --privs '{privileges}' || pveum role add {role} --privs '{privileges}'; \
         pveum acl modify {path} {grantee} --roles {role}"
    )
}

fn role(path: &str) -> &'static str {
    match path.split('/').nth(1).unwrap_or_default() {
        "storage" => "KubelineStorage",
        "sdn" => "KubelineNetwork",
        "nodes" => "KubelineNodes",
        "" => "KubelineSite",
        _ => "KubelineVM",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proxmox's texts, with where they come from (the status is none for a task's end).
    const TABLE: &[(Option<u16>, &str, Class)] = &[
        (Some(500), "can't lock file '/var/lock/qemu-server/lock-101.conf' - got timeout", Class::Retry),
        (None, "can't lock file '/var/lock/pve-manager/pve-storage-local-lvm' - got timeout", Class::Retry),
        (None, "clone failed: cfs-lock 'storage-nfs' error: got lock request timeout", Class::Retry),
        (None, "'storage-nfs'-locked command timed out - aborting", Class::Retry),
        (Some(500), "VM is locked (clone)", Class::Retry),
        (Some(500), "CT is locked (disk)", Class::Retry),
        (Some(500), "got no worker upid - start worker failed", Class::Retry),
        (Some(500), "cluster not ready - no quorum?", Class::Retry),
        (Some(500), "cfs-lock 'domain-ha' error: no quorum!", Class::Retry),
        (Some(500), "checksum mismatch (file change by other user?)", Class::Retry),
        (Some(595), "Connection refused", Class::Retry),
        (Some(596), "Connection timed out", Class::Unknown),
        (Some(597), "Broken pipe", Class::Unknown),
        (Some(599), "Too many redirections", Class::Unknown),
        (None, "unexpected status", Class::Unknown),
        (None, "unable to get last line from task log - no such file", Class::Unknown),
        (Some(500), "Configuration file 'nodes/pve1/qemu-server/101.conf' does not exist", Class::Moved),
        (Some(500), "unable to find configuration file for VM 101 on node 'pve2'", Class::Moved),
        (Some(500), "unable to create VM 202: config file already exists", Class::Exists),
        (Some(500), "unable to create VM 101 - VM 101 already exists on node 'pve1'", Class::Exists),
        (Some(400), "Parameter verification failed.; vmid: VM 101 already exists", Class::Exists),
        (None, "close (rename) atomic file '/etc/pve/nodes/pve1/x' failed: File exists", Class::Exists),
        (Some(500), "create pool failed: pool 'k8s' already exists", Class::Exists),
        (Some(500), "VM 101 is already a pool member", Class::Exists),
        (None, "VM 101 already running", Class::Done),
        (Some(500), "cannot delete service 'vm:101', not HA managed!", Class::Done),
        (None, "OK, got correct file already, no need to download", Class::Done),
        (Some(403), "Permission check failed (/vms/101, VM.Clone)", Class::Fatal),
        (Some(401), "Authentication failed!", Class::Fatal),
        (Some(400), "Parameter verification failed.", Class::Fatal),
        (Some(501), "Method 'POST /x' not implemented", Class::Fatal),
        (Some(500), "volume 'local:iso/kubeline-seed.prod.prod-lb-1.3000.iso' does not exist", Class::Gone),
        (None, "start failed: volume 'local:iso/x.iso' does not exist", Class::Gone),
        (Some(500), "volume 'local:vztmpl/x.tar.zst' does not exist", Class::Fatal),
        (Some(500), "storage 'x' does not exist", Class::Fatal),
        (None, "shrinking disks is not supported", Class::Fatal),
    ];

    #[test]
    fn every_text_has_its_class() {
        for (status, said, expected) in TABLE {
            assert_eq!(class(*status, said), *expected, "{said}");
        }
    }

    #[test]
    fn a_seed_that_is_gone_is_made_again_by_the_next_run() {
        let said = "volume 'local:iso/kubeline-seed.a.a-lb-1.3000.iso' does not exist".to_owned();
        let failure =
            Error::Refused { status: 500, said, errors: BTreeMap::new() }.failure("cannot start a-lb-1", "");
        assert_eq!(failure.exit, Exit::Transient);
        assert!(failure.hints[0].starts_with("its seed is gone"), "{failure:?}");
    }

    #[test]
    fn a_403_names_the_line_that_helps() {
        let said = "Permission check failed (/vms/9000, VM.Clone)".to_owned();
        let error = Error::Refused { status: 403, said, errors: BTreeMap::new() };
        let failure = error.failure("cannot clone", "--tokens 'a@pve!cli'");
        assert_eq!(failure.exit, Exit::Precondition);
        assert!(failure.hints[0].contains("pveum acl modify /vms/9000 --tokens 'a@pve!cli'"), "{failure:?}");
        assert!(failure.hints[0].contains("VM.Clone"), "{failure:?}");
    }
}
