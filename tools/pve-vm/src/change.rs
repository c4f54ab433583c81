//! What differs between a guest's options and the document, in canonical form; pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::mark::Mark;
use crate::options::{self, Options, Properties, boot_disk, disks, on};
use crate::power;
use crate::seen::Seen;
use crate::step::Net;
use crate::want::{Design, Machine};

/// The difference of one guest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Options to set.
    pub set: BTreeMap<String, String>,
    /// Where the first network card shall be.
    pub net: Option<Net>,
    /// Options that go.
    pub delete: Vec<String>,
    /// Disks to grow: option and GiB.
    pub grow: Vec<(String, u64)>,
    /// Options of the first boot that differ on a machine that has had it.
    pub frozen: Vec<String>,
    /// Disks that are larger than the document says.
    pub larger: Vec<String>,
    /// Changed options that wait for a restart of a running machine.
    pub restart: Vec<String>,
    /// Why, in few words.
    pub why: Vec<String>,
}

impl Change {
    /// True when an option is to be set or to go.
    pub fn configures(&self) -> bool {
        !self.set.is_empty() || self.net.is_some() || !self.delete.is_empty()
    }

    pub(crate) fn set(&mut self, option: &str, value: impl Into<String>) {
        self.set.insert(option.to_owned(), value.into());
    }
}

/// The tags of a machine.
pub fn tags(design: &Design, machine: &Machine) -> BTreeSet<String> {
    ["pve-vm".to_owned(), design.cluster.to_lowercase(), machine.role.to_string()].into_iter().collect()
}

/// The tags as Proxmox writes them.
pub fn join(tags: &BTreeSet<String>) -> String {
    tags.iter().cloned().collect::<Vec<_>>().join(";")
}

/// The difference between what a guest has and what it shall have. `booted`: it has had its first boot, so that
/// cloud-init's options are frozen: a change would make it a new instance with new host keys (qemu-server,
/// Cloudinit.pm: the instance id is a digest over them).
pub fn difference(
    design: &Design,
    machine: &Machine,
    mark: &Mark,
    have: &Options,
    seen: &Seen,
    booted: Option<Running>,
) -> Change {
    let mut change = Change::default();
    let settled = booted.is_some() && crate::seed::attached(&design.cluster, have).is_none();
    power::difference(machine, have, seen, settled, &mut change);
    always(design, machine, mark, have, booted, &mut change);
    data_disks(design, machine, have, &mut change);
    match booted {
        Some(_) => frozen(design, machine, have, &mut change),
        None => first_boot(design, machine, have, seen.version, &mut change),
    }
    if let Some(slot) = boot_disk(have) {
        let size = disks(have).into_iter().find(|d| d.slot == slot).and_then(|d| d.size);
        grow(&slot, size, machine.disk, &mut change);
    }
    change
}

/// Whether a machine that has booted runs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// It runs.
    Yes,
    /// It is off.
    No,
}

fn always(
    design: &Design,
    machine: &Machine,
    mark: &Mark,
    have: &Options,
    booted: Option<Running>,
    change: &mut Change,
) {
    let get = |option: &str| have.get(option).map(String::as_str);
    if get("name") != Some(&machine.name) {
        change.set("name", &machine.name);
        change.why.push(format!("its name is {}", get("name").unwrap_or("not set")));
    }
    let description = get("description").unwrap_or_default();
    if Mark::read(description).as_ref() != Some(mark) {
        change.set("description", mark.write(description));
        change.why.push("its mark differs".to_owned());
    }
    let number = |option: &str, default: u64| {
        get(option).and_then(|v| v.trim_start_matches("current=").parse().ok()).unwrap_or(default)
    };
    let hardware = [
        ("sockets", number("sockets", 1), 1),
        ("cores", number("cores", 1), u64::from(machine.cores)),
        ("memory", number("memory", 512), machine.memory_mib),
    ];
    for (option, is, wanted) in hardware.into_iter().filter(|(_, is, wanted)| is != wanted) {
        change.set(option, wanted.to_string());
        change.why.push(format!("{option} {is}, not {wanted}"));
        if booted == Some(Running::Yes) {
            change.restart.push(option.to_owned());
        }
    }
    if !on(have, "onboot") {
        change.set("onboot", "1");
    }
    let ours = tags(design, machine);
    let there = options::tags(get("tags").unwrap_or_default());
    // Before the first boot they are the template's, by which it would be taken for one.
    let wanted = if booted.is_some() { ours.union(&there).cloned().collect() } else { ours };
    if wanted != there {
        change.set("tags", join(&wanted));
        change.why.push("its tags differ".to_owned());
    }
    if !get("net0").is_some_and(|net| options::net_fits(net, &design.bridge, design.vlan)) {
        change.net = Some(Net { bridge: design.bridge.clone(), vlan: design.vlan });
        change.why.push("its network card is elsewhere".to_owned());
    }
}

fn data_disks(design: &Design, machine: &Machine, have: &Options, change: &mut Change) {
    let there = disks(have);
    for (name, bytes) in &machine.disks {
        match there.iter().find(|d| d.serial.as_deref() == Some(name)) {
            Some(disk) => grow(&disk.slot, disk.size, *bytes, change),
            None => {
                let free = |slot: &String| !have.contains_key(slot) && !change.set.contains_key(slot);
                let Some(slot) = (1..31).map(|n| format!("scsi{n}")).find(free) else { continue };
                change.set(
                    &slot,
                    format!("{}:{},discard=on,serial={name}", design.storage, bytes.div_ceil(1 << 30)),
                );
                change.why.push(format!("it has no disk {name}"));
            }
        }
    }
}

pub(crate) fn grow(slot: &str, size: Option<u64>, wanted: u64, change: &mut Change) {
    match size {
        Some(size) if size < wanted => change.grow.push((slot.to_owned(), wanted.div_ceil(1 << 30))),
        Some(size) if size > wanted => change.larger.push(slot.to_owned()),
        _ => {}
    }
}

/// The options that cloud-init reads, and whether what is there says the same.
fn first_boot_options(
    design: &Design,
    machine: &Machine,
    have: &Options,
) -> Vec<(&'static str, String, bool)> {
    let get = |option: &str| have.get(option).map(String::as_str).unwrap_or_default();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let address = format!("{}/{}", machine.address, machine.prefix);
    let gateway = machine.gateway.map(|g| g.to_string());
    let ip = Properties::parse(get("ipconfig0"));
    let same_ip = ip.get("ip") == Some(&address) && ip.get("gw").map(str::to_owned) == gateway;
    let ipconfig = format!("ip={address}{}", gateway.map(|g| format!(",gw={g}")).unwrap_or_default());
    let mut all =
        vec![("ciuser", design.user.clone(), get("ciuser") == design.user), ("ipconfig0", ipconfig, same_ip)];
    if !design.keys.is_empty() {
        let same = options::ssh_keys(get("sshkeys")) == design.keys.iter().cloned().collect();
        all.push(("sshkeys", options::encode_keys(&design.keys), same));
    }
    if !design.nameservers.is_empty() {
        let servers: Vec<String> = design.nameservers.iter().map(ToString::to_string).collect();
        let same = words(get("nameserver")) == servers;
        all.push(("nameserver", servers.join(" "), same));
    }
    if let Some(domain) = &design.search_domain {
        all.push(("searchdomain", domain.clone(), get("searchdomain") == domain));
    }
    all
}

fn frozen(design: &Design, machine: &Machine, have: &Options, change: &mut Change) {
    let differing = first_boot_options(design, machine, have).into_iter().filter(|(_, _, same)| !same);
    change.frozen = differing.map(|(option, ..)| option.to_owned()).collect();
}

fn first_boot(design: &Design, machine: &Machine, have: &Options, version: (u32, u32), change: &mut Change) {
    for (option, value, _) in
        first_boot_options(design, machine, have).into_iter().filter(|(_, _, same)| !same)
    {
        change.set(option, value);
    }
    // Snippets would replace the user data that the options make.
    if have.contains_key("cicustom") {
        change.delete.push("cicustom".to_owned());
    }
    // Without it cloud-init upgrades all packages at the first boot; the option exists since 8.1.
    if version >= (8, 1) && have.get("ciupgrade").map(String::as_str) != Some("0") {
        change.set("ciupgrade", "0");
    }
    if !on(have, "agent") {
        change.set("agent", "enabled=1");
    }
    // The template's; a machine's own comes with the end of its first boot.
    if on(have, "protection") && machine.protection != Some(true) {
        change.set("protection", "0");
    }
    if let Some(disk) = boot_disk(have) {
        let boot = format!("order={disk}");
        if have.get("boot") != Some(&boot) {
            change.set("boot", boot);
        }
    }
    // Cloud images may hang on a console that is not there (bpg/terraform-provider-proxmox, README).
    if !have.contains_key("serial0") {
        change.set("serial0", "socket");
        if !have.contains_key("vga") {
            change.set("vga", "serial0");
        }
    }
    if change.why.is_empty() {
        change.why.push("it is not ready for its first boot".to_owned());
    }
}
