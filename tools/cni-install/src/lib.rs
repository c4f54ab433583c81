//! Calico with network policies worth having.
