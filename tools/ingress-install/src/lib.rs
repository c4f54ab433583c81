//! Traefik on NodePorts behind the load balancers, and cert-manager with Vault or ACME.
//!
//! * **Reads** `spec.ingress` (ports, certificates), `spec.loadBalancer` (who terminates TLS), `spec.vip`,
//!   `spec.kubernetes.kubeconfig`, `spec.artifacts`, `spec.registry`; the load balancers' addresses, which are trusted.
//! * **Writes** `status["ingress-install"]`: versions, NodePorts, issuers, number and digest of the objects.
//! * **Changes** the cluster's objects alone, as the field manager `kubeline-ingress-install`, in the namespaces
//!   `traefik` and `cert-manager`, with the definitions of both.
//! * **Needs** the kubeconfig and a pod network; the artefacts `traefik-crds` and, for certificates, `cert-manager`;
//!   the AppRole's secret id in a file of mode 0600.

mod objects;
mod want;

pub use addon::{Seen, Step};
pub use objects::Settings;
pub use want::Want;

use addon::World;
use cluster_doc::{Document, Section};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Finding, Guard, NoVerb, Own, Plan, Rendered, Site, Tool};

/// The tool.
#[derive(Debug)]
pub struct IngressInstall;

impl Tool for IngressInstall {
    const NAME: &'static str = "ingress-install";
    const ABOUT: &'static str = "Install Traefik behind the load balancers, and cert-manager";
    const TEACH: &'static str = "\
Examples:
  ingress-install plan -f cluster.json             what would change, by the server's own dry run
  ingress-install < cluster.json > next.json       install, and wait until it serves
  ingress-install render --dir ingress             the manifests; secrets are left out
  ingress-install --bundle ./bundle < cluster.json    without internet: DIR holds the artefacts

Files:
  $XDG_CACHE_HOME/kubeline/    what was fetched, by digest";
    const READS: &'static [Section] = &[
        Section::Vip,
        Section::Pools,
        Section::Machines,
        Section::LoadBalancer,
        Section::Kubernetes,
        Section::Ingress,
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
        let secret = want.secret_id(ctx.site())?;
        let texts = addon::fetch_all(&want.artefacts, &want.access, ctx).await?;
        want.complete(&texts, secret.as_deref())?;
        Ok(want)
    }

    async fn connect(want: &Want, ctx: &Ctx) -> Result<World, Failure> {
        addon::connect(&want.access, ctx).await
    }

    async fn observe(world: &World, want: &Want, ctx: &Ctx) -> Result<Seen, Failure> {
        addon::observe(world, &want.addon, &want.access, ctx).await
    }

    fn plan(want: &Want, seen: &Seen) -> Plan<Step> {
        let mut plan = Plan::new();
        addon::plan(&mut plan, &want.addon, seen, &want.access, &[], |step| step);
        addon::hold_lost(&mut plan, seen);
        plan
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
        addon::apply(step, world, &want.addon, ctx).await
    }

    fn status(want: &Want, _seen: &Seen) -> Value {
        let settings = &want.settings;
        json!({
            "provider": "traefik",
            "image": settings.image,
            "class": "traefik",
            "nodePorts": {"http": settings.http_node_port, "https": settings.https_node_port, "ping": settings.ping_node_port},
            "issuers": want.issuers(),
            "objects": want.addon.len(),
            "digest": want.addon.digest(),
        })
    }

    fn check(_want: &Want, seen: &Seen) -> Vec<Finding> {
        addon::findings(seen)
    }

    fn render(want: &Want) -> Result<Option<Vec<Rendered>>, Failure> {
        addon::rendered(&want.addon).map(Some)
    }

    fn own(verb: &Self::Verb, _: &Self::Want, _: &Site) -> Result<Own<Self>, Failure> {
        match *verb {}
    }

    fn teardown(want: &Want, seen: &Seen) -> Plan<Step> {
        let mut plan = Plan::new();
        addon::teardown(&mut plan, &want.addon, seen, &want.access, |step| step);
        plan
    }
}
