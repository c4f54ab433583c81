//! A guest's options in canonical form: what Proxmox stores is not what was sent, letter by letter.

use std::collections::{BTreeMap, BTreeSet};

/// A guest's configuration, option by option, as text.
pub type Options = BTreeMap<String, String>;

/// A property string such as `virtio=BC:24:11:00:00:01,bridge=vmbr0`, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// What stands first without a key, such as a volume.
    pub head: Option<String>,
    pairs: Vec<(String, String)>,
}

impl Properties {
    /// Reads a property string.
    pub fn parse(text: &str) -> Properties {
        let mut all = Properties::default();
        for (n, part) in text.split(',').enumerate() {
            match part.split_once('=') {
                Some((key, value)) => all.pairs.push((key.to_owned(), value.to_owned())),
                None if n == 0 => all.head = Some(part.to_owned()),
                None => {}
            }
        }
        all
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Sets or removes a key; one that is there keeps its place.
    pub fn set(&mut self, key: &str, value: Option<String>) {
        let at = self.pairs.iter().position(|(k, _)| k == key);
        match (at, value) {
            (Some(n), Some(value)) => self.pairs[n].1 = value,
            (Some(n), None) => drop(self.pairs.remove(n)),
            (None, Some(value)) => self.pairs.push((key.to_owned(), value)),
            (None, None) => {}
        }
    }
}

impl std::fmt::Display for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs = self.pairs.iter().map(|(k, v)| format!("{k}={v}"));
        let parts: Vec<String> = self.head.iter().cloned().chain(pairs).collect();
        f.write_str(&parts.join(","))
    }
}

/// The network card models, each of which is also the key of its MAC address (qemu-server, Network.pm).
const MODELS: [&str; 6] = ["virtio", "e1000", "e1000e", "vmxnet3", "rtl8139", CONTAINER_CARD];
/// The key of a container's MAC address.
const CONTAINER_CARD: &str = "hwaddr";

/// Model and MAC address of a network card.
pub fn mac(net: &str) -> Option<(String, String)> {
    let net = Properties::parse(net);
    MODELS.iter().find_map(|model| net.get(model).map(|mac| ((*model).to_owned(), mac.to_owned())))
}

/// True when the card is on this bridge and VLAN.
pub fn net_fits(net: &str, bridge: &str, vlan: Option<u16>) -> bool {
    let net = Properties::parse(net);
    net.get("bridge") == Some(bridge) && net.get("tag").and_then(|t| t.parse().ok()) == vlan
}

/// The card moved to this bridge and VLAN, everything else as it is: without its MAC address Proxmox would make
/// a new one (qemu-server, Network.pm).
pub fn net_moved(net: Option<&str>, bridge: &str, vlan: Option<u16>) -> String {
    let Some(net) = net else {
        return format!("virtio,bridge={bridge}{}", vlan.map(|v| format!(",tag={v}")).unwrap_or_default());
    };
    let mut net = Properties::parse(net);
    net.set("bridge", Some(bridge.to_owned()));
    net.set("tag", vlan.map(|v| v.to_string()));
    net.to_string()
}

/// A size as Proxmox prints it in a drive (`32G`, `4M`, bytes without a unit), in bytes.
pub fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1.0,
        "K" => 1024.0,
        "M" => 1024.0 * 1024.0,
        "G" => 1024.0 * 1024.0 * 1024.0,
        "T" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|n| (n * factor) as u64)
}

/// A disk of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The option that it stands in, such as `scsi0`.
    pub slot: String,
    /// The volume.
    pub volume: String,
    /// Its size in bytes, where the configuration says it.
    pub size: Option<u64>,
    /// Its serial number, which is the name of a data disk.
    pub serial: Option<String>,
}

/// True for the options that hold drives.
pub fn is_drive(option: &str) -> bool {
    let bus = option.trim_end_matches(|c: char| c.is_ascii_digit());
    bus.len() < option.len() && matches!(bus, "scsi" | "virtio" | "sata" | "ide")
}

/// The option of a container's root file system.
const ROOT: &str = "rootfs";

/// True for the options that hold a container's volumes; what is bound from the node's own files begins with `/`.
fn is_volume(option: &str, value: &str) -> bool {
    let number = option.strip_prefix("mp").unwrap_or_default();
    let mount = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    option == ROOT || (mount && !value.starts_with('/'))
}

/// The disks of a machine, without CD-ROMs and the cloud-init drive, and the volumes of a container.
pub fn disks(options: &Options) -> Vec<Disk> {
    let drives = options.iter().filter(|(option, value)| is_drive(option) || is_volume(option, value));
    drives
        .filter_map(|(option, value)| {
            let drive = Properties::parse(value);
            let volume = drive.head.clone().or_else(|| drive.get("file").map(str::to_owned))?;
            let disk =
                drive.get("media") != Some("cdrom") && volume != "none" && !volume.ends_with("cloudinit");
            disk.then(|| Disk {
                slot: option.clone(),
                volume,
                size: drive.get("size").and_then(size),
                serial: drive.get("serial").map(str::to_owned),
            })
        })
        .collect()
}

/// The option that holds the cloud-init drive.
pub fn cloud_init(options: &Options) -> Option<&str> {
    let drives = options.iter().filter(|(option, _)| is_drive(option));
    let mut found = drives.filter(|(_, value)| {
        let drive = Properties::parse(value);
        drive.get("media") == Some("cdrom") && drive.head.is_some_and(|v| v.contains("cloudinit"))
    });
    found.next().map(|(option, _)| option.as_str())
}

/// The disk that the guest boots from: the first of the boot order that is a disk, else the first disk.
pub fn boot_disk(options: &Options) -> Option<String> {
    let disks = disks(options);
    if options.contains_key(ROOT) {
        return Some(ROOT.to_owned());
    }
    let order = options.get("boot").and_then(|b| Properties::parse(b).get("order").map(str::to_owned));
    let order = order.unwrap_or_default();
    let named = order.split(';').find(|slot| disks.iter().any(|d| d.slot == *slot)).map(str::to_owned);
    let legacy = options.get("bootdisk").filter(|slot| disks.iter().any(|d| d.slot == **slot)).cloned();
    named.or(legacy).or_else(|| disks.first().map(|d| d.slot.clone()))
}

/// The tags as a set; Proxmox sorts them and writes them in lower case.
pub fn tags(text: &str) -> BTreeSet<String> {
    text.split([';', ',', ' ']).filter(|t| !t.is_empty()).map(str::to_lowercase).collect()
}

/// True when a boolean option, or one whose first property is `enabled`, is on.
pub fn on(options: &Options, option: &str) -> bool {
    let Some(value) = options.get(option) else { return false };
    let value = Properties::parse(value);
    let value = value.head.as_deref().or_else(|| value.get("enabled")).unwrap_or_default().to_owned();
    matches!(value.as_str(), "1" | "on" | "yes" | "true")
}

/// The public keys in `sshkeys`, which is percent-encoded, without comments' white space.
pub fn ssh_keys(value: &str) -> BTreeSet<String> {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail
            .get(..2)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

/// Public keys as `sshkeys` wants them: one a line, percent-encoded with `%20` for a blank.
pub fn encode_keys<'k>(keys: impl IntoIterator<Item = &'k String>) -> String {
    let text = keys.into_iter().map(|k| format!("{}\n", k.trim())).collect::<String>();
    crate::pve::encode(text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_moved_card_keeps_its_mac() {
        let net = "virtio=BC:24:11:01:02:03,bridge=vmbr0,firewall=1,tag=20";
        assert!(net_fits(net, "vmbr0", Some(20)) && !net_fits(net, "vmbr0", None));
        assert_eq!(net_moved(Some(net), "vmbr1", None), "virtio=BC:24:11:01:02:03,bridge=vmbr1,firewall=1");
        assert_eq!(net_moved(None, "vmbr0", Some(30)), "virtio,bridge=vmbr0,tag=30");
        assert_eq!(mac(net).unwrap().1, "BC:24:11:01:02:03");
    }

    #[test]
    fn disks_are_found_among_drives() {
        let all = options(&[
            ("boot", "order=scsi0;ide2"),
            ("ide2", "local-lvm:vm-101-cloudinit,media=cdrom,size=4M"),
            ("scsi0", "local-lvm:base-9000-disk-0/vm-101-disk-0,discard=on,size=40G"),
            ("scsi1", "local-lvm:vm-101-disk-1,serial=data,size=500G"),
            ("scsihw", "virtio-scsi-single"),
            ("sata0", "none,media=cdrom"),
        ]);
        let found = disks(&all);
        assert_eq!(found.iter().map(|d| d.slot.as_str()).collect::<Vec<_>>(), ["scsi0", "scsi1"]);
        assert_eq!((found[0].size, found[1].serial.as_deref()), (Some(40 << 30), Some("data")));
        assert_eq!((boot_disk(&all).as_deref(), cloud_init(&all)), (Some("scsi0"), Some("ide2")));
        assert_eq!(boot_disk(&options(&[("bootdisk", "scsi0"), ("scsi0", "a:b")])).as_deref(), Some("scsi0"));
    }

    #[test]
    fn a_container_has_a_root_and_volumes() {
        let all = options(&[
            ("mp0", "local-lvm:vm-301-disk-1,mp=/srv,size=4G"),
            ("mp1", "/etc/ssl,mp=/etc/ssl"),
            ("net0", "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:01:02:03,ip=10.0.0.5/24,type=veth"),
            ("rootfs", "local-lvm:vm-301-disk-0,size=8G"),
        ]);
        let found = disks(&all);
        assert_eq!(found.iter().map(|d| d.slot.as_str()).collect::<Vec<_>>(), ["mp0", "rootfs"]);
        assert_eq!(boot_disk(&all).as_deref(), Some("rootfs"));
        assert_eq!(mac(&all["net0"]).unwrap().1, "BC:24:11:01:02:03");
        let moved = net_moved(Some(&all["net0"]), "vmbr1", Some(20));
        assert_eq!(moved, "name=eth0,bridge=vmbr1,hwaddr=BC:24:11:01:02:03,ip=10.0.0.5/24,type=veth,tag=20");
    }

    #[test]
    fn canonical_forms_compare() {
        assert_eq!(tags("pve-vm;Prod"), tags("prod;pve-vm"));
        assert!(on(&options(&[("agent", "enabled=1,fstrim_cloned_disks=1")]), "agent"));
        assert!(on(&options(&[("agent", "1")]), "agent") && !on(&options(&[("agent", "0")]), "agent"));
        let keys = vec!["ssh-ed25519 AAAA+/= me@home".to_owned(), "ssh-rsa BBBB".to_owned()];
        let sent = encode_keys(&keys);
        assert!(sent.contains("%20") && !sent.contains('+') && sent.contains("%0A"), "{sent}");
        assert_eq!(ssh_keys(&sent), keys.into_iter().collect());
        assert_eq!(
            (size("32G"), size("4M"), size("1.5T"), size("x")),
            (Some(32 << 30), Some(4 << 20), Some(3 << 39), None)
        );
    }
}
