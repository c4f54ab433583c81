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

pub use objects::Settings;
pub use want::Want;

use addon::{Flags, Installer, Step, Texts};
use cluster_doc::{Document, Section};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Site};

/// The tool.
pub type IngressInstall = addon::Tool<Ingress>;

/// What is this tool's own.
#[derive(Debug)]
pub struct Ingress;

impl Installer for Ingress {
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

    type Flags = Flags;
    type Want = Want;
    type Beside = ();
    type Found = ();
    type Step = Step;

    fn want(flags: &Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
        want::want(flags, doc, site)
    }

    fn complete(mut want: Want, texts: &Texts, ctx: &Ctx) -> Result<Want, Failure> {
        // Lists and manifests do not show it, and what is deleted needs none: they are to be had without the file.
        let secret = match ctx.verb() {
            "images" | "artifacts" | "render" | "destroy" => want.secret_unread(),
            _ => want.secret_id(ctx.site())?,
        };
        want.complete(texts, secret.as_deref())?;
        Ok(want)
    }

    async fn connect(_want: &Want, _ctx: &Ctx) -> Result<(), Failure> {
        Ok(())
    }

    fn status(want: &Want) -> Value {
        let settings = &want.settings;
        json!({
            "provider": "traefik",
            "image": settings.image,
            "class": "traefik",
            "nodePorts": {"http": settings.http_node_port, "https": settings.https_node_port, "ping": settings.ping_node_port},
            "issuers": want.issuers(),
        })
    }
}
