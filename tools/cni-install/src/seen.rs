//! What is there beside the objects: what the cluster says of itself, and what nodes keep of Calico.

use std::collections::BTreeMap;

use addon::Link;
use fleet::Fleet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::{Ctx, Failure, Finding};

use crate::nodes;
use crate::probe;
use crate::want::Want;

/// What the cluster says of itself, and what nodes keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Found {
    /// The API server's version.
    pub version: Option<String>,
    /// The pod network that kubeadm was given.
    pub pod_subnet: Option<String>,
    /// The pool that Calico gives addresses from.
    pub pool: Option<Pool>,
    /// True when the Tigera operator has an Installation to care for.
    pub installation: bool,
    /// How kube-proxy works, in its own word (`iptables`, `ipvs`, `nftables`).
    pub kube_proxy: Option<String>,
    /// True when the Tigera operator has turned kube-proxy off.
    pub kube_proxy_off: bool,
    /// What is left of Calico on each node; looked at for `destroy` alone.
    pub remains: BTreeMap<String, Vec<String>>,
    /// What pods reach; for `check --probe` alone.
    pub probe: probe::Table,
    /// True when a probe that was killed has left its namespace.
    pub probe_left: bool,
    /// Nodes that do not answer, and why; for `destroy` alone.
    pub unreachable: BTreeMap<String, String>,
}

/// A pool of addresses: network and block size can never be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pool {
    /// Its network.
    pub cidr: String,
    /// The size of its blocks, as a prefix length.
    pub block_size: u64,
    /// When packets travel in IP-in-IP: `Always`, `CrossSubnet` or `Never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipip_mode: Option<String>,
    /// When packets travel in VXLAN: `Always`, `CrossSubnet` or `Never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan_mode: Option<String>,
}

pub(crate) async fn look(
    link: &Link,
    fleet: Option<&Fleet>,
    want: &Want,
    ctx: &Ctx,
) -> Result<Found, Failure> {
    let mut found = match link.cluster() {
        Ok(cluster) => of_cluster(cluster).await?,
        Err(_) => Found::default(),
    };
    // A look changes nothing, but for this one, which was asked for by name and removes what it made.
    if let (Some(image), "check", Ok(cluster)) = (&want.probe, ctx.verb(), link.cluster()) {
        found.probe = probe::run(cluster, image, &want.domain, ctx).await?;
        ctx.say(&format!("what pods of each node reach:\n{}", probe::shown(&found.probe)));
    }
    if let Some(fleet) = fleet {
        let outcome = fleet.each(ctx, "look for Calico on", nodes::remains).await?;
        found.remains = outcome.of.into_iter().filter(|(_, remains)| !remains.is_empty()).collect();
        found.unreachable = outcome.unreachable;
    }
    Ok(found)
}

async fn of_cluster(cluster: &addon::Cluster) -> Result<Found, Failure> {
    let (version, config, pool, installation, left, proxy, proxies) = futures::try_join!(
        cluster.version(),
        cluster.get("v1", "ConfigMap", Some("kube-system"), "kubeadm-config"),
        cluster.get("crd.projectcalico.org/v1", "IPPool", None, "default-ipv4-ippool"),
        cluster.get("operator.tigera.io/v1", "Installation", None, "default"),
        cluster.get("v1", "Namespace", None, probe::NAME),
        cluster.get("v1", "ConfigMap", Some("kube-system"), "kube-proxy"),
        cluster.get("apps/v1", "DaemonSet", Some("kube-system"), "kube-proxy"),
    )
    .map_err(|error| addon::failure("cannot ask the cluster for its settings", &error))?;
    let config =
        config.as_ref().and_then(|map| map.pointer("/data/ClusterConfiguration")).and_then(Value::as_str);
    let pool = pool.as_ref().and_then(|pool| pool.get("spec"));
    Ok(Found {
        version: Some(version),
        pod_subnet: config.and_then(pod_subnet),
        pool: pool.and_then(|pool| {
            Some(Pool {
                cidr: pool["cidr"].as_str()?.to_owned(),
                block_size: pool["blockSize"].as_u64()?,
                ipip_mode: pool["ipipMode"].as_str().map(str::to_owned),
                vxlan_mode: pool["vxlanMode"].as_str().map(str::to_owned),
            })
        }),
        installation: installation.is_some(),
        kube_proxy: proxy
            .as_ref()
            .and_then(|map| map.pointer("/data/config.conf"))
            .and_then(Value::as_str)
            .map(proxy_mode),
        kube_proxy_off: proxies
            .as_ref()
            .and_then(|set| set.pointer("/spec/template/spec/nodeSelector"))
            .is_some_and(|selector| selector.get(PROXY_OFF).is_some()),
        probe_left: left.is_some(),
        ..Found::default()
    })
}

/// The key of the node selector with which the Tigera operator turns kube-proxy off (tigera/operator, pkg/render/node.go).
pub(crate) const PROXY_OFF: &str = "operator.tigera.io/disable-kube-proxy";

/// `mode` of a KubeProxyConfiguration; where it is empty kube-proxy takes iptables (kubeproxy.config.k8s.io/v1alpha1).
fn proxy_mode(config: &str) -> String {
    let line = config.lines().find_map(|line| line.strip_prefix("mode:")).unwrap_or_default();
    match line.trim().trim_matches(['"', '\'']) {
        "" => "iptables".to_owned(),
        mode => mode.to_owned(),
    }
}

/// What the probe found to be unreached, a finding for each node.
pub(crate) fn unreached(found: &Found) -> Vec<Finding> {
    let mut all = Vec::new();
    if found.probe_left && found.probe.is_empty() {
        let finding = Finding::new(probe::NAME, "a probe runs, or was killed and has left its namespace");
        all.push(finding.hint("cni-install check --probe takes it over and removes it"));
    }
    for (node, row) in &found.probe {
        let mut lacks: Vec<String> = row.silent.iter().cloned().collect();
        lacks.extend(row.pods.iter().map(|(to, why)| format!("its pod does not reach that of {to}: {why}")));
        lacks.extend(row.dns.iter().map(|why| format!("its pod finds no name: {why}")));
        lacks.extend(row.api.iter().map(|why| format!("its pod does not reach the API: {why}")));
        if !lacks.is_empty() {
            let hint = format!(
                "kubectl get pods -A -l k8s-app=calico-node -o wide --field-selector spec.nodeName={node}"
            );
            all.push(Finding::new(node, lacks.join("; ")).hint(hint));
        }
    }
    all
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

    #[test]
    fn the_mode_of_kube_proxy_is_read() {
        let config = "kind: KubeProxyConfiguration\nlogging:\n  mode: text\nmode: nftables\n";
        assert_eq!(proxy_mode(config), "nftables");
        assert_eq!(proxy_mode("mode: \"\"\n"), "iptables");
        assert_eq!(proxy_mode("kind: KubeProxyConfiguration\n"), "iptables");
    }
}
