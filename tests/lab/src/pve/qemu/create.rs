//! `POST /nodes/{node}/qemu`.

use std::collections::BTreeMap;

use super::super::dispatch::Call;
use super::super::locks;
use super::super::reply::{Answer, Fail};
use super::super::state::{Guest, Kind, Options};
use super::super::tasks::{Log, now};
use super::drives::{self, Drive, Wanted, allocate, bytes, print_size};
use super::options;

/// Parameters of the request that are no options of the machine.
pub const NOT_OPTIONS: &[&str] = &[
    "node",
    "vmid",
    "archive",
    "bwlimit",
    "force",
    "unique",
    "ha-managed",
    "live-restore",
    "start",
    "storage",
    "pool",
    "import-working-storage",
    "skiplock",
    "delete",
    "revert",
    "digest",
    "background_delay",
];

/// Seconds that an import of a cloud image takes.
const IMPORT: f64 = 10.0;

/// Makes a machine.
pub async fn create(call: Call) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let pool = call.text("pool").map(str::to_owned);
    may_allocate(&call, vmid, pool.as_deref())?;
    if call.text("archive").is_some() {
        return Err(Fail::die("the lab restores no backups"));
    }
    let sent: BTreeMap<String, String> = call
        .values
        .iter()
        .filter(|(k, _)| !NOT_OPTIONS.contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.text()))
        .collect();
    for (option, value) in &sent {
        options::permitted(&call, vmid, pool.as_deref(), option, Some(value))?;
        if drives::table(option).is_some() {
            check_drive(&call, &node, vmid, option, value)?;
        }
        if options::stem(option) == "net" {
            options::bridge_permitted(&call, value)?;
        }
    }
    absent(&call, vmid)?;
    if let Some(boot) = sent.get("boot") {
        options::boot_order(boot, |d| sent.contains_key(d))?;
    }
    let mut plain = Options::new();
    let mut drives_wanted = BTreeMap::new();
    {
        let mut state = call.hub.state();
        for (option, value) in &sent {
            if drives::table(option).is_some() {
                drives_wanted.insert(option.clone(), Drive::parse(&call.hub, option, value)?);
            } else {
                let value = options::stored(&call, &mut state, option, value)?;
                plain.insert(option.clone(), value);
            }
        }
    }
    let held = call.hub.locks.guest("qemu", &node, vmid, locks::CREATE).await.map_err(Fail::die)?;
    absent(&call, vmid)?;
    if call.task_end.is_some() {
        return Ok(call.work(&node, "qmcreate", &vmid.to_string(), |_| async { Ok(()) }).into());
    }
    // The configuration stands, locked, before the worker starts.
    {
        let mut state = call.hub.state();
        let generation = state.count();
        let mut guest = Guest::new(vmid, Kind::Qemu, &node, generation);
        guest.config.insert("lock".into(), "create".into());
        state.guests.insert(vmid, guest);
    }
    drop(held);
    let start = call.flag("start");
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "qmcreate", &vmid.to_string(), move |log| async move {
        let made = build(&hub, &node, vmid, plain, drives_wanted, pool, &log).await;
        if made.is_err() {
            let mut state = hub.state();
            drives::free_all(&mut state, &node, vmid);
            state.guests.remove(&vmid);
        }
        made?;
        if start {
            // A failure to start is only a warning in the log (qemu-server, API2/Qemu.pm).
            if let Err(why) = super::power::boot(&hub, &node, vmid).await {
                log.line(why);
            }
        }
        Ok(())
    });
    Ok(upid.into())
}

/// A new machine needs VM.Allocate on its id or on its pool.
pub fn may_allocate(call: &Call, vmid: u32, pool: Option<&str>) -> Result<(), Fail> {
    let own = call.need(&format!("/vms/{vmid}"), &["VM.Allocate"]).is_ok();
    if let Some(pool) = pool {
        let known = call.hub.state().pools.contains_key(pool);
        if !known {
            return Err(Fail::forbidden(format!("Permission check failed (pool '{pool}' does not exist)")));
        }
        if !own {
            call.need(&format!("/pool/{pool}"), &["VM.Allocate"])?;
        }
    } else if !own {
        return Err(Fail::forbidden("Permission check failed"));
    }
    Ok(())
}

fn absent(call: &Call, vmid: u32) -> Result<(), Fail> {
    match call.hub.state().guests.get(&vmid) {
        Some(there) => Err(Fail::die(format!(
            "unable to create VM {vmid} - {} {vmid} already exists on node '{}'",
            there.kind.short(),
            there.node
        ))),
        None => Ok(()),
    }
}

/// The checks of a drive before anything is made (qemu-server's `check_storage_access`).
pub fn check_drive(call: &Call, node: &str, vmid: u32, option: &str, value: &str) -> Result<(), Fail> {
    let drive = Drive::parse(&call.hub, option, value)?;
    if matches!(drive.file.as_str(), "none" | "cdrom") {
        return Ok(());
    }
    if drive.file.starts_with('/') || drive.options.get("import-from").is_some_and(|f| f.starts_with('/')) {
        return Err(Fail::die("Only root can pass arbitrary filesystem paths."));
    }
    let storage = drive.storage().to_owned();
    if drive.cloudinit() && drive.file.ends_with(":cloudinit") || drive.new_disk().is_some() {
        call.need(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        images_allowed(call, node, &storage)?;
        return import_allowed(call, node, option, &drive);
    }
    let state = call.hub.state();
    state.storage(&storage, node)?;
    let found = state.volume(node, &drive.file).cloned();
    drop(state);
    match found {
        None => Err(Fail::die(format!("volume '{}' does not exist", drive.file))),
        Some(volume) if volume.content == "iso" => {
            call.need_any(&format!("/storage/{storage}"), &["Datastore.AllocateSpace", "Datastore.Audit"])
        }
        Some(volume) if volume.vmid == Some(vmid) => Ok(()),
        Some(_) => call.need(&format!("/storage/{storage}"), &["Datastore.Allocate"]),
    }
}

/// Refuses a storage that does not exist here or holds no disks.
pub fn images_allowed(call: &Call, node: &str, storage: &str) -> Result<(), Fail> {
    let state = call.hub.state();
    if !state.storage(storage, node)?.holds("images") {
        return Err(Fail::parameter("storage", format!("storage '{storage}' does not support vm images")));
    }
    Ok(())
}

fn import_allowed(call: &Call, node: &str, option: &str, drive: &Drive) -> Result<(), Fail> {
    let Some(source) = drive.options.get("import-from") else { return Ok(()) };
    if drive.new_disk().is_none_or(|(_, size)| size != 0.0) {
        return Err(Fail::parameter(
            option,
            "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>",
        ));
    }
    let storage = source.split(':').next().unwrap_or_default();
    let state = call.hub.state();
    state.storage(storage, node)?;
    let owner = state.volume(node, source).filter(|v| v.content == "images").and_then(|v| v.vmid);
    if let Some(owner) = owner {
        // A machine's disk is copied as a clone would (qemu-server, API2/Qemu.pm: `check_storage_access` and
        // `import_from_volid`).
        let there = state.guests.get(&owner).map(|g| g.node.clone());
        drop(state);
        call.need(&format!("/vms/{owner}"), &["VM.Clone"])?;
        return match there.is_none_or(|n| n == node) {
            true => Ok(()),
            false => Err(Fail::die(format!("owner VM {owner} not on local node"))),
        };
    }
    drop(state);
    call.need_any(&format!("/storage/{storage}"), &["Datastore.AllocateSpace", "Datastore.Audit"])?;
    let state = call.hub.state();
    match state.volume(node, source) {
        None => Err(Fail::die(format!("volume '{source}' does not exist"))),
        Some(volume) if !matches!(volume.content, "images" | "import") => {
            let why =
                format!("'{source}' has wrong type '{}' - needs to be 'images' or 'import'", volume.content);
            Err(Fail::parameter(option, why))
        }
        Some(_) => Ok(()),
    }
}

async fn build(
    hub: &std::sync::Arc<super::super::hub::Hub>,
    node: &str,
    vmid: u32,
    plain: Options,
    wanted: BTreeMap<String, Drive>,
    pool: Option<String>,
    log: &Log,
) -> Result<(), String> {
    let _held = hub.locks.guest("qemu", node, vmid, locks::WORKER).await?;
    let mut config = plain;
    for (option, drive) in wanted {
        let drive = make_drive(hub, node, vmid, &option, drive, Some(log)).await?;
        config.insert(option, drive.print());
    }
    let stamp = format!("creation-qemu=10.1.2,ctime={}", now());
    config.entry("meta".into()).or_insert(stamp);
    config.entry("smbios1".into()).or_insert(format!("uuid={}", uuid()));
    config.entry("vmgenid".into()).or_insert(uuid());
    let mut state = hub.state();
    let guest = state.guests.get_mut(&vmid).ok_or("the configuration is gone")?;
    guest.config = config;
    guest.pool = pool;
    Ok(())
}

/// A random UUID.
pub fn uuid() -> String {
    let x: u128 = rand::random();
    let hex = format!("{x:032x}");
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// Makes the volume that a drive asks for; a drive with a volume stays as it is.
pub async fn make_drive(
    hub: &super::super::hub::Hub,
    node: &str,
    vmid: u32,
    option: &str,
    mut drive: Drive,
    log: Option<&Log>,
) -> Result<Drive, String> {
    let say = |text: String| {
        if let Some(log) = log {
            log.line(text);
        }
    };
    let storage = drive.storage().to_owned();
    let local = { (!hub.state().place(&storage, node).is_empty()).then_some(node) };
    if drive.file.ends_with(":cloudinit") {
        let _lock = hub.locks.storage(&storage, local).await?;
        drive.file = allocate(&mut hub.state(), node, &storage, vmid, Wanted::CloudInit, 4 << 20, None)?;
        drive.options.insert("media".into(), "cdrom".into());
        say(format!("{option}: successfully created disk '{}'", drive.print()));
        return Ok(drive);
    }
    let Some((_, gib)) = drive.new_disk() else {
        let state = hub.state();
        let volume = state.volume(node, &drive.file);
        if let Some(volume) = volume.filter(|v| v.content == "images") {
            drive.options.insert("size".into(), print_size(volume.size));
        } else if let Some(volume) = volume {
            drive.options.insert("size".into(), print_size(volume.size.max(1)));
        }
        return Ok(drive);
    };
    let source = drive.options.remove("import-from");
    let size = match &source {
        Some(source) => {
            let state = hub.state();
            let volume = state.volume(node, source).ok_or(format!("volume '{source}' does not exist"))?;
            volume.virtual_size.unwrap_or(volume.size)
        }
        None => (gib * f64::from(1u32 << 30)) as u64,
    };
    let volid = {
        let _lock = hub.locks.storage(&storage, local).await?;
        hub.world.clock.wait(std::time::Duration::from_secs(1)).await;
        allocate(&mut hub.state(), node, &storage, vmid, Wanted::Disk, size, None)?
    };
    if let Some(source) = source {
        say(format!("importing disk '{source}' to '{volid}' ..."));
        super::clone::transfer(hub, size, std::time::Duration::from_secs_f64(IMPORT), say).await;
    }
    drive.file = volid;
    drive.options.insert("size".into(), print_size(size));
    say(format!("{option}: successfully created disk '{}'", drive.print()));
    Ok(drive)
}

/// The size in a stored drive string.
pub fn size_of(drive: &Drive) -> u64 {
    drive.options.get("size").and_then(|s| bytes(s)).unwrap_or(0)
}
