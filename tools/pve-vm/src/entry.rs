//! The entries of Proxmox's HA manager, as they are told; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::mark::pool_mark;
use crate::pve::text;

/// What kind of entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// A machine that is managed.
    Resource,
    /// A rule of affinity.
    Rule,
    /// A group of nodes.
    Group,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Entry::Resource => "HA resource",
            Entry::Rule => "HA rule",
            Entry::Group => "HA group",
        })
    }
}

impl Entry {
    /// The path of its list.
    pub fn path(self) -> &'static str {
        match self {
            Entry::Resource => "/cluster/ha/resources",
            Entry::Rule => "/cluster/ha/rules",
            Entry::Group => "/cluster/ha/groups",
        }
    }

    /// The field of its name.
    pub fn key(self) -> &'static str {
        match self {
            Entry::Resource => "sid",
            Entry::Rule => "rule",
            Entry::Group => "group",
        }
    }

    /// The fields that the document decides.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Entry::Resource => &["max_restart", "max_relocate", "group", "comment"],
            Entry::Rule => &["type", "affinity", "resources", "nodes", "strict", "comment"],
            Entry::Group => &["nodes", "restricted", "comment"],
        }
    }
}

/// The entries that are there, by name, each with what the document decides of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaSeen {
    /// Managed guests by `vm:ID` or `ct:ID`.
    pub resources: BTreeMap<String, Fields>,
    /// Rules.
    pub rules: BTreeMap<String, Fields>,
    /// Groups.
    pub groups: BTreeMap<String, Fields>,
    /// What the manager says of each managed guest, such as `started`, `recovery` or `error`.
    pub states: BTreeMap<String, String>,
}

/// Fields of an entry in canonical form.
pub type Fields = BTreeMap<String, String>;

impl HaSeen {
    pub(crate) fn of(&self, entry: Entry) -> &BTreeMap<String, Fields> {
        match entry {
            Entry::Resource => &self.resources,
            Entry::Rule => &self.rules,
            Entry::Group => &self.groups,
        }
    }

    /// The names of those that bear our comment.
    pub fn ours(&self, cluster: &str, entry: Entry) -> Vec<String> {
        let all = self.of(entry).iter().filter(|(_, fields)| is_ours(cluster, fields));
        all.map(|(name, _)| name.clone()).collect()
    }
}

/// True when it bears our comment.
pub(crate) fn is_ours(cluster: &str, fields: &Fields) -> bool {
    fields.get("comment").is_some_and(|c| c.trim() == pool_mark(cluster))
}

/// An entry as Proxmox tells it: name and fields.
pub fn read(entry: Entry, told: &Value) -> Option<(String, Fields)> {
    let name = text(told, entry.key())?;
    let fields = entry.fields().iter().filter_map(|field| {
        let value = text(told, field)?;
        Some(((*field).to_owned(), canonical(field, &value)))
    });
    let mut fields: Fields = fields.collect();
    if entry == Entry::Resource {
        // The defaults need not be written (pve-ha-manager, HA/Resources.pm).
        for field in ["max_restart", "max_relocate"] {
            fields.entry(field.to_owned()).or_insert_with(|| "1".to_owned());
        }
    }
    Some((name, fields))
}

/// Lists are sets, and a node's priority 0 is none.
pub(crate) fn canonical(field: &str, value: &str) -> String {
    if field != "resources" && field != "nodes" {
        return value.trim_end().to_owned();
    }
    let words = value.split([',', ';', ' ']).filter(|w| !w.is_empty());
    let words: BTreeSet<&str> = words.map(|w| w.strip_suffix(":0").unwrap_or(w)).collect();
    words.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_read_again() {
        let told = serde_json::json!({
            "rule": "kubeline-prod-apart-cp", "type": "resource-affinity", "affinity": "negative",
            "resources": "vm:3004,vm:3003", "digest": "abc", "comment": "made by kubeline's pve-vm for the cluster prod",
        });
        let (name, fields) = read(Entry::Rule, &told).unwrap();
        assert_eq!(
            (name.as_str(), fields["resources"].as_str()),
            ("kubeline-prod-apart-cp", "vm:3003,vm:3004")
        );
        assert!(is_ours("prod", &fields) && !is_ours("pro", &fields));
        let told = serde_json::json!({ "sid": "vm:3000", "state": "started", "max_restart": 2 });
        let (_, fields) = read(Entry::Resource, &told).unwrap();
        assert_eq!((fields["max_restart"].as_str(), fields["max_relocate"].as_str()), ("2", "1"));
        assert_eq!(canonical("nodes", "pve2:0,pve1"), "pve1,pve2");
    }
}
