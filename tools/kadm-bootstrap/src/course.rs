//! How the cluster comes to be: made, joined, or left alone. Never a second cluster.

use std::collections::BTreeMap;

use stage::{HeldKind, Plan};

use crate::node::Node;
use crate::seen::{HostSeen, Seen};
use crate::state::{Stand, State};
use crate::step::Step;
use crate::want::Want;

/// How the cluster comes to be.
pub(crate) enum Course<'c> {
    /// Made on this machine.
    Init(&'c Node),
    /// It is there; this control plane helps.
    Join(String),
    /// Held.
    Stay,
}

/// Decides on init or join. Never a second cluster.
pub(crate) fn course<'w>(
    plan: &mut Plan<Step>,
    want: &'w Want,
    seen: &Seen,
    states: &BTreeMap<&str, State>,
    stand: &Stand,
) -> Course<'w> {
    let mut hold = |why: String, hint: Option<String>| {
        plan.hold(HeldKind::Unmet, "the cluster", why, hint);
        Course::Stay
    };
    if let Some(cluster) = &seen.cluster {
        if !cluster.missing.is_empty() {
            let alone = cluster.nodes.keys().all(|n| *n == cluster.lead);
            let asked =
                want.control_planes().find(|n| n.name == cluster.lead && want.reset.contains(&n.name));
            return match own_init(want, seen).or(asked.filter(|_| alone)) {
                Some(node) => Course::Init(node),
                None => {
                    let missing: Vec<&str> = cluster.missing.iter().map(String::as_str).collect();
                    hold(
                        format!(
                            "its init on {} was not finished: {} is missing",
                            cluster.lead,
                            missing.join(", ")
                        ),
                        Some(format!("kadm-bootstrap --reset-host {}", cluster.lead)),
                    )
                }
            };
        }
        if let Some(fault) = &cluster.vip_fault {
            return hold(
                format!("its API does not answer at {}: {fault}", want.endpoint),
                Some("lb-render check; vip-keepalive check".to_owned()),
            );
        }
        if let Stand::Held(what, why, hint) = stand {
            plan.hold(HeldKind::Unmet, what, why, hint.clone());
            return Course::Stay;
        }
        return Course::Join(cluster.lead.clone());
    }
    let leaving = want.leaving.iter().map(|n| n.name.as_str());
    let leaving = leaving.filter(|n| seen.hosts.get(*n).is_some_and(HostSeen::traces));
    let here = states.iter().filter(|(_, s)| **s != State::Blank).map(|(name, _)| *name);
    let traces: Vec<&str> = here.chain(leaving).filter(|n| !want.reset.contains(*n)).collect();
    if !traces.is_empty() && own_init(want, seen).is_none() {
        let fault = seen.api_fault.as_ref();
        let data =
            |name: &&str| seen.hosts.get(*name).is_some_and(|h| h.state.contains("/var/lib/etcd/member"));
        if let Some(fault) = fault.filter(|_| traces.iter().any(data)) {
            // A cluster that is down is to be started, not to be wiped: no flag is offered here.
            let why = format!("{} know of one, which does not answer: {fault}", traces.join(", "));
            return hold(
                why,
                Some("on a control plane: crictl ps -a; journalctl -u kubelet -n 50".to_owned()),
            );
        }
        let why = match traces.as_slice() {
            [one] => format!("{one} holds what an earlier set-up left"),
            many => format!("{} hold what an earlier set-up left", many.join(", ")),
        };
        let flags: Vec<String> = traces.iter().map(|n| format!("--reset-host {n}")).collect();
        return hold(why, Some(format!("if that is of no worth: kadm-bootstrap {}", flags.join(" "))));
    }
    let planes = want.control_planes().chain(want.leaving.iter().filter(|n| n.control_plane));
    let away: Vec<&str> = planes.map(|n| n.name.as_str()).filter(|n| !seen.hosts.contains_key(*n)).collect();
    if !away.is_empty() && !want.new_cluster {
        return hold(
            format!("{} cannot be asked whether there is one already", away.join(", ")),
            Some("bring them back, or: kadm-bootstrap --new-cluster".to_owned()),
        );
    }
    if let Some(file) = &seen.kubeconfig
        && !(want.new_cluster && file.server.as_deref() == Some(&format!("https://{}", want.endpoint)))
    {
        return hold(
            format!("every machine is blank, but {} speaks of one", want.kubeconfig_shown),
            Some(format!(
                "restore it from a backup, or move {} away, or: kadm-bootstrap --new-cluster",
                want.kubeconfig_shown
            )),
        );
    }
    match want.control_planes().find(|n| seen.hosts.contains_key(&n.name)) {
        Some(first) => Course::Init(first),
        None => Course::Stay,
    }
}

/// The control plane on which this tool began an init that nothing else came of.
fn own_init<'w>(want: &'w Want, seen: &Seen) -> Option<&'w Node> {
    let mut touched = seen.hosts.iter().filter(|(name, h)| h.traces() && !want.reset.contains(*name));
    let (name, host) = touched.next()?;
    let cluster = seen.cluster.as_ref();
    let only = touched.next().is_none()
        && host.intent
        && seen.kubeconfig.is_none()
        && cluster.is_none_or(|c| {
            !c.missing.is_empty()
                && c.nodes.keys().all(|n| n == name)
                && c.etcd.iter().all(|m| m.name == *name)
        });
    want.control_planes().find(|n| n.name == *name).filter(|_| only)
}
