//! Why there is no cluster to look at.

use std::path::Path;

use serde::{Deserialize, Serialize};
use stage::Failure;

/// Why there is no cluster to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Offline {
    /// There is no kubeconfig.
    NoKubeconfig {
        /// Where it should be.
        path: String,
    },
    /// The API does not answer.
    NoAnswer {
        /// Its address.
        server: String,
        /// What was tried.
        why: String,
    },
}

impl Offline {
    /// In one line.
    pub fn why(&self) -> String {
        match self {
            Offline::NoKubeconfig { path } if path.is_empty() => "no kubeconfig is named".to_owned(),
            Offline::NoKubeconfig { path } => format!("there is no kubeconfig at {path}"),
            Offline::NoAnswer { server, .. } => format!("the API at {server} does not answer"),
        }
    }

    /// As the end of a run that needs the cluster.
    pub fn failure(&self) -> Failure {
        let doing = format!("cannot reach the cluster: {}", self.why());
        match self {
            Offline::NoKubeconfig { path } if Path::new(path).as_os_str().is_empty() => {
                Failure::precondition(doing)
                    .hint("write spec.kubernetes.kubeconfig, or give --kubeconfig FILE")
            }
            Offline::NoKubeconfig { .. } => Failure::precondition(doing)
                .hint("run kadm-bootstrap first: it makes the cluster and writes the kubeconfig"),
            Offline::NoAnswer { why, .. } => Failure::transient(doing).because(why.clone()).hint(
                "run again when it answers; kadm-bootstrap check and vip-keepalive check say what is off",
            ),
        }
    }
}
