//! Calico, by the Tigera operator: the pod network of the cluster.
//!
//! * **Reads** `spec.cni` (encapsulation, mtu), `spec.kubernetes` (version, pod network, kubeconfig), `spec.vip` (where
//!   the operator finds the API), `spec.artifacts`, `spec.registry`; the machines, for those that cannot be reached.
//! * **Writes** `status["cni-install"]`: provider, version, how packets travel, number and digest of the objects.
//! * **Changes** the cluster's objects alone, as the field manager `kubeline-cni-install`: the operator's manifest as
//!   its publisher made it, the ConfigMap with the API's address, and the Installation `default`.
//! * **Needs** the kubeconfig that kadm-bootstrap wrote, and the manifest `tigera-operator` from its address, the
//!   cache or `--bundle`.

mod objects;
mod plan;
mod seen;
mod want;

pub use seen::Found;
pub use want::Want;

use addon::{Flags, Installer, Step, Texts, View, World};
use cluster_doc::{Document, Section};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Plan, Site};

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
        Section::Pools,
        Section::Machines,
        Section::Kubernetes,
        Section::Cni,
        Section::Artifacts,
        Section::Registry,
    ];

    type Flags = Flags;
    type Want = Want;
    type Beside = ();
    type Found = Found;
    type Step = Step;

    fn want(flags: &Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
        want::want(flags, doc, site)
    }

    fn complete(mut want: Want, texts: &Texts, _ctx: &Ctx) -> Result<Want, Failure> {
        want.complete(texts)?;
        Ok(want)
    }

    async fn connect(_want: &Want, _ctx: &Ctx) -> Result<(), Failure> {
        Ok(())
    }

    async fn look(world: &World<()>, _want: &Want, _ctx: &Ctx) -> Result<Found, Failure> {
        seen::look(&world.cluster).await
    }

    fn plan(want: &Want, seen: &View<Found>) -> Plan<Step> {
        plan::plan(want, seen)
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
}
