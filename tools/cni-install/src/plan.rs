//! What is to be done, and why: pure.

use std::fmt;

use addon::View;
use serde::{Deserialize, Serialize};
use stage::{HeldKind, Plan};

use crate::manifest;
use crate::probe;
use crate::seen::{Found, PROXY_OFF, Pool};
use crate::settings::Settings;
use crate::versions;
use crate::want::Want;

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[allow(missing_docs, reason = "the variant says it")]
pub enum Step {
    /// A step in the cluster.
    Cluster { step: addon::Step },
    /// Removes what is left of Calico on a node.
    Clean { machine: String },
}

impl From<addon::Step> for Step {
    fn from(step: addon::Step) -> Step {
        Step::Cluster { step }
    }
}

impl addon::Change for Step {
    fn in_cluster(&self) -> Option<&addon::Step> {
        match self {
            Step::Cluster { step } => Some(step),
            Step::Clean { .. } => None,
        }
    }

    fn machine(&self) -> Option<&str> {
        match self {
            Step::Cluster { .. } => None,
            Step::Clean { machine } => Some(machine),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Cluster { step } => step.fmt(f),
            Step::Clean { machine } => write!(f, "clean {machine} of Calico"),
        }
    }
}

pub(crate) fn plan(want: &Want, seen: &View<Found>) -> Plan<Step> {
    let mut plan = Plan::new();
    if let Some((why, hint)) = unfit(want, &seen.beside) {
        plan.hold(HeldKind::Unmet, "Calico", why, Some(hint));
        return plan;
    }
    addon::plan(&mut plan, &want.addon, &seen.cluster, &want.access, &[], Step::from);
    if seen.beside.kube_proxy_off && want.settings.dataplane != "BPF" {
        let why = "it was turned off for eBPF, and the operator leaves it so: without either nobody serves Services";
        plan.hold(HeldKind::Unmet, "kube-proxy", why, Some(turn_on()));
    }
    addon::hold_lost(&mut plan, &seen.cluster);
    plan
}

/// The way back from what the Tigera operator did to kube-proxy's DaemonSet.
fn turn_on() -> String {
    let selector =
        format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"{PROXY_OFF}":null}}}}}}}}}}"#);
    format!("kubectl -n kube-system patch daemonset kube-proxy --type merge -p '{selector}'")
}

/// Why this cluster cannot have this Calico.
fn unfit(want: &Want, found: &Found) -> Option<(String, String)> {
    let settings = &want.settings;
    if let Some(subnet) = found.pod_subnet.as_ref().filter(|subnet| **subnet != settings.pod_cidr) {
        let why = format!(
            "the cluster was made with the pod network {subnet}, the document says {}",
            settings.pod_cidr
        );
        let hint = format!("write \"podCidr\": \"{subnet}\"; a cluster's pod network cannot be changed");
        return Some((why, hint));
    }
    if let Some(pool) = found.pool.as_ref().filter(|pool| pool.cidr != settings.pod_cidr) {
        let why = format!("Calico gives addresses of {}, the document says {}", pool.cidr, settings.pod_cidr);
        return Some((why, format!("write \"podCidr\": \"{}\"; a pool cannot be changed", pool.cidr)));
    }
    if let Some(pool) = found.pool.as_ref().filter(|pool| pool.block_size != u64::from(settings.block_size)) {
        let why = format!(
            "nodes have taken blocks of /{}, the document says /{}",
            pool.block_size, settings.block_size
        );
        return Some((why, format!("write \"blockSize\": {}; a pool cannot be changed", pool.block_size)));
    }
    if found.installation && !settings.operator {
        let why = "the Tigera operator has installed Calico here, and two of them would fight".to_owned();
        return Some((why, "write \"install\": \"operator\", or destroy that one first".to_owned()));
    }
    if let Some(unfit) =
        found.pool.as_ref().filter(|_| !settings.operator).and_then(|p| encapsulated(p, settings))
    {
        return Some(unfit);
    }
    // One that is turned off for eBPF already is not in its way.
    let replaced = found.kube_proxy_off && settings.dataplane == "BPF";
    let proxy = found.kube_proxy.as_deref().filter(|_| !replaced);
    if let Some(unfit) = proxy.and_then(|mode| proxied(mode, settings.dataplane)) {
        return Some(unfit);
    }
    let version = found.version.as_ref().filter(|_| want.pinned)?;
    let minor: u16 = version.trim_start_matches('v').split('.').nth(1)?.parse().ok()?;
    versions::unfit(minor).map(|why| {
        let name = want.artefacts.first().map_or("tigera-operator", |artefact| artefact.name.as_str());
        (
            format!("the cluster is {version}, and {why}"),
            format!("take a Calico that fits, by spec.artifacts ({name})"),
        )
    })
}

/// Without the operator nobody changes a pool that is there: calico-node makes it at its first start and leaves it alone then.
fn encapsulated(pool: &Pool, settings: &Settings) -> Option<(String, String)> {
    let (ipip, vxlan) = manifest::modes(settings.encapsulation);
    let said = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Never".to_owned());
    let (has_ipip, has_vxlan) = (said(&pool.ipip_mode), said(&pool.vxlan_mode));
    if (has_ipip.as_str(), has_vxlan.as_str()) == (ipip, vxlan) {
        return None;
    }
    let why = format!(
        "the pool has ipipMode {has_ipip} and vxlanMode {has_vxlan}, and {} needs {ipip} and {vxlan}; calico-node makes \
         the pool once and does not change it",
        settings.encapsulation
    );
    let hint = format!(
        "kubectl patch ippools.crd.projectcalico.org default-ipv4-ippool --type merge \
         -p '{{\"spec\":{{\"ipipMode\":\"{ipip}\",\"vxlanMode\":\"{vxlan}\"}}}}', then run again"
    );
    Some((why, hint))
}

/// Which kube-proxy a data plane works beside (docs.tigera.io 3.32: nftables data plane; enabling eBPF).
fn proxied(mode: &str, dataplane: &str) -> Option<(String, String)> {
    let (why, wanted, or) = match (dataplane, mode) {
        ("Nftables", "nftables") => return None,
        ("Nftables", _) => (
            "Calico's nftables needs kube-proxy in its nftables mode",
            "nftables",
            ", or write \"dataplane\": \"iptables\"",
        ),
        ("Iptables", "nftables") => (
            "Calico's iptables does not work beside it",
            "iptables",
            ", or write \"dataplane\": \"nftables\"",
        ),
        ("BPF", "ipvs") => ("eBPF cannot replace it in that mode", "iptables", "; reboot the nodes then"),
        _ => return None,
    };
    let hint = format!(
        "write mode: {wanted} there (kubectl -n kube-system edit configmap kube-proxy), then \
         kubectl -n kube-system rollout restart daemonset kube-proxy{or}"
    );
    Some((format!("kube-proxy works in {mode} mode (ConfigMap kube-system/kube-proxy), and {why}"), hint))
}

/// The objects go, and then what Calico has left on the nodes.
pub(crate) fn teardown(want: &Want, seen: &View<Found>) -> Plan<Step> {
    let mut plan = Plan::new();
    let found = &seen.beside;
    if found.probe_left {
        let id = addon::ObjectId::new("v1", "Namespace", None, probe::NAME);
        plan.step(Step::from(addon::Step::Delete { id }), "a probe that was killed has left it");
    }
    let last = addon::teardown(&mut plan, &want.addon, &seen.cluster, &want.access, Step::from);
    // While the cluster may still run Calico, its files are in use.
    let unknown = matches!(seen.cluster.offline, Some(addon::Offline::NoAnswer { .. }));
    for (machine, remains) in found.remains.iter().filter(|_| !unknown) {
        plan.step_after(&last, Step::Clean { machine: machine.clone() }, remains.join(", "));
    }
    if found.kube_proxy_off {
        let why = "the Tigera operator turned it off for eBPF; without Calico nobody serves Services";
        plan.hold(HeldKind::Flag, "kube-proxy", why, Some(turn_on()));
    }
    for (machine, why) in &found.unreachable {
        plan.hold(HeldKind::Unreachable, machine, why, None);
    }
    if want.route.is_none() {
        let hint =
            "write spec.ssh, or reboot the nodes after removing /etc/cni/net.d/10-calico.conflist".to_owned();
        plan.hold(HeldKind::Flag, "the nodes", "without spec.ssh they are not cleaned of Calico", Some(hint));
    }
    plan
}
