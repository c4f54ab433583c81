//! What is there.

use addon::World;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::{Ctx, Failure};

use crate::want::Want;

/// What is in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seen {
    /// The objects.
    pub cluster: addon::Seen,
    /// The API server's version.
    pub version: Option<String>,
    /// The pod network that kubeadm was given.
    pub pod_subnet: Option<String>,
}

pub(crate) async fn observe(world: &World, want: &Want, ctx: &Ctx) -> Result<Seen, Failure> {
    let mut seen =
        Seen { cluster: addon::observe(world, &want.addon, &want.access, ctx).await?, ..Seen::default() };
    if seen.cluster.offline.is_none() {
        let cluster = world.cluster()?;
        let fail = |error| addon::failure("cannot ask the cluster for its settings", &error);
        seen.version = Some(cluster.version().await.map_err(fail)?);
        let config =
            cluster.get("v1", "ConfigMap", Some("kube-system"), "kubeadm-config").await.map_err(fail)?;
        let config =
            config.as_ref().and_then(|map| map.pointer("/data/ClusterConfiguration")).and_then(Value::as_str);
        seen.pod_subnet = config.and_then(pod_subnet);
    }
    Ok(seen)
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
