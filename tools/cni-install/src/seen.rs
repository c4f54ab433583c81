//! What is there.

use addon::Link;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::Failure;

/// What the cluster says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Found {
    /// The API server's version.
    pub version: Option<String>,
    /// The pod network that kubeadm was given.
    pub pod_subnet: Option<String>,
}

pub(crate) async fn look(link: &Link) -> Result<Found, Failure> {
    let Ok(cluster) = link.cluster() else { return Ok(Found::default()) };
    let config = cluster.get("v1", "ConfigMap", Some("kube-system"), "kubeadm-config");
    let (version, config) = futures::try_join!(cluster.version(), config)
        .map_err(|error| addon::failure("cannot ask the cluster for its settings", &error))?;
    let config =
        config.as_ref().and_then(|map| map.pointer("/data/ClusterConfiguration")).and_then(Value::as_str);
    Ok(Found { version: Some(version), pod_subnet: config.and_then(pod_subnet) })
}

/// `networking.podSubnet` of kubeadm's ClusterConfiguration.
fn pod_subnet(config: &str) -> Option<String> {
    let line = config.lines().find_map(|line| line.trim().strip_prefix("podSubnet:"))?;
    Some(line.trim().trim_matches('"').to_owned()).filter(|subnet| !subnet.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_network_is_read() {
        let config = "kind: ClusterConfiguration\nnetworking:\n  dnsDomain: cluster.local\n  podSubnet: 10.244.0.0/16\n";
        assert_eq!(pod_subnet(config).as_deref(), Some("10.244.0.0/16"));
        assert_eq!(pod_subnet("networking: {}\n"), None);
    }
}
