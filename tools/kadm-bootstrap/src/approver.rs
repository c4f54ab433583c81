//! The approver of kubelets' serving certificates: what runs in the cluster, compared and installed.
//!
//! kubelet-csr-approver of PostFinance. Its checks are by name and by the address that the name has here; that a node
//! asks for no name but its own is not among them where one name begins with another.

use std::collections::BTreeSet;
use std::time::Duration;

use addon::Ready;
use cluster_doc::spec::Vip;
use kube_apply::{Cluster, Difference, Error, ManifestSet, Prune, What};
use render::Template;
use serde::Serialize;
use serde_json::Value;
use stage::{Ctx, Failure};

use crate::MANAGER;
use crate::api::{Api, ApiError};
use crate::certificate::sha256;
use crate::node::Node;
use crate::seen::ApproverSeen;

/// Its image; the tag is the pin (README of postfinance/kubelet-csr-approver, releases).
pub const IMAGE: &str = "ghcr.io/postfinance/kubelet-csr-approver:v1.2.14";
/// The port of its health check on a control plane's loopback: kubeadm's components hold 10248 to 10259 (kubernetes.io,
/// "Ports and Protocols").
const PROBE: u16 = 10246;
/// Where its Deployment is.
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/kube-system/deployments/kubelet-csr-approver";
/// How long its image may take.
const READY: Duration = Duration::from_secs(300);

const TEMPLATE: &str = include_str!("../templates/approver.yaml.j2");

#[derive(Serialize)]
struct Alias<'a> {
    ip: String,
    hostnames: [&'a str; 1],
}

#[derive(Serialize)]
struct Data<'a> {
    aliases: Vec<Alias<'a>>,
    image: String,
    probe: u16,
    host: String,
    port: String,
    names: String,
    prefixes: String,
}

/// The manifests for these nodes, and a digest of them.
///
/// # Errors
/// A template that does not render is a fault of ours.
pub fn set(nodes: &[Node], vip: &Vip, registry: Option<&str>) -> Result<(ManifestSet, String), Failure> {
    let names: Vec<String> = nodes.iter().map(|n| n.name.replace('.', "\\.")).collect();
    let mut prefixes = vec!["127.0.0.0/8".to_owned()];
    prefixes.extend(nodes.iter().map(|n| format!("{}/32", n.address)));
    let data = Data {
        aliases: nodes.iter().map(|n| Alias { ip: n.address.to_string(), hostnames: [&n.name] }).collect(),
        image: registry.map_or_else(|| IMAGE.to_owned(), |r| kube_apply::in_registry(IMAGE, r)),
        probe: PROBE,
        host: vip.address.to_string(),
        port: vip.ports.api.to_string(),
        names: format!("^(?:{})$", names.join("|")),
        prefixes: prefixes.join(","),
    };
    let broken = |e: &dyn std::error::Error| {
        Failure::internal("cannot render the approver of certificates").because(e.to_string())
    };
    let text = Template::new("approver.yaml", TEMPLATE).render(&data).map_err(|e| broken(&e))?;
    let mut set = ManifestSet::new(MANAGER);
    set.add_yaml("approver.yaml", &text).map_err(|e| broken(&e))?;
    Ok((set, sha256(text.as_bytes())))
}

fn cluster(api: &Api) -> Cluster {
    Cluster::of(api.client(), MANAGER).patience(Duration::from_secs(20))
}

/// What an install would change, by the server's own dry run, and whether it runs.
///
/// # Errors
/// When the API does not answer.
pub async fn observe(api: &Api, set: &ManifestSet) -> Result<ApproverSeen, ApiError> {
    let cluster = cluster(api);
    let (differences, deployment) = futures::join!(cluster.observe(set), api.find(DEPLOYMENT));
    let mut seen = ApproverSeen::default();
    let differences: Vec<Difference> = match differences {
        Ok(differences) => differences,
        Err(error) => {
            seen.fault = Some(Failure::transient("").caused_by(&error).causes.join(": "));
            Vec::new()
        }
    };
    for Difference { id, what, theirs } in differences {
        let name = format!("{} {}", id.kind, id.name);
        if theirs && what != What::Same {
            let fault =
                format!("{name} is there already and somebody else made it; two would do the same work");
            seen.fault.get_or_insert(fault);
            continue;
        }
        match what {
            What::Same => {}
            What::Conflict { fields } => {
                let fields: BTreeSet<String> = fields
                    .into_iter()
                    .map(|(field, manager)| format!("{field} belongs to {manager}"))
                    .collect();
                seen.fault = Some(format!("{name}: {}", fields.into_iter().collect::<Vec<_>>().join(", ")));
            }
            _ => drop(seen.due.insert(name)),
        }
    }
    seen.away = deployment?.as_ref().and_then(away);
    Ok(seen)
}

/// Why it does not run.
fn away(deployment: &Value) -> Option<String> {
    let available = deployment["status"]["availableReplicas"].as_u64().unwrap_or(0);
    let said = deployment["status"]["conditions"].as_array().into_iter().flatten();
    let said = said.into_iter().find(|c| c["type"] == "Available").and_then(|c| c["message"].as_str());
    (available == 0).then(|| said.unwrap_or("no pod of it is available").to_owned())
}

/// Installs it and waits until it runs.
///
/// # Errors
/// What the API refused; exit 5 when it does not come up.
pub async fn install(api: &Api, set: &ManifestSet, ctx: &Ctx) -> Result<(), Failure> {
    let doing = "cannot install the approver of kubelets' certificates";
    // Its hints name flags of the tools that install add-ons.
    let fail = |error: Error| Failure::of(addon::exit(&error), doing, &error, None);
    let cluster = cluster(api);
    cluster.apply(set, |_| {}).await.map_err(fail)?;
    cluster.prune(set, Prune::KeepData).await.map_err(fail)?;
    let ready =
        Ready::Deployment { namespace: "kube-system".to_owned(), name: "kubelet-csr-approver".to_owned() };
    addon::wait(&ready, &cluster, READY, ctx).await.map_err(|f| {
        let failure = f.causes.iter().fold(Failure::new(f.exit, doing).because(&f.doing), Failure::because);
        failure.hint("kubectl -n kube-system describe pod -l app.kubernetes.io/name=kubelet-csr-approver")
    })
}
