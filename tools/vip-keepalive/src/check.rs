//! What is unhealthy although no step would change it.

use std::collections::BTreeSet;

use stage::Finding;

use crate::seen::Seen;
use crate::want::Want;

/// Holders, checks that fail, versions that differ.
pub fn check(want: &Want, seen: &Seen) -> Vec<Finding> {
    let vip = want.vip.address;
    let mut findings = Vec::new();
    match seen.holders(vip).as_slice() {
        [_] => {}
        [] => findings.push(Finding::new(vip.to_string(), "no machine that can be asked holds it")),
        many => findings.push(
            Finding::new(vip.to_string(), format!("{} hold it at once", many.join(" and ")))
                .hint("do they hear each other? VRRP is IP protocol 112: look for a firewall between them"),
        ),
    }
    for (name, machine) in seen.machines.iter().filter(|(_, m)| m.healthy == Some(false)) {
        let held = machine.addresses.contains_key(&vip);
        let then = if held { "and it still holds the address" } else { "so it cannot take the address over" };
        findings.push(
            Finding::new(name, format!("HAProxy does not answer for itself, {then}")).hint("lb-render check"),
        );
    }
    let versions: BTreeSet<&str> = seen.machines.values().filter_map(|m| m.version.as_deref()).collect();
    if versions.len() > 1 {
        let all: Vec<&str> = versions.into_iter().collect();
        let message = format!("the load balancers run different versions: {}", all.join(", "));
        findings.push(Finding::new("keepalived", message));
    }
    findings
}
