//! What a machine learns at its first boot, as the files that cloud-init reads from its seed; pure.

use std::net::Ipv4Addr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::seed::iso;
use crate::want::{Design, Machine};

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
}
