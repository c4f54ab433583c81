//! A system disk made anew, while the data disks stay in their machine; pure.
//!
//! The machine itself is not deleted: with it would go the disks that it owns. The new system disk is copied from the
//! template's by `import-from` (qemu-server, API2/Qemu.pm: a volume of a machine on the same node, with VM.Clone).

use crate::mark::Mark;
use crate::options::{Options, Properties, boot_disk, disks};
use crate::seen::{Guest, Seen};
use crate::template::existing;
use crate::want::{Design, Machine};

/// The disk that a machine of ours boots from; none while it is made anew and not there yet.
pub(crate) fn system_disk(options: &Options, mark: &Mark) -> Option<String> {
    match &mark.renew {
        Some(lost) => {
            let slot = lost.split('=').next().unwrap_or_default();
            disks(options).into_iter().map(|d| d.slot).find(|s| s == slot)
        }
        None => boot_disk(options),
    }
}

/// The disks of a machine that hold data; one that somebody has only taken out of its drive is among them.
pub(crate) fn data_disks(options: &Options, mark: &Mark) -> Vec<String> {
    let system = system_disk(options, mark);
    let drives = disks(options).into_iter().map(|d| d.slot).filter(|slot| Some(slot) != system.as_ref());
    let unused = options
        .keys()
        .filter(|option| option.strip_prefix("unused").is_some_and(|n| n.parse::<u8>().is_ok()));
    drives.chain(unused.cloned()).collect()
}

/// What is lost, what takes its place, and the options as they are then.
pub(crate) struct Renewal {
    /// The option and the volume that goes.
    pub lost: String,
    /// The drive that takes its place.
    pub drive: String,
    /// The machine's options after that, as far as they are known before.
    pub options: Options,
    /// Its mark after that.
    pub mark: Mark,
}

/// How a machine gets another system disk.
///
/// # Errors
/// Why it cannot, and what helps.
pub(crate) fn renewal(
    design: &Design,
    seen: &Seen,
    machine: &Machine,
    guest: &Guest,
    mark: &Mark,
) -> Result<Renewal, (String, String)> {
    if guest.is_container() || !machine.kind.is_vm() {
        return Err((
            "a container's volumes go with it, and another kind of guest cannot take them over".to_owned(),
            format!("keep what they hold elsewhere; then pve-vm destroy --delete-data {}", machine.name),
        ));
    }
    let mut options = guest.config.clone().unwrap_or_default();
    let node = &guest.node;
    let source = existing(design, seen, node).map_err(|why| {
        (format!("its node {node} {why}"), "pve-vm, which makes templates where machines are due".to_owned())
    })?;
    if source.node != *node {
        return Err((
            format!("its node {node} has no template of its own, and only one there can be copied into it"),
            format!("qm migrate {} {}, on {node}", guest.vmid, source.node),
        ));
    }
    let whose = boot_disk(&source.options).unwrap_or_default();
    let mut drive = Properties::parse(source.options.get(&whose).map(String::as_str).unwrap_or_default());
    let from = drive.head.take().unwrap_or_default();
    let size = drive.get("size").unwrap_or("0").to_owned();
    drive.set("size", None);
    let lost = match &mark.renew {
        Some(lost) => lost.clone(),
        None => {
            let slot = system_disk(&options, mark).unwrap_or(whose);
            let volume = options.get(&slot).and_then(|d| Properties::parse(d).head).unwrap_or_default();
            format!("{slot}={volume}")
        }
    };
    let slot = lost.split('=').next().unwrap_or_default().to_owned();
    let mark = Mark { host_keys: Vec::new(), proven: false, renew: None, ..mark.clone() };
    let description = options.get("description").map(|d| mark.write(d)).unwrap_or_default();
    options.insert("description".to_owned(), description);
    options.insert("boot".to_owned(), format!("order={slot}"));
    // Lifted before the disk goes.
    options.remove("protection");
    options.insert(slot, format!("{}:0,size={size}", design.storage));
    let rest = drive.to_string();
    let rest = if rest.is_empty() { rest } else { format!(",{rest}") };
    Ok(Renewal { lost, drive: format!("{}:0,import-from={from}{rest}", design.storage), options, mark })
}
