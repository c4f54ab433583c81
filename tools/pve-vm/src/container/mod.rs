//! Containers for load balancers: what they are made from, their options, and what differs; pure.
//!
//! A container has no first boot as a virtual machine has one: Proxmox writes its name, address, keys and host keys
//! into its root file system when it makes it.

mod plan;

use std::collections::BTreeMap;

use crate::change::{Change, Running, grow, join, tags};
use crate::mark::Mark;
use crate::options::{self, Options, Properties, boot_disk, disks, on};
use crate::power;
use crate::seen::{Seen, Storage};
use crate::step::Net;
use crate::want::{Design, Machine};

/// Network card, unless the document's is moved.
const CARD: &str = "name=eth0";
/// systemd in an unprivileged container mounts file systems of its own; a token may switch on nothing but this
/// (pve-container, API2/LXC.pm: "changing feature flags (except nesting) is only allowed for root@pam").
const FEATURES: &str = "nesting=1";

/// What containers are made from, as the document names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A volume that is there.
    Volume(String),
    /// An archive that the node downloads.
    Download {
        /// Where from.
        url: String,
        /// The digest: algorithm and hex digits.
        digest: (String, String),
        /// The storage for it.
        storage: String,
    },
}

/// The endings that Proxmox takes for an archive (pve-storage, Storage.pm: `VZTMPL_EXT_RE_1`) and that its tar reads.
const ENDINGS: [&str; 3] = [".tar.zst", ".tar.xz", ".tar.gz"];

impl Origin {
    /// The storage.
    pub fn storage(&self) -> &str {
        match self {
            Origin::Volume(volume) => volume.split(':').next().unwrap_or_default(),
            Origin::Download { storage, .. } => storage,
        }
    }

    /// The file on the storage: with the digest where we download it, so that another archive is another file.
    pub fn file(&self) -> String {
        match self {
            Origin::Volume(volume) => volume.split_once('/').map_or("", |(_, file)| file).to_owned(),
            Origin::Download { url, digest, .. } => {
                let short: String = digest.1.chars().take(12).collect();
                let (stem, ending) = parts(url).unwrap_or(("template", ENDINGS[0]));
                format!("{stem}-{short}{ending}")
            }
        }
    }

    /// The volume.
    pub fn volume(&self) -> String {
        match self {
            Origin::Volume(volume) => volume.clone(),
            Origin::Download { storage, .. } => format!("{storage}:vztmpl/{}", self.file()),
        }
    }
}

/// Stem and ending of the file that an address names, in letters that Proxmox takes.
pub fn parts(url: &str) -> Option<(&str, &'static str)> {
    let file = url.rsplit('/').next()?;
    let ending = ENDINGS.into_iter().find(|e| file.ends_with(e))?;
    let stem = file.strip_suffix(ending)?;
    let plain = !stem.is_empty()
        && !stem.starts_with('.')
        && stem.chars().all(|c| c.is_ascii_alphanumeric() || "-.+=_".contains(c));
    plain.then_some((stem, ending))
}

/// Why containers cannot be made on a node, if so.
pub fn closed(design: &Design, seen: &Seen, node: &str) -> Option<String> {
    let Some(origin) = &design.container else {
        return Some("the document has no spec.proxmox.containerTemplate".to_owned());
    };
    let empty = BTreeMap::new();
    let storages = seen.nodes.get(node).map_or(&empty, |n| &n.storages);
    let takes = |name: &str, what: &str| {
        storages.get(name).is_some_and(|s: &Storage| s.content.iter().any(|c| c == what))
    };
    let (disks, source) = (design.storage.as_str(), origin.storage());
    if !takes(disks, "rootdir") {
        return Some(format!(
            "the storage {disks} takes no containers there (pvesm set {disks} --content ...,rootdir)"
        ));
    }
    if !takes(source, "vztmpl") {
        return Some(format!(
            "the storage {source} takes no container templates there (pvesm set {source} --content ...,vztmpl)"
        ));
    }
    match origin {
        Origin::Volume(volume) if !has(seen, node, origin) => Some(format!(
            "it has no container template {volume} (pveam update && pveam download {source} {})",
            origin.file()
        )),
        _ => None,
    }
}

/// True when the archive is on the node's storage.
fn has(seen: &Seen, node: &str, origin: &Origin) -> bool {
    let found = seen.nodes.get(node).and_then(|n| n.storages.get(origin.storage()));
    found.is_some_and(|s| s.archives.contains(&origin.file()))
}

/// The network card.
fn card(design: &Design, machine: &Machine) -> String {
    let gateway = machine.gateway.map(|g| format!(",gw={g}")).unwrap_or_default();
    let vlan = design.vlan.map(|v| format!(",tag={v}")).unwrap_or_default();
    let (address, prefix, bridge) = (machine.address, machine.prefix, &design.bridge);
    format!("{CARD},bridge={bridge}{gateway},ip={address}/{prefix}{vlan},type=veth")
}

/// The options that name resolution reads, which Proxmox writes into the container at each start.
fn names(design: &Design) -> Vec<(&'static str, String)> {
    let servers: Vec<String> = design.nameservers.iter().map(ToString::to_string).collect();
    let servers = (!servers.is_empty()).then(|| ("nameserver", servers.join(" ")));
    let domain = design.search_domain.iter().map(|d| ("searchdomain", d.clone()));
    servers.into_iter().chain(domain).collect()
}

/// All options that a container is made with. Its tags come later, with its host key: the check of tags does not look
/// at the pool that the container joins (qemu-server and pve-container since 9.2).
pub fn made_with(design: &Design, seen: &Seen, machine: &Machine, origin: &Origin, mark: &Mark) -> Options {
    let gib = machine.disk.div_ceil(1 << 30);
    let mut power = Change::default();
    power::difference(machine, &Options::new(), seen, true, &mut power);
    let fixed = [
        ("ostemplate", origin.volume()),
        ("hostname", machine.name.clone()),
        ("description", mark.write("")),
        ("rootfs", format!("{}:{gib}", design.storage)),
        ("cores", machine.cores.to_string()),
        ("memory", machine.memory_mib.to_string()),
        ("net0", card(design, machine)),
        ("unprivileged", "1".to_owned()),
        ("features", FEATURES.to_owned()),
        ("onboot", "1".to_owned()),
        // The keys of root; not encoded once more, other than a virtual machine's.
        ("ssh-public-keys", design.keys.join("\n")),
    ];
    let all = fixed.into_iter().chain(names(design)).filter(|(_, value)| !value.is_empty());
    all.map(|(option, value)| (option.to_owned(), value)).chain(power.set).collect()
}

/// The difference between what a container has and what it shall have.
pub fn difference(
    design: &Design,
    machine: &Machine,
    mark: &Mark,
    have: &Options,
    seen: &Seen,
    running: Running,
) -> Change {
    let mut change = Change::default();
    power::difference(machine, have, seen, true, &mut change);
    let get = |option: &str| have.get(option).map(String::as_str);
    let description = get("description").unwrap_or_default();
    if Mark::read(description).as_ref() != Some(mark) {
        change.set("description", mark.write(description));
        change.why.push("its mark differs".to_owned());
    }
    let mut wanted = vec![
        ("hostname", machine.name.clone()),
        ("cores", machine.cores.to_string()),
        ("memory", machine.memory_mib.to_string()),
    ];
    wanted.extend(names(design));
    for (option, value) in wanted {
        let is = get(option).unwrap_or_default();
        if is.split_whitespace().eq(value.split_whitespace()) {
            continue;
        }
        let shown = if is.is_empty() { "not set" } else { is };
        change.why.push(format!("{option} {shown}, not {value}"));
        change.set(option, value);
        // Processors and memory are its control group's, and change at once (pve-container, LXC/Config.pm).
        if running == Running::Yes && !matches!(option, "cores" | "memory") {
            change.restart.push(option.to_owned());
        }
    }
    if get("features").is_none_or(|f| Properties::parse(f).get("nesting") != Some("1")) {
        let mut features = Properties::parse(get("features").unwrap_or_default());
        features.set("nesting", Some("1".to_owned()));
        change.set("features", features.to_string().trim_start_matches(','));
        change.why.push("it has no feature nesting, which its systemd needs".to_owned());
        if running == Running::Yes {
            change.restart.push("features".to_owned());
        }
    }
    if !on(have, "onboot") {
        change.set("onboot", "1");
    }
    let there = options::tags(get("tags").unwrap_or_default());
    let all = tags(design, machine).union(&there).cloned().collect();
    if all != there {
        change.set("tags", join(&all));
        change.why.push("its tags differ".to_owned());
    }
    network(design, machine, get("net0"), &mut change);
    if let Some(slot) = boot_disk(have) {
        let size = disks(have).into_iter().find(|d| d.slot == slot).and_then(|d| d.size);
        grow(&slot, size, machine.disk, &mut change);
    }
    change
}

fn network(design: &Design, machine: &Machine, have: Option<&str>, change: &mut Change) {
    let Some(net) = have else {
        change.set("net0", card(design, machine));
        change.why.push("it has no network card".to_owned());
        return;
    };
    if !options::net_fits(net, &design.bridge, design.vlan) {
        change.net = Some(Net { bridge: design.bridge.clone(), vlan: design.vlan });
        change.why.push("its network card is elsewhere".to_owned());
    }
    let net = Properties::parse(net);
    let address = format!("{}/{}", machine.address, machine.prefix);
    let gateway = machine.gateway.map(|g| g.to_string());
    if net.get("ip") != Some(&address) || net.get("gw").map(str::to_owned) != gateway {
        change.frozen.push("ipconfig0".to_owned());
    }
}

/// Fingerprints of host keys in the log of a container's making: a line `Creating SSH host key 'FILE' ...`, and then
/// `done: SHA256:... root@NAME` (pve-container, LXC/Setup.pm: `rewrite_ssh_host_keys` prints what ssh-keygen says).
pub fn fingerprints<'l>(log: impl IntoIterator<Item = &'l str>) -> Vec<String> {
    let mut found = Vec::new();
    let mut begun = false;
    for line in log {
        if line.starts_with("Creating SSH host key '") {
            begun = true;
        } else if let Some(rest) = line.strip_prefix("done: ").filter(|_| begun) {
            begun = false;
            let word = rest.split_whitespace().next().unwrap_or_default();
            let digest = word.strip_prefix("SHA256:").unwrap_or_default();
            let base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
            // 32 bytes in base64 without padding.
            if digest.len() == 43 && digest.chars().all(base64) {
                found.push(word.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_its_making_tells_its_host_keys() {
        let log = [
            "extracting archive '/var/lib/vz/template/cache/debian-13-standard_13.1-2_amd64.tar.zst'",
            "Total bytes read: 564490240 (539MiB, 452MiB/s)",
            "done: SHA256:gVOdbEVZ39HBjwCAdx9dC9Xd3F+ZmXnEoTaTT+X8QsX root@nobody-asked",
            "Creating SSH host key 'ssh_host_ed25519_key' - this may take some time ...",
            "done: SHA256:gVOdbEVZ39HBjwCAdx9dC9Xd3F+ZmXnEoTaTT+X8QsY root@prod-lb-1",
            "Creating SSH host key 'ssh_host_rsa_key' - this may take some time ...",
            "done: SHA256:short root@prod-lb-1",
            "TASK OK",
        ];
        assert_eq!(fingerprints(log), ["SHA256:gVOdbEVZ39HBjwCAdx9dC9Xd3F+ZmXnEoTaTT+X8QsY"]);
        assert_eq!(fingerprints(["Creating SSH host keys", "TASK OK"]), Vec::<String>::new());
    }

    #[test]
    fn a_download_has_its_digest_in_its_name() {
        let origin = Origin::Download {
            url: "https://mirror.example/images/debian-13-standard_13.1-2_amd64.tar.zst".into(),
            digest: ("sha512".into(), "ab".repeat(64)),
            storage: "local".into(),
        };
        assert_eq!(origin.volume(), "local:vztmpl/debian-13-standard_13.1-2_amd64-abababababab.tar.zst");
        assert_eq!(parts("https://x/y.tar"), None);
        assert_eq!(parts("https://x/a%20b.tar.gz"), None);
        let volume = Origin::Volume("local:vztmpl/debian.tar.zst".into());
        assert_eq!((volume.storage(), volume.file().as_str()), ("local", "debian.tar.zst"));
    }
}
