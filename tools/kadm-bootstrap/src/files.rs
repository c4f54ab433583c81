//! The files of the machines, rendered before anything is written.

use std::collections::BTreeMap;

use cluster_doc::KubeVersion;
use render::Template;
use serde::Serialize;
use stage::Failure;

use crate::certificate::sha256;
use crate::source::Source;

/// Where Kubernetes publishes its images.
pub const REGISTRY: &str = "registry.k8s.io";
/// Kernel modules loaded at boot.
pub const MODULES: &str = "/etc/modules-load.d/kubeline-kubernetes.conf";
/// Kernel settings.
pub const SYSCTL: &str = "/etc/sysctl.d/90-kubeline-kubernetes.conf";
/// The repository of Kubernetes.
pub const LIST: &str = "/etc/apt/sources.list.d/kubeline-kubernetes.list";
/// Its signing key; apt reads the armoured form from a name that ends so.
pub const KEYRING: &str = "/etc/apt/keyrings/kubeline-kubernetes.asc";
/// What saves etcd.
pub const BACKUP: &str = "/usr/local/lib/kubeline/etcd-backup";
/// The service that runs it.
pub const BACKUP_SERVICE: &str = "/etc/systemd/system/kubeline-etcd-backup.service";
/// The timer that starts it.
pub const BACKUP_TIMER: &str = "/etc/systemd/system/kubeline-etcd-backup.timer";
/// The timer's unit.
pub const TIMER_UNIT: &str = "kubeline-etcd-backup.timer";
/// The unit of a pinned kubelet.
pub const KUBELET_UNIT: &str = "/etc/systemd/system/kubelet.service";
/// The unit of a pinned containerd.
pub const CONTAINERD_UNIT: &str = "/etc/systemd/system/containerd.service";
/// containerd's configuration.
pub const CONTAINERD: &str = "/etc/containerd/config.toml";

const MODULES_TEXT: &str = include_str!("../templates/modules.conf");
const SYSCTL_TEXT: &str = include_str!("../templates/sysctl.conf");

#[derive(Serialize)]
struct List<'a> {
    keyring: &'a str,
    url: &'a str,
}

#[derive(Serialize)]
struct Runtime {
    pause: String,
}

const LIST_TEXT: &str = include_str!("../templates/kubernetes.list.j2");
const CONTAINERD_2: &str = include_str!("../templates/containerd-2.toml.j2");
const CONTAINERD_3: &str = include_str!("../templates/containerd-3.toml.j2");
const KUBELET_UNIT_TEXT: &str = include_str!("../templates/kubelet.service");
const CONTAINERD_UNIT_TEXT: &str = include_str!("../templates/containerd.service");
const BACKUP_TEXT: &str = include_str!("../templates/etcd-backup.sh.j2");
const BACKUP_SERVICE_TEXT: &str = include_str!("../templates/etcd-backup.service");
const BACKUP_TIMER_TEXT: &str = include_str!("../templates/etcd-backup.timer.j2");

/// How etcd is saved by a timer.
#[derive(Serialize)]
pub struct Saved {
    /// The cluster's name.
    pub cluster: String,
    /// The age recipient.
    pub recipient: String,
    /// The address of the NFS server.
    pub server: String,
    /// The folder that it exports.
    pub export: String,
    /// When (systemd's OnCalendar).
    pub schedule: String,
    /// How many are kept.
    pub keep: u32,
}

/// A file as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// All of it.
    pub content: String,
    /// Its digest.
    pub sha256: String,
}

/// The files of every machine, by path.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// Those for the kernel.
    pub kernel: BTreeMap<String, File>,
    /// The package repository, when there is one.
    pub list: Option<File>,
    /// What saves etcd on a control plane, by path; empty when the document asks for none.
    pub backup: BTreeMap<String, File>,
    /// Units of pinned programs, by path.
    pub units: BTreeMap<String, File>,
    /// containerd's configuration in version 2, which every containerd from 1.3 on reads.
    pub containerd_2: File,
    /// The same in version 3, for containerd 2.0 and newer.
    pub containerd_3: File,
}

impl Files {
    /// containerd's configuration for this version of it; version 2 as long as it is not known.
    pub fn containerd(&self, version: Option<&str>) -> &File {
        let major = version.and_then(|v| {
            let bare = v.split_once(':').map_or(v, |(_, after_epoch)| after_epoch);
            bare.trim_start_matches('v').split('.').next()?.parse::<u32>().ok()
        });
        if major.is_some_and(|m| m >= 2) { &self.containerd_3 } else { &self.containerd_2 }
    }

    /// Every path that a look tells of.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        // What saves etcd is looked for in any case: the document may have dropped it.
        let fixed =
            [LIST, KEYRING, CONTAINERD, BACKUP, BACKUP_SERVICE, BACKUP_TIMER, KUBELET_UNIT, CONTAINERD_UNIT];
        self.kernel.keys().map(String::as_str).chain(fixed)
    }

    /// The file with this digest at this path.
    pub fn get(&self, path: &str, sha256: &str) -> Option<&File> {
        let candidates = [Some(&self.containerd_2), Some(&self.containerd_3), self.list.as_ref()];
        let own = self.kernel.get(path).or_else(|| self.backup.get(path)).or_else(|| self.units.get(path));
        own.into_iter().chain(candidates.into_iter().flatten()).find(|f| f.sha256 == sha256)
    }
}

fn file(content: impl Into<String>) -> File {
    let content = content.into();
    File { sha256: sha256(content.as_bytes()), content }
}

pub(crate) fn wrong(error: &render::Error) -> Failure {
    Failure::internal("cannot render a file of a machine").caused_by(error)
}

/// The sandbox image that kubeadm of this version expects (its `PauseVersion` in cmd/kubeadm/app/constants).
pub fn pause(version: KubeVersion, registry: &str) -> String {
    let tag = match version.minor() {
        ..=33 => "3.10",
        34..=35 => "3.10.1",
        _ => "3.10.2",
    };
    format!("{registry}/pause:{tag}")
}

/// Renders the files that all machines share.
///
/// # Errors
/// A template that does not render is a fault of ours.
pub fn render(
    version: KubeVersion,
    registry: &str,
    source: &Source,
    saved: Option<&Saved>,
) -> Result<Files, Failure> {
    let runtime = Runtime { pause: pause(version, registry) };
    let list = match source {
        Source::Repository { url, .. } => {
            let text = Template::new("kubernetes.list", LIST_TEXT)
                .render(&List { keyring: KEYRING, url })
                .map_err(|e| wrong(&e))?;
            Some(file(text))
        }
        _ => None,
    };
    Ok(Files {
        kernel: [(MODULES, MODULES_TEXT), (SYSCTL, SYSCTL_TEXT)]
            .map(|(path, text)| (path.to_owned(), file(text)))
            .into(),
        list,
        backup: match saved {
            Some(saved) => [
                (BACKUP, Template::new("etcd-backup", BACKUP_TEXT).render(saved).map_err(|e| wrong(&e))?),
                (BACKUP_SERVICE, BACKUP_SERVICE_TEXT.to_owned()),
                (
                    BACKUP_TIMER,
                    Template::new("etcd-backup.timer", BACKUP_TIMER_TEXT)
                        .render(saved)
                        .map_err(|e| wrong(&e))?,
                ),
            ]
            .map(|(path, text)| (path.to_owned(), file(text)))
            .into(),
            None => BTreeMap::new(),
        },
        units: BTreeMap::from([
            (KUBELET_UNIT.to_owned(), file(KUBELET_UNIT_TEXT)),
            (CONTAINERD_UNIT.to_owned(), file(CONTAINERD_UNIT_TEXT)),
        ]),
        containerd_2: file(
            Template::new("containerd-2.toml", CONTAINERD_2).render(&runtime).map_err(|e| wrong(&e))?,
        ),
        containerd_3: file(
            Template::new("containerd-3.toml", CONTAINERD_3).render(&runtime).map_err(|e| wrong(&e))?,
        ),
    })
}

/// The settings of the sysctl file.
pub fn sysctls() -> impl Iterator<Item = (&'static str, &'static str)> {
    SYSCTL_TEXT.lines().filter_map(|l| l.split_once(" = "))
}

/// The modules of the modules file.
pub fn modules() -> impl Iterator<Item = &'static str> {
    MODULES_TEXT.lines().filter(|l| !l.starts_with('#'))
}
