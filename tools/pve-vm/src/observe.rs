//! Looks at Proxmox and at the machines, changing nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use serde_json::Value;
use stage::{Ctx, Exit, Failure, Waiting};

use crate::ha::{Entry, HaSeen};
use crate::job::Job;
use crate::mark::Mark;
use crate::options::{Options, tags};
use crate::pve::{Class, Error, Request, flag, list, number, text};
use crate::roster::{Roster, State};
use crate::seen::{Guest, Node, Owner, PoolSeen, Seen, SshSeen, Storage};
use crate::ssh;
use crate::step::At;
use crate::template;
use crate::want::{Design, Want};
use crate::world::World;

/// How long a clone that somebody is making may take until we go on.
const CLONING: Duration = Duration::from_secs(1800);
/// How often a look is begun anew because a guest moved meanwhile.
const LOOKS: usize = 3;

/// A guest moved or went while it was looked at.
struct Moved;

/// Everything that concerns us.
///
/// # Errors
/// Exit 4 for a login that is refused or a certificate that is not believed, 5 when Proxmox does not answer.
pub async fn observe(world: &World, want: &Want, ctx: &Ctx) -> Result<Seen, Failure> {
    let mut suspects = BTreeSet::new();
    for _ in 0..LOOKS {
        if let Ok(seen) = look(world, want, ctx, &mut suspects).await? {
            return Ok(seen);
        }
    }
    Err(Failure::transient("cannot look at the guests")
        .because("they move between Proxmox nodes all the time"))
}

async fn get(world: &World, request: Request) -> Result<Value, Failure> {
    let line = request.line();
    let doing = || format!("cannot look at Proxmox ({line})");
    world.client.read(request).await.map_err(|e| failure(world, &e, doing()))
}

fn failure(world: &World, error: &Error, doing: String) -> Failure {
    let mut failure = error.failure(doing, &world.client.grantee());
    failure.causes.push(format!("asked: {}", world.endpoints.join(", ")));
    if let Error::Silent { why, .. } = error
        && why.contains("certificate")
    {
        failure.exit = Exit::Precondition;
        failure.hints = vec![
            "give the CA of Proxmox in spec.proxmox.caFile (on a node: /etc/pve/pve-root-ca.pem), or the \
             fingerprint in spec.proxmox.fingerprint"
                .to_owned(),
        ];
    }
    failure
}

/// An answer, or nothing where the login may not know.
fn allowed(result: Result<Value, Error>, world: &World, what: &str) -> Result<Option<Value>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.status() == Some(403) => Ok(None),
        Err(error) => Err(failure(world, &error, format!("cannot look at {what}"))),
    }
}

async fn look(
    world: &World,
    want: &Want,
    ctx: &Ctx,
    suspects: &mut BTreeSet<u32>,
) -> Result<Result<Seen, Moved>, Failure> {
    let design = &want.design;
    ctx.waiting(format!("the answers of Proxmox at {}", world.endpoints.join(", ")));
    let version = get(world, Request::get("/version")).await?;
    let (nodes, status, resources, privileges) = futures::join!(
        get(world, Request::get("/nodes")),
        world.client.read(Request::get("/cluster/status")),
        get(world, Request::get("/cluster/resources").with("type", "vm")),
        get(world, Request::get("/access/permissions")),
    );
    let status = allowed(status, world, "the state of the Proxmox cluster")?;
    quorate(status.as_ref())?;
    let mut seen = Seen { version: release(&version), ..Seen::default() };
    seen.privileges = serde_json::from_value(privileges?).unwrap_or_default();
    for node in list(&nodes?) {
        let Some(name) = text(node, "node") else { continue };
        let online = text(node, "status").as_deref() == Some("online") && !off(status.as_ref(), &name);
        if let Some(shown) = text(node, "ssl_fingerprint") {
            world.client.vouch(&shown);
        }
        let address = address(status.as_ref(), &name);
        let (memory, cores) = (number(node, "maxmem"), number(node, "maxcpu"));
        let used = number(node, "mem").unwrap_or(0);
        seen.nodes.insert(name, Node { online, address, memory, cores, used, ..Node::default() });
    }
    let mut guests: BTreeMap<u32, Guest> = BTreeMap::new();
    let resources = resources?;
    for guest in list(&resources) {
        take(&mut guests, guest, None);
    }
    let online: Vec<String> = seen.nodes.iter().filter(|(_, n)| n.online).map(|(n, _)| n.clone()).collect();
    let looks = online.into_iter().map(|name| async move {
        let result = node(world, design, &name).await;
        (name, result)
    });
    let looks: Vec<_> = stream::iter(looks).buffer_unordered(ctx.jobs()).collect().await;
    for (name, result) in looks {
        let Some(found) = seen.nodes.get_mut(&name) else { continue };
        match result {
            Ok((node, live)) => {
                let (memory, cores, used) = (found.memory, found.cores, found.used);
                *found = Node { memory, cores, used, address: found.address.take(), ..node };
                live.iter().for_each(|guest| take(&mut guests, guest, Some(&name)));
                let ours =
                    guests.values().filter(|g| g.node == name).map(|g| g.vmid).collect::<BTreeSet<_>>();
                let containers = list(&resources).iter().filter(|g| {
                    text(g, "type").as_deref() == Some("lxc")
                        && text(g, "node").as_deref() == Some(name.as_str())
                });
                (found.claimed, found.claimed_cores) = claimed(live.iter().chain(containers), &ours);
            }
            // It went off since the cluster was asked.
            Err(error) if error.is_transport() => found.online = false,
            Err(error) => return Err(failure(world, &error, format!("cannot look at node {name}"))),
        }
    }
    seen.pool = pool(world, design, seen.version).await?;
    (seen.job, seen.ha) = futures::try_join!(job(world, design), entries(world, design, seen.version))?;
    let names: BTreeSet<&str> = design.machines.iter().map(|m| m.name.as_str()).collect();
    let concerned = guests.into_values().filter(|g| concerns(design, &names, g));
    let configs = concerned.map(|guest| {
        let online = seen.nodes.get(&guest.node).is_some_and(|n| n.online);
        async move { if online { fill(world, design, guest, ctx).await } else { Ok(Ok(guest)) } }
    });
    let results: Vec<_> = stream::iter(configs).buffer_unordered(ctx.jobs()).collect().await;
    for result in results {
        match result? {
            Ok(guest) => {
                // A node that was on a moment ago and does not answer for its guest went off since.
                let off = guest.config.is_none().then(|| seen.nodes.get_mut(&guest.node)).flatten();
                off.into_iter().for_each(|node| node.online = false);
                seen.guests.push(guest);
            }
            Err(Moved) => return Ok(Err(Moved)),
        }
    }
    seen.guests.sort_by_key(|g| g.vmid);
    if let Err(Moved) = hidden(world, design, ctx, &mut seen, suspects).await? {
        return Ok(Err(Moved));
    }
    answers(world, want, ctx, &mut seen).await;
    crate::image::observe(want, &mut seen).await?;
    Ok(Ok(seen))
}

fn release(version: &Value) -> (u32, u32) {
    let text = text(version, "version").or_else(|| text(version, "release")).unwrap_or_default();
    let mut parts = text.split(['.', '-']).map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn quorate(status: Option<&Value>) -> Result<(), Failure> {
    let cluster =
        status.map(list).unwrap_or_default().iter().find(|e| text(e, "type").as_deref() == Some("cluster"));
    match cluster {
        Some(cluster) if !flag(cluster, "quorate") => {
            Err(Failure::transient("the Proxmox cluster cannot be changed")
                .because("it has no quorum: more than half of its nodes are off or cut off")
                .hint("on a node: pvecm status"))
        }
        _ => Ok(()),
    }
}

/// What the state of the cluster says of a node.
fn told<'s>(status: Option<&'s Value>, name: &str) -> Option<&'s Value> {
    let mut entries = status.map(list).unwrap_or_default().iter();
    entries.find(|e| text(e, "type").as_deref() == Some("node") && text(e, "name").as_deref() == Some(name))
}

fn off(status: Option<&Value>, name: &str) -> bool {
    told(status, name).is_some_and(|e| !flag(e, "online"))
}

fn address(status: Option<&Value>, name: &str) -> Option<String> {
    text(told(status, name)?, "ip").filter(|ip| !ip.is_empty())
}

/// Takes over what a list says of a guest; the list of its own node is fresher than the cluster's.
fn take(guests: &mut BTreeMap<u32, Guest>, entry: &Value, live: Option<&str>) {
    let Some(vmid) = number(entry, "vmid").and_then(|id| u32::try_from(id).ok()) else { return };
    let guest =
        guests.entry(vmid).or_insert_with(|| Guest { vmid, kind: "qemu".to_owned(), ..Guest::default() });
    if let Some(kind) = text(entry, "type").filter(|k| k == "qemu" || k == "lxc") {
        guest.kind = kind;
    }
    if let Some(node) = live.map(str::to_owned).or_else(|| text(entry, "node")) {
        guest.node = node;
    }
    guest.name = text(entry, "name").or(guest.name.take());
    if let Some(tags) = text(entry, "tags") {
        guest.tags = tags;
    }
    guest.pool = text(entry, "pool").or(guest.pool.take());
    guest.running = text(entry, "status").as_deref() == Some("running");
    guest.uptime = number(entry, "uptime").unwrap_or(0);
}

type Live = Vec<Value>;

async fn node(world: &World, design: &Design, name: &str) -> Result<(Node, Live), Error> {
    let path = |what: &str| format!("/nodes/{name}/{what}");
    let (guests, storages, bridges) = futures::join!(
        world.client.read(Request::get(path("qemu"))),
        world.client.read(Request::get(path("storage")).with("enabled", 1)),
        world.client.read(Request::get(path("network")).with("type", "any_bridge")),
    );
    let mut node = Node { online: true, ..Node::default() };
    for storage in list(&storages?) {
        let Some(id) = text(storage, "storage") else { continue };
        let content = text(storage, "content").unwrap_or_default();
        let content = content.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
        let kind = text(storage, "type").unwrap_or_default();
        let (shared, free) = (flag(storage, "shared"), number(storage, "avail"));
        node.storages.insert(id, Storage { kind, shared, content, free, ..Storage::default() });
    }
    let seen = Seen { nodes: [(name.to_owned(), node.clone())].into(), ..Seen::default() };
    if let Ok(storage) = crate::seed::storage(design, &seen, name) {
        let request = Request::get(path(&format!("storage/{storage}/content"))).with("content", "iso");
        let volumes = match world.client.read(request).await {
            Ok(volumes) => volumes,
            // Who may upload seeds there can list them; who may not makes no machines.
            Err(error) if error.status() == Some(403) => Value::Null,
            Err(error) => return Err(error),
        };
        let ours = crate::seed::prefix(&design.cluster);
        let file = |v: &Value| Some(text(v, "volid")?.split_once(":iso/")?.1.to_owned());
        let files = list(&volumes).iter().filter_map(file).filter(|f| f.starts_with(&ours)).collect();
        if let Some(found) = node.storages.get_mut(&storage) {
            found.seeds = files;
        }
    }
    let containers = design.machines.iter().any(|m| !m.kind.is_vm());
    if let Some(storage) = design.container.as_ref().filter(|_| containers).map(|o| o.storage().to_owned())
        && let Some(found) = node.storages.get_mut(&storage)
    {
        let request = Request::get(path(&format!("storage/{storage}/content"))).with("content", "vztmpl");
        let volumes = match world.client.read(request).await {
            Ok(volumes) => volumes,
            Err(error) if error.status() == Some(403) => Value::Null,
            Err(error) => return Err(error),
        };
        let file = |v: &Value| Some(text(v, "volid")?.split_once(":vztmpl/")?.1.to_owned());
        found.archives = list(&volumes).iter().filter_map(file).collect();
    }
    // Who may not see bridges can still use one; a software network's are not in this list at all.
    let bridges = bridges.ok().map(|b| list(&b).iter().filter_map(|b| text(b, "iface")).collect::<Vec<_>>());
    node.bridges = bridges.filter(|b| b.contains(&design.bridge) || b.iter().all(|b| b.starts_with("vmbr")));
    Ok((node, list(&guests?).to_vec()))
}

/// Memory in bytes and processors of a node's guests as configured.
fn claimed<'g>(all: impl Iterator<Item = &'g Value>, there: &BTreeSet<u32>) -> (u64, u64) {
    let counts = all.filter(|g| !flag(g, "template"));
    let counts = counts.filter(|g| number(g, "vmid").is_some_and(|id| there.contains(&(id as u32))));
    counts.fold((0, 0), |(memory, cores), g| {
        let more = number(g, "cpus").or_else(|| number(g, "maxcpu")).unwrap_or(0);
        (memory + number(g, "maxmem").unwrap_or(0), cores + more)
    })
}

fn concerns(design: &Design, names: &BTreeSet<&str>, guest: &Guest) -> bool {
    let id = cluster_doc::VmId::new(guest.vmid).is_some_and(|id| design.vmids.contains(id));
    let name = guest.name.as_deref().is_some_and(|n| names.contains(n) || n == design.template);
    let tags = tags(&guest.tags);
    id || name || (tags.contains("pve-vm") && tags.contains(&design.cluster.to_lowercase()))
}

/// A guest's options as text.
pub fn options(config: &Value) -> Options {
    let keys = config.as_object().into_iter().flatten().map(|(k, _)| k).filter(|k| *k != "digest");
    keys.filter_map(|key| text(config, key).map(|value| (key.clone(), value))).collect()
}

async fn fill(
    world: &World,
    design: &Design,
    mut guest: Guest,
    ctx: &Ctx,
) -> Result<Result<Guest, Moved>, Failure> {
    let path = format!("/nodes/{}/{}/{}", guest.node, guest.kind, guest.vmid);
    let read = || world.client.read(Request::get(format!("{path}/config")));
    let mut config = match read().await {
        Ok(config) => options(&config),
        Err(error) if error.is_absent() => return Ok(Err(Moved)),
        // What we may not read is somebody else's.
        Err(error) if error.status() == Some(403) => Options::new(),
        Err(error) if error.is_transport() => return Ok(Ok(guest)),
        Err(error) => return Err(failure(world, &error, format!("cannot look at guest {}", guest.vmid))),
    };
    if config.get("lock").is_some_and(|l| l == "clone" || l == "create") {
        let what = format!("the clone to {} on node {}", guest.vmid, guest.node);
        let ended = ctx.wait_for(&what, CLONING, || async {
            if !world.makes(&guest.node).await.unwrap_or(false) {
                return Ok(Waiting::Seen(()));
            }
            match read().await {
                Ok(config) if text(&config, "lock").is_some() => {
                    Ok(Waiting::NotYet("it is locked".to_owned()))
                }
                _ => Ok(Waiting::Seen(())),
            }
        });
        ended.await?;
        config = match read().await {
            Ok(config) => options(&config),
            Err(_) => return Ok(Err(Moved)),
        };
    }
    if let Some(name) = config.get("name").or_else(|| config.get("hostname")) {
        guest.name = Some(name.clone());
    }
    guest.config = Some(config);
    if guest.running && matches!(guest.owner(&design.cluster), Owner::Ours(_)) {
        let pending = world.client.read(Request::get(format!("{path}/pending"))).await;
        let pending = match pending {
            Ok(pending) => pending,
            Err(error) if error.is_absent() => return Ok(Err(Moved)),
            Err(error) if error.is_transport() => return Ok(Ok(Guest { config: None, ..guest })),
            Err(error) => return Err(failure(world, &error, format!("cannot look at guest {}", guest.vmid))),
        };
        let waits = |entry: &&Value| entry.get("pending").is_some() || flag(entry, "delete");
        guest.pending = list(&pending).iter().filter(waits).filter_map(|e| text(e, "key")).collect();
    }
    Ok(Ok(guest))
}

/// Looks whether the ids of machines that are to be made are free: a guest that the login may not see, or a clone
/// of ours that has not joined its pool yet, is in no list. What is found twice is somebody else's.
async fn hidden(
    world: &World,
    design: &Design,
    ctx: &Ctx,
    seen: &mut Seen,
    suspects: &mut BTreeSet<u32>,
) -> Result<Result<(), Moved>, Failure> {
    let roster = Roster::of(design, seen);
    let missing = roster.machines.iter().filter_map(|(machine, state)| match state {
        State::Missing(id) if roster.conflict(&machine.name).is_none() => Some(*id),
        _ => None,
    });
    let asking = missing.collect::<Vec<_>>().into_iter().map(|id| async move {
        let result = world.client.read(Request::get("/cluster/nextid").with("vmid", id)).await;
        (id, result)
    });
    let asked: Vec<_> = stream::iter(asking).buffer_unordered(ctx.jobs()).collect().await;
    let mut taken = Vec::new();
    for (id, result) in asked {
        match result {
            Ok(_) => {}
            Err(error) if error.class() == Class::Exists => taken.push(id),
            Err(error) => {
                return Err(failure(world, &error, format!("cannot see whether the id {id} is free")));
            }
        }
    }
    let online: Vec<String> = seen.nodes.iter().filter(|(_, n)| n.online).map(|(n, _)| n.clone()).collect();
    let mut again = false;
    for id in taken {
        if suspects.insert(id) {
            again = true;
            continue;
        }
        let templates: Vec<u32> =
            seen.guests.iter().filter(|g| template::is_ours(design, g)).map(|g| g.vmid).collect();
        let broken = world.broken(&online, id, &templates).await;
        let (kind, config) = ("qemu".to_owned(), Some(Options::new()));
        seen.guests.push(Guest { vmid: id, kind, config, broken, ..Guest::default() });
    }
    if again {
        ctx.wait_for("clones that are being made", CLONING, || async {
            for node in &online {
                if world.makes(node).await.unwrap_or(false) {
                    return Ok(Waiting::NotYet(format!("one runs on node {node}")));
                }
            }
            Ok(Waiting::Seen(()))
        })
        .await?;
        return Ok(Err(Moved));
    }
    seen.guests.sort_by_key(|g| g.vmid);
    Ok(Ok(()))
}

async fn pool(world: &World, design: &Design, version: (u32, u32)) -> Result<Option<PoolSeen>, Failure> {
    let Some(pool) = &design.pool else { return Ok(None) };
    // The path with the pool's name is deprecated since 8.1 (pve-manager, API2/Pool.pm).
    let request = if version >= (8, 1) {
        Request::get("/pools").with("poolid", pool)
    } else {
        Request::get(format!("/pools/{pool}"))
    };
    let value = match world.client.read(request).await {
        Ok(value) => value,
        Err(error) if error.no_pool(pool) => return Ok(Some(PoolSeen::default())),
        Err(error) if error.status() == Some(403) => return Ok(None),
        Err(error) => return Err(failure(world, &error, format!("cannot look at the pool {pool}"))),
    };
    let value = list(&value).first().cloned().unwrap_or(value);
    let members = value.get("members").map(list).unwrap_or_default();
    let members = members.iter().filter_map(|m| number(m, "vmid")).map(|id| id as u32).collect();
    Ok(Some(PoolSeen { exists: true, comment: text(&value, "comment").unwrap_or_default(), members }))
}

async fn job(world: &World, design: &Design) -> Result<Option<Job>, Failure> {
    let all = allowed(world.client.read(Request::get("/cluster/backup")).await, world, "the backup jobs")?;
    let id = crate::job::id(&design.cluster);
    let jobs = all.as_ref().map(list).unwrap_or_default().iter();
    let mut ours = jobs.filter(|j| text(j, "id").as_deref() == Some(id.as_str()));
    Ok(ours.next().map(|j| crate::job::read(&design.cluster, j)))
}

/// The entries of the HA manager; where the document asks for none and none of them is ours, the resources alone.
async fn entries(world: &World, design: &Design, version: (u32, u32)) -> Result<Option<HaSeen>, Failure> {
    let what = "the entries of the HA manager";
    let look = |entry: Entry| async move {
        let told = match world.client.read(Request::get(entry.path())).await {
            // Who does not ask for it is not kept by it.
            Err(error) if design.ha.is_none() && !error.is_transport() => None,
            told => allowed(told, world, what)?,
        };
        Ok::<_, Failure>(
            told.map(|all| list(&all).iter().filter_map(|e| crate::ha::read(entry, e)).collect()),
        )
    };
    let Some(resources) = look(Entry::Resource).await? else { return Ok(None) };
    let mut seen = HaSeen { resources, ..HaSeen::default() };
    let concerns = design.ha.is_some() || !seen.ours(&design.cluster, Entry::Resource).is_empty();
    // A group outlives its resources when a run breaks off; rules go before them.
    if !concerns && version >= (9, 0) {
        return Ok(Some(seen));
    }
    // Rules took the place of groups in 9, which refuses them.
    let apart = if version >= (9, 0) { Entry::Rule } else { Entry::Group };
    let (apart_seen, states) =
        futures::join!(look(apart), world.client.read(Request::get("/cluster/ha/status/current")),);
    let apart_seen = apart_seen?.unwrap_or_default();
    match apart {
        Entry::Rule => seen.rules = apart_seen,
        _ => seen.groups = apart_seen,
    }
    let states = allowed(states, world, "the state of the HA manager")?.unwrap_or_default();
    let services = list(&states).iter().filter(|e| text(e, "type").as_deref() == Some("service"));
    seen.states = services.filter_map(|e| Some((text(e, "sid")?, text(e, "state")?))).collect();
    Ok(Some(seen))
}

/// Asks every running machine of ours whose host key is known, side by side.
async fn answers(world: &World, want: &Want, ctx: &Ctx, seen: &mut Seen) {
    let _ = world;
    let asked = seen.guests.iter().enumerate().filter_map(|(n, guest)| {
        let Owner::Ours(mark) = guest.owner(&want.design.cluster) else { return None };
        let address = ssh::address(guest)?;
        let at = At::of(&mark.machine, guest);
        (guest.running && !mark.host_keys.is_empty()).then_some((n, at, mark, address))
    });
    let asked: Vec<(usize, At, Mark, std::net::Ipv4Addr)> = asked.collect();
    let asking = asked.into_iter().map(|(n, at, mark, address)| async move {
        let answer = ssh::ask(want, &at, address, &mark.host_keys).await;
        (
            n,
            match answer {
                ssh::Answer::Yes => SshSeen::Answers,
                ssh::Answer::Silent(why) => SshSeen::Silent(why),
                ssh::Answer::WrongKey(why, hint) | ssh::Answer::NotLetIn(why, hint) => {
                    SshSeen::Refuses(why, hint)
                }
            },
        )
    });
    let answers: Vec<_> = stream::iter(asking).buffer_unordered(ctx.jobs()).collect().await;
    for (n, answer) in answers {
        if let Some(guest) = seen.guests.get_mut(n) {
            guest.ssh = Some(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_claim_no_memory_and_names_may_lack() {
        let list = serde_json::json!([
            { "vmid": 9000, "template": 1, "maxmem": 1u64 << 30, "cpus": 1 },
            { "vmid": 101, "maxmem": 4u64 << 30, "cpus": 2 },
            { "vmid": 102, "maxmem": "8589934592", "maxcpu": 4 },
            { "vmid": 103, "maxmem": 1u64 << 40, "cpus": 64 },
        ]);
        let here = BTreeSet::from([9000, 101, 102]);
        assert_eq!(claimed(list.as_array().into_iter().flatten(), &here), (12 << 30, 6));
    }
}
