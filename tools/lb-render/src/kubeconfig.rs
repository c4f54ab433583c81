//! The cluster's CA, out of the kubeconfig that kadm-bootstrap writes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster_doc::FilePath;
use serde::Deserialize;
use stage::{Failure, Site};

#[derive(Deserialize)]
struct Kubeconfig {
    #[serde(rename = "current-context", default)]
    current: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(rename = "certificate-authority-data")]
    ca: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
}

/// The CA's certificate (PEM); `None` while there is no such file.
///
/// # Errors
/// Exit 4 when the file is there and cannot be used: a mistake must not switch verification off.
pub fn ca(path: &FilePath, site: &Site) -> Result<Option<String>, Failure> {
    if matches!(site.path(path).try_exists(), Ok(false)) {
        return Ok(None);
    }
    let text = site.secret("the kubeconfig (spec.kubernetes.kubeconfig)", path)?;
    let wrong = |why: String| {
        Failure::precondition(format!("cannot take the cluster's CA from {path}"))
            .because(why)
            .hint("kadm-bootstrap writes this file; move a foreign one away")
    };
    // The parser's own words may quote the file, which holds keys.
    let parsed: Kubeconfig =
        serde_saphyr::from_str(&text).map_err(|_| wrong("it is no kubeconfig".to_owned()))?;
    let context =
        parsed.contexts.iter().find(|c| c.name == parsed.current).map(|c| c.context.cluster.clone());
    let cluster = match &context {
        Some(name) => parsed.clusters.iter().find(|c| c.name == *name),
        None => parsed.clusters.first(),
    };
    let data = cluster.and_then(|c| c.cluster.ca.as_deref());
    let data = data.ok_or_else(|| wrong("it has no certificate-authority-data".to_owned()))?;
    let pem = STANDARD.decode(data.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pem = pem.filter(|pem| pem.contains("-----BEGIN CERTIFICATE-----") && !pem.contains("PRIVATE KEY"));
    pem.map(Some).ok_or_else(|| wrong("its certificate-authority-data is no certificate".to_owned()))
}
