//! The five movements, as a trait: who knows one tool knows all.

use std::fmt::Display;
use std::future::Future;

use cluster_doc::{Document, Section};
use serde::Serialize;
use serde_json::Value;

use crate::{Ctx, Failure, Finding, Own, Plan, Site};

/// What a step takes of the room that `--jobs` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// One of the jobs.
    Job,
    /// The work is done elsewhere, which the tool knows the bounds of: one of the jobs only where `--jobs` is given.
    Elsewhere,
    /// None: it does nothing but wait.
    Wait,
}

/// Locks that are held until the value goes.
pub type Guard = Box<dyn std::any::Any + Send>;

/// A file that a tool would install, or a manifest that it would apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its path below the directory that `render` writes, such as `prod-lb-1/haproxy.cfg`.
    pub path: String,
    /// What it holds.
    pub content: Vec<u8>,
}

/// One of the eight tools.
///
/// `want` refuses input, `connect` and `observe` look, `plan` decides, `apply` does one step without a choice
/// of its own, and the shell observes again to see that nothing is left.
pub trait Tool: Sized + Send + Sync + 'static {
    /// The program's name.
    const NAME: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// What `--help` teaches after the options: examples, files.
    const TEACH: &'static str;
    /// The sections of `spec` that it reads.
    const READS: &'static [Section];

    /// The tool's own flags (all `global = true`).
    type Flags: clap::Args + Clone + Send + Sync;
    /// The tool's own verbs, beside the shared ones; [`NoVerb`](crate::NoVerb) when it has none.
    type Verb: clap::Subcommand + Clone + Send + Sync;
    /// What the operator wants: nothing is left to be checked in it.
    type Want: Send + Sync;
    /// Open connections.
    type World: Send + Sync;
    /// What is there.
    type Seen: Send + Sync;
    /// One change; displays as one imperative line.
    type Step: Display + Serialize + Clone + PartialEq + Send + Sync;

    /// The meaning of flags and document; every refusal of input is here, before anything is touched.
    ///
    /// # Errors
    /// A [`Failure`] with exit 3 for the document, 4 for what the operator must do first.
    fn want(flags: &Self::Flags, doc: &Document, site: &Site) -> Result<Self::Want, Failure>;

    /// Completes what is wanted with what is kept elsewhere, such as pinned artefacts; once, before all else.
    ///
    /// # Errors
    /// Exit 4 when it is not what was pinned, 5 when it cannot be had now.
    fn prepare(want: Self::Want, _ctx: &Ctx) -> impl Future<Output = Result<Self::Want, Failure>> + Send {
        async move { Ok(want) }
    }

    /// Opens connections, changing nothing.
    ///
    /// # Errors
    /// Exit 4 or 5; a machine that cannot be reached among others is no error but part of what is seen.
    fn connect(want: &Self::Want, ctx: &Ctx) -> impl Future<Output = Result<Self::World, Failure>> + Send;

    /// Looks, changing nothing.
    ///
    /// # Errors
    /// Exit 5 when something passing kept it from seeing.
    fn observe(
        world: &Self::World,
        want: &Self::Want,
        ctx: &Ctx,
    ) -> impl Future<Output = Result<Self::Seen, Failure>> + Send;

    /// What a step takes of the room that `--jobs` gives.
    fn slot(_step: &Self::Step) -> Slot {
        Slot::Job
    }

    /// What is to be done, and why; pure.
    fn plan(want: &Self::Want, seen: &Self::Seen) -> Plan<Self::Step>;

    /// Takes the locks that keep a second operator out, once there is something to do; they live as long as the
    /// value. `None` when the tool needs none. After it the shell looks and plans again.
    ///
    /// # Errors
    /// Exit 5 naming the holder.
    fn guard(
        _plan: &Plan<Self::Step>,
        _world: &Self::World,
        _want: &Self::Want,
        _ctx: &Ctx,
    ) -> impl Future<Output = Result<Option<Guard>, Failure>> + Send {
        async { Ok(None) }
    }

    /// Does one step and waits until it is seen.
    ///
    /// # Errors
    /// What went wrong, with the exit that it means.
    fn apply(
        step: &Self::Step,
        world: &Self::World,
        want: &Self::Want,
        ctx: &Ctx,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The tool's section of `status`: a function of what is wanted and seen, without times or random parts.
    fn status(want: &Self::Want, seen: &Self::Seen) -> Value;

    /// What is unhealthy although no step would change it; drift is found from the plan.
    fn check(_want: &Self::Want, _seen: &Self::Seen) -> Vec<Finding> {
        Vec::new()
    }

    /// What `check` shows a person after the findings, such as a table of all machines; lines with their ends.
    fn overview(_want: &Self::Want, _seen: &Self::Seen) -> Option<String> {
        None
    }

    /// Exactly what `apply` would install; `None` when the tool installs no files or manifests.
    ///
    /// # Errors
    /// A template that does not render is an internal fault.
    fn render(_want: &Self::Want) -> Result<Option<Vec<Rendered>>, Failure> {
        Ok(None)
    }

    /// What one of the tool's own verbs does; its arguments are refused here, before anything is connected.
    ///
    /// # Errors
    /// Exit 2 or 3 for an argument, 4 for what the operator must do first.
    fn own(verb: &Self::Verb, want: &Self::Want, site: &Site) -> Result<Own<Self>, Failure>;

    /// What `destroy` does; pure. Removing what is gone already is an empty plan.
    fn teardown(want: &Self::Want, seen: &Self::Seen) -> Plan<Self::Step>;
}
