//! Looking at one guest, and changing it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stage::{Ctx, Failure, Waiting};

use super::off::{Grace, switched_off};
use super::persist::{Look, persist};
use crate::mark::Mark;
use crate::observe::options;
use crate::options::{Options, disks, is_drive, net_moved};
use crate::pve::{Class, Error, Request, list, number, text};
use crate::roster::{half, hidden};
use crate::step::{At, Net};
use crate::want::Design;
use crate::world::World;

/// How long a clone that is being made by a task that we lost sight of may take.
const CLONING: Duration = Duration::from_secs(3600);
/// How long a machine may take to run or to be off; with HA, its manager sees to it (10 to 20 s).
const STARTING: Duration = Duration::from_secs(120);
/// How long a machine that is being switched off may take, by the HA manager too, which has a time-out of its own.
const STOPPING: Duration = Duration::from_secs(300);

/// The path of a guest's power switch.
pub fn status(at: &At, what: &str) -> String {
    format!("{}/status/{what}", at.path())
}

/// The path of a guest's configuration.
pub fn config_path(at: &At) -> String {
    format!("{}/config", at.path())
}

/// The guest's options.
pub async fn config(world: &World, at: &At) -> Result<Options, Error> {
    world.client.read(Request::get(config_path(at))).await.map(|c| options(&c))
}

/// Refuses unless the guest bears our mark: what moved in meanwhile is not touched.
pub async fn own(world: &World, at: &At, cluster: &str, doing: &str) -> Result<(), Failure> {
    let config = config(world, at).await.map_err(|e| e.failure(doing, &world.client.grantee()))?;
    if ours(&config, at, cluster) {
        return Ok(());
    }
    Err(Failure::precondition(doing).because(format!(
        "guest {} on node {} does not bear the mark of {}; it was left untouched",
        at.vmid, at.node, at.machine
    )))
}

/// The host keys that a guest's mark tells of; none where it tells of none.
pub async fn noted_keys(world: &World, at: &At, doing: &str) -> Result<Vec<String>, Failure> {
    let options = config(world, at).await.map_err(|e| e.failure(doing, &world.client.grantee()))?;
    Ok(marked(&options).map(|m| m.host_keys).unwrap_or_default())
}

/// The mark that a guest has to bear, with the description that holds it.
///
/// # Errors
/// Somebody took it away.
pub fn borne<'o>(config: &'o Options, at: &At) -> Result<(Mark, &'o str), Error> {
    let description = config.get("description").map(String::as_str).unwrap_or_default();
    let gone = || Error::Strange {
        request: format!("GET {}", config_path(at)),
        why: "our mark is gone from it".to_owned(),
    };
    Ok((Mark::read(description).ok_or_else(gone)?, description))
}

/// The mark in a guest's configuration.
pub fn marked(config: &Options) -> Option<Mark> {
    config.get("description").and_then(|d| Mark::read(d))
}

fn ours(config: &Options, at: &At, cluster: &str) -> bool {
    marked(config).is_some_and(|m| m.cluster == cluster && m.machine == at.machine && m.vmid == at.vmid)
}

/// Whether the clone is there, unlocked and marked. While it is being made it has a lock, and for a login whose
/// rights come from the pool it cannot be read at all: the pool is joined last (qemu-server, API2/Qemu.pm). One that
/// nobody makes any more and that is still so broke off; `template` is what it was cloned from.
pub async fn cloned(
    world: &World,
    ctx: &Ctx,
    at: &At,
    design: &Design,
    template: Option<u32>,
) -> Result<Look, Error> {
    let idle = AtomicBool::new(false);
    let idle = &idle;
    // It may have ended between two looks: only what is the same after that has been left.
    let left = || async move {
        matches!(world.makes(&at.node).await, Ok(false)) && idle.swap(true, Ordering::Relaxed)
    };
    let what = format!("the clone {at}");
    let end = ctx.wait_for(&what, CLONING, || async move {
        Ok(match config(world, at).await {
            Ok(config) => match config.get("lock") {
                None if ours(&config, at, &design.cluster) => Waiting::Seen(Ok(Look::Done)),
                None => Waiting::Seen(Ok(Look::Foreign(
                    format!(
                        "guest {} on node {} is there and does not bear our mark; it was left untouched",
                        at.vmid, at.node
                    ),
                    None,
                ))),
                Some(lock) if left().await => {
                    let what = format!("guest {} on node {}", at.vmid, at.node);
                    let (why, hint) = half(&what, lock, at);
                    Waiting::Seen(Ok(Look::Foreign(why, Some(hint))))
                }
                Some(lock) => Waiting::NotYet(format!("it is locked ({lock})")),
            },
            Err(error) if error.is_absent() => Waiting::Seen(elsewhere(world, at).await),
            Err(error) if error.status() == Some(403) => match free(world, at.vmid).await {
                Ok(true) => Waiting::Seen(Ok(Look::NotYet)),
                Ok(false) if left().await => {
                    let (nodes, templates) =
                        (vec![at.node.clone()], template.into_iter().collect::<Vec<_>>());
                    let broken = world.broken(&nodes, at.vmid, &templates).await;
                    let (why, hint) = hidden(design, &at.machine, at.kind, at.vmid, broken.as_ref());
                    Waiting::Seen(Ok(Look::Foreign(why, Some(hint))))
                }
                Ok(false) => Waiting::NotYet("it is being made, and cannot be seen".to_owned()),
                Err(error) => Waiting::Seen(Err(error)),
            },
            Err(error) => Waiting::Seen(Err(error)),
        })
    });
    // Waited out: whatever made it is asked again.
    end.await.unwrap_or(Ok(Look::NotYet))
}

/// Whether no guest has the id. To a login whose rights come from the pool, one that is not there and one that
/// is hidden look the same elsewhere: the rights are checked before the guest is looked for.
pub async fn free(world: &World, vmid: u32) -> Result<bool, Error> {
    match world.client.read(Request::get("/cluster/nextid").with("vmid", vmid)).await {
        Ok(_) => Ok(true),
        Err(error) if error.class() == Class::Exists => Ok(false),
        Err(error) => Err(error),
    }
}

/// The id may be taken on another node, which a clone finds only at its end.
async fn elsewhere(world: &World, at: &At) -> Result<Look, Error> {
    let all = world.client.read(Request::get("/cluster/resources").with("type", "vm")).await?;
    let there = list(&all).iter().find(|g| number(g, "vmid") == Some(u64::from(at.vmid)));
    Ok(match there.and_then(|g| text(g, "node")).filter(|n| *n != at.node) {
        Some(node) => Look::Foreign(
            format!("guest {} is there already, on node {node}; it was left untouched", at.vmid),
            None,
        ),
        None => Look::NotYet,
    })
}

/// Whether the guest is in the pool.
pub async fn in_pool(world: &World, at: &At, pool: &str) -> Result<Look, Error> {
    let value = world.client.read(Request::get("/pools").with("poolid", pool)).await?;
    let value = list(&value).first().cloned().unwrap_or(value);
    let members = value.get("members").map(list).unwrap_or_default();
    let there = members.iter().any(|m| number(m, "vmid") == Some(u64::from(at.vmid)));
    Ok(if there { Look::Done } else { Look::NotYet })
}

/// Sets what is still to be set. A drive that an earlier attempt made is not made again.
pub async fn configure(
    world: &World,
    ctx: &Ctx,
    at: &At,
    set: &BTreeMap<String, String>,
    net: Option<&Net>,
    delete: &[String],
) -> Result<(), Error> {
    let told = world.client.read(Request::get(config_path(at))).await?;
    let have = options(&told);
    let due = |(option, _): &(&String, &String)| !(is_drive(option) && have.contains_key(*option));
    // A machine's change may take a worker; a container's is done at once, and PUT alone.
    let request = if at.kind.is_vm() { Request::post } else { Request::put };
    let mut request = request(config_path(at)).with_all(set.iter().filter(due));
    if let Some(net) = net {
        request =
            request.with("net0", net_moved(have.get("net0").map(String::as_str), &net.bridge, net.vlan));
    }
    let gone: Vec<String> = delete.iter().filter(|d| have.contains_key(*d)).cloned().collect();
    if !gone.is_empty() {
        request = request.with("delete", gone.join(","));
    }
    if request.is_bare() {
        return Ok(());
    }
    // Only as we saw it: a disk that another run makes at the same moment would be made twice.
    if let Some(digest) = text(&told, "digest") {
        request = request.with("digest", digest);
    }
    world.client.run(ctx, &request).await
}

/// Whether the disk is that large.
pub async fn sized(world: &World, at: &At, disk: &str, gib: u64) -> Result<Look, Error> {
    let config = config(world, at).await?;
    let size = disks(&config).into_iter().find(|d| d.slot == disk).and_then(|d| d.size);
    Ok(if size.is_some_and(|s| s >= gib << 30) { Look::Done } else { Look::NotYet })
}

/// Whether the guest runs.
pub async fn runs(world: &World, at: &At, yes: Look, no: Look) -> Result<Look, Error> {
    let status = world.client.read(Request::get(status(at, "current"))).await?;
    Ok(if text(&status, "status").as_deref() == Some("running") { yes } else { no })
}

/// Whether the guest is gone.
pub async fn absent(world: &World, at: &At) -> Result<Look, Error> {
    match config(world, at).await {
        Ok(_) => Ok(Look::NotYet),
        Err(error) if error.is_absent() => Ok(Look::Done),
        Err(error) if error.status() == Some(403) && free(world, at.vmid).await? => Ok(Look::Done),
        Err(error) => Err(error),
    }
}

/// Switches it off and waits until it is: for a guest that the HA manager has, the task only hands the wish on.
pub async fn stop(world: &World, ctx: &Ctx, at: &At, request: &Request, doing: &str) -> Result<(), Failure> {
    let look = || runs(world, at, Look::NotYet, Look::Done);
    persist(world, ctx, doing, || world.client.run(ctx, request), look).await?;
    ctx.wait_for(&format!("{at} to be off"), STOPPING, || async {
        match look().await {
            Ok(Look::Done) => Ok(Waiting::Seen(())),
            Ok(_) => Ok(Waiting::NotYet("it runs".to_owned())),
            Err(error) if crate::pve::passing(&error) => Ok(Waiting::NotYet(error.to_string())),
            Err(error) => Err(error.failure(doing, &world.client.grantee())),
        }
    })
    .await
}

/// Switches it on and waits until it runs.
pub async fn start(world: &World, ctx: &Ctx, at: &At, doing: &str) -> Result<(), Failure> {
    let request = Request::post(status(at, "start"));
    let look = || runs(world, at, Look::Done, Look::NotYet);
    persist(world, ctx, doing, || world.client.run(ctx, &request), look).await?;
    let off = &Grace::default();
    ctx.wait_for(&format!("{at} to run"), STARTING, || async move {
        match world.client.read(Request::get(status(at, "current"))).await {
            Ok(state) if text(&state, "status").as_deref() == Some("running") => Ok(Waiting::Seen(())),
            Ok(state) => match switched_off(world, at, &state, off).await {
                Ok(missing) => Ok(Waiting::NotYet(missing)),
                Err((why, hint)) => Err(Failure::transient(doing).because(why).hint(hint).confined()),
            },
            Err(error) if crate::pve::passing(&error) => Ok(Waiting::NotYet(error.to_string())),
            Err(error) => Err(error.failure(doing, &world.client.grantee())),
        }
    })
    .await
}

/// The IPv4 addresses that the guest agent tells of the card with this MAC address. The first interface may be any:
/// docker0, cni0; and an interface may lack each of these fields.
pub fn addresses(interfaces: &serde_json::Value, mac: &str) -> Vec<String> {
    let all = interfaces.get("result").map(list).unwrap_or_default().iter();
    let card = all.filter(|i| text(i, "hardware-address").is_some_and(|m| m.eq_ignore_ascii_case(mac)));
    let addresses = card.flat_map(|i| i.get("ip-addresses").map(list).unwrap_or_default());
    let of_four = addresses.filter(|a| text(a, "ip-address-type").as_deref() != Some("ipv6"));
    of_four.filter_map(|a| text(a, "ip-address")).collect()
}

#[cfg(test)]
mod tests {
    use super::addresses;

    #[test]
    fn the_card_is_known_by_its_mac_address() {
        let told = serde_json::json!({ "result": [
            { "name": "docker0", "hardware-address": "02:42:00:00:00:01",
              "ip-addresses": [{ "ip-address": "172.17.0.1", "ip-address-type": "ipv4", "prefix": 16 }] },
            { "name": "cilium_net" },
            { "name": "tun0", "ip-addresses": [{ "ip-address": "10.8.0.2", "ip-address-type": "ipv4" }] },
            { "name": "eth0", "hardware-address": "bc:24:11:aa:bb:cc", "ip-addresses": [
                { "ip-address": "fe80::1", "ip-address-type": "ipv6", "prefix": 64 },
                { "ip-address": "10.30.0.11", "ip-address-type": "ipv4", "prefix": 24 } ] },
        ] });
        assert_eq!(addresses(&told, "BC:24:11:AA:BB:CC"), ["10.30.0.11"]);
        assert_eq!(addresses(&told, "BC:24:11:00:00:00"), Vec::<String>::new());
        assert_eq!(addresses(&serde_json::json!({}), "BC:24:11:AA:BB:CC"), Vec::<String>::new());
    }
}
