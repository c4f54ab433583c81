//! Calico, by the Tigera operator: the pod network of the cluster.
//!
//! * **Reads** `spec.cni` (encapsulation, mtu), `spec.kubernetes` (version, pod network, kubeconfig), `spec.vip` (where
//!   the operator finds the API), `spec.artifacts`, `spec.registry`; the machines, for those that cannot be reached.
//! * **Writes** `status["cni-install"]`: provider, version, how packets travel, number and digest of the objects.
//! * **Changes** the cluster's objects alone, as the field manager `kubeline-cni-install`: the operator's manifest as
//!   its publisher made it, the ConfigMap with the API's address, and the Installation `default`.
//! * **Needs** the kubeconfig that kadm-bootstrap wrote, and the manifest `tigera-operator` from its address, the
//!   cache or `--bundle`.

mod apply;
mod objects;
mod plan;
mod seen;
mod want;

pub use plan::Step;
pub use seen::Seen;
pub use want::Want;

use addon::World;
use cluster_doc::{Document, Section};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Finding, Guard, NoVerb, Own, Plan, Rendered, Site, Tool};

/// The tool.
#[derive(Debug)]
pub struct CniInstall;

impl Tool for CniInstall {
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
        Section::Pools,
        Section::Machines,
        Section::Kubernetes,
        Section::Cni,
        Section::Artifacts,
        Section::Registry,
    ];

    type Flags = addon::Flags;
    type Verb = NoVerb;
    type Want = Want;
    type World = World;
    type Seen = Seen;
    type Step = Step;

    fn want(flags: &addon::Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
        want::want(flags, doc, site)
    }

    async fn prepare(mut want: Want, ctx: &Ctx) -> Result<Want, Failure> {
        let texts = addon::fetch_all(&want.artefacts, &want.access, ctx).await?;
        want.complete(&texts)?;
        Ok(want)
    }

    async fn connect(want: &Want, ctx: &Ctx) -> Result<World, Failure> {
        addon::connect(&want.access, ctx).await
    }

    async fn observe(world: &World, want: &Want, ctx: &Ctx) -> Result<Seen, Failure> {
        seen::observe(world, want, ctx).await
    }

    fn plan(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::plan(want, seen)
    }

    async fn guard(
        _plan: &Plan<Step>,
        world: &World,
        _want: &Want,
        ctx: &Ctx,
    ) -> Result<Option<Guard>, Failure> {
        addon::guard(world, ctx).await.map(Some)
    }

    async fn apply(step: &Step, world: &World, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
        apply::apply(step, world, want, ctx).await
    }

    fn status(want: &Want, _seen: &Seen) -> Value {
        json!({
            "provider": "calico",
            "version": want.version,
            "encapsulation": want.settings.encapsulation,
            "podCidr": want.settings.pod_cidr,
            "objects": want.addon.len(),
            "digest": want.addon.digest(),
        })
    }

    fn check(_want: &Want, seen: &Seen) -> Vec<Finding> {
        addon::findings(&seen.cluster)
    }

    fn render(want: &Want) -> Result<Option<Vec<Rendered>>, Failure> {
        addon::rendered(&want.addon).map(Some)
    }

    fn own(verb: &Self::Verb, _: &Self::Want, _: &Site) -> Result<Own<Self>, Failure> {
        match *verb {}
    }

    fn teardown(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::teardown(want, seen)
    }
}
