//! Proxmox's scheduled backups of the machines: one job, ours by its id and its comment; pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::{HeldKind, Plan};

use crate::pve::{flag, text};
use crate::seen::Seen;
use crate::step::Step;
use crate::want::Design;

/// The job as it is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Job {
    /// True when its comment says that it is ours.
    pub ours: bool,
    /// Its options that the document decides.
    pub options: BTreeMap<String, String>,
}

/// The job's id.
pub fn id(cluster: &str) -> String {
    format!("kubeline-{cluster}")
}

fn comment(cluster: &str) -> String {
    format!("made by kubeline's pve-vm for the cluster {cluster}")
}

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

/// What Proxmox tells of a job.
pub fn read(cluster: &str, job: &Value) -> Job {
    let mut options: BTreeMap<String, String> = ["pool", "vmid", "schedule", "storage", "mode", "comment"]
        .into_iter()
        .filter_map(|option| Some((option.to_owned(), text(job, option)?)))
        .collect();
    options.insert("enabled".to_owned(), u8::from(flag(job, "enabled")).to_string());
    // It is sent as a property string and told as an object.
    let keep = match job.get("prune-backups") {
        Some(Value::Object(all)) => {
            let pairs = all.keys().filter_map(|k| Some(format!("{k}={}", text(&job["prune-backups"], k)?)));
            Some(pairs.collect::<Vec<_>>().join(","))
        }
        _ => text(job, "prune-backups"),
    };
    options.extend(keep.map(|keep| ("prune-backups".to_owned(), keep)));
    Job { ours: options.get("comment").is_some_and(|c| *c == comment(cluster)), options }
}

/// The step that makes the job right, or takes it away when the document has none any more.
pub fn plan(design: &Design, seen: &Seen, ids: &[u32], plan: &mut Plan<Step>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_read_again() {
        let told = serde_json::json!({
            "id": "kubeline-prod", "type": "vzdump", "pool": "k8s", "schedule": "sat 01:00", "storage": "backup",
            "mode": "snapshot", "prune-backups": { "keep-last": "4" }, "enabled": 1,
            "comment": "made by kubeline's pve-vm for the cluster prod",
        });
        let job = read("prod", &told);
        assert!(job.ours && !read("other", &told).ours);
        assert_eq!(job.options["prune-backups"], "keep-last=4");
        assert_eq!((job.options["enabled"].as_str(), job.options.contains_key("vmid")), ("1", false));
    }
}
