//! What is to be done, and why: pure.

use addon::{Step, View};
use stage::{HeldKind, Plan};

use crate::seen::Found;
use crate::want::{self, Want};

pub(crate) fn plan(want: &Want, seen: &View<Found>) -> Plan<Step> {
    let mut plan = Plan::new();
    if let Some((why, hint)) = unfit(want, seen) {
        plan.hold(HeldKind::Unmet, "Calico", why, Some(hint));
        return plan;
    }
    addon::plan(&mut plan, &want.addon, &seen.cluster, &want.access, &[], |step| step);
    addon::hold_lost(&mut plan, &seen.cluster);
    plan
}

/// Why this cluster cannot have this Calico.
fn unfit(want: &Want, seen: &View<Found>) -> Option<(String, String)> {
    if let Some(subnet) = seen.beside.pod_subnet.as_ref().filter(|subnet| **subnet != want.settings.pod_cidr)
    {
        let why = format!(
            "the cluster was made with the pod network {subnet}, the document says {}",
            want.settings.pod_cidr
        );
        return Some((
            why,
            format!("write \"podCidr\": \"{subnet}\"; a cluster's pod network cannot be changed"),
        ));
    }
    let version = seen.beside.version.as_ref().filter(|_| want.pinned)?;
    let minor: u16 = version.trim_start_matches('v').split('.').nth(1)?.parse().ok()?;
    (!want::fits(minor)).then(|| {
        let why = format!("Calico {} is not for the cluster's {version}", want.version);
        (why, "take a Calico that is, by spec.artifacts (tigera-operator)".to_owned())
    })
}
