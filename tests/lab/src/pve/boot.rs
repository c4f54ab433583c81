//! From a configuration to a machine that is switched on: what its cloud-init drive says.

use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use super::config::ProxmoxConfig;
use super::form::percent_decode;
use super::qemu::drives;
use super::qemu::options::mac_of;
use super::qemu::show::agent_on;
use super::seed;
use super::state::{Guest, State};
use crate::world::Boot;

/// The user data that Proxmox generates (qemu-server, QemuServer/Cloudinit.pm).
pub(super) fn user_data(guest: &Guest) -> String {
    let name = guest.name();
    let mut text = format!("#cloud-config\nhostname: {name}\nmanage_etc_hosts: true\n");
    if let Some(domain) = guest.config.get("searchdomain").and_then(|d| d.split_whitespace().next()) {
        text.push_str(&format!("fqdn: {name}.{domain}\n"));
    }
    if let Some(user) = guest.config.get("ciuser") {
        text.push_str(&format!("user: {user}\n"));
    }
    let keys = keys(guest);
    if !keys.is_empty() {
        text.push_str("ssh_authorized_keys:\n");
        keys.iter().for_each(|key| text.push_str(&format!("  - {key}\n")));
    }
    text.push_str("chpasswd:\n  expire: False\n");
    if guest.config.get("ciupgrade").is_none_or(|u| u != "0") {
        text.push_str("package_upgrade: true\n");
    }
    text
}

/// The network configuration that Proxmox generates, one entry for each `ipconfigN` with its `netN`.
pub(super) fn network_data(guest: &Guest) -> String {
    let mut text = "version: 1\nconfig:\n".to_owned();
    for n in 0..32 {
        let (Some(net), Some(ip)) =
            (guest.config.get(&format!("net{n}")), guest.config.get(&format!("ipconfig{n}")))
        else {
            continue;
        };
        let mac = mac_of(net).unwrap_or_default().to_lowercase();
        text.push_str(&format!("    - type: physical\n      name: eth{n}\n      mac_address: '{mac}'\n"));
        text.push_str(&format!("      subnets: # {ip}\n"));
    }
    text
}

/// The instance id: any change of user or network data is a new instance.
pub(super) fn instance(guest: &Guest) -> String {
    let digest = Sha256::digest(user_data(guest) + &network_data(guest));
    digest.iter().take(20).map(|b| format!("{b:02x}")).collect()
}

fn keys(guest: &Guest) -> Vec<String> {
    let text = guest.config.get("sshkeys").map(|k| percent_decode(k, false)).unwrap_or_default();
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

/// The static address in `ipconfig0`; the gateway only counts with one.
fn address(guest: &Guest) -> Option<Ipv4Addr> {
    let ip = guest.config.get("ipconfig0")?.split(',').find_map(|p| p.strip_prefix("ip="))?;
    ip.split('/').next()?.parse().ok()
}

/// All that a machine is switched on with.
pub(super) fn machine(state: &State, guest: &Guest, config: &ProxmoxConfig) -> Boot {
    let number = |key: &str| guest.config.get(key).and_then(|v| v.parse::<u64>().ok());
    let disks = drives::disks(&guest.config);
    let size = |file: &str| state.volume(&guest.node, file).map_or(0, |v| v.size);
    let mut boot = Boot {
        vmid: guest.vmid,
        generation: guest.generation,
        name: guest.name(),
        pve_node: guest.node.clone(),
        mac: guest.config.get("net0").and_then(|n| mac_of(n)).unwrap_or_default().to_owned(),
        cores: (number("cores").unwrap_or(1) * number("sockets").unwrap_or(1)) as u32,
        memory_mib: guest
            .config
            .get("memory")
            .and_then(|m| m.trim_start_matches("current=").parse().ok())
            .unwrap_or(512),
        disks: disks.iter().map(|(_, d)| size(&d.file)).collect(),
        agent: config.agent_in_images && guest.config.get("agent").is_some_and(|a| agent_on(a)),
        ..Boot::default()
    };
    let drives: Vec<_> = drives::all(&guest.config).map(|(_, d)| d).collect();
    if drives.iter().any(|d| d.cloudinit()) {
        boot.address = guest.config.contains_key("net0").then(|| address(guest)).flatten();
        boot.user = guest.config.get("ciuser").cloned().unwrap_or_else(|| "debian".into());
        boot.authorized_keys = keys(guest);
        boot.instance = instance(guest);
    }
    let attached = drives.iter().filter(|d| d.cdrom()).filter_map(|d| state.volume(&guest.node, &d.file));
    for volume in attached {
        if let Some(seed) = seed::read(&volume.bytes) {
            seed.fill(&mut boot);
        }
    }
    boot
}
