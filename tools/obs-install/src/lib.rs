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

pub use objects::Settings;
pub use want::Want;

use addon::{Flags, Installer, Step, Texts};
use cluster_doc::{Document, Section};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Site};

/// The tool.
pub type ObsInstall = addon::Tool<Observability>;

/// What is this tool's own.
#[derive(Debug)]
pub struct Observability;

impl Installer for Observability {
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

    type Flags = Flags;
    type Want = Want;
    type Beside = ();
    type Found = ();
    type Step = Step;

    fn want(flags: &Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
        want::want(flags, doc, site)
    }

    fn complete(want: Want, _texts: &Texts, ctx: &Ctx) -> Result<Want, Failure> {
        for warning in &want.warnings {
            ctx.say(&format!("warning: {warning}"));
        }
        Ok(want)
    }

    async fn connect(_want: &Want, _ctx: &Ctx) -> Result<(), Failure> {
        Ok(())
    }

    fn status(want: &Want) -> Value {
        let settings = &want.settings;
        json!({
            "namespace": "monitoring",
            "images": want.addon.images(),
            "localVolumesOn": settings.local_node.as_ref().map(|node| &node.name),
            "grafana": settings.grafana.as_ref().map(|grafana| &grafana.host),
            "logs": settings.logs.as_ref().map(|logs| logs.agent),
        })
    }
}
