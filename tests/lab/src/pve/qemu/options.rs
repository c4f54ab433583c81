//! Options: which privilege each needs, which forms are stored, what can change while a VM runs.

use super::super::dispatch::Call;
use super::super::form::percent_decode;
use super::super::reply::Fail;
use super::super::schema::property_string;
use super::super::state::State;
use super::drives::{self, Drive};

/// The name without its number: `net` of `net0`.
pub fn stem(option: &str) -> &str {
    option.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// Cloud-init's options.
pub fn cloudinit(option: &str) -> bool {
    matches!(
        option,
        "ciuser"
            | "cipassword"
            | "citype"
            | "cicustom"
            | "ciupgrade"
            | "sshkeys"
            | "nameserver"
            | "searchdomain"
    ) || stem(option) == "ipconfig" && option != "ipconfig"
}

/// Takes effect at once on a running VM (qemu-server's `$fast_plug_option`, cloud-init, hot-plugged NICs).
pub fn at_once(option: &str) -> bool {
    matches!(
        option,
        "description"
            | "hookscript"
            | "name"
            | "onboot"
            | "protection"
            | "shares"
            | "startup"
            | "tags"
            | "vmstatestorage"
            | "lock"
    ) || cloudinit(option)
        || (stem(option) == "net" && option != "net")
}

const MEMORY: &[&str] = &["memory", "balloon", "shares"];
const CPU: &[&str] = &["cores", "sockets", "vcpus", "cpu", "cpulimit", "cpuunits", "numa", "affinity", "smp"];
const HARDWARE: &[&str] =
    &["scsihw", "vga", "machine", "bios", "arch", "acpi", "kvm", "tablet", "watchdog", "rng0", "audio0"];
const ROOT: &[&str] = &["args", "hookscript", "ivshmem"];

/// Refuses options that the caller may not set or delete (qemu-server's `check_vm_modify_config_perm`).
pub fn permitted(
    call: &Call,
    vmid: u32,
    pool: Option<&str>,
    option: &str,
    value: Option<&str>,
) -> Result<(), Fail> {
    if call.who.root() {
        return Ok(());
    }
    let need = |privilege: &str| call.need_guest(vmid, pool, &[privilege]);
    if ROOT.contains(&option) || (stem(option) == "serial" && value.is_some_and(|v| v != "socket")) {
        return Err(Fail::die(format!("only root can set '{option}' config")));
    }
    if option == "lock" {
        return Err(Fail::die("only root can set 'lock' config"));
    }
    if let Some(value) = value
        && drives::table(option).is_some()
    {
        let drive = Drive::stored(value);
        let cdrom = drive.cdrom() && !drive.cloudinit();
        return need(if cdrom { "VM.Config.CDROM" } else { "VM.Config.Disk" });
    }
    if drives::table(option).is_some() || stem(option) == "unused" {
        return need("VM.Config.Disk");
    }
    if cloudinit(option) {
        return need("VM.Config.Cloudinit").or_else(|refused| need("VM.Config.Network").map_err(|_| refused));
    }
    if stem(option) == "net" && option != "net" {
        return need("VM.Config.Network");
    }
    if MEMORY.contains(&option) {
        return need("VM.Config.Memory");
    }
    if CPU.contains(&option) {
        return need("VM.Config.CPU");
    }
    if HARDWARE.contains(&option) || ["serial", "parallel", "usb", "hostpci", "numa"].contains(&stem(option))
    {
        return need("VM.Config.HWType");
    }
    if option == "startup" {
        call.need("/", &["Sys.Modify"])?;
    }
    need("VM.Config.Options")
}

/// Refuses a bridge that the caller may not use.
pub fn bridge_permitted(call: &Call, net: &str) -> Result<(), Fail> {
    let value = |key: &str| net.split(',').find_map(|p| p.strip_prefix(key)?.strip_prefix('='));
    let Some(bridge) = value("bridge") else { return Ok(()) };
    let zone = format!("/sdn/zones/localnetwork/{bridge}");
    match value("tag") {
        Some(tag) => call.need(&format!("{zone}/{tag}"), &["SDN.Use"]),
        None => call.need(&zone, &["SDN.Use"]),
    }
}

/// The stored form of an option that is no drive.
pub fn stored(call: &Call, state: &mut State, option: &str, value: &str) -> Result<String, Fail> {
    Ok(match option {
        "tags" => tags(value),
        "sshkeys" => {
            let keys = percent_decode(value, false);
            let good = |line: &str| {
                let mut words = line.split_whitespace();
                words.any(|w| w.starts_with("ssh-") || w.starts_with("ecdsa-") || w.starts_with("sk-"))
                    && words.next().is_some_and(|w| w.len() >= 4)
            };
            if !keys.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')).all(good) {
                return Err(Fail::die("SSH public key validation error"));
            }
            value.trim_end_matches("%0A").to_owned()
        }
        "cipassword" => format!("$5$lab${:016x}", rand::random::<u64>()),
        "description" => value.to_owned(),
        _ if stem(option) == "net" && option != "net" => net(call, state, option, value)?,
        _ => value.to_owned(),
    })
}

/// Lower case, sorted, once each, joined with `;` (pve-guest-common, GuestHelpers.pm).
pub fn tags(value: &str) -> String {
    let split = |c: char| matches!(c, ';' | ',' | '\0') || c.is_whitespace();
    let mut tags: Vec<String> = value.split(split).filter(|t| !t.is_empty()).map(str::to_lowercase).collect();
    tags.sort();
    tags.dedup();
    tags.join(";")
}

fn net(call: &Call, state: &mut State, option: &str, value: &str) -> Result<String, Fail> {
    let found = property_string(&call.hub.schema, option, "qemu.net", value);
    let mut parts = found.map_err(|why| Fail::parameter(option, format!("invalid format - {why}")))?;
    let model = parts.remove("model").unwrap_or_default();
    // Without an address each write makes a new one (qemu-server, QemuServer/Network.pm).
    let mac = parts.remove("macaddr").unwrap_or_else(|| state.mac());
    let rest: String = parts.iter().map(|(k, v)| format!(",{k}={v}")).collect();
    Ok(format!("{model}={mac}{rest}"))
}

/// The MAC address in a stored `netN`.
pub fn mac_of(net: &str) -> Option<&str> {
    net.split(',').find_map(|p| {
        let (_, value) = p.split_once('=')?;
        let pairs: Vec<&str> = value.split(':').collect();
        (pairs.len() == 6 && pairs.iter().all(|p| p.len() == 2)).then_some(value)
    })
}

/// Refuses a boot order with devices that do not exist.
pub fn boot_order(boot: &str, exists: impl Fn(&str) -> bool) -> Result<(), Fail> {
    let order = boot.split(',').find_map(|p| p.strip_prefix("order=")).unwrap_or_default();
    match order.split(';').find(|d| !d.is_empty() && !exists(d)) {
        // The quotation mark at the end is Proxmox's.
        Some(device) => {
            Err(Fail::parameter("boot", format!("invalid bootorder: device '{device}' does not exist'")))
        }
        None => Ok(()),
    }
}
