//! What is to be done in the cluster, and why: pure.

use std::collections::BTreeSet;
use std::fmt;

use kube_apply::{Difference, FieldChange, ObjectId, What};
use serde::{Deserialize, Serialize};
use stage::{HeldKind, Plan, StepId};

use crate::access::Access;
use crate::offline::Offline;
use crate::ready::Ready;
use crate::seen::Seen;
use crate::set::Addon;

/// One change of the cluster, or one thing to wait for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Step {
    /// Makes or widens the ConfigMap that lists the set's kinds, so that nothing of it can be forgotten.
    Open {
        /// The ConfigMap.
        id: ObjectId,
    },
    /// Makes an object.
    Create {
        /// The object.
        id: ObjectId,
        /// A digest of it.
        digest: String,
    },
    /// Changes an object.
    Change {
        /// The object.
        id: ObjectId,
        /// A digest of it.
        digest: String,
    },
    /// Deletes an object and makes it anew.
    Recreate {
        /// The object.
        id: ObjectId,
        /// A digest of it.
        digest: String,
    },
    /// Makes an object whose content is made up now and never changed again.
    Generate {
        /// The object.
        id: ObjectId,
    },
    /// Waits for evidence.
    Wait {
        /// What is waited for.
        what: Ready,
    },
    /// Deletes what has left the set.
    Prune {
        /// The objects.
        ids: Vec<ObjectId>,
    },
    /// Deletes an object and waits until it is gone.
    Delete {
        /// The object.
        id: ObjectId,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Open { id } => write!(f, "open the set {}", id.name),
            Step::Create { id, .. } => write!(f, "create {}", Short(id)),
            Step::Change { id, .. } => write!(f, "change {}", Short(id)),
            Step::Recreate { id, .. } => write!(f, "recreate {}", Short(id)),
            Step::Generate { id } => write!(f, "generate {}", Short(id)),
            Step::Wait { what } => write!(f, "wait for {what}"),
            Step::Prune { ids } => {
                let each: Vec<String> = ids.iter().map(|id| Short(id).to_string()).collect();
                write!(f, "prune {}", each.join(", "))
            }
            Step::Delete { id } => write!(f, "delete {}", Short(id)),
        }
    }
}

/// An object as people call it: kind, namespace, name.
struct Short<'a>(&'a ObjectId);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectId { kind, namespace, name, .. } = self.0;
        match namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

/// Kinds that lose nothing by being deleted and made anew.
pub type Recreated = &'static [&'static str];

/// Such kinds, where a tool does not say otherwise: no claim, volume or definition is among them.
const RECREATED: Recreated = &[
    "StorageClass",
    "IngressClass",
    "ClusterRoleBinding",
    "RoleBinding",
    "Deployment",
    "DaemonSet",
    "StatefulSet",
    "Job",
    "Service",
    "PriorityClass",
];

/// Adds what the cluster needs to a plan, after the steps `after`; returns the last steps.
pub fn plan<S>(
    plan: &mut Plan<S>,
    addon: &Addon,
    seen: &Seen,
    access: &Access,
    after: &[StepId],
    wrap: impl Fn(Step) -> S,
) -> Vec<StepId> {
    let mut gate = after.to_vec();
    let mut dirty = false;
    let parent = seen.differences.first().filter(|one| one.id == addon.set.parent_id());
    match (&seen.offline, parent.map(|one| &one.what)) {
        (None, Some(What::Same)) => {}
        (offline, what) => {
            let why = match (offline, what) {
                (Some(offline), _) => offline.why(),
                (None, Some(What::Change { .. })) => "it does not name all kinds of the set".to_owned(),
                _ => "it does not exist".to_owned(),
            };
            gate = vec![plan.step_after(&gate, wrap(Step::Open { id: addon.set.parent_id() }), why)];
        }
    }
    for wave in &addon.waves {
        let mut steps: [Vec<StepId>; 3] = Default::default();
        for object in addon.set.in_order().filter(|object| wave.objects.contains(&object.id())) {
            let id = object.id();
            let Some((step, why)) = due(addon, seen, &id, plan) else { continue };
            let stage = kube_apply::Stage::of(&id) as usize;
            let before: Vec<StepId> = gate.iter().chain(steps[..stage].iter().flatten()).copied().collect();
            let made = plan.step_after(&before, wrap(step), why);
            plan.detail(made, lines_of(seen, &id));
            steps[stage].push(made);
        }
        for once in &wave.once {
            if seen.offline.is_some() || seen.absent.contains(&once.id) {
                let before: Vec<StepId> = gate.iter().chain(&steps[0]).copied().collect();
                let why = "it is made once and does not exist";
                steps[2].push(plan.step_after(&before, wrap(Step::Generate { id: once.id.clone() }), why));
            }
        }
        let done: Vec<StepId> = steps.into_iter().flatten().collect();
        dirty |= !done.is_empty();
        if !done.is_empty() {
            gate = done;
        }
        let mut waits = Vec::new();
        for need in &wave.needs {
            let lacking = seen.lacking.iter().find(|one| one.what == *need);
            let why = match lacking {
                Some(lacking) => lacking.reason.clone(),
                None if dirty => "it may change".to_owned(),
                None => continue,
            };
            waits.push(plan.step_after(&gate, wrap(Step::Wait { what: need.clone() }), why));
        }
        if !waits.is_empty() {
            dirty = true;
            gate = waits;
        }
    }
    let mut going = Vec::new();
    for left in &seen.leftovers {
        match &left.holds {
            Some(why) if !access.prune_data => plan.hold(
                HeldKind::Flag,
                Short(&left.id).to_string(),
                format!("the document has it no more, but {why}"),
                Some("--prune-data deletes it".to_owned()),
            ),
            _ => going.push(left.id.clone()),
        }
    }
    if !going.is_empty() {
        let step = Step::Prune { ids: going };
        gate = vec![plan.step_after(&gate, wrap(step), "the document has no use for it any more")];
    }
    gate
}

/// Holds for each node that is lost: what belongs there is not done.
pub fn hold_lost<S>(plan: &mut Plan<S>, seen: &Seen) {
    for (name, why) in &seen.lost {
        plan.hold(HeldKind::Unreachable, name, why, None);
    }
}

/// The step that an object needs, if any; what stands in its way is held.
fn due<S>(addon: &Addon, seen: &Seen, id: &ObjectId, plan: &mut Plan<S>) -> Option<(Step, String)> {
    let digest = addon.digest_of(id);
    let create = Step::Create { id: id.clone(), digest: digest.clone() };
    if let Some(offline) = &seen.offline {
        return Some((create, offline.why()));
    }
    let Some(Difference { what, .. }) = seen.differences.iter().find(|one| one.id == *id) else {
        return Some((create, "it does not exist".to_owned()));
    };
    match what {
        What::Same => None,
        What::Create => Some((create, "it does not exist".to_owned())),
        What::Undried { reason, .. } => Some((create, format!("not tried by a dry run: {reason}"))),
        What::Change { fields } => Some((Step::Change { id: id.clone(), digest }, changes(fields))),
        What::Immutable { reason } if RECREATED.contains(&id.kind.as_str()) => {
            Some((Step::Recreate { id: id.clone(), digest }, one_line(reason)))
        }
        What::Immutable { reason } => {
            let hint = match id.kind.as_str() {
                "PersistentVolumeClaim" | "PersistentVolume" => {
                    "write back into the document what it has; a volume of another size is made by hand, and its data moved"
                        .to_owned()
                }
                _ => format!("look at what uses it, delete {} yourself, and run again", Short(id)),
            };
            plan.hold(HeldKind::Unmet, Short(id).to_string(), one_line(reason), Some(hint));
            None
        }
        What::Conflict { fields } => {
            let each: Vec<String> =
                fields.iter().map(|(field, by)| format!("{field} belongs to {by}")).collect();
            let hint = "--force-conflicts takes these fields over".to_owned();
            plan.hold(HeldKind::Unmet, Short(id).to_string(), each.join(", "), Some(hint));
            None
        }
    }
}

fn changes(fields: &[FieldChange]) -> String {
    let each: Vec<String> = fields
        .iter()
        .map(|field| match &field.lines {
            Some(lines) => {
                let changed = |sign: char| lines.lines().filter(|l| l.starts_with(sign)).count();
                let by = field.by.as_ref().map(|by| format!(" (set by {by})")).unwrap_or_default();
                format!("{}: {} lines more, {} lines less{by}", field.path, changed('+'), changed('-'))
            }
            None => one_line(&field.to_string()),
        })
        .collect();
    each.join("; ")
}

/// The lines that change in texts of several lines: what a reason of one line cannot show.
fn lines_of(seen: &Seen, id: &ObjectId) -> Vec<String> {
    let found = seen.differences.iter().find(|one| one.id == *id);
    let Some(Difference { what: What::Change { fields }, .. }) = found else { return Vec::new() };
    let texts = fields.iter().filter_map(|field| Some((field, field.lines.as_ref()?)));
    texts
        .flat_map(|(field, lines)| {
            let head = (fields.len() > 1).then(|| field.path.clone());
            head.into_iter().chain(lines.lines().map(str::to_owned))
        })
        .collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What `destroy` does in the cluster: the reverse of the waves, what holds data only with the flag.
pub fn teardown<S>(
    plan: &mut Plan<S>,
    addon: &Addon,
    seen: &Seen,
    access: &Access,
    wrap: impl Fn(Step) -> S,
) -> Vec<StepId> {
    match &seen.offline {
        None => {}
        Some(offline @ Offline::NoKubeconfig { .. }) => {
            plan.hold(
                HeldKind::Flag,
                "the cluster",
                format!("{}: there is none to clean", offline.why()),
                None,
            );
            return Vec::new();
        }
        Some(offline) => {
            let hint = "run again when it answers, or destroy the machines".to_owned();
            plan.hold(HeldKind::Unmet, "the cluster", offline.why(), Some(hint));
            return Vec::new();
        }
    }
    let exists: BTreeSet<&ObjectId> = seen
        .differences
        .iter()
        .filter(|one| !matches!(one.what, What::Create | What::Undried { .. }))
        .map(|one| &one.id)
        .collect();
    let theirs: BTreeSet<&ObjectId> =
        seen.differences.iter().filter(|one| one.theirs).map(|one| &one.id).collect();
    let mut gate: Vec<StepId> = Vec::new();
    let mut kept = false;
    for wave in addon.waves.iter().rev() {
        let once = wave.once.iter().map(|once| &once.id).filter(|id| !seen.absent.contains(id));
        let mut objects: Vec<&ObjectId> =
            wave.objects.iter().filter(|id| exists.contains(id)).chain(once).collect();
        objects.sort_by_key(|id| std::cmp::Reverse(kube_apply::Stage::of(id)));
        let mut stages: [Vec<StepId>; 3] = Default::default();
        for id in objects {
            if theirs.contains(id) {
                let why = "it was there before, and this tool has never applied it: it stays";
                plan.hold(HeldKind::Flag, Short(id).to_string(), why, None);
                continue;
            }
            if let Some(why) = data_in(id, seen).filter(|_| !access.prune_data) {
                kept = true;
                plan.hold(
                    HeldKind::Flag,
                    Short(id).to_string(),
                    why,
                    Some("--prune-data deletes it".to_owned()),
                );
                continue;
            }
            let stage = kube_apply::Stage::of(id) as usize;
            let after: Vec<StepId> =
                gate.iter().chain(stages[stage + 1..].iter().flatten()).copied().collect();
            stages[stage].push(plan.step_after(
                &after,
                wrap(Step::Delete { id: id.clone() }),
                "destroy was asked for",
            ));
        }
        let done: Vec<StepId> = stages.into_iter().flatten().collect();
        if !done.is_empty() {
            gate = done;
        }
    }
    let parent = addon.set.parent_id();
    if !kept && exists.contains(&parent) {
        gate = vec![plan.step_after(&gate, wrap(Step::Delete { id: parent }), "the set is gone")];
    }
    gate
}

/// Why an object does not go without the flag.
fn data_in(id: &ObjectId, seen: &Seen) -> Option<&'static str> {
    match id.kind.as_str() {
        "PersistentVolumeClaim" | "PersistentVolume" => Some("it holds data"),
        "CustomResourceDefinition" => Some("all objects of its kind would go with it"),
        "Namespace" if seen.claims.contains(&id.name) => Some("claims are in it, which hold data"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SET: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: a}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c, namespace: a}
";

    fn difference(id: ObjectId, what: What) -> Difference {
        Difference { id, what, theirs: false }
    }

    fn access() -> Access {
        Access {
            kubeconfig: None,
            shown: String::new(),
            server: None,
            force: false,
            prune_data: false,
            bundle: None,
            unreachable: BTreeMap::new(),
            nodes: Vec::new(),
        }
    }

    /// A diff is read below its step; who set what is there is named in the reason, which `check` shows as well.
    #[test]
    fn lines_that_change_are_shown_and_whose_they_are() {
        let mut addon = Addon::new("test");
        addon
            .wave()
            .add("x", "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: a}}")
            .unwrap();
        let field = |path: &str, lines: Option<&str>| FieldChange {
            path: path.to_owned(),
            from: Some("\"1\"".to_owned()),
            to: Some("\"2\"".to_owned()),
            lines: lines.map(str::to_owned),
            by: Some("kubectl-edit".to_owned()),
        };
        let fields = vec![field(".data.f", Some("@@ -1,2 +1,2 @@\n a\n-b\n+B\n")), field(".data.n", None)];
        let mut differences = vec![difference(addon.set.parent_id(), What::Same)];
        differences.extend(
            addon.set.objects().iter().map(|o| difference(o.id(), What::Change { fields: fields.clone() })),
        );
        let seen = Seen { differences, ..Seen::default() };
        let mut made = Plan::new();
        plan(&mut made, &addon, &seen, &access(), &[], |step| step);
        let wanted = "t: 1 step\n   1. change ConfigMap a/c  # .data.f: 1 lines more, 1 lines less (set by kubectl-edit); \
             .data.n: \"1\" -> \"2\" (set by kubectl-edit)\n      | .data.f\n      | @@ -1,2 +1,2 @@\n      |  a\n      | -b\n      | +B\n";
        assert_eq!(made.text("t"), wanted);
    }

    /// What somebody else made under a name of ours, and no run of ours has taken over, is not ours to delete.
    #[test]
    fn what_was_never_applied_stays() {
        let mut addon = Addon::new("test");
        addon.wave().add("x", SET).unwrap();
        let mut differences = vec![difference(addon.set.parent_id(), What::Create)];
        let conflict = What::Conflict { fields: vec![(".spec.replicas".into(), "helm".into())] };
        differences.extend(
            addon
                .set
                .objects()
                .iter()
                .map(|o| Difference { theirs: true, ..difference(o.id(), conflict.clone()) }),
        );
        let seen = Seen { differences, ..Seen::default() };
        let mut made = Plan::new();
        teardown(&mut made, &addon, &seen, &Access { prune_data: true, ..access() }, |step| step);
        assert!(made.is_empty(), "{}", made.text("t"));
        let held: Vec<&str> = made.held().iter().map(|one| one.what.as_str()).collect();
        assert_eq!(held, ["Deployment a/d", "PersistentVolumeClaim a/c"]);
    }

    /// What the server's dry run said of both: a field that cannot be changed would change.
    #[test]
    fn immutable_fields_are_recreated_or_held() {
        let mut addon = Addon::new("test");
        addon.wave().add("x", SET).unwrap();
        let reason = "spec.selector: Invalid value: {}:\n field is immutable".to_owned();
        let mut differences: Vec<Difference> = addon
            .set
            .objects()
            .iter()
            .map(|object| difference(object.id(), What::Immutable { reason: reason.clone() }))
            .collect();
        differences.insert(0, difference(addon.set.parent_id(), What::Same));
        let seen = Seen { differences, ..Seen::default() };
        let access = access();
        let mut made = Plan::new();
        plan(&mut made, &addon, &seen, &access, &[], |step| step);
        let steps: Vec<String> = made.steps().map(ToString::to_string).collect();
        assert_eq!(steps, ["recreate Deployment a/d"]);
        let held = &made.held()[0];
        assert_eq!((held.kind, held.what.as_str()), (HeldKind::Unmet, "PersistentVolumeClaim a/c"));
        assert_eq!(held.why, "spec.selector: Invalid value: {}: field is immutable");
    }
}
