//! The Kubernetes API window.
