//! Drives: their strings, their volumes, the cloud-init drive.

use std::collections::BTreeMap;

use super::super::config::StorageKind;
use super::super::hub::Hub;
use super::super::reply::Fail;
use super::super::schema::property_string;
use super::super::state::{Guest, Options, State, Volume};

/// A drive string in parts.
#[derive(Clone, Debug, Default)]
pub struct Drive {
    /// The volume, `none`, or what is to be made: `STORAGE:GIB`, `STORAGE:cloudinit`.
    pub file: String,
    /// The rest.
    pub options: BTreeMap<String, String>,
}

/// The table of a drive's property string, when this option is a drive.
pub fn table(option: &str) -> Option<&'static str> {
    let name = option.trim_end_matches(|c: char| c.is_ascii_digit());
    if name.len() == option.len() {
        return None;
    }
    Some(match name {
        "scsi" if option != "scsihw" => "qemu.scsi",
        "virtio" => "qemu.virtio",
        "sata" => "qemu.sata",
        "ide" => "qemu.ide",
        "efidisk" => "qemu.efidisk0",
        "tpmstate" => "qemu.tpmstate0",
        _ => return None,
    })
}

impl Drive {
    /// Reads a stored or sent drive string.
    pub fn parse(hub: &Hub, option: &str, text: &str) -> Result<Drive, Fail> {
        let table = table(option).unwrap_or("qemu.unused");
        let found = property_string(&hub.schema, option, table, text);
        let mut options = found.map_err(|why| Fail::parameter(option, format!("invalid format - {why}")))?;
        let file = options.remove("file").unwrap_or_default();
        Ok(Drive { file, options })
    }

    /// Reads a stored drive string without a table: what is stored is good.
    pub fn stored(text: &str) -> Drive {
        let mut parts = text.split(',');
        let file = parts.next().unwrap_or_default().to_owned();
        let options =
            parts.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Drive { file, options }
    }

    /// As it is stored: the volume first, then sorted keys.
    pub fn print(&self) -> String {
        let rest: String = self.options.iter().map(|(k, v)| format!(",{k}={v}")).collect();
        format!("{}{rest}", self.file)
    }

    /// A CD-ROM, the cloud-init drive among them.
    pub fn cdrom(&self) -> bool {
        self.options.get("media").is_some_and(|m| m == "cdrom") || self.file == "none" || self.file == "cdrom"
    }

    /// A cloud-init drive, made or asked for.
    pub fn cloudinit(&self) -> bool {
        self.file.ends_with(":cloudinit") || self.file.contains("-cloudinit")
    }

    /// The storage and size of a new disk: `STORAGE:GIB`.
    pub fn new_disk(&self) -> Option<(&str, f64)> {
        let (storage, size) = self.file.split_once(':')?;
        Some((storage, size.parse().ok()?))
    }

    /// The storage of its volume.
    pub fn storage(&self) -> &str {
        self.file.split_once(':').map_or("", |(s, _)| s)
    }
}

/// All drives of a configuration, `unusedN` not among them.
pub fn all(config: &Options) -> impl Iterator<Item = (&String, Drive)> {
    config.iter().filter(|(k, _)| table(k).is_some()).map(|(k, v)| (k, Drive::stored(v)))
}

/// Its disks in the order of the bus, the one that it boots from first.
pub fn disks(config: &Options) -> Vec<(String, Drive)> {
    let first = config.get("boot").and_then(|b| b.strip_prefix("order=")).and_then(|o| o.split(';').next());
    let rank = |key: &str| {
        let name = key.trim_end_matches(|c: char| c.is_ascii_digit());
        let number: u32 = key[name.len()..].parse().unwrap_or(0);
        let bus = ["scsi", "virtio", "sata", "ide"].iter().position(|b| *b == name).unwrap_or(9);
        (Some(key) != first, bus, number)
    };
    let real = |key: &str, d: &Drive| {
        !d.cdrom() && !d.cloudinit() && !key.starts_with("efi") && !key.starts_with("tpm")
    };
    let mut disks: Vec<_> = all(config).filter(|(k, d)| real(k, d)).map(|(k, d)| (k.clone(), d)).collect();
    disks.sort_by_key(|(key, _)| rank(key));
    disks
}

/// Bytes of the disk that a guest boots from.
pub fn system_size(guest: &Guest) -> u64 {
    let size = |d: &Drive| d.options.get("size").and_then(|s| bytes(s)).unwrap_or(0);
    let root = guest.config.get("rootfs").map(|r| size(&Drive::stored(r)));
    root.or_else(|| disks(&guest.config).first().map(|(_, d)| size(d))).unwrap_or(0)
}

/// `32G` in bytes; a bare number is bytes.
pub fn bytes(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let shift = match unit {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        _ => 0,
    };
    let number: f64 = text.trim_end_matches(['K', 'M', 'G', 'T']).parse().ok()?;
    Some((number * f64::from(1u32 << 10).powi(shift / 10)) as u64)
}

/// Bytes as Proxmox prints a disk's size.
pub fn print_size(bytes: u64) -> String {
    for (shift, unit) in [(30, 'G'), (20, 'M'), (10, 'K')] {
        if bytes.is_multiple_of(1 << shift) && bytes > 0 {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// What a new volume is called.
pub enum Wanted {
    /// The next free disk.
    Disk,
    /// The cloud-init drive.
    CloudInit,
}

/// Makes a volume for a guest and gives its id. `parent` makes it a linked clone.
pub fn allocate(
    state: &mut State,
    node: &str,
    storage: &str,
    vmid: u32,
    wanted: Wanted,
    size: u64,
    parent: Option<&str>,
) -> Result<String, String> {
    let config = state.storage(storage, node).map_err(|f| f.message)?;
    let (files, kind) = (config.kind.files(), config.kind);
    let suffix = if files { ".qcow2" } else { "" };
    let above = match parent.and_then(|p| p.split_once(':')) {
        // File storages and ZFS name the base in the clone's volume id.
        Some((_, base)) if files => format!("{base}/"),
        Some((_, base)) if kind == StorageKind::ZfsPool || kind == StorageKind::Rbd => format!("{base}/"),
        _ => String::new(),
    };
    let folder = if files { format!("{vmid}/") } else { String::new() };
    let name = |label: &str| format!("{storage}:{above}{folder}vm-{vmid}-{label}{suffix}");
    let place = state.place(storage, node);
    let taken = |state: &State, n: u32| {
        let end = format!("-{vmid}-disk-{n}{suffix}");
        state
            .volumes
            .iter()
            .any(|((p, volid), v)| *p == place && v.storage == storage && volid.ends_with(&end))
    };
    let volid = match wanted {
        Wanted::CloudInit => name("cloudinit"),
        Wanted::Disk => {
            let free = (0..100).find(|n| !taken(state, *n)).ok_or("unable to allocate an image name")?;
            name(&format!("disk-{free}"))
        }
    };
    if state.volume(node, &volid).is_some() {
        return Err(format!("disk image '{volid}' already exists"));
    }
    let format = if files { "qcow2" } else { "raw" };
    let volume = Volume {
        vmid: Some(vmid),
        parent: parent.map(str::to_owned),
        ..Volume::new(&volid, storage, "images", format, size)
    };
    state.put_volume(node, volume);
    Ok(volid)
}

/// Frees all volumes that a guest owns on its node (and on shared storages), but those in `keep`.
pub fn free_all(state: &mut State, node: &str, vmid: u32) {
    let gone: Vec<_> = state
        .volumes
        .iter()
        .filter(|((place, _), v)| {
            v.vmid == Some(vmid) && v.content != "backup" && (place.is_empty() || place == node)
        })
        .map(|(key, _)| key.clone())
        .collect();
    for key in gone {
        state.volumes.remove(&key);
    }
}

/// Frees the volumes of a guest that stand in its configuration or its snapshots.
pub fn free_own(state: &mut State, node: &str, vmid: u32) {
    let Some(guest) = state.guests.get(&vmid) else { return };
    let configs = std::iter::once(&guest.config).chain(guest.snapshots.values().map(|s| &s.config));
    let named: Vec<String> = configs
        .flat_map(|config| config.values())
        .filter_map(|value| Some(value.split(',').next()?.to_owned()))
        .collect();
    for volid in named {
        if state.volume(node, &volid).is_some_and(|v| v.vmid == Some(vmid) && v.content != "backup") {
            state.remove_volume(node, &volid);
        }
    }
}
