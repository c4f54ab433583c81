//! A system disk made anew below data disks that stay. The mark names the one volume that may go, before it goes.

use std::collections::BTreeMap;

use stage::{Ctx, Failure};

use super::guest::{config, config_path};
use super::note::note;
use super::persist::{Look, persist};
use crate::mark::Mark;
use crate::options::{Options, Properties};
use crate::pve::Request;
use crate::step::At;
use crate::world::World;

/// Notes what goes and that the host key is no more, removes the lost disk, imports the new one, and ends the note.
/// Each part is skipped where it is done already.
pub(super) async fn renew(
    world: &World,
    ctx: &Ctx,
    at: &At,
    lost: &str,
    drive: &str,
    doing: &str,
) -> Result<(), Failure> {
    let (slot, volume) = lost.split_once('=').unwrap_or((lost, ""));
    let begun = |m: &Mark, _: &Options| m.renew.as_deref() == Some(lost) && m.host_keys.is_empty();
    let begin = |m: Mark, _: &Options| {
        (Mark { host_keys: Vec::new(), proven: false, renew: Some(lost.to_owned()), ..m }, Options::new())
    };
    note(world, ctx, at, doing, &begun, &begin).await?;

    let there = |have: &Options| have.get(slot).and_then(|d| Properties::parse(d).head);
    let gone = || async {
        let have = config(world, at).await?;
        Ok(if there(&have).as_deref() == Some(volume) { Look::NotYet } else { Look::Done })
    };
    let remove = || async {
        if gone().await? == Look::Done {
            return Ok(());
        }
        // With `force` the volume goes too, rather than becoming an unused one.
        let request = Request::post(config_path(at)).with("delete", slot).with("force", 1);
        world.client.run(ctx, &request).await
    };
    persist(world, ctx, doing, remove, gone).await?;

    let made = || async {
        let have = config(world, at).await?;
        Ok(if there(&have).is_some() { Look::Done } else { Look::NotYet })
    };
    let import = || async {
        if made().await? == Look::Done {
            return Ok(());
        }
        let set: BTreeMap<String, String> = [(slot, drive.to_owned()), ("boot", format!("order={slot}"))]
            .map(|(k, v)| (k.to_owned(), v))
            .into();
        world.client.run(ctx, &Request::post(config_path(at)).with_all(&set)).await
    };
    persist(world, ctx, doing, import, made).await?;
    let ended = |m: &Mark, _: &Options| m.renew.is_none();
    note(world, ctx, at, doing, &ended, &|m, _| (Mark { renew: None, ..m }, Options::new())).await
}
