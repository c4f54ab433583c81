//! Waiting for evidence, with a deadline and a word on what is missing.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Ctx, Failure};

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting<T> {
    /// The evidence.
    Seen(T),
    /// Not yet, and what is missing.
    NotYet(String),
}

pub(crate) async fn wait_for<T, P, F>(
    ctx: &Ctx,
    what: &str,
    at_most: Duration,
    mut probe: P,
) -> Result<T, Failure>
where
    P: FnMut() -> F,
    F: Future<Output = Result<Waiting<T>, Failure>>,
{
    let end = Instant::now() + at_most;
    let mut pause = Duration::from_millis(20);
    loop {
        let missing = match probe().await? {
            Waiting::Seen(value) => return Ok(value),
            Waiting::NotYet(missing) => missing,
        };
        ctx.waiting(format!("{what}: {missing}"));
        if Instant::now() + pause > end {
            return Err(
                Failure::transient(format!("waited {} s for {what}", at_most.as_secs())).because(missing)
            );
        }
        tokio::time::sleep(pause).await;
        // By a quarter: what is waited for was there for a fifth of the wait at most.
        pause = (pause * 5 / 4).min(Duration::from_secs(1));
    }
}
