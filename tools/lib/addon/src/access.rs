//! Which cluster: the kubeconfig, the server that it must name, and the connection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use cluster_doc::spec::{Role, Spec};
use cluster_doc::{Document, FilePath};
use kube_apply::{Class, Cluster};
use stage::{Ctx, Failure, Site};

use crate::failure::failure;
use crate::offline::Offline;

/// How long the API is tried before it counts as not answering.
const PROBE: Duration = Duration::from_secs(10);

/// Flags of every tool that keeps objects in the cluster.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Flags {
    /// Reach the cluster with this kubeconfig instead of the document's
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Take upstream artefacts from DIR instead of the internet
    #[arg(long, value_name = "DIR", global = true)]
    pub bundle: Option<PathBuf>,
    /// Take over fields of our objects that somebody else has set
    #[arg(long, global = true)]
    pub force_conflicts: bool,
    /// Also delete what holds data: claims, volumes, definitions and namespaces
    #[arg(long, global = true)]
    pub prune_data: bool,
}

/// How the cluster is reached, and which of its machines cannot be.
#[derive(Clone, Debug)]
pub struct Access {
    /// The kubeconfig; none where nobody names one.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig as the operator wrote it.
    pub shown: String,
    /// The server that it must name; none where the document has no shared address.
    pub server: Option<String>,
    /// Take over fields of others.
    pub force: bool,
    /// Delete what holds data as well.
    pub prune_data: bool,
    /// A folder with the artefacts.
    pub bundle: Option<PathBuf>,
    /// Nodes that a stage before could not reach, and why.
    pub unreachable: BTreeMap<String, String>,
    /// The nodes that there should be.
    pub nodes: Vec<String>,
}

impl Access {
    /// The kubeconfig of the flag, else the document's, else that of KUBECONFIG.
    pub fn new(flags: &Flags, doc: &Document, spec: &Spec, site: &Site) -> Access {
        let of_doc: Option<&FilePath> = spec.kubernetes.as_ref().map(|k| &k.kubeconfig);
        let (kubeconfig, shown) = match (&flags.kubeconfig, of_doc) {
            (Some(flag), _) => (Some(site.absolute(flag)), flag.display().to_string()),
            (None, Some(path)) => (Some(site.path(path)), path.to_string()),
            (None, None) => match site.env("KUBECONFIG") {
                Some(path) => (Some(site.absolute(path.as_ref())), path),
                None => (None, String::new()),
            },
        };
        let machines = doc.machines(spec);
        let nodes =
            machines.iter().filter(|m| matches!(m.role, Role::ControlPlane | Role::Worker) && !m.leaving);
        let mut unreachable = BTreeMap::new();
        let mut names = Vec::new();
        for machine in nodes {
            names.push(machine.name.clone());
            if !machine.reachable {
                let why = "the stage before could not reach it (reachable: false)".to_owned();
                unreachable.insert(machine.name.clone(), why);
            }
        }
        Access {
            kubeconfig,
            shown,
            server: spec.vip.as_ref().map(|vip| format!("https://{}:{}", vip.address, vip.ports.api)),
            force: flags.force_conflicts,
            prune_data: flags.prune_data,
            bundle: flags.bundle.as_deref().map(|dir| site.absolute(dir)),
            unreachable,
            nodes: names,
        }
    }
}

/// The connection to the cluster, or why there is none.
pub struct Link {
    pub(crate) cluster: Result<Cluster, Offline>,
    pub(crate) kubeconfig: PathBuf,
}

/// The field manager of the tool that runs.
pub(crate) fn manager(ctx: &Ctx) -> String {
    format!("kubeline-{}", ctx.tool())
}

impl Link {
    /// The cluster.
    ///
    /// # Errors
    /// Exit 4 without a kubeconfig, 5 when the API does not answer.
    pub fn cluster(&self) -> Result<&Cluster, Failure> {
        self.cluster.as_ref().map_err(Offline::failure)
    }
}

/// Opens the connection. A cluster that is not there yet is part of what is seen.
///
/// # Errors
/// Exit 4 when the kubeconfig cannot be used or names another server than the shared address.
pub async fn connect(access: &Access, ctx: &Ctx) -> Result<Link, Failure> {
    let Some(path) = access.kubeconfig.as_deref().filter(|path| path.exists()) else {
        let offline = Offline::NoKubeconfig { path: access.shown.clone() };
        return Ok(Link { cluster: Err(offline), kubeconfig: PathBuf::new() });
    };
    let kubeconfig = path.to_owned();
    let doing = format!("cannot use the cluster of {}", access.shown);
    let mut cluster = Cluster::connect(path, &manager(ctx)).await.map_err(|error| failure(&doing, &error))?;
    if let Some(wanted) = access.server.as_deref().filter(|wanted| *wanted != cluster.server()) {
        return Err(Failure::precondition(doing)
            .because(format!(
                "its server is {}, and the document's shared address is {wanted}",
                cluster.server()
            ))
            .hint("is it another cluster's kubeconfig? kadm-bootstrap writes the right one to spec.kubernetes.kubeconfig"));
    }
    if access.force {
        cluster = cluster.force_conflicts();
    }
    ctx.waiting(format!("the API at {}", cluster.server()));
    match cluster.clone().patience(PROBE).version().await {
        Ok(_) => Ok(Link { cluster: Ok(cluster), kubeconfig }),
        Err(error) if matches!(error.class(), Class::Unreachable | Class::Transient) => {
            let server = cluster.server().to_owned();
            Ok(Link { cluster: Err(Offline::NoAnswer { server, why: chain(&error) }), kubeconfig })
        }
        Err(error) => Err(failure(doing, &error)),
    }
}

fn chain(error: &kube_apply::Error) -> String {
    let said = Failure::internal("").caused_by(error);
    said.causes.join(": ")
}
