//! Proxmox's scheduled backups of the machines: one job, ours by its id and its comment; pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pve::{flag, text};

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

/// Its comment.
pub fn comment(cluster: &str) -> String {
    format!("made by kubeline's pve-vm for the cluster {cluster}")
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
