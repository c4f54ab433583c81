//! The shape that all tools have that keep objects in the cluster.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::marker::PhantomData;

use cluster_doc::{Document, Section};
use kube_apply::Artefact;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::{Ctx, Failure, Finding, Guard, Own, Plan, Rendered, Site};

use crate::access::{self, Access};
use crate::artefacts::{self, Texts};
use crate::plan::{self, Step};
use crate::set::{self, Addon};
use crate::{apply, lease, seen};

/// What every such tool wants.
pub trait Wanted {
    /// How the cluster is reached.
    fn access(&self) -> &Access;
    /// The objects.
    fn addon(&self) -> &Addon;
    /// What is fetched before the objects are complete.
    fn artefacts(&self) -> &[Artefact] {
        &[]
    }
}

/// The connection to the cluster, and those of the tool beside it.
pub struct World<B> {
    /// The cluster.
    pub cluster: crate::Link,
    /// What else is connected: machines over SSH, or nothing.
    pub beside: B,
}

/// What is in the cluster, and what the tool sees beside its objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct View<F> {
    /// The objects.
    pub cluster: seen::Seen,
    /// What else was found.
    pub beside: F,
}

/// One change, in the cluster or on a machine.
pub trait Change: Display + Serialize + Clone + PartialEq + Send + Sync + From<Step> {
    /// The step in the cluster; none for one on a machine.
    fn in_cluster(&self) -> Option<&Step>;
    /// The machine that it changes; none for the cluster.
    fn machine(&self) -> Option<&str> {
        None
    }
}

impl Change for Step {
    fn in_cluster(&self) -> Option<&Step> {
        Some(self)
    }
}

/// What such a tool has beside the shared verbs.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Verb {
    /// List every image that the document needs, one a line
    Images {
        /// Begin each line with the name that its publisher gives it
        #[arg(long)]
        upstream: bool,
    },
    /// List every upstream file that the document needs: its name, SHA-256 and URL
    Artifacts,
}

/// A tool that keeps objects in the cluster: what is its own. All else is [`Tool`].
///
/// A tool may do something beside the cluster, on machines: then it has connections ([`Installer::connect`]), finds
/// something there ([`Installer::look`]) and has steps of its own ([`Installer::change`]).
pub trait Installer: Sized + Send + Sync + 'static {
    /// The program's name.
    const NAME: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// What `--help` teaches after the options.
    const TEACH: &'static str;
    /// The sections of `spec` that it reads.
    const READS: &'static [Section];

    /// The tool's flags.
    type Flags: clap::Args + Clone + Send + Sync;
    /// What the operator wants.
    type Want: Wanted + Send + Sync;
    /// Connections beside that to the cluster; `()` for none.
    type Beside: Send + Sync;
    /// What is found beside the objects; `()` for nothing.
    type Found: Default + Debug + Serialize + DeserializeOwned + Send + Sync;
    /// Its steps; [`Step`] where all of them are in the cluster.
    type Step: Change;

    /// The meaning of flags and document, as [`stage::Tool::want`].
    ///
    /// # Errors
    /// Exit 3 for the document, 4 for what the operator must do first.
    fn want(flags: &Self::Flags, doc: &Document, site: &Site) -> Result<Self::Want, Failure>;

    /// Makes the objects, now that the artefacts are there.
    ///
    /// # Errors
    /// An artefact that holds no manifests, or a file of the operator's that cannot be used.
    fn complete(want: Self::Want, _texts: &Texts, _ctx: &Ctx) -> Result<Self::Want, Failure> {
        Ok(want)
    }

    /// Opens the connections beside that to the cluster.
    ///
    /// # Errors
    /// Exit 4 or 5, as [`stage::Tool::connect`].
    fn connect(want: &Self::Want, ctx: &Ctx) -> impl Future<Output = Result<Self::Beside, Failure>> + Send;

    /// Looks at what is beside the objects.
    ///
    /// # Errors
    /// Exit 5 when something passing kept it from seeing.
    fn look(
        _world: &World<Self::Beside>,
        _want: &Self::Want,
        _ctx: &Ctx,
    ) -> impl Future<Output = Result<Self::Found, Failure>> + Send {
        async { Ok(Self::Found::default()) }
    }

    /// What is to be done; pure. The objects, and what is lost is held, unless the tool has more to say.
    fn plan(want: &Self::Want, seen: &View<Self::Found>) -> Plan<Self::Step> {
        let mut plan = Plan::new();
        plan::plan(&mut plan, want.addon(), &seen.cluster, want.access(), &[], Self::Step::from);
        plan::hold_lost(&mut plan, &seen.cluster);
        plan
    }

    /// Takes the locks of these machines.
    ///
    /// # Errors
    /// Exit 5 naming machine and holder.
    fn lock(
        _world: &World<Self::Beside>,
        _machines: Vec<&str>,
        _ctx: &Ctx,
    ) -> impl Future<Output = Result<Option<Guard>, Failure>> + Send {
        async { Ok(None) }
    }

    /// Does a step that is not in the cluster.
    ///
    /// # Errors
    /// What went wrong, with the exit that it means.
    fn change(
        step: &Self::Step,
        _world: &World<Self::Beside>,
        _want: &Self::Want,
        _ctx: &Ctx,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        async move { Err(Failure::internal(format!("nobody knows how to {step}"))) }
    }

    /// The tool's section of `status`.
    fn status(want: &Self::Want) -> Value;

    /// What is unhealthy although no step would change it.
    fn check(_want: &Self::Want, seen: &View<Self::Found>) -> Vec<Finding> {
        seen::findings(&seen.cluster)
    }

    /// Files that it installs beside the objects.
    fn files(_want: &Self::Want) -> Vec<Rendered> {
        Vec::new()
    }

    /// Images that its objects do not name, because something in the cluster decides on them, by their publishers' names.
    ///
    /// # Errors
    /// Exit 4 when they cannot be known.
    fn more_images(_want: &Self::Want) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }

    /// What `destroy` does; pure.
    fn teardown(want: &Self::Want, seen: &View<Self::Found>) -> Plan<Self::Step> {
        let mut plan = Plan::new();
        plan::teardown(&mut plan, want.addon(), &seen.cluster, want.access(), Self::Step::from);
        plan
    }
}

/// Every image that the document needs: the publisher's name, and the name in the document's registry.
///
/// # Errors
/// Exit 4 when they cannot be known.
pub fn images<I: Installer>(want: &I::Want) -> Result<BTreeMap<String, String>, Failure> {
    Ok(want.addon().sources(I::more_images(want)?))
}

fn list_images<I: Installer>(want: &I::Want, upstream: bool) -> Result<String, Failure> {
    let all = images::<I>(want)?;
    let mut lines: Vec<String> = match upstream {
        true => all.into_iter().map(|(upstream, here)| format!("{upstream} {here}\n")).collect(),
        false => all.into_values().map(|here| here + "\n").collect(),
    };
    lines.sort();
    lines.dedup();
    Ok(lines.concat())
}

fn list_artifacts<I: Installer>(want: &I::Want) -> String {
    let line = |one: &Artefact| format!("{} {} {}\n", one.name, one.sha256, one.url);
    want.artefacts().iter().map(line).collect()
}

/// The program that an [`Installer`] makes.
pub struct Tool<I>(PhantomData<I>);

impl<I> Debug for Tool<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tool")
    }
}

impl<I: Installer> stage::Tool for Tool<I> {
    const NAME: &'static str = I::NAME;
    const ABOUT: &'static str = I::ABOUT;
    const TEACH: &'static str = I::TEACH;
    const READS: &'static [Section] = I::READS;

    type Flags = I::Flags;
    type Verb = Verb;
    type Want = I::Want;
    type World = World<I::Beside>;
    type Seen = View<I::Found>;
    type Step = I::Step;

    fn want(flags: &I::Flags, doc: &Document, site: &Site) -> Result<I::Want, Failure> {
        I::want(flags, doc, site)
    }

    async fn prepare(want: I::Want, ctx: &Ctx) -> Result<I::Want, Failure> {
        let texts = artefacts::fetch_all(want.artefacts(), want.access(), ctx).await?;
        I::complete(want, &texts, ctx)
    }

    async fn connect(want: &I::Want, ctx: &Ctx) -> Result<Self::World, Failure> {
        let (cluster, beside) =
            futures::try_join!(access::connect(want.access(), ctx), I::connect(want, ctx))?;
        Ok(World { cluster, beside })
    }

    async fn observe(world: &Self::World, want: &I::Want, ctx: &Ctx) -> Result<Self::Seen, Failure> {
        let (cluster, beside) = futures::try_join!(
            // Boxed: side by side they are larger than a thread's stack should hold.
            Box::pin(seen::observe(&world.cluster, want.addon(), want.access(), ctx)),
            Box::pin(I::look(world, want, ctx)),
        )?;
        Ok(View { cluster, beside })
    }

    fn plan(want: &I::Want, seen: &Self::Seen) -> Plan<I::Step> {
        I::plan(want, seen)
    }

    async fn guard(
        plan: &Plan<I::Step>,
        world: &Self::World,
        _want: &I::Want,
        ctx: &Ctx,
    ) -> Result<Option<Guard>, Failure> {
        let machines: Vec<&str> = plan.steps().filter_map(Change::machine).collect();
        let machines = if machines.is_empty() { None } else { I::lock(world, machines, ctx).await? };
        let cluster = match plan.steps().any(|step| step.in_cluster().is_some()) {
            true => Some(lease::guard(&world.cluster, ctx).await?),
            false => None,
        };
        Ok(Some(Box::new((machines, cluster))))
    }

    async fn apply(step: &I::Step, world: &Self::World, want: &I::Want, ctx: &Ctx) -> Result<(), Failure> {
        match step.in_cluster() {
            Some(step) => Box::pin(apply::apply(step, &world.cluster, want.addon(), ctx)).await,
            None => Box::pin(I::change(step, world, want, ctx)).await,
        }
    }

    /// The tool's own words, and the number and digest of its objects.
    fn status(want: &I::Want, _seen: &Self::Seen) -> Value {
        let mut status = I::status(want);
        if let Some(map) = status.as_object_mut() {
            map.insert("objects".to_owned(), want.addon().len().into());
            map.insert("digest".to_owned(), want.addon().digest().into());
        }
        status
    }

    fn check(want: &I::Want, seen: &Self::Seen) -> Vec<Finding> {
        I::check(want, seen)
    }

    fn render(want: &I::Want) -> Result<Option<Vec<Rendered>>, Failure> {
        let mut files = I::files(want);
        files.extend(set::rendered(want.addon())?);
        Ok(Some(files))
    }

    fn own(verb: &Verb, _want: &I::Want, _site: &Site) -> Result<Own<Self>, Failure> {
        Ok(match *verb {
            Verb::Images { upstream } => Own::Tell(Box::new(move |want| list_images::<I>(want, upstream))),
            Verb::Artifacts => Own::Tell(Box::new(|want| Ok(list_artifacts::<I>(want)))),
        })
    }

    fn teardown(want: &I::Want, seen: &Self::Seen) -> Plan<I::Step> {
        I::teardown(want, seen)
    }
}
