//! Writes a guest's mark anew.

use stage::{Ctx, Failure};

use super::guest::{borne, config_path, marked};
use super::persist::{Look, persist};
use crate::mark::Mark;
use crate::observe::options;
use crate::options::Options;
use crate::pve::{Request, text};
use crate::step::At;
use crate::world::World;

/// Persists until the mark and the options are `right`; `write` gives another mark, and what is set beside it. It is
/// written only over what was read: what another run or a person wrote meanwhile is read first.
pub(super) async fn note(
    world: &World,
    ctx: &Ctx,
    at: &At,
    doing: &str,
    right: &(impl Fn(&Mark, &Options) -> bool + Sync),
    write: &(impl Fn(Mark, &Options) -> (Mark, Options) + Sync),
) -> Result<(), Failure> {
    let read = || async { world.client.read(Request::get(config_path(at))).await };
    let look = || async {
        let have = options(&read().await?);
        Ok(if marked(&have).is_some_and(|mark| right(&mark, &have)) { Look::Done } else { Look::NotYet })
    };
    let attempt = || async {
        let told = read().await?;
        let have = options(&told);
        let (mark, description) = borne(&have, at)?;
        if right(&mark, &have) {
            return Ok(());
        }
        let (mark, beside) = write(mark, &have);
        // A machine's drive may take a worker; its description, and all of a container, is done at once by PUT.
        let request = if at.kind.is_vm() && !beside.is_empty() { Request::post } else { Request::put };
        let mut request =
            request(config_path(at)).with("description", mark.write(description)).with_all(&beside);
        if let Some(digest) = text(&told, "digest") {
            request = request.with("digest", digest);
        }
        world.client.run(ctx, &request).await
    };
    persist(world, ctx, doing, attempt, look).await
}
