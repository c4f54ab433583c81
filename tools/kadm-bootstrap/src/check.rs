//! What is unhealthy although no step would change it.

use stage::Finding;

use crate::kernel::cgroup_v1;
use crate::probe;
use crate::seen::{ClusterSeen, HostSeen, RequestState, Seen};
use crate::wal;
use crate::want::Want;

/// Certificates that end sooner than this are told of, in days.
const DAYS: i64 = 30;

/// Looks for ill nodes, members and certificates.
pub fn check(want: &Want, seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, host) in &seen.hosts {
        if let Some(words) = host.probed.fsync.as_ref().and_then(probe::slow) {
            found.push(Finding::new(name, words));
        }
        if let Some(words) = host.wal.as_ref().and_then(wal::slow) {
            found.push(Finding::new(name, words));
        }
        if let Some(words) = cgroup_v1(want, host) {
            let hint = "boot with systemd.unified_cgroup_hierarchy=1";
            found.push(Finding::new(name, words).hint(hint));
        }
        for (certificate, one) in &host.certificates {
            let days = (one.expires - host.time).div_euclid(86_400);
            if days < DAYS {
                let what = if days < 0 { "has ended".to_owned() } else { format!("ends in {days} days") };
                found.push(
                    Finding::new(name, format!("the certificate {certificate} {what}"))
                        .hint("kadm-bootstrap certs --renew"),
                );
            }
        }
    }
    let Some(cluster) = &seen.cluster else {
        if let Some(fault) = &seen.api_fault {
            found.push(Finding::new("the API", format!("does not answer: {fault}")));
        }
        return found;
    };
    if let Some(fault) = &cluster.vip_fault {
        found.push(Finding::new("the API", format!("does not answer at {}: {fault}", want.endpoint)));
    }
    certificates(want, seen, cluster, &mut found);
    for node in &want.nodes {
        let Some(one) = cluster.nodes.get(&node.name) else { continue };
        if !one.ready {
            found.push(Finding::new(&node.name, format!("is not ready: {}", one.reason)));
        }
        if one.version != want.version.tag() {
            found.push(Finding::new(
                &node.name,
                format!("its kubelet is {}, the document wants {}", one.version, want.version.tag()),
            ));
        }
    }
    if let Some(fault) = &cluster.etcd_fault {
        found.push(Finding::new("etcd", format!("cannot be asked {fault}")));
    }
    for member in &cluster.etcd {
        if member.learner {
            found.push(Finding::new("etcd", format!("the member {} has not caught up", member.name)));
        } else if !member.healthy {
            found.push(Finding::new("etcd", format!("the member {} is not healthy", member.name)));
        }
    }
    found
}

/// What each etcd takes to keep a write, a line a control plane.
pub fn overview(seen: &Seen) -> Option<String> {
    let line = |(name, host): (&String, &HostSeen)| {
        Some(format!("{name}: its etcd takes {} to keep a write\n", wal::figure(host.wal.as_ref()?)))
    };
    let lines: String = seen.hosts.iter().filter_map(line).collect();
    (!lines.is_empty()).then_some(lines)
}

/// Kubelets without a certificate, requests that nobody granted, and the approver that should.
fn certificates(want: &Want, seen: &Seen, cluster: &ClusterSeen, found: &mut Vec<Finding>) {
    if let Some(why) = &cluster.approver.away {
        let what = "the approver of kubelets' certificates";
        found.push(
            Finding::new(what, format!("does not run: {why}"))
                .hint("kubectl -n kube-system describe pod -l app.kubernetes.io/name=kubelet-csr-approver"),
        );
    }
    for (name, request) in &cluster.requests {
        if let RequestState::Odd(why) = &request.state {
            let message = format!("the certificate request {name} waits for a person: {why}");
            found.push(Finding::new(&request.node, message).hint(format!("kubectl describe csr {name}")));
        }
    }
    for node in want.nodes.iter().filter(|n| cluster.nodes.contains_key(&n.name)) {
        let Some(host) = seen.hosts.get(&node.name).filter(|h| h.serving) else { continue };
        let Some(certificate) = &host.serves else {
            let own = || cluster.requests.values().filter(|r| r.node == node.name).map(|r| &r.state);
            // What plan approves is told of there.
            if own().any(|s| *s == RequestState::Good) {
                continue;
            }
            let why = own().find_map(|s| match s {
                RequestState::Refused(why) => Some(format!("its request was denied: {why}")),
                RequestState::Approved => Some("its request is approved and nobody signs it".to_owned()),
                _ => None,
            });
            let why = why.unwrap_or_else(|| "it has not asked for one".to_owned());
            let message = format!("its kubelet has no serving certificate: {why}");
            found.push(Finding::new(&node.name, message).hint("kubectl get csr"));
            continue;
        };
        let days = (certificate.expires - host.time).div_euclid(86_400);
        if days < DAYS {
            let what = if days < 0 { "has ended".to_owned() } else { format!("ends in {days} days") };
            let message = format!("the kubelet's serving certificate {what}, and was to be renewed before");
            found.push(Finding::new(&node.name, message).hint("kubectl get csr"));
        }
    }
}
