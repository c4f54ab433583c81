//! etcd clusters: members and quorum.

/// All etcd clusters of the lab.
#[derive(Clone, Debug, Default)]
pub struct Clusters {}
