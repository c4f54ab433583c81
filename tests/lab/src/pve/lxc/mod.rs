//! Containers, as far as load balancers need them.

mod keys;
pub mod migrate;
pub mod power;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::dispatch::Call;
use super::locks;
use super::qemu::create::may_allocate;
use super::qemu::drives::{self, Drive, Wanted, allocate, bytes, print_size};
use super::qemu::options::{bridge_permitted, stem, tags};
use super::reply::{Answer, Fail, nothing};
use super::schema::property_string;
use super::state::{Guest, Kind, Options, State};

const NOT_OPTIONS: &[&str] = &[
    "node",
    "vmid",
    "ostemplate",
    "password",
    "ssh-public-keys",
    "start",
    "storage",
    "pool",
    "bwlimit",
    "force",
    "ha-managed",
    "ignore-unpack-errors",
    "restore",
    "unique",
    "delete",
    "revert",
    "digest",
];

/// What a token may not do with containers.
fn permitted(
    call: &Call,
    vmid: u32,
    pool: Option<&str>,
    option: &str,
    value: &str,
    plain: bool,
) -> Result<(), Fail> {
    if call.who.root() {
        return Ok(());
    }
    let need = |privilege: &str| call.need_guest(vmid, pool, &[privilege]);
    match stem(option) {
        "features" if !plain => Err(Fail::forbidden(
            "changing feature flags for privileged container is only allowed for root@pam",
        )),
        "features" if value.split(',').any(|f| !f.starts_with("nesting=")) => {
            Err(Fail::forbidden("changing feature flags (except nesting) is only allowed for root@pam"))
        }
        "dev" if option != "dev" => {
            Err(Fail::forbidden("configuring device passthrough is only allowed for root@pam"))
        }
        "mp" if value.starts_with('/') => {
            Err(Fail::forbidden("mount point type bind is only allowed for root@pam"))
        }
        "rootfs" | "mp" | "unused" => need("VM.Config.Disk"),
        "cores" | "cpulimit" | "cpuunits" => need("VM.Config.CPU"),
        "memory" | "swap" => need("VM.Config.Memory"),
        "net" | "nameserver" | "searchdomain" | "hostname" => need("VM.Config.Network"),
        "startup" => {
            call.need("/", &["Sys.Modify"])?;
            need("VM.Config.Options")
        }
        _ => need("VM.Config.Options"),
    }
}

fn net(call: &Call, state: &mut State, option: &str, value: &str) -> Result<String, Fail> {
    let found = property_string(&call.hub.schema, option, "lxc.net", value);
    let mut parts = found.map_err(|why| Fail::parameter(option, format!("invalid format - {why}")))?;
    let name = parts.remove("name").unwrap_or_default();
    parts.entry("hwaddr".into()).or_insert_with(|| state.mac());
    parts.entry("type".into()).or_insert("veth".into());
    let rest: String = parts.iter().map(|(k, v)| format!(",{k}={v}")).collect();
    Ok(format!("name={name}{rest}"))
}

fn options(call: &Call, vmid: u32, pool: Option<&str>, plain: bool) -> Result<Options, Fail> {
    let sent: BTreeMap<String, String> = call
        .values
        .iter()
        .filter(|(k, _)| !NOT_OPTIONS.contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.text()))
        .collect();
    let mut stored = Options::new();
    for (option, value) in sent {
        permitted(call, vmid, pool, &option, &value, plain)?;
        let value = match stem(&option) {
            "net" => {
                bridge_permitted(call, &value)?;
                net(call, &mut call.hub.state(), &option, &value)?
            }
            "tags" => tags(&value),
            _ => value,
        };
        stored.insert(option, value);
    }
    Ok(stored)
}

/// `POST /nodes/{node}/lxc`.
pub(super) async fn create(call: Call) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let pool = call.text("pool").map(str::to_owned);
    may_allocate(&call, vmid, pool.as_deref())?;
    let plain = call.flag("unprivileged");
    if !plain && !call.who.root() {
        call.need("/", &["Sys.Modify"])?;
    }
    let mut config = options(&call, vmid, pool.as_deref(), plain)?;
    config.insert("arch".into(), config.get("arch").cloned().unwrap_or_else(|| "amd64".into()));
    config.entry("ostype".into()).or_insert("debian".into());
    config.entry("hostname".into()).or_insert(format!("CT{vmid}"));
    let template = call.text("ostemplate").unwrap_or_default().to_owned();
    let root = config.remove("rootfs").or_else(|| call.text("storage").map(|s| format!("{s}:4")));
    let root = Drive::stored(&root.unwrap_or_else(|| "local:4".into()));
    let storage = root.storage().to_owned();
    call.need(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    if call.task_end.is_some() {
        return Ok(call.work(&node, "vzcreate", &vmid.to_string(), |_| async { Ok(()) }).into());
    }
    {
        let mut state = call.hub.state();
        if state.volume(&node, &template).is_none_or(|v| v.content != "vztmpl") {
            return Err(Fail::die(format!("volume '{template}' does not exist")));
        }
        if !state.storage(&storage, &node)?.holds("rootdir") {
            return Err(Fail::die(format!("storage '{storage}' does not support container directories")));
        }
        if let Some(there) = state.guests.get(&vmid) {
            return Err(Fail::die(format!("CT {vmid} already exists on node '{}'", there.node)));
        }
        let generation = state.count();
        let mut guest = Guest::new(vmid, Kind::Lxc, &node, generation);
        guest.config.insert("lock".into(), "create".into());
        guest.keys = call.text("ssh-public-keys").unwrap_or_default().lines().map(str::to_owned).collect();
        state.guests.insert(vmid, guest);
    }
    let size = (root.new_disk().map_or(4.0, |(_, gib)| gib) * f64::from(1u32 << 30)) as u64;
    let start = call.flag("start");
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "vzcreate", &vmid.to_string(), move |log| async move {
        let made = async {
            let _held = hub.locks.guest("lxc", &node, vmid, locks::WORKER).await?;
            let local = { (!hub.state().place(&storage, &node).is_empty()).then_some(node.as_str()) };
            let _lock = hub.locks.storage(&storage, local).await?;
            hub.world.clock.wait(Duration::from_secs(5)).await;
            allocate(&mut hub.state(), &node, &storage, vmid, Wanted::Disk, size, None)
        };
        match made.await {
            Ok(volid) => {
                log.line(format!("extracting archive '/var/lib/vz/template/cache/{template}'"));
                let name = config.get("hostname").cloned().unwrap_or_default();
                let host_key = keys::make(&name, &log);
                config.insert("rootfs".into(), format!("{volid},size={}", print_size(size)));
                let mut state = hub.state();
                if let Some(guest) = state.guests.get_mut(&vmid) {
                    guest.host_key = Some(host_key);
                    guest.config = config;
                    guest.pool = pool;
                }
            }
            Err(why) => {
                hub.state().guests.remove(&vmid);
                return Err(why);
            }
        }
        if start { power::switch_on(&hub, &node, vmid).await } else { Ok(()) }
    });
    Ok(upid.into())
}

/// `PUT …/config`: at once.
pub(super) async fn change(call: Call) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let plain = call.hub.state().guest(Kind::Lxc, &node, vmid)?.on("unprivileged");
    let set = options(&call, vmid, None, plain)?;
    let split = |c: char| matches!(c, ',' | ';' | ' ');
    let delete: Vec<String> = call
        .text("delete")
        .unwrap_or_default()
        .split(split)
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
        .collect();
    if set.is_empty() && delete.is_empty() {
        return Err(Fail::die("no options specified"));
    }
    let _held = call.hub.locks.guest("lxc", &node, vmid, locks::CONFIG).await.map_err(Fail::die)?;
    let mut state = call.hub.state();
    let guest = state.guest_mut(Kind::Lxc, &node, vmid)?;
    if call.text("digest").is_some_and(|d| d != guest.digest()) {
        return Err(Fail::die("checksum mismatch (file change by other user?)"));
    }
    guest.unlocked()?;
    let due =
        delete.into_iter().map(|option| (option, None)).chain(set.into_iter().map(|(k, v)| (k, Some(v))));
    for (option, value) in due {
        guest.pending.remove(&option);
        if guest.config.get(&option) == value.as_ref() {
            continue;
        }
        guest.pending.insert(option, value);
    }
    if guest.running.is_none() {
        settle(guest);
    } else {
        let now: Vec<String> = guest.pending.keys().filter(|o| at_once(o)).cloned().collect();
        for option in now {
            if let Some(value) = guest.pending.remove(&option) {
                put(guest, option, value);
            }
        }
    }
    nothing()
}

/// What takes effect while a container runs (pve-container, LXC/Config.pm: `vmconfig_hotplug_pending`); all else
/// waits for its next start.
fn at_once(option: &str) -> bool {
    let plain = ["description", "onboot", "protection", "startup", "tags", "hookscript", "lock"];
    let plugged = ["cores", "cpulimit", "cpuunits", "memory", "swap", "net", "mp"];
    plain.contains(&option) || plugged.contains(&stem(option))
}

fn put(guest: &mut Guest, option: String, value: Option<String>) {
    match value {
        Some(value) => drop(guest.config.insert(option, value)),
        None => drop(guest.config.remove(&option)),
    }
}

/// What waited for a start takes effect.
fn settle(guest: &mut Guest) {
    for (option, value) in std::mem::take(&mut guest.pending) {
        put(guest, option, value);
    }
}

/// `POST …/clone`: the source is locked and the new configuration made before the worker starts.
pub(super) fn clone(call: &Call) -> Answer {
    let (node, from) = (call.node().to_owned(), call.vmid());
    let to = call.number("newid").unwrap_or(0) as u32;
    let pool = call.text("pool").map(str::to_owned);
    let hostname = call.text("hostname").map(str::to_owned);
    let description = call.text("description").map(str::to_owned);
    if call.task_end.is_some() {
        return Ok(call.work(&node, "vzclone", &from.to_string(), |_| async { Ok(()) }).into());
    }
    let (source, storage) = {
        let mut state = call.hub.state();
        let source = state.guest(Kind::Lxc, &node, from)?.clone();
        source.unlocked()?;
        if let Some(there) = state.guests.get(&to) {
            return Err(Fail::die(format!("CT {to} already exists on node '{}'", there.node)));
        }
        let root = Drive::stored(source.config.get("rootfs").map_or("", String::as_str));
        if source.template() && !call.flag("full") {
            return Err(Fail::die(format!("Linked clone feature for '{}' is not available", root.file)));
        }
        let storage = call.text("storage").unwrap_or(root.storage()).to_owned();
        state.guest_mut(Kind::Lxc, &node, from)?.config.insert("lock".into(), "disk".into());
        let generation = state.count();
        let mut guest = Guest::new(to, Kind::Lxc, &node, generation);
        guest.config.insert("lock".into(), "create".into());
        guest.keys = source.keys.clone();
        state.guests.insert(to, guest);
        (source, storage)
    };
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "vzclone", &from.to_string(), move |_| async move {
        let size = drives::system_size(&source);
        let made = async {
            let local = { (!hub.state().place(&storage, &node).is_empty()).then_some(node.as_str()) };
            let volid = {
                let _lock = hub.locks.storage(&storage, local).await?;
                allocate(&mut hub.state(), &node, &storage, to, Wanted::Disk, size, None)?
            };
            hub.world.clock.wait(Duration::from_secs(30)).await;
            Ok::<_, String>(volid)
        };
        let made = made.await;
        let mut state = hub.state();
        if let Some(source) = state.guests.get_mut(&from) {
            source.config.remove("lock");
        }
        let volid = match made {
            Ok(volid) => volid,
            Err(why) => {
                state.guests.remove(&to);
                return Err(format!("clone failed: {why}"));
            }
        };
        let mut config = source.config.clone();
        config.remove("template");
        config.insert("rootfs".into(), format!("{volid},size={}", print_size(size)));
        config.extend(hostname.map(|h| ("hostname".to_owned(), h)));
        config.extend(description.map(|d| ("description".to_owned(), d)));
        let nets: Vec<String> = config.keys().filter(|k| stem(k) == "net").cloned().collect();
        for option in nets {
            let mac = state.mac();
            if let Some(net) = config.get_mut(&option) {
                let parts = net
                    .split(',')
                    .map(|p| if p.starts_with("hwaddr=") { format!("hwaddr={mac}") } else { p.into() });
                *net = parts.collect::<Vec<_>>().join(",");
            }
        }
        if let Some(guest) = state.guests.get_mut(&to) {
            guest.config = config;
            guest.pool = pool;
        }
        Ok(())
    });
    Ok(upid.into())
}

/// `PUT …/resize`; the same size is refused here.
pub(super) fn resize(call: &Call) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    call.hub.state().guest(Kind::Lxc, &node, vmid)?.unlocked()?;
    let disk = call.text("disk").unwrap_or_default().to_owned();
    let size = call.text("size").unwrap_or_default().to_owned();
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "resize", &vmid.to_string(), move |_| async move {
        let _held = hub.locks.guest("lxc", &node, vmid, locks::CONFIG).await?;
        hub.world.clock.wait(Duration::from_secs(1)).await;
        let mut state = hub.state();
        let guest = state.guest(Kind::Lxc, &node, vmid).map_err(|f| f.exit())?;
        let value = guest.config.get(&disk).ok_or(format!("disk '{disk}' does not exist"))?;
        let mut drive = Drive::stored(value);
        let old = state.volume(&node, &drive.file).map_or(0, |v| v.size);
        let given = bytes(size.trim_start_matches('+')).ok_or("unable to parse size")?;
        let new = if size.starts_with('+') { old + given } else { given };
        if new < old {
            return Err("unable to shrink disk size".into());
        }
        if new == old {
            return Err("disk is already at specified size".into());
        }
        if let Some(volume) = state.volume_mut(&node, &drive.file) {
            volume.size = new;
        }
        drive.options.insert("size".into(), print_size(new));
        let guest = state.guest_mut(Kind::Lxc, &node, vmid).map_err(|f| f.exit())?;
        guest.config.insert(disk, drive.print());
        Ok(())
    });
    Ok(upid.into())
}

fn part<'a>(net: &'a str, key: &str) -> Option<&'a str> {
    net.split(',').find_map(|p| p.strip_prefix(key)?.strip_prefix('='))
}

/// `GET …/interfaces`.
pub(super) fn interfaces(call: &Call) -> Answer {
    let state = call.hub.state();
    let guest = state.guest(Kind::Lxc, call.node(), call.vmid())?;
    if guest.running.is_none() {
        return nothing();
    }
    let nets = guest.config.iter().filter(|(k, _)| stem(k) == "net");
    let list: Vec<Json> = nets
        .map(|(_, net)| {
            let mac = part(net, "hwaddr").unwrap_or_default().to_lowercase();
            let mut entry = json!({ "name": part(net, "name"), "hwaddr": mac, "hardware-address": mac });
            if let Some((ip, prefix)) = part(net, "ip").and_then(|ip| ip.split_once('/')) {
                entry["inet"] = format!("{ip}/{prefix}").into();
                entry["ip-addresses"] =
                    json!([{ "ip-address": ip, "ip-address-type": "inet", "prefix": prefix }]);
            }
            entry
        })
        .collect();
    Ok(Json::Array(list).into())
}

/// `POST …/template`: a worker runs, and null is the answer.
pub(super) fn template(call: &Call) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    {
        let state = call.hub.state();
        let guest = state.guest(Kind::Lxc, &node, vmid)?;
        guest.unlocked()?;
        if guest.template() {
            return Err(Fail::die("you can't convert a template to a template"));
        }
        if guest.running.is_some() {
            return Err(Fail::die("you can't convert a CT to template if the CT is running"));
        }
    }
    let hub = call.hub.clone();
    call.work(&node.clone(), "vztemplate", &vmid.to_string(), move |_| async move {
        hub.world.clock.wait(Duration::from_secs(5)).await;
        let mut state = hub.state();
        let guest = state.guest_mut(Kind::Lxc, &node, vmid).map_err(|f| f.exit())?;
        guest.config.insert("template".into(), "1".into());
        Ok(())
    });
    nothing()
}
