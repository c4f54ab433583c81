//! The step for the backup job.

use std::collections::BTreeMap;

use stage::{HeldKind, Plan};

use crate::job::{comment, id};
use crate::seen::Seen;
use crate::step::Step;
use crate::want::Design;

/// The options that the document wants.
fn wanted(design: &Design, ids: &[u32]) -> Option<BTreeMap<String, String>> {
    let (schedule, keep, storage) = design.backup.as_ref()?;
    let list = || ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let which = match &design.pool {
        Some(pool) => ("pool", pool.clone()),
        None => ("vmid", list()),
    };
    let all = [
        which,
        ("schedule", schedule.clone()),
        ("storage", storage.clone()),
        ("mode", "snapshot".to_owned()),
        ("prune-backups", format!("keep-last={keep}")),
        ("enabled", "1".to_owned()),
        ("comment", comment(&design.cluster)),
    ];
    Some(all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

/// The step that makes the job right, or takes it away when the document has none any more.
pub(super) fn plan(design: &Design, seen: &Seen, ids: &[u32], plan: &mut Plan<Step>) {
    let id = id(&design.cluster);
    match (wanted(design, ids), &seen.job) {
        (Some(set), None) => {
            plan.step(Step::MakeJob { id, set, there: false }, "there is no such job");
        }
        (Some(_), Some(job)) if !job.ours => {
            let why = "a backup job of that id is there and does not bear our comment; it was left untouched";
            let hint = format!("pvesh delete /cluster/backup/{id}, or take spec.backup.machines out");
            plan.hold(HeldKind::Unmet, id, why, Some(hint));
        }
        (Some(set), Some(job)) if job.options != set => {
            let differ: Vec<&str> =
                set.iter().filter(|(k, v)| job.options.get(*k) != Some(v)).map(|(k, _)| k.as_str()).collect();
            let why = format!("{} differ", differ.join(", "));
            plan.step(Step::MakeJob { id, set, there: true }, why);
        }
        (None, Some(job)) if job.ours => {
            plan.step(Step::DropJob { id }, "the document has no spec.backup.machines");
        }
        _ => {}
    }
}
