//! Metrics, logs, dashboards and alerts: Prometheus, kube-state-metrics, node-exporter, metrics-server, Grafana, Loki.
//!
//! * **Reads** `spec.observability`, the machines (load balancers and control planes are scraped, a worker holds the local
//!   volumes), `spec.loadBalancer.statsPort`, `spec.ingress.certificates`, `spec.kubernetes.kubeconfig`, `spec.registry`, and of
//!   `status["kadm-bootstrap"]` what the control planes serve.
//! * **Writes** `status["obs-install"]`: the namespace, images, where the volumes lie, number and digest of the objects.
//! * **Changes** the cluster's objects alone, as the field manager `kubeline-obs-install`: the namespace `monitoring`,
//!   metrics-server in kube-system with its APIService, and cluster roles.
//! * **Needs** the kubeconfig and a pod network. Grafana's first password is made in the cluster, in the Secret
//!   `monitoring/grafana-admin`, and nowhere else.

mod dashboards;
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
pub struct ObsInstall;

impl Tool for ObsInstall {
    const NAME: &'static str = "obs-install";
    const ABOUT: &'static str = "Install metrics, logs, dashboards and alerts";
    const TEACH: &'static str = "\
Examples:
  obs-install plan -f cluster.json            what would change, by the server's own dry run
  obs-install < cluster.json > next.json      install, and wait until all of it runs
  obs-install render --dir monitoring         the manifests, for Git or kubectl apply -k

Grafana's password:
  kubectl -n monitoring get secret grafana-admin -o jsonpath='{.data.password}' | base64 -d";
    const READS: &'static [Section] = &[
        Section::Vip,
        Section::Pools,
        Section::Machines,
        Section::LoadBalancer,
        Section::Kubernetes,
        Section::Ingress,
        Section::Observability,
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

    async fn prepare(want: Want, ctx: &Ctx) -> Result<Want, Failure> {
        for warning in &want.warnings {
            ctx.say(&format!("warning: {warning}"));
        }
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
            "namespace": "monitoring",
            "images": want.addon.images(),
            "localVolumesOn": settings.local_node.as_ref().map(|node| &node.name),
            "grafana": settings.grafana.as_ref().map(|grafana| &grafana.host),
            "logs": settings.logs.as_ref().map(|logs| logs.agent),
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
