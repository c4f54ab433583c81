//! Law 3 for what happens to a world that is there already: killed after a step, run again, the same world.

use std::fmt;

use stage::Tool;

use crate::{Broken, Case, Result, Summary, Whole, broken, killed, twice, undisturbed};

/// The variable that has every step swept: `KUBELINE_SWEEP=all`.
pub const ALL: &str = "KUBELINE_SWEEP";

/// How one sweep went.
#[derive(Debug)]
pub struct Row {
    /// What is done to the world, such as `upgrade`.
    pub what: &'static str,
    /// The steps of an undisturbed run.
    pub steps: usize,
    /// After how many of them a run was killed.
    pub kills: usize,
    /// How many of the runs after a kill ended in the world of the undisturbed one.
    pub converged: usize,
    /// What differed, where something did.
    pub broken: Vec<Broken>,
}

/// Kills a run after each step, runs again, and compares the worlds.
///
/// `make` gives a world and the document that is to be made so in it. Of more than `at_most` steps, `at_most` are
/// taken that are spread evenly, the first and the last among them, unless `KUBELINE_SWEEP=all`.
///
/// # Errors
/// Laws 1, 2, 4 and 7 on the undisturbed run.
pub async fn sweep<T: Tool>(
    what: &'static str,
    args: &[&str],
    at_most: usize,
    make: impl AsyncFn() -> Case,
) -> Result<Row> {
    let mut summary = Summary::default();
    let whole = undisturbed::<T>(args, &make, &mut summary).await?;
    kills::<T>(what, &["apply"], args, at_most, &make, &whole).await
}

/// The same for a verb of the tool's own that makes something so, such as `certs --renew --yes`.
///
/// # Errors
/// Laws 1, 4, 5 and 7 on the undisturbed run.
pub async fn sweep_verb<T: Tool>(
    what: &'static str,
    verb: &[&str],
    at_most: usize,
    make: impl AsyncFn() -> Case,
) -> Result<Row> {
    let case = make().await;
    let [first, second] = twice::<T>(&case, verb, &[], &case.with_foreign_status()).await?;
    if first.done.is_empty() {
        return broken(1, "there was nothing to do, so nothing was tested", &first);
    }
    for said in [&first, &second] {
        case.tells_no_secret(said)?;
    }
    case.nothing_unknown(&first)?;
    let whole = Whole {
        steps: first.done.len(),
        exit: first.exit,
        document: case.comparable(&first.stdout),
        picture: case.comparable(&(case.picture)()),
    };
    kills::<T>(what, verb, &[], at_most, &make, &whole).await
}

async fn kills<T: Tool>(
    what: &'static str,
    verb: &[&str],
    args: &[&str],
    at_most: usize,
    make: &impl AsyncFn() -> Case,
    whole: &Whole,
) -> Result<Row> {
    let all = std::env::var(ALL).is_ok_and(|v| v == "all");
    let chosen = chosen(whole.steps, if all { whole.steps } else { at_most });
    let mut row = Row { what, steps: whole.steps, kills: chosen.len(), converged: 0, broken: Vec::new() };
    for k in chosen {
        match killed::<T>(verb, args, make, k, whole).await {
            Ok(()) => row.converged += 1,
            Err(broken) => row.broken.push(broken),
        }
    }
    Ok(row)
}

/// Steps from 1 to `steps`, at most so many, spread evenly.
fn chosen(steps: usize, at_most: usize) -> Vec<usize> {
    if steps <= at_most || at_most < 2 {
        return (1..=steps).collect();
    }
    let mut all: Vec<usize> = (0..at_most).map(|n| 1 + n * (steps - 1) / (at_most - 1)).collect();
    all.dedup();
    all
}

/// Rows as a table.
pub struct Table<'r>(pub &'r [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10} {:>6} {:>6} {:>10}", "", "steps", "kills", "converged")?;
        for row in self.0 {
            writeln!(f, "{:<10} {:>6} {:>6} {:>10}", row.what, row.steps, row.kills, row.converged)?;
        }
        Ok(())
    }
}

impl Row {
    /// The first world that differed, as an error.
    ///
    /// # Errors
    /// When one did.
    pub fn held(mut self) -> Result<()> {
        match self.broken.pop() {
            None => Ok(()),
            Some(Broken(why)) => Err(Broken(format!("{}: {why}", self.what))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn steps_are_spread() {
        assert_eq!(chosen(3, 8), [1, 2, 3]);
        assert_eq!(chosen(9, 3), [1, 5, 9]);
        assert_eq!(chosen(20, 20).len(), 20);
    }
}
