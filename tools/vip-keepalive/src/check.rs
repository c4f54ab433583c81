//! What is unhealthy although no step would change it.

use std::net::Ipv4Addr;

use stage::Finding;

use crate::seen::{MachineSeen, Seen, holders};
use crate::want::{Balancer, Want};

/// Holders, checks that fail, what keepalived says of itself, versions that differ.
pub fn check(want: &Want, seen: &Seen) -> Vec<Finding> {
    let vip = want.vip.address;
    let mut findings = Vec::new();
    match holders(seen, vip).as_slice() {
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
    for balancer in &want.balancers {
        let Some(machine) = seen.machines.get(&balancer.name).filter(|m| m.unit.is_active()) else {
            continue;
        };
        let told = states(machine, balancer, vip).into_iter();
        findings.extend(told.map(|(why, hint)| Finding::new(&balancer.name, why).hint(hint)));
    }
    findings.extend(seen.versions("keepalived", |machine| machine.version.as_deref()));
    findings
}

/// Where keepalived's own account and the machine, or the document, disagree.
fn states(machine: &MachineSeen, balancer: &Balancer, vip: Ipv4Addr) -> Vec<(String, String)> {
    let log = format!("ssh {} sudo journalctl -u keepalived", balancer.name);
    let Some(vrrp) = &machine.vrrp else {
        return vec![("keepalived runs, and does not tell its state".to_owned(), log)];
    };
    let mut wrong = Vec::new();
    let holds = machine.addresses.contains_key(&vip);
    let is = |word: &str| vrrp.state == word;
    if is("FAULT") && machine.healthy == Some(true) {
        let why = "keepalived is in the state FAULT although HAProxy answers: its link, or a check that it does not \
                   believe yet";
        wrong.push((why.to_owned(), log.clone()));
    }
    if is("MASTER") && !holds {
        wrong.push((format!("keepalived is MASTER, and {vip} is on none of its interfaces"), log.clone()));
    }
    if !is("MASTER") && holds {
        let why = format!(
            "it has {vip}, and its keepalived is {}: another machine may take it as well",
            vrrp.state
        );
        let interface = machine.addresses.get(&vip).map(String::as_str).unwrap_or_default();
        wrong.push((why, format!("ssh {} sudo ip address delete {vip}/32 dev {interface}", balancer.name)));
    }
    let due = balancer.instance.priority;
    if vrrp.priority != due {
        let why = format!("keepalived runs with the priority {}, and due is {due}", vrrp.priority);
        wrong.push((why, format!("ssh {} sudo systemctl reload keepalived", balancer.name)));
    } else if vrrp.effective != vrrp.priority && !is("FAULT") {
        let why = format!("its checks make its priority {} instead of {due}", vrrp.effective);
        wrong.push((why, "vip-keepalive plan: a check of ours has the weight 0".to_owned()));
    }
    wrong
}
