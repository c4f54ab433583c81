//! The certificates of the control planes: when they end, and their renewal one control plane at a time.

use remote::{Command, Host, RemoteFile};
use stage::{Ctx, Exit, Failure, HeldKind, Plan, Waiting};

use crate::etcd::{self, crictl};
use crate::evidence::{EVIDENCE, own_api, wait_for_etcd};
use crate::hosts::{self, must};
use crate::kubeadm;
use crate::look::RENEWING;
use crate::node::Node;
use crate::seen::{HostSeen, MemberSeen, Seen};
use crate::step::Step;
use crate::want::Want;

/// The static pods in the order of their restart: each needs those before it.
const PODS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
const DAY: i64 = 86_400;
/// Without it kubeadm takes the authority for an external one, renews nothing of it and exits 0 (`RenewUsingLocalCA` in its
/// phases/certs/renewal/manager.go).
const CA_KEY: &str = "/etc/kubernetes/pki/ca.key";

/// The table of `kadm-bootstrap certs`; exit 6 when one ends within so many days.
pub fn table(seen: &Seen, within: u16) -> (String, Exit) {
    let mut rows = Vec::new();
    let mut soon = false;
    for (machine, host) in &seen.hosts {
        for (name, certificate) in &host.certificates {
            let days = (certificate.expires - host.time).div_euclid(DAY);
            soon |= days < i64::from(within);
            rows.push((days, format!("{machine:<20} {name:<26} {days:>6} days")));
        }
    }
    rows.sort();
    let text: String = rows.iter().map(|(_, row)| format!("{row}\n")).collect();
    (text, if soon { Exit::Differs } else { Exit::Done })
}

/// True when a certificate of this control plane, but the authority's own, ends within so many days.
fn due(host: &HostSeen, within: u16) -> bool {
    let soon = |expires: i64| expires - host.time < i64::from(within) * DAY;
    host.renewing || host.certificates.iter().any(|(name, c)| name != "ca" && soon(c.expires))
}

/// What `certs --renew` does: control planes one by one, then the operator's kubeconfig.
pub fn plan(want: &Want, seen: &Seen, within: u16) -> Plan<Step> {
    let mut plan = Plan::new();
    for node in want.control_planes() {
        if let Some(why) = seen.unreachable.get(&node.name) {
            plan.hold(HeldKind::Unreachable, &node.name, why, None);
        }
    }
    let Some(cluster) = &seen.cluster else {
        let why = seen.api_fault.clone().unwrap_or_else(|| "there is none".to_owned());
        plan.hold(HeldKind::Unmet, "the cluster", why, Some("kadm-bootstrap check".to_owned()));
        return plan;
    };
    let lost = |m: &&MemberSeen| !m.healthy && !seen.hosts.contains_key(&m.name);
    let lost = cluster.etcd.iter().find(lost);
    let mut chain = Vec::new();
    let planes = want.control_planes().filter(|n| cluster.nodes.contains_key(&n.name));
    for (node, host) in planes.filter_map(|n| Some((n, seen.hosts.get(&n.name)?))) {
        if due(host, within) {
            if let Some(MemberSeen { name, .. }) = lost {
                let why = format!(
                    "its etcd would be restarted while the member {name} is away: that may cost the quorum"
                );
                let hint = format!("bring {name} back, or take it out of the document");
                plan.hold(HeldKind::Unmet, &node.name, why, Some(hint));
                continue;
            }
            if !host.state.contains(CA_KEY) {
                let why =
                    "a certificate ends, and kubeadm renews none of an authority whose key is elsewhere";
                let hint = format!(
                    "on {}: kubeadm certs generate-csr; have them signed by whoever keeps the key",
                    node.name
                );
                plan.hold(HeldKind::Unmet, &node.name, why, Some(hint));
                continue;
            }
            let why = match host.renewing {
                true => "its renewal was not seen through".to_owned(),
                false => format!("one ends in less than {within} days"),
            };
            chain = vec![plan.step_after(&chain, Step::Renew { host: node.name.clone() }, why)];
        }
    }
    let time = seen.hosts.get(&cluster.lead).map_or(0, |h| h.time);
    let file = seen.kubeconfig.as_ref().filter(|f| f.single && f.ca.as_deref() == Some(cluster.ca.as_str()));
    if file.and_then(|f| f.expires).is_some_and(|e| e - time < i64::from(within) * DAY) {
        let step = Step::Kubeconfig {
            via: cluster.lead.clone(),
            path: want.kubeconfig_shown.clone(),
            server: format!("https://{}", want.endpoint),
        };
        plan.step_after(&chain, step, format!("its certificate ends in less than {within} days"));
    }
    plan
}

/// Renews the certificates of one control plane, restarts its components and proves that they are back.
///
/// # Errors
/// What failed; the next run goes on, for the machine says that it is in the middle of it.
pub async fn renew(node: &Node, host: &Host, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let doing = format!("cannot renew the certificates on {}", node.name);
    wait_for_etcd(host, None, ctx).await?;
    hosts::put(host, &RemoteFile::new(RENEWING, "kubeadm certs renew all began here\n"), &doing).await?;
    let renew = Command::new("kubeadm").args(["certs", "renew", "all"]).sudo().timeout(kubeadm::PATIENCE);
    kubeadm::run(host, &renew, &doing).await?;
    for pod in PODS {
        restart(host, pod, &doing, ctx).await?;
        if pod == "etcd" {
            wait_for_etcd(host, Some(&node.name), ctx).await?;
        }
    }
    own_api(node, host, want, ctx).await?;
    host.remove(RENEWING).await.map(drop).map_err(|e| fleet::failure(doing, &e))
}

/// Stops a component's container; the kubelet starts it again, and that is waited for.
async fn restart(host: &Host, pod: &str, doing: &str, ctx: &Ctx) -> Result<(), Failure> {
    let before = etcd::running(host, pod).await.map_err(|why| Failure::transient(doing).because(why))?;
    for id in &before {
        must(host, &crictl().args(["stop", "--timeout", "30", id]), doing).await?;
    }
    ctx.wait_for(&format!("{pod} on {}", host.name()), EVIDENCE, || async {
        Ok(match etcd::running(host, pod).await {
            Ok(now) if now.iter().any(|id| !before.contains(id)) => Waiting::Seen(()),
            Ok(_) => Waiting::NotYet("the kubelet has not started it again".to_owned()),
            Err(why) => Waiting::NotYet(why),
        })
    })
    .await
}
