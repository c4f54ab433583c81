//! The shell that every tool runs in: streams, flags, plan, executor, failure.
//!
//! A tool is a type that implements [`Tool`]: five movements, of which `plan` is pure. This crate gives it
//! the verbs and flags that all tools share, and it alone touches stdin, stdout and the exit code.
//!
//! ```text
//!  stdin --Document--> want --> connect --> observe --> plan --> apply (executor) --> observe: settled? --> stdout
//! ```

mod args;
mod checks;
mod ctx;
mod edges;
mod events;
mod executor;
mod failure;
mod frame;
mod input;
mod output;
mod own;
mod plan;
mod progress;
mod run;
mod saved;
mod settle;
mod site;
mod start;
mod tool;
mod wait;

pub use args::Common;
pub use checks::Finding;
pub use ctx::Ctx;
pub use edges::{Edges, Env, Prompt};
pub use failure::Failure;
pub use own::{Consent, Doer, Doing, Intent, Looker, NoVerb, Own, Planner, Teller};
pub use plan::{Held, HeldKind, Plan, StepId};
pub use run::{command, run};
pub use site::Site;
pub use start::start;
pub use tool::{Guard, Rendered, Slot, Tool};
pub use wait::Waiting;

pub use cluster_doc::Exit;
