//! The named formats of parameters, with Proxmox's texts (pve-common, qemu-server, pve-storage).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

use super::{Schema, check};

/// Name, pattern, and what is said of a value that does not match; `{}` stands for the value.
const PATTERNS: &[(&str, &str, &str)] = &[
    ("pve-vmid", "[1-9][0-9]{2,8}", "value does not look like a valid VM ID\n"),
    ("pve-node", r"[a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?", "value does not look like a valid node name\n"),
    (
        "dns-name",
        r"(([a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?)\.)*([a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?)",
        "value does not look like a valid DNS name\n",
    ),
    (
        "mac-addr",
        "(?i)[a-f0-9][02468ace](?::[a-f0-9]{2}){5}",
        "value does not look like a valid unicast MAC address\n",
    ),
    (
        "mac-prefix",
        "(?i)[a-f0-9][02468ace](?::[a-f0-9]{2}){0,2}(?::[a-f0-9]?)?",
        "value is not a valid unicast MAC address prefix\n",
    ),
    ("pve-bridge-id", r"[-_.\w\d]+", "invalid bridge ID '{}'\n"),
    ("pve-configid", "(?i)[a-z][a-z0-9_-]+", "invalid configuration ID '{}'\n"),
    ("disk-size", r"(\d+(\.\d+)?)([KMGT](?:iB)?)?", "value does not look like a valid disk size: {}\n"),
    ("pve-tag", r"(?i)[a-z0-9_][a-z0-9_\-+.]*", "invalid characters in tag\n"),
    ("pve-volume-id", r"(?i)([a-z][a-z0-9\-_.]*[a-z0-9]):(.+)", "unable to parse volume ID '{}'\n"),
    ("urlencoded", "[-%a-zA-Z0-9_.!~*'()]*", "invalid urlencoded string: {}\n"),
    ("pve-ha-resource-id", r"[a-z]+:\S+", "value does not look like a valid ha resource id\n"),
    ("pve-ha-resource-or-vm-id", r"([a-z]+:\S+|\d+)", "value does not look like a valid ha resource id\n"),
    (
        "pve-ha-node",
        r"([a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?)(:\d+)?",
        "value does not look like a valid ha node\n",
    ),
    (
        "pve-ha-group-node",
        r"([a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?)(:\d+)?",
        "value does not look like a valid ha group node\n",
    ),
    ("pve-realm", r"[A-Za-z][A-Za-z0-9.\-_]+", "value does not look like a valid realm\n"),
    ("pve-day-of-week", "(mon|tue|wed|thu|fri|sat|sun)", "invalid day '{}'\n"),
    (
        "email-or-username",
        r"[\w+\-~]+(\.[\w+\-~]+)*(@[a-zA-Z0-9\-]+(\.[a-zA-Z0-9\-]+)*)?",
        "value does not look like a valid email address or user name\n",
    ),
    (
        "email-opt",
        r"([\w+\-~]+(\.[\w+\-~]+)*@[a-zA-Z0-9\-]+(\.[a-zA-Z0-9\-]+)*)?",
        "value does not look like a valid email address\n",
    ),
    ("pve-task-status-type", "(?i)(ok|error|warning|unknown)", "invalid status '{}'\n"),
    (
        "pve-storage-content",
        "(images|rootdir|vztmpl|iso|backup|snippets|import|none)",
        "invalid content type '{}'\n",
    ),
    ("pve-qm-bootdisk", r"(ide|sata|scsi|virtio)\d+", "invalid boot disk '{}'\n"),
    (
        "pve-qm-bootdev",
        r"((ide[0-3]|sata[0-5]|scsi([12]?\d|30)|virtio(1[0-5]|\d))|(net|usb|hostpci)\d+)",
        "invalid boot device '{}'\n",
    ),
    (
        "pve-phys-bits",
        "(host|[89]|[1-5][0-9]|6[0-4])",
        "value must be an integer between 8 and 64 or 'host'\n",
    ),
    ("pve-lxc-dev-string", r"/dev/[^.]+(\.[^.]+)*", "{} is not a valid device path\n"),
    (
        "pve-hotplug-features",
        r"(0|1|(network|disk|cpu|memory|usb|cloudinit)([,; ](network|disk|cpu|memory|usb|cloudinit))*)",
        "invalid hotplug feature '{}'\n",
    ),
    ("pve-cpuset", r"\d+(-\d+)?(,\d+(-\d+)?)*", "unable to parse cpuset option\n"),
    ("pve-ct-timezone", r"(host|UTC|[A-Z][A-Za-z]+(/[A-Za-z_+\-0-9]+)*)", "invalid time zone '{}'\n"),
    (
        "pve-startup-order",
        r"((order=)?\d+|up=\d+|down=\d+)(,((order=)?\d+|up=\d+|down=\d+))*",
        "unable to parse startup options\n",
    ),
];

static COMPILED: LazyLock<BTreeMap<&'static str, (Option<Regex>, &'static str)>> = LazyLock::new(|| {
    let compile = |pattern: &str| Regex::new(&format!("^(?:{pattern})$")).ok();
    PATTERNS.iter().map(|(name, pattern, text)| (*name, (compile(pattern), *text))).collect()
});

/// Formats that are property strings; the table of the same name lists their keys.
const PROPERTY_STRINGS: &[&str] = &[
    "pve-qm-boot",
    "pve-qm-ide",
    "pve-qm-cicustom",
    "pve-qm-ipconfig",
    "pve-qm-rng",
    "pve-qm-smbios1",
    "pve-qm-watchdog",
    "pve-qm-hostpci",
    "pve-vm-cpu-conf",
    "pve-qemu-sev-fmt",
    "pve-qemu-tdx-fmt",
    "prune-backups",
    "backup-fleecing",
    "backup-performance",
];

const CPU_MODELS: &str = "486 Broadwell Broadwell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS Cascadelake-Server \
    Cascadelake-Server-noTSX Cascadelake-Server-v2 Cascadelake-Server-v4 Cascadelake-Server-v5 ClearwaterForest Conroe \
    Cooperlake Cooperlake-v2 EPYC EPYC-Genoa EPYC-Genoa-v2 EPYC-IBPB EPYC-Milan EPYC-Milan-v2 EPYC-Milan-v3 EPYC-Rome \
    EPYC-Rome-v2 EPYC-Rome-v3 EPYC-Rome-v4 EPYC-Rome-v5 EPYC-Turin EPYC-v3 EPYC-v4 EPYC-v5 GraniteRapids \
    GraniteRapids-v2 GraniteRapids-v3 Haswell Haswell-IBRS Haswell-noTSX Haswell-noTSX-IBRS Icelake-Client \
    Icelake-Client-noTSX Icelake-Server Icelake-Server-noTSX Icelake-Server-v3 Icelake-Server-v4 Icelake-Server-v5 \
    Icelake-Server-v6 Icelake-Server-v7 IvyBridge IvyBridge-IBRS KnightsMill Nehalem Nehalem-IBRS Opteron_G1 \
    Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5 Penryn SandyBridge SandyBridge-IBRS SapphireRapids SapphireRapids-v2 \
    SapphireRapids-v3 SapphireRapids-v4 SierraForest SierraForest-v2 SierraForest-v3 Skylake-Client \
    Skylake-Client-IBRS Skylake-Client-noTSX-IBRS Skylake-Client-v4 Skylake-Server Skylake-Server-IBRS \
    Skylake-Server-noTSX-IBRS Skylake-Server-v4 Skylake-Server-v5 Westmere Westmere-IBRS athlon core2duo coreduo host \
    kvm32 kvm64 max pentium pentium2 pentium3 phenom qemu32 qemu64 x86-64-v2 x86-64-v2-AES x86-64-v3 x86-64-v4";

/// Checks a value against a format.
///
/// # Errors
/// Proxmox's own text, with its newline.
pub(super) fn check(schema: &Schema, path: &str, format: &str, value: &str) -> Result<(), String> {
    if let Some(each) = format.strip_suffix("-list") {
        for item in items(value) {
            check(schema, path, each, item)?;
        }
        return Ok(());
    }
    if PROPERTY_STRINGS.contains(&format) {
        let found = check::property_string(schema, path, format, value)?;
        return after(format, &found);
    }
    if let Some((regex, text)) = COMPILED.get(format) {
        let good = regex.as_ref().is_some_and(|r| r.is_match(value));
        return if good { Ok(()) } else { Err(text.replace("{}", value)) };
    }
    let fail = |good: bool, text: &str| if good { Ok(()) } else { Err(text.replace("{}", value)) };
    match format {
        "ipv4" => fail(value.parse::<Ipv4Addr>().is_ok(), "value does not look like a valid IPv4 address\n"),
        "ipv6" => fail(value.parse::<Ipv6Addr>().is_ok(), "value does not look like a valid IPv6 address\n"),
        "CIDR" => fail(cidr4(value) || cidr6(value), "value does not look like a valid CIDR network\n"),
        "pve-ipv4-config" => fail(
            matches!(value, "dhcp" | "manual") || cidr4(value),
            "value does not look like a valid ipv4 network configuration\n",
        ),
        "pve-ipv6-config" => fail(
            matches!(value, "auto" | "dhcp" | "manual") || cidr6(value),
            "value does not look like a valid ipv6 network configuration\n",
        ),
        "address" => {
            let name = check(schema, path, "dns-name", value).is_ok();
            fail(name || address(value), "value does not look like a valid address: {}\n")
        }
        "lxc-ip-with-ll-iface" => {
            let bare = value.split('%').next().unwrap_or(value);
            fail(address(bare), "value does not look like a valid IP address\n")
        }
        "pve-volume-id-or-qm-path" => match value {
            "none" | "cdrom" => Ok(()),
            path if path.starts_with('/') => Ok(()),
            other => check(schema, path, "pve-volume-id", other),
        },
        "pve-volume-id-or-absolute-path" if value.starts_with('/') => Ok(()),
        "pve-volume-id-or-absolute-path" => check(schema, path, "pve-volume-id", value),
        "pve-storage-id" => storage_id(value),
        "storage-pair" => value.split(':').try_for_each(|id| if id == "1" { Ok(()) } else { storage_id(id) }),
        "pve-poolid" => pool_id(value),
        "pve-lxc-mp-string" => fail(
            !value.contains("/./")
                && !value.contains("/../")
                && !value.starts_with("../")
                && !value.ends_with("/.."),
            "{} contains illegal character sequences\n",
        ),
        "pve-calendar-event" => {
            fail(calendar_event(value), "invalid calendar event '{}' - unable to parse\n")
        }
        "pve-priv" => fail(value.contains('.'), "invalid privilege '{}'\n"),
        // The tables name it and nothing checks it: a fault of the lab, which must be loud.
        other => Err(format!("the lab has no format '{other}'\n")),
    }
}

/// The items of a list value: NUL, comma, semicolon and white space separate.
fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(|c: char| matches!(c, '\0' | ',' | ';') || c.is_whitespace()).filter(|i| !i.is_empty())
}

fn after(format: &str, found: &BTreeMap<String, String>) -> Result<(), String> {
    match format {
        "pve-vm-cpu-conf" => match found.get("cputype") {
            Some(model)
                if !model.starts_with("custom-") && !CPU_MODELS.split_whitespace().any(|m| m == model) =>
            {
                Err(format!("Built-in cputype '{model}' is not defined (missing 'custom-' prefix?)\n"))
            }
            _ => Ok(()),
        },
        "prune-backups" if found.get("keep-all").is_some_and(|v| v == "1") && found.len() > 1 => {
            Err("keep-all cannot be set together with other options.\n".into())
        }
        _ => Ok(()),
    }
}

fn address(value: &str) -> bool {
    value.parse::<Ipv4Addr>().is_ok() || value.parse::<Ipv6Addr>().is_ok()
}

fn prefix(value: &str) -> Option<(&str, u8)> {
    let (ip, len) = value.split_once('/')?;
    Some((ip, len.parse().ok()?))
}

fn cidr4(value: &str) -> bool {
    prefix(value).is_some_and(|(ip, len)| ip.parse::<Ipv4Addr>().is_ok() && (8..=32).contains(&len))
}

fn cidr6(value: &str) -> bool {
    prefix(value).is_some_and(|(ip, len)| ip.parse::<Ipv6Addr>().is_ok() && (8..=128).contains(&len))
}

fn storage_id(value: &str) -> Result<(), String> {
    if value.len() < 2 {
        return Err(format!("storage ID '{value}' cannot be shorter than 2 characters\n"));
    }
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let first = value.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let inner = value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if first && inner && edge(value.chars().last()) {
        return Ok(());
    }
    Err(format!("storage ID '{value}' contains illegal characters\n"))
}

fn pool_id(value: &str) -> Result<(), String> {
    let word = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    let parts: Vec<&str> = value.split('/').collect();
    if !parts.iter().all(|p| word(p)) {
        return Err(format!("pool name '{value}' contains invalid characters\n"));
    }
    if parts.len() > 3 {
        return Err(format!("pool name '{value}' nested too deeply (max levels = 3)\n"));
    }
    Ok(())
}

/// A plain test for the subset of systemd's calendar events that Proxmox takes: words of digits, days,
/// `*`, and their separators.
fn calendar_event(value: &str) -> bool {
    const NAMES: &[&str] = &[
        "minutely",
        "hourly",
        "daily",
        "weekly",
        "monthly",
        "yearly",
        "annually",
        "quarterly",
        "semiannually",
    ];
    const DAYS: &[&str] = &["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let day = |d: &str| d.get(..3).is_some_and(|d| DAYS.contains(&d.to_ascii_lowercase().as_str()));
    let days = |w: &str| w.split([',']).flat_map(|r| r.split("..")).all(day);
    let time = |w: &str| w.chars().all(|c| c.is_ascii_digit() || "*:/-.,~".contains(c));
    NAMES.contains(&value)
        || (!value.trim().is_empty() && value.split_whitespace().all(|w| days(w) || time(w)))
}
