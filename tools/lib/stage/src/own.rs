//! A tool's own verbs, beside those that all tools share.

use std::pin::Pin;

use crate::{Ctx, Exit, Failure, Plan, Tool};

/// No verb of its own: what a tool names as its `Verb` when the shared ones are enough.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum NoVerb {}

/// The two flags of every verb that asks before it does something.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct Consent {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Only show what would be done
    #[arg(long)]
    pub plan: bool,
}

/// A future that borrows what a verb was given.
pub type Doing<'a, V> = Pin<Box<dyn Future<Output = Result<V, Failure>> + Send + 'a>>;
/// Tells something from what is wanted.
pub type Teller<T> = Box<dyn FnOnce(&<T as Tool>::Want) -> Result<String, Failure> + Send>;
/// Tells something of what was seen, and how it ends.
pub type Looker<T> =
    Box<dyn FnOnce(&<T as Tool>::Want, &<T as Tool>::Seen) -> Result<(String, Exit), Failure> + Send>;
/// Plans; pure, as [`Tool::plan`] is.
pub type Planner<T> =
    Box<dyn Fn(&<T as Tool>::Want, &<T as Tool>::Seen) -> Plan<<T as Tool>::Step> + Send + Sync>;
/// Refuses from what was seen, or says in a few lines what will be done.
pub type Intent<T> =
    Box<dyn FnOnce(&<T as Tool>::Want, &<T as Tool>::Seen) -> Result<String, Failure> + Send>;
/// Does something once and tells of it.
pub type Doer<T> = Box<
    dyn for<'a> FnOnce(
            &'a <T as Tool>::World,
            &'a <T as Tool>::Want,
            &'a <T as Tool>::Seen,
            &'a Ctx,
        ) -> Doing<'a, String>
        + Send,
>;

/// What one of a tool's own verbs does with the movements.
pub enum Own<T: Tool> {
    /// Tells something from what is wanted; nothing is connected.
    Tell(Teller<T>),
    /// Connects and looks, and tells something of what was seen.
    Look(Looker<T>),
    /// Makes something so with a planner of its own, as `apply` does with the tool's: the same executor, locks and
    /// settling, and the document on standard output. For all that looking again can tell to be done.
    Settle {
        /// Given for a verb that asks first.
        consent: Option<Consent>,
        /// The plan; empty once it is so.
        planner: Planner<T>,
    },
    /// Does something once that looking again cannot tell from not having been done, such as a drill or a backup.
    /// A first Ctrl-C lets it finish, a second one aborts it: what it changes, it has to leave repairable by a run.
    Once {
        /// Given for a verb that asks first.
        consent: Option<Consent>,
        /// What will be done, or why not; shown before it asks.
        intent: Intent<T>,
        /// Does it.
        run: Doer<T>,
    },
}
