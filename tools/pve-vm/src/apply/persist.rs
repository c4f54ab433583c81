//! Trying again, and only after looking: a request that got no answer may have been done.

use std::time::Duration;

use stage::{Ctx, Failure, Waiting};

use super::ready::refusal;
use crate::pve::{Class, Error};
use crate::world::World;

/// How long locks and trouble of a node are waited out.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is as the step wants it.
    Done,
    /// It is not.
    NotYet,
    /// Something is in the place that we must not touch: what, and what helps where that is known.
    Foreign(String, Option<String>),
}

/// Runs `attempt` until `look` finds its work done. An error that is final ends it, unless the work is done all
/// the same; after any other, and after success, only what is seen counts.
///
/// # Errors
/// The last error, as `doing`; exit 4 when somebody else's guest is in the place.
pub async fn persist<A, AF, L, LF>(
    world: &World,
    ctx: &Ctx,
    doing: &str,
    attempt: A,
    look: L,
) -> Result<(), Failure>
where
    A: Fn() -> AF,
    AF: Future<Output = Result<(), Error>>,
    L: Fn() -> LF,
    LF: Future<Output = Result<Look, Error>>,
{
    let failure = |error: &Error| error.failure(doing, &world.client.grantee());
    let (attempt, look, failure) = (&attempt, &look, &failure);
    let what = format!("the chance to {}", doing.trim_start_matches("cannot "));
    let done = ctx.wait_for(&what, PATIENCE, || async move {
        let error = match attempt().await {
            Ok(()) => return Ok(Waiting::Seen(())),
            Err(error) => error,
        };
        let class = error.class();
        if class == Class::Done {
            return Ok(Waiting::Seen(()));
        }
        match look().await {
            Ok(Look::Done) => return Ok(Waiting::Seen(())),
            Ok(Look::Foreign(why, hint)) => return Err(refusal(doing, why, hint)),
            Ok(Look::NotYet) if class == Class::Fatal => return Err(failure(&error)),
            Ok(Look::NotYet) => {}
            Err(_) if class == Class::Fatal => return Err(failure(&error)),
            Err(unseen) if unseen.class() == Class::Fatal => return Err(failure(&unseen)),
            Err(_) => {}
        }
        if matches!(class, Class::Moved | Class::Gone) {
            return Err(failure(&error));
        }
        Ok(Waiting::NotYet(error.to_string()))
    });
    done.await.map_err(|failure| match failure.hints.is_empty() {
        true => failure.hint("run again: it goes on where it stopped"),
        false => failure,
    })
}
