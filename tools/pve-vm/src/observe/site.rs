//! What the datacenter keeps of ours: the pool, the backup job, the entries of the HA manager.

use stage::Failure;

use super::{allowed, failure};
use crate::ha::{Entry, HaSeen};
use crate::job::Job;
use crate::pve::{Request, list, number, text};
use crate::seen::PoolSeen;
use crate::want::Design;
use crate::world::World;

pub(super) async fn pool(
    world: &World,
    design: &Design,
    version: (u32, u32),
) -> Result<Option<PoolSeen>, Failure> {
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

pub(super) async fn job(world: &World, design: &Design) -> Result<Option<Job>, Failure> {
    let all = allowed(world.client.read(Request::get("/cluster/backup")).await, world, "the backup jobs")?;
    let id = crate::job::id(&design.cluster);
    let jobs = all.as_ref().map(list).unwrap_or_default().iter();
    let mut ours = jobs.filter(|j| text(j, "id").as_deref() == Some(id.as_str()));
    Ok(ours.next().map(|j| crate::job::read(&design.cluster, j)))
}

/// The entries of the HA manager; where the document asks for none and none of them is ours, the resources alone.
pub(super) async fn entries(
    world: &World,
    design: &Design,
    version: (u32, u32),
) -> Result<Option<HaSeen>, Failure> {
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
