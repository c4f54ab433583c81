//! The seed of a first boot: what cloud-init reads from a small CD, when neither a guest agent nor snippets are
//! there; pure.
//!
//! The data source is cloud-init's NoCloud: a volume labelled `cidata`. Its files are YAML, of which JSON is a
//! part, so that no value can break out of its place.

pub mod iso;
mod orphan;

use std::net::Ipv4Addr;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::options::{Options, Properties, is_drive};
use crate::seen::{Guest, Seen};
use crate::want::{Design, Machine};

pub use orphan::{Orphan, orphans};

/// What a machine learns from its seed, but for its host key, which nobody knows before it is made.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FirstBoot {
    /// The host name.
    pub hostname: String,
    /// The account.
    pub user: String,
    /// The public keys that it lets in.
    pub keys: Vec<String>,
    /// Address and length of the prefix.
    pub address: (Ipv4Addr, u8),
    /// The gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub nameservers: Vec<Ipv4Addr>,
    /// The search domain.
    pub search_domain: Option<String>,
}

impl FirstBoot {
    /// What the document says for this machine.
    pub fn of(design: &Design, machine: &Machine) -> FirstBoot {
        FirstBoot {
            hostname: machine.name.clone(),
            user: design.user.clone(),
            keys: design.keys.clone(),
            address: (machine.address, machine.prefix),
            gateway: machine.gateway,
            nameservers: design.nameservers.clone(),
            search_domain: design.search_domain.clone(),
        }
    }

    /// `meta-data`. A new key is a new instance, for which cloud-init does everything anew.
    fn meta_data(&self, public: &str) -> Value {
        let key = public.split_whitespace().nth(1).unwrap_or(public);
        let tail: String = key.chars().rev().filter(char::is_ascii_alphanumeric).take(24).collect();
        json!({ "instance-id": format!("kubeline-{}-{tail}", self.hostname), "local-hostname": self.hostname })
    }

    /// `user-data`: the image's own account under our name, our keys, this host key and no other, no packages.
    fn user_data(&self, public: &str, private: &str) -> Value {
        let domain = self.search_domain.as_ref().and_then(|d| d.split_whitespace().next());
        let fqdn = domain.map_or(self.hostname.clone(), |d| format!("{}.{d}", self.hostname));
        json!({
            "hostname": self.hostname,
            "fqdn": fqdn,
            "prefer_fqdn_over_hostname": false,
            "manage_etc_hosts": true,
            "user": self.user,
            "users": ["default"],
            "ssh_authorized_keys": self.keys,
            "ssh_pwauth": false,
            "chpasswd": { "expire": false },
            "ssh_deletekeys": true,
            "ssh_keys": { "ed25519_private": private, "ed25519_public": public },
            "package_update": false,
            "package_upgrade": false,
        })
    }

    /// `network-config`, version 1, which every renderer of cloud-init knows.
    fn network_config(&self, mac: &str) -> Value {
        let (address, prefix) = self.address;
        let mut subnet = json!({ "type": "static", "address": format!("{address}/{prefix}") });
        if let Some(gateway) = self.gateway {
            subnet["gateway"] = gateway.to_string().into();
        }
        let card = json!({
            "type": "physical", "name": "eth0", "mac_address": mac.to_lowercase(), "subnets": [subnet],
        });
        let mut all = vec![card];
        if !self.nameservers.is_empty() || self.search_domain.is_some() {
            let search: Vec<&str> = self.search_domain.iter().flat_map(|d| d.split_whitespace()).collect();
            all.push(json!({ "type": "nameserver", "address": self.nameservers, "search": search }));
        }
        json!({ "version": 1, "config": all })
    }

    /// The image: secret, since it holds the private host key.
    pub fn image(&self, mac: &str, public: &str, private: &str) -> Vec<u8> {
        let user = format!("#cloud-config\n{:#}\n", self.user_data(public, private));
        let meta = format!("{:#}\n", self.meta_data(public));
        let network = format!("{:#}\n", self.network_config(mac));
        let file = |name, content: &'_ str| (name, content.as_bytes().to_vec());
        let files = [file("meta-data", &meta), file("network-config", &network), file("user-data", &user)];
        let files: Vec<iso::File<'_>> =
            files.iter().map(|(name, content)| iso::File { name, content }).collect();
        iso::image("cidata", &files)
    }
}

/// How the file names of a cluster's seeds begin. Names hold no dots, so that no other cluster's begin so.
pub fn prefix(cluster: &str) -> String {
    format!("kubeline-seed.{cluster}.")
}

/// The file name of a machine's seed.
pub fn file(cluster: &str, machine: &str, vmid: u32) -> String {
    format!("{}{machine}.{vmid}.iso", prefix(cluster))
}

/// The file name of a seed with this host key: two runs at once do not write over each other's.
pub fn keyed(file: &str, public: &str) -> String {
    let digest = crate::image::hex(&Sha256::digest(public));
    let stem = file.strip_suffix(".iso").unwrap_or(file);
    format!("{stem}.{}.iso", digest.get(..12).unwrap_or_default())
}

/// The drive that holds a seed of this cluster: its option, the storage and the file.
pub fn attached(cluster: &str, options: &Options) -> Option<(String, String, String)> {
    let drives = options.iter().filter(|(option, _)| is_drive(option));
    let mut found = drives.filter_map(|(option, value)| {
        let volume = Properties::parse(value).head?;
        let (storage, file) = volume.split_once(":iso/")?;
        file.starts_with(&prefix(cluster)).then(|| (option.clone(), storage.to_owned(), file.to_owned()))
    });
    found.next()
}

/// The seed that a guest has in its drive and that is there: storage and file.
pub fn of(design: &Design, seen: &Seen, guest: &Guest) -> Option<(String, String)> {
    let (_, storage, file) = attached(&design.cluster, guest.config.as_ref()?)?;
    let found = seen.nodes.get(&guest.node).and_then(|n| n.storages.get(&storage));
    found.is_some_and(|s| s.seeds.contains(&file)).then_some((storage, file))
}

/// Where a seed is put in: in the cloud-init drive's place, which would be a second data source, or a free one.
pub fn slot(options: &Options) -> String {
    let cd = |option: &str| {
        options.get(option).is_none_or(|value| Properties::parse(value).get("media") == Some("cdrom"))
    };
    let own = crate::options::cloud_init(options).map(str::to_owned);
    own.or_else(|| ["ide2", "ide0", "ide1", "ide3"].into_iter().find(|s| cd(s)).map(str::to_owned))
        .unwrap_or_else(|| "ide2".to_owned())
}

/// The storage for seeds on a node: the document's, else the image's, else the first that takes ISO images.
///
/// # Errors
/// Why there is none.
pub fn storage(design: &Design, seen: &Seen, node: &str) -> Result<String, String> {
    let empty = std::collections::BTreeMap::new();
    let storages = seen.nodes.get(node).map_or(&empty, |n| &n.storages);
    let takes = |name: &&String| storages.get(*name).is_some_and(|s| s.content.iter().any(|c| c == "iso"));
    if let Some(named) = &design.seeds {
        return match takes(&named) {
            true => Ok(named.clone()),
            false => {
                Err(format!("the storage {named} takes no seeds there (pvesm set {named} --content ...,iso)"))
            }
        };
    }
    let image = design.image.as_ref().map(|i| i.storage.to_string());
    let found = image.as_ref().filter(takes).or_else(|| storages.keys().find(takes)).cloned();
    found.ok_or_else(|| {
        let name = image.as_deref().unwrap_or("local");
        format!("no storage there takes seeds for the first boot (pvesm set {name} --content ...,iso)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_boot() -> FirstBoot {
        FirstBoot {
            hostname: "prod-lb-1".into(),
            user: "kubeline".into(),
            keys: vec!["ssh-ed25519 AAAA me: \"quoted\"".into()],
            address: ([10, 30, 0, 11].into(), 24),
            gateway: Some([10, 30, 0, 1].into()),
            nameservers: vec![[10, 30, 0, 1].into()],
            search_domain: Some("lab.example".into()),
        }
    }

    #[test]
    fn the_network_is_static_and_knows_its_card() {
        let network = first_boot().network_config("BC:24:11:01:02:03");
        assert_eq!(network["config"][0]["mac_address"], "bc:24:11:01:02:03");
        assert_eq!(network["config"][0]["subnets"][0]["address"], "10.30.0.11/24");
        assert_eq!(network["config"][1]["search"][0], "lab.example");
    }

    #[test]
    fn a_new_key_is_a_new_instance() {
        let boot = first_boot();
        let (one, other) =
            (boot.meta_data("ssh-ed25519 AAAAone+/="), boot.meta_data("ssh-ed25519 AAAAother"));
        assert_ne!(one["instance-id"], other["instance-id"]);
        assert_eq!(one["local-hostname"], "prod-lb-1");
    }

    #[test]
    fn a_seed_is_found_by_its_cluster_alone() {
        let options: Options = [
            ("ide2", "local:iso/kubeline-seed.prod.prod-lb-1.3000.iso,media=cdrom,size=60K"),
            ("scsi0", "local-lvm:vm-3000-disk-0,size=8G"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        let found = attached("prod", &options).unwrap();
        assert_eq!(found, ("ide2".into(), "local".into(), file("prod", "prod-lb-1", 3000)));
        assert_eq!(attached("pro", &options), None);
        assert_eq!(slot(&options), "ide2");
    }
}
