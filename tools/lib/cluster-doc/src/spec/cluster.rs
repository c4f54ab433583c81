//! Kubernetes itself, packages and backups.

use crate::read::{choice, section};
use crate::types::{
    Calendar, Cidr, DnsName, FilePath, KubeVersion, KubeletFields, MountPath, NodeName, Port,
};

use super::site::port;

section! {
    /// The Kubernetes cluster.
    pub struct Kubernetes {
        /// The exact version.
        version: KubeVersion,
        /// The network of the pods.
        pod_cidr: Cidr,
        /// The network of the services.
        service_cidr: Cidr,
        /// The cluster's DNS domain.
        dns_domain: DnsName = cluster_local(),
        /// Where the operator's kubeconfig is written, mode 0600.
        kubeconfig: FilePath,
        /// The port of the API server on each control plane.
        api_port: Port = port(6443),
        /// More names and addresses for the API server's certificate.
        cert_sans: Vec<String>,
        /// Names of kubeadm's preflight checks that may fail, such as SystemVerification.
        ignore_preflight_errors: Vec<String>,
        /// Fields of KubeletConfiguration for all nodes, such as maxPods or systemReserved.
        kubelet: KubeletFields,
    }
}

/// `cluster.local`, known to be a DNS name.
fn cluster_local() -> DnsName {
    match DnsName::parse("cluster.local") {
        Ok(name) => name,
        Err(_) => unreachable!("a constant DNS name parses"),
    }
}

choice! {
    /// Where packages come from.
    pub enum PackageSource {
        /// The vendors' repositories.
        Repository = "repository",
        /// A mirror of them.
        Mirror = "mirror",
        /// A folder on each machine.
        Directory = "directory",
        /// They are installed already.
        Present = "present",
    }
}

section! {
    /// Where the machines' packages come from.
    pub struct Packages {
        /// The kind of source.
        source: PackageSource = PackageSource::Repository,
        /// The mirror's address, for the source mirror.
        mirror: Option<String>,
        /// The folder, for the source directory.
        directory: Option<MountPath>,
    }
}

impl Default for Packages {
    fn default() -> Self {
        Packages { source: PackageSource::Repository, mirror: None, directory: None }
    }
}

section! {
    /// What is saved besides the exports.
    pub struct Backup {
        /// Snapshots of etcd.
        etcd: Option<EtcdBackup>,
        /// Proxmox's own backups of the machines.
        machines: Option<MachineBackup>,
    }
}

section! {
    /// Scheduled, encrypted snapshots of etcd.
    pub struct EtcdBackup {
        /// When (systemd's OnCalendar).
        schedule: Calendar,
        /// How many are kept.
        keep: u32,
        /// The folder on the NFS server, exported to the control planes alone.
        export: MountPath,
        /// The age recipient that they are encrypted to.
        recipient: String,
    }
}

section! {
    /// Proxmox's backups of the machines (vzdump).
    pub struct MachineBackup {
        /// When (Proxmox's calendar events).
        schedule: Calendar,
        /// How many are kept.
        keep: u32,
        /// The storage at Proxmox.
        storage: NodeName,
    }
}
