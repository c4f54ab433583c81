//! The operator's access: the kubeconfig files, as wanted and as found.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The operator's kubeconfig.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeconfigSeen {
    /// The server of its current context.
    pub server: Option<String>,
    /// SHA-256 of the CA certificate of its current context.
    pub ca: Option<String>,
    /// True when it has one context alone.
    pub single: bool,
    /// True when nobody else can read it.
    pub private: bool,
    /// When its client certificate ends, in seconds since 1970.
    pub expires: Option<i64>,
}

/// A kubeconfig of several clusters, as a flag names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Merge {
    /// Where it is.
    pub path: PathBuf,
    /// The same as it was given.
    pub shown: String,
    /// True when its current context is to be this cluster's.
    pub switch: bool,
}

/// What such a file holds of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MergeSeen {
    /// Why nothing can be merged into it.
    pub fault: Option<String>,
    /// True when it exists.
    pub exists: bool,
    /// True when it has the context, the cluster and the user.
    pub whole: bool,
    /// The server of its cluster of this name.
    pub server: Option<String>,
    /// SHA-256 of that cluster's CA certificate.
    pub ca: Option<String>,
    /// When the user's certificate ends, in seconds since 1970.
    pub expires: Option<i64>,
    /// Its current context.
    pub current: String,
    /// True when nobody else can read it.
    pub private: bool,
    /// True when it has comments.
    pub comments: bool,
}
