//! The ownership mark: one line in a guest's description that says whose it is, and its public host keys.

use serde::{Deserialize, Serialize};

use cluster_doc::spec::Role;

const OPEN: &str = "<!-- pve-vm ";
const CLOSE: &str = " -->";

/// What the mark says. It is an HTML comment, which Proxmox's notes do not show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// The cluster's name.
    pub cluster: String,
    /// The machine's name.
    pub machine: String,
    /// The guest's id: a copy that a person made has another one, and is not ours.
    pub vmid: u32,
    /// What it is for.
    pub role: Role,
    /// Its pool in the document.
    pub pool: String,
    /// Its public SSH host keys, once they are known; of a container that has not answered yet, their fingerprints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<String>,
    /// True once its first boot was proven: from then on cloud-init may be off in it for good, so that no other seed can
    /// give it another key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proven: bool,
    /// While its system disk is made anew: the option that holds it, and the volume that goes, as `scsi0=VOLUME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew: Option<String>,
}

impl Mark {
    /// True when its host keys are known whole, not by their fingerprints alone.
    pub fn pinned(&self) -> bool {
        !self.host_keys.is_empty() && !self.host_keys.iter().any(|k| k.starts_with("SHA256:"))
    }

    /// The mark in a description, if there is one that can be read.
    pub fn read(description: &str) -> Option<Mark> {
        let rest = description.split_once(OPEN)?.1;
        serde_json::from_str(rest.split_once(CLOSE)?.0).ok()
    }

    /// The description with this mark instead of the one in it; what a person wrote there stays.
    pub fn write(&self, description: &str) -> String {
        let mark = format!("{OPEN}{}{CLOSE}", serde_json::to_string(self).unwrap_or_default());
        let Some((before, rest)) = description.split_once(OPEN) else {
            let text = description.trim_end();
            return if text.is_empty() { mark } else { format!("{text}\n{mark}") };
        };
        let after = rest.split_once(CLOSE).map_or("", |(_, after)| after);
        format!("{before}{mark}{}", after.trim_end())
    }
}

/// The mark in the comment of a resource pool that pve-vm made.
pub fn pool_mark(cluster: &str) -> String {
    format!("made by kubeline's pve-vm for the cluster {cluster}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark {
            cluster: "prod".into(),
            machine: "prod-lb-1".into(),
            vmid: 3000,
            role: Role::LoadBalancer,
            pool: "lb".into(),
            host_keys: vec!["ssh-ed25519 AAAA".into()],
            proven: false,
            renew: None,
        }
    }

    #[test]
    fn reads_what_it_writes_and_keeps_a_persons_words() {
        let text = mark().write("rack 7\n");
        assert_eq!(Mark::read(&text), Some(mark()));
        assert!(text.starts_with("rack 7\n<!--"), "{text}");
        let other = Mark { host_keys: Vec::new(), ..mark() };
        let text = other.write(&format!("{text}\nask Ann\n"));
        assert_eq!(Mark::read(&text), Some(other));
        assert!(text.starts_with("rack 7\n") && text.ends_with("\nask Ann"), "{text}");
    }

    #[test]
    fn nothing_else_is_a_mark() {
        for text in
            ["", "<!-- pve-vm -->", "<!-- pve-vm {} -->", "<!-- pve-vm {\"cluster\":\"a\"} -->", "pve-vm"]
        {
            assert_eq!(Mark::read(text), None, "{text}");
        }
    }
}
