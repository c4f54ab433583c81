//! What is unhealthy although no step would change it.

use stage::Finding;

use crate::seen::Seen;
use crate::want::Want;

/// Certificates that end sooner than this are told of, in days.
const DAYS: i64 = 30;

/// Looks for ill nodes, members and certificates.
pub fn check(want: &Want, seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, host) in &seen.hosts {
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
