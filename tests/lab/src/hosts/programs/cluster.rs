//! Programs of Kubernetes: kubeadm, crictl and etcdctl.

use super::Entry;

/// The programs.
pub const TABLE: &[Entry] = &[];
