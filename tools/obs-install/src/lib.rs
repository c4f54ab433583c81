//! Metrics, logs, dashboards and alerts for the cluster.
