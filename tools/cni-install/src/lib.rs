//! Calico, by the Tigera operator: the pod network of the cluster.
//!
//! * **Reads** `spec.cni` (encapsulation, mtu), `spec.kubernetes` (version, pod network, kubeconfig), `spec.vip` (where
//!   the operator finds the API), `spec.artifacts`, `spec.registry`; the machines, for those that cannot be reached.
//! * **Writes** `status["cni-install"]`: provider, version, how packets travel, number and digest of the objects.
//! * **Changes** the cluster's objects alone, as the field manager `kubeline-cni-install`: the operator's manifest as
//!   its publisher made it, the ConfigMap with the API's address, and the Installation `default`.
//! * **Needs** the kubeconfig that kadm-bootstrap wrote, and the manifest `tigera-operator` from its address, the
//!   cache or `--bundle`.

mod args;
mod manifest;
mod nodes;
mod objects;
mod plan;
mod probe;
mod rules;
mod seen;
mod settings;
mod versions;
mod want;

pub use nodes::{CLEAN, LOOK};
pub use plan::Step;
pub use probe::Row;
pub use seen::{Found, Pool};
pub use want::Want;

use addon::{Installer, Texts, View, World};
use cluster_doc::{Document, Section};
use fleet::Fleet;
use serde_json::{Value, json};
use stage::{Ctx, Failure, Finding, Guard, Plan, Site};

/// The tool.
pub type CniInstall = addon::Tool<Calico>;

/// What is this tool's own.
#[derive(Debug)]
pub struct Calico;

impl Installer for Calico {
    const NAME: &'static str = "cni-install";
    const ABOUT: &'static str = "Install Calico as the cluster's pod network";
    const TEACH: &'static str = "\
Examples:
  cni-install plan -f cluster.json            what would change, by the server's own dry run
  cni-install < cluster.json > next.json      install, and wait until every node is ready
  cni-install render --dir calico             the manifests, for Git or kubectl apply -k
  cni-install --bundle ./bundle < cluster.json    without internet: DIR holds tigera-operator.yaml

Files:
  $XDG_CACHE_HOME/kubeline/    what was fetched, by digest";
    const READS: &'static [Section] = &[
        Section::Network,
        Section::Vip,
        Section::Ssh,
        Section::Pools,
        Section::Machines,
        Section::Kubernetes,
        Section::Cni,
        Section::Artifacts,
        Section::Registry,
    ];

    type Flags = args::Flags;
    type Want = Want;
    type Beside = Option<Fleet>;
    type Found = Found;
    type Step = Step;

    fn want(flags: &args::Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
        want::want(flags, doc, site)
    }

    fn complete(mut want: Want, texts: &Texts, _ctx: &Ctx) -> Result<Want, Failure> {
        want.complete(texts)?;
        Ok(want)
    }

    /// The nodes are of interest only when they are to be left clean.
    async fn connect(want: &Want, ctx: &Ctx) -> Result<Option<Fleet>, Failure> {
        match &want.route {
            Some(route) if ctx.verb() == "destroy" => Fleet::connect(route, ctx).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn look(world: &World<Option<Fleet>>, want: &Want, ctx: &Ctx) -> Result<Found, Failure> {
        seen::look(&world.cluster, world.beside.as_ref(), want, ctx).await
    }

    fn plan(want: &Want, seen: &View<Found>) -> Plan<Step> {
        plan::plan(want, seen)
    }

    async fn lock(
        world: &World<Option<Fleet>>,
        machines: Vec<&str>,
        ctx: &Ctx,
    ) -> Result<Option<Guard>, Failure> {
        match &world.beside {
            Some(fleet) => fleet.lock(machines, ctx).await.map(Some),
            None => Ok(None),
        }
    }

    async fn change(
        step: &Step,
        world: &World<Option<Fleet>>,
        _want: &Want,
        _ctx: &Ctx,
    ) -> Result<(), Failure> {
        match (step, &world.beside) {
            (Step::Clean { machine }, Some(fleet)) => nodes::clean(fleet, machine).await,
            _ => Err(Failure::internal(format!("there is no connection to {step}"))),
        }
    }

    fn more_images(want: &Want) -> Result<Vec<String>, Failure> {
        want.operands()
    }

    fn status(want: &Want) -> Value {
        json!({
            "provider": "calico",
            "version": want.version,
            "encapsulation": want.settings.encapsulation,
            "podCidr": want.settings.pod_cidr,
        })
    }

    fn check(_want: &Want, seen: &View<Found>) -> Vec<Finding> {
        let mut all = addon::findings(&seen.cluster);
        all.extend(seen::unreached(&seen.beside));
        all
    }

    fn teardown(want: &Want, seen: &View<Found>) -> Plan<Step> {
        plan::teardown(want, seen)
    }
}
