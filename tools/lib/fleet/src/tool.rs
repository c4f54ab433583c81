//! The shape that all tools have that keep one daemon on some machines, over SSH alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Display};
use std::marker::PhantomData;

use cluster_doc::{Document, Section};
use remote::{Error, Host};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::{Ctx, Failure, Finding, Guard, HeldKind, Own, Plan, Rendered, Site};

use crate::{Fleet, Route};

/// What every such tool wants.
pub trait Wanted {
    /// How the machines are reached.
    ///
    /// # Errors
    /// Exit 3 for a document without `spec.ssh`, which can only be rendered.
    fn route(&self) -> Result<&Route, Failure>;
}

/// One change, on a machine or beside all of them.
pub trait Change: Display + Serialize + Clone + PartialEq + Send + Sync {
    /// The machine that it changes; none for a proof.
    fn machine(&self) -> Option<&str>;
}

/// The machines as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View<M> {
    /// Those that answer, by name.
    pub machines: BTreeMap<String, M>,
    /// Those that do not, and why.
    #[serde(default)]
    pub unreachable: BTreeMap<String, String>,
}

// Not derived: that would want a default of a machine.
impl<M> Default for View<M> {
    fn default() -> View<M> {
        View { machines: BTreeMap::new(), unreachable: BTreeMap::new() }
    }
}

impl<M> View<M> {
    /// Holds the machines that do not answer.
    pub fn hold_unreachable<S>(&self, plan: &mut Plan<S>) {
        for (name, why) in &self.unreachable {
            plan.hold(HeldKind::Unreachable, name, why, None);
        }
    }

    /// Whether the machines have one version of a package.
    pub fn versions(&self, package: &str, of: impl Fn(&M) -> Option<&str>) -> Option<Finding> {
        let versions: BTreeSet<&str> = self.machines.values().filter_map(of).collect();
        (versions.len() > 1).then(|| {
            let all: Vec<&str> = versions.into_iter().collect();
            let message = format!("the load balancers run different versions: {}", all.join(", "));
            Finding::new(package, message).hint(format!(
                "apt-get install --only-upgrade {package} on each, the holder of the address last"
            ))
        })
    }
}

/// A step for each machine that is `due`, one after the other: first those that do not hold the address.
pub fn in_turn<S, M>(
    plan: &mut Plan<S>,
    mut due: Vec<(&String, &M)>,
    holds: impl Fn(&M) -> bool,
    step: impl Fn(&str) -> S,
    why: &str,
) {
    due.sort_by_key(|(_, machine)| holds(machine));
    let mut last = Vec::new();
    for (name, _) in due {
        last = vec![plan.step_after(&last, step(name), why)];
    }
}

/// A tool that keeps a daemon: what is its own. All else is [`Tool`].
pub trait Daemon: Sized + Send + Sync + 'static {
    /// The program's name.
    const NAME: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// What `--help` teaches after the options.
    const TEACH: &'static str;
    /// The sections of `spec` that it reads.
    const READS: &'static [Section];
    /// What looking at one machine is called in an error, such as `look at HAProxy on`.
    const LOOKING: &'static str;

    /// The tool's own flags.
    type Flags: clap::Args + Clone + Send + Sync;
    /// The tool's own verbs.
    type Verb: clap::Subcommand + Clone + Send + Sync;
    /// What the operator wants.
    type Want: Wanted + Send + Sync;
    /// One machine as it is.
    type Machine: Debug + Send + Sync;
    /// One change.
    type Step: Change;

    /// The meaning of flags and document, as [`stage::Tool::want`].
    ///
    /// # Errors
    /// Exit 3 for the document, 4 for what the operator must do first.
    fn want(flags: &Self::Flags, doc: &Document, site: &Site) -> Result<Self::Want, Failure>;

    /// Looks at one machine, changing nothing.
    ///
    /// # Errors
    /// Transport trouble, or a command that only looks and fails.
    fn look(
        host: Host,
        want: &Self::Want,
        ctx: &Ctx,
    ) -> impl Future<Output = Result<Self::Machine, Error>> + Send;

    /// What is to be done, and why; pure.
    fn plan(want: &Self::Want, seen: &View<Self::Machine>) -> Plan<Self::Step>;

    /// Does one step and waits until it is seen.
    ///
    /// # Errors
    /// What went wrong, with the exit that it means.
    fn apply(
        step: &Self::Step,
        fleet: &Fleet,
        want: &Self::Want,
        ctx: &Ctx,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The tool's section of `status`.
    fn status(want: &Self::Want, seen: &View<Self::Machine>) -> Value;

    /// What is unhealthy although no step would change it.
    fn check(want: &Self::Want, seen: &View<Self::Machine>) -> Vec<Finding>;

    /// What `check` shows a person beside the findings: all machines as a table.
    fn overview(_want: &Self::Want, _seen: &View<Self::Machine>) -> Option<String> {
        None
    }

    /// Exactly what `apply` would install.
    ///
    /// # Errors
    /// A template that does not render is an internal fault.
    fn render(want: &Self::Want) -> Result<Vec<Rendered>, Failure>;

    /// What one of the tool's own verbs does.
    ///
    /// # Errors
    /// As [`stage::Tool::own`].
    fn own(verb: &Self::Verb, want: &Self::Want, site: &Site) -> Result<Own<Tool<Self>>, Failure>;

    /// What `destroy` does; pure.
    fn teardown(want: &Self::Want, seen: &View<Self::Machine>) -> Plan<Self::Step>;
}

/// The program that a [`Daemon`] makes.
pub struct Tool<D>(PhantomData<D>);

impl<D> Debug for Tool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tool")
    }
}

impl<D: Daemon> stage::Tool for Tool<D> {
    const NAME: &'static str = D::NAME;
    const ABOUT: &'static str = D::ABOUT;
    const TEACH: &'static str = D::TEACH;
    const READS: &'static [Section] = D::READS;

    type Flags = D::Flags;
    type Verb = D::Verb;
    type Want = D::Want;
    type World = Fleet;
    type Seen = View<D::Machine>;
    type Step = D::Step;

    fn want(flags: &D::Flags, doc: &Document, site: &Site) -> Result<D::Want, Failure> {
        D::want(flags, doc, site)
    }

    async fn connect(want: &D::Want, ctx: &Ctx) -> Result<Fleet, Failure> {
        Fleet::connect(want.route()?, ctx).await
    }

    async fn observe(fleet: &Fleet, want: &D::Want, ctx: &Ctx) -> Result<Self::Seen, Failure> {
        // Boxed, as the steps are: what a tool does on several machines at once is larger than a thread's stack should hold.
        Box::pin(view::<D>(fleet, want, ctx)).await
    }

    fn plan(want: &D::Want, seen: &Self::Seen) -> Plan<D::Step> {
        D::plan(want, seen)
    }

    async fn guard(
        plan: &Plan<D::Step>,
        fleet: &Fleet,
        _: &D::Want,
        ctx: &Ctx,
    ) -> Result<Option<Guard>, Failure> {
        fleet.lock(plan.steps().filter_map(Change::machine), ctx).await.map(Some)
    }

    async fn apply(step: &D::Step, fleet: &Fleet, want: &D::Want, ctx: &Ctx) -> Result<(), Failure> {
        Box::pin(D::apply(step, fleet, want, ctx)).await
    }

    fn status(want: &D::Want, seen: &Self::Seen) -> Value {
        D::status(want, seen)
    }

    fn check(want: &D::Want, seen: &Self::Seen) -> Vec<Finding> {
        D::check(want, seen)
    }

    fn overview(want: &D::Want, seen: &Self::Seen) -> Option<String> {
        D::overview(want, seen)
    }

    fn render(want: &D::Want) -> Result<Option<Vec<Rendered>>, Failure> {
        D::render(want).map(Some)
    }

    fn own(verb: &D::Verb, want: &D::Want, site: &Site) -> Result<Own<Self>, Failure> {
        D::own(verb, want, site)
    }

    fn teardown(want: &D::Want, seen: &Self::Seen) -> Plan<D::Step> {
        D::teardown(want, seen)
    }
}

/// Looks at all machines side by side.
///
/// # Errors
/// Exit 5 when a command that only looks fails.
pub async fn view<D: Daemon>(fleet: &Fleet, want: &D::Want, ctx: &Ctx) -> Result<View<D::Machine>, Failure> {
    let outcome = fleet.each(ctx, D::LOOKING, |host| D::look(host, want, ctx)).await?;
    Ok(View { machines: outcome.of, unreachable: outcome.unreachable })
}
