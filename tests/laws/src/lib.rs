//! The seven laws, one implementation for all tools.
//!
//! [`check`] runs a tool in this process against worlds that a closure makes, a new one for each experiment, and
//! says what it did:
//!
//! 1. twice is once: same bytes, an empty plan, no changing request;
//! 2. `plan` changes nothing and prints the steps that `apply` runs;
//! 3. killed after step k, for every k, and run again: the same world;
//! 4. foreign sections survive;
//! 5. stdout is empty or exactly one document;
//! 6. each class of fault ends in its exit code within the time-out, and the next run repairs;
//! 7. no secret on a stream, in a file that others can read, or in an argument list.

pub mod addons;
pub mod balancers;
mod case;
pub mod cluster;
pub mod golden;
pub mod pve;
mod run;
pub mod ssh;
pub mod sweep;

pub use case::{Case, Trouble};
pub use run::{Said, run};

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use lab::Action;
use serde_json::Value;
use stage::{Exit, Tool};

/// A law that does not hold, with everything needed to see why.
#[derive(Debug)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// What was tried, by law.
#[derive(Debug, Default)]
pub struct Summary {
    tool: &'static str,
    counts: BTreeMap<u8, (usize, &'static str)>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.tool)?;
        for (law, (count, what)) in &self.counts {
            write!(f, " law {law}: {count} {what};")?;
        }
        Ok(())
    }
}

type Result<T> = std::result::Result<T, Broken>;

/// How long one run may take here, whatever went wrong: the tool's own time-out is shorter.
const PATIENCE: Duration = Duration::from_secs(60);
const TIMEOUT: &str = "30s";

/// Tries the seven laws on a tool.
///
/// `args` are flags that every run gets. `make` gives a new, undisturbed world each time; `troubles` are the
/// faults of law 6.
///
/// # Errors
/// The first law that does not hold.
pub async fn check<T: Tool>(
    args: &[&str],
    troubles: &[Trouble],
    make: impl AsyncFn() -> Case,
) -> Result<Summary> {
    let mut summary = Summary { tool: T::NAME, ..Summary::default() };
    let whole = undisturbed::<T>(args, &make, &mut summary).await?;
    for k in 1..=whole.steps {
        killed::<T>(&["apply"], args, &make, k, &whole).await?;
    }
    summary.counts.insert(3, (whole.steps, "kills"));
    let inputs = refused::<T>(args, &make).await?;
    summary.counts.insert(5, (inputs, "inputs refused"));
    for trouble in troubles {
        troubled::<T>(args, &make, trouble, &whole).await?;
    }
    summary.counts.insert(6, (troubles.len(), "faults"));
    Ok(summary)
}

/// What an undisturbed run leaves, comparable between worlds.
struct Whole {
    steps: usize,
    exit: Exit,
    document: String,
    picture: String,
}

fn broken<V>(law: u8, what: impl fmt::Display, said: &Said) -> Result<V> {
    Err(Broken(format!("law {law}: {what}\n{said}")))
}

/// Laws 1, 2, 4 and 7 on one world.
async fn undisturbed<T: Tool>(
    args: &[&str],
    make: &impl AsyncFn() -> Case,
    summary: &mut Summary,
) -> Result<Whole> {
    let case = make().await;
    let document = case.with_foreign_status();

    let mark = case.journal.len();
    let untouched = (case.picture)();
    let planned = run::<T>(&case, &["plan", "--json"], args, &document, None).await;
    if planned.exit != Exit::Done {
        return broken(2, "plan does not end well", &planned);
    }
    if let Some(changed) = case.changed_since(mark, &untouched) {
        return broken(2, format!("plan changed something: {changed}"), &planned);
    }
    let steps = planned.planned();

    let [first, second] = twice::<T>(&case, &["apply"], args, &document).await?;
    if first.done != steps {
        return broken(2, format!("plan showed {steps:#?}, and apply did {:#?}", first.done), &first);
    }
    summary.counts.insert(2, (steps.len(), "steps as planned"));
    summary.counts.insert(4, (1, "document with foreign sections"));
    let again = run::<T>(&case, &["plan", "--json"], args, &first.stdout, None).await;
    if !again.planned().is_empty() {
        return broken(1, "the second plan is not empty", &again);
    }
    summary.counts.insert(1, (2, "runs byte-identical"));

    let runs = [&planned, &first, &second, &again];
    for said in runs {
        case.tells_no_secret(said)?;
    }
    summary.counts.insert(7, (case.secrets.len(), "secrets kept"));
    case.nothing_unknown(&first)?;
    Ok(Whole {
        steps: steps.len(),
        exit: first.exit,
        document: case.comparable(&first.stdout),
        picture: case.comparable(&(case.picture)()),
    })
}

/// Laws 1, 4 and 5 of a verb that makes something so: the first run and the second.
async fn twice<T: Tool>(case: &Case, verb: &[&str], args: &[&str], document: &str) -> Result<[Said; 2]> {
    let first = run::<T>(case, verb, args, document, None).await;
    if !matches!(first.exit, Exit::Done | Exit::Partial) {
        return broken(1, format!("{} does not end well", verb.join(" ")), &first);
    }
    first.one_document()?;
    case.foreign_status_survived(&first)?;
    let mark = case.journal.len();
    let made = (case.picture)();
    let second = run::<T>(case, verb, args, &first.stdout, None).await;
    if second.stdout != first.stdout || second.exit != first.exit {
        return broken(1, format!("a second run says something else than the first: {first}"), &second);
    }
    if let Some(changed) = case.changed_since(mark, &made) {
        return broken(1, format!("a second run changed something: {changed}"), &second);
    }
    Ok([first, second])
}

/// Law 3: the run dies after step k, and is run again.
async fn killed<T: Tool>(
    verb: &[&str],
    args: &[&str],
    make: &impl AsyncFn() -> Case,
    k: usize,
    whole: &Whole,
) -> Result<()> {
    let case = make().await;
    let document = case.with_foreign_status();
    let dead = run::<T>(&case, verb, args, &document, Some(k)).await;
    if !dead.crashed {
        return broken(3, format!("the run was not killed after step {k}"), &dead);
    }
    let again = run::<T>(&case, verb, args, &document, None).await;
    if again.exit != whole.exit {
        return broken(
            3,
            format!("killed after step {k}, the next run does not end as an undisturbed one"),
            &again,
        );
    }
    case.agrees(3, &format!("killed after step {k}"), &again, &whole.document, &whole.picture)?;
    case.tells_no_secret(&again)?;
    case.nothing_unknown(&again)
}

/// Law 5: input that is no document changes nothing and gives nothing.
async fn refused<T: Tool>(args: &[&str], make: &impl AsyncFn() -> Case) -> Result<usize> {
    let case = make().await;
    let cut = &case.document[..case.document.len() / 2];
    let twice = case.document.replacen("\"spec\"", "\"spec\": {}, \"spec\"", 1);
    let other = case.document.replace("kubeline/v1", "kubeline/v9");
    let inputs: [(&str, Exit); 8] = [
        ("", Exit::Empty),
        ("  \n", Exit::Empty),
        ("{}", Exit::Refused),
        ("[]", Exit::Refused),
        ("\0", Exit::Refused),
        (cut, Exit::Refused),
        (&twice, Exit::Refused),
        (&other, Exit::Refused),
    ];
    let mark = case.journal.len();
    for (input, exit) in inputs {
        let said = run::<T>(&case, &["apply"], args, input, None).await;
        if said.exit != exit || !said.stdout.is_empty() {
            let what = format!("{exit:?} and an empty stdout were due for the input {input:?}");
            return broken(5, what, &said);
        }
    }
    match case.journal.changing_since(mark) {
        changed if changed.is_empty() => Ok(inputs.len()),
        changed => Err(Broken(format!("law 5: refused input changed something: {changed:#?}"))),
    }
}

/// Law 6: a fault strikes; the run ends well or in its exit code, and the next one repairs.
async fn troubled<T: Tool>(
    args: &[&str],
    make: &impl AsyncFn() -> Case,
    trouble: &Trouble,
    whole: &Whole,
) -> Result<()> {
    let case = make().await;
    let document = case.with_foreign_status();
    case.faults.inject(trouble.fault.clone());
    let mut flags = args.to_vec();
    flags.extend(["--timeout", if matches!(trouble.fault.action, Action::Hang) { "2s" } else { TIMEOUT }]);
    let begun = Instant::now();
    let said = run::<T>(&case, &["apply"], &flags, &document, None).await;
    if begun.elapsed() > PATIENCE {
        return broken(6, format!("{}: it took {:?}", trouble.name, begun.elapsed()), &said);
    }
    if !trouble.exits.contains(&said.exit) {
        return broken(6, format!("{}: one of {:?} was due", trouble.name, trouble.exits), &said);
    }
    if case.faults.left(&trouble.fault.matching).is_none_or(|left| left >= trouble.fault.times) {
        return broken(
            6,
            format!("{}: the fault struck nothing, so nothing was tested", trouble.name),
            &said,
        );
    }
    said.one_document()?;
    case.tells_no_secret(&said)?;
    case.faults.clear();
    let again = run::<T>(&case, &["apply"], args, &document, None).await;
    if again.exit != whole.exit {
        return broken(6, format!("{}: the next run does not repair", trouble.name), &again);
    }
    case.agrees(6, trouble.name, &again, &whole.document, &whole.picture)
}

/// The steps of `plan --json`, in order.
fn steps(json: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(json).unwrap_or_default();
    let all = value["steps"].as_array().into_iter().flatten();
    all.filter_map(|s| s["do"].as_str().map(str::to_owned)).collect()
}
