//! kubeadm, the kubelet and the container runtime.

use super::{Hosts, Machine};

pub mod kubelet;
pub mod runtime;

/// What kubeadm, the kubelet and etcd keep on a machine outside files.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// The installed kubeadm's version, such as `1.36.2`.
    pub kubeadm_version: Option<String>,
}

/// Brings API servers and kubelets in line with the machines.
pub fn settle(_hosts: &Hosts) {}

/// The ports that Kubernetes has open on a machine.
pub fn ports(_machine: &Machine) -> Vec<u16> {
    Vec::new()
}
