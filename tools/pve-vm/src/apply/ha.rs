//! Entries of Proxmox's HA manager: made, changed and taken away.

use stage::{Ctx, Failure};

use super::persist::{Look, persist};
use crate::entry::{Entry, Fields, read};
use crate::pve::{Error, Request, encode, list};
use crate::world::World;

/// Makes or changes an entry.
pub(super) async fn set(
    world: &World,
    ctx: &Ctx,
    entry: Entry,
    id: &str,
    set: &Fields,
    there: bool,
    doing: &str,
) -> Result<(), Failure> {
    let request = match there {
        true => Request::put(format!("{}/{}", entry.path(), encode(id))),
        false => Request::post(entry.path()).with(entry.key(), id),
    };
    let request = request.with_all(set);
    // What is made anew is to run; what is there keeps what a person asked of it.
    let request = match (entry, there) {
        (Entry::Resource, false) => request.with("state", "started"),
        _ => request,
    };
    let request = &request;
    let look = || async move {
        let have = find(world, entry, id).await?;
        let same = have.is_some_and(|have| set.iter().all(|(k, v)| have.get(k) == Some(v)));
        Ok(if same { Look::Done } else { Look::NotYet })
    };
    persist(world, ctx, doing, || world.client.run(ctx, request), look).await
}

/// Takes an entry away; one that is gone is what was asked for.
pub(super) async fn drop(
    world: &World,
    ctx: &Ctx,
    entry: Entry,
    id: &str,
    doing: &str,
) -> Result<(), Failure> {
    let request = Request::delete(format!("{}/{}", entry.path(), encode(id)));
    let request = &request;
    let look =
        || async move { Ok(if find(world, entry, id).await?.is_some() { Look::NotYet } else { Look::Done }) };
    let attempt = || async move {
        // A rule may have gone with the last resource that it spoke of.
        match look().await? {
            Look::Done => Ok(()),
            _ => world.client.run(ctx, request).await,
        }
    };
    persist(world, ctx, doing, attempt, look).await
}

async fn find(world: &World, entry: Entry, id: &str) -> Result<Option<Fields>, Error> {
    let all = world.client.read(Request::get(entry.path())).await?;
    let mut found = list(&all).iter().filter_map(|told| read(entry, told)).filter(|(name, _)| name == id);
    Ok(found.next().map(|(_, fields)| fields))
}
