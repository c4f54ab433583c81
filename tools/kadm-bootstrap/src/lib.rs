//! A highly available Kubernetes by kubeadm: prepared, initialised, joined.
