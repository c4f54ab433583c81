//! `check --probe`: a pod on each node asks for every other one, for DNS and for the API.
//!
//! The pods run agnhost's netexec, and are asked through the API server's own way to a pod: whoever may use the API can probe.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use addon::Cluster;
use futures::stream::{self, StreamExt as _};
use kube_apply::{Object, ObjectId, Wait};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stage::{Ctx, Failure};

/// What serves and asks in the pods (kubernetes/test/images/agnhost).
pub(crate) const IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.53";
/// The namespace of the probe, and what is in it.
pub(crate) const NAME: &str = "kubeline-probe";
const PORT: u16 = 8080;
/// How long the pods may take: their image comes over the network.
const READY: Duration = Duration::from_secs(180);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(15);
const GONE: Duration = Duration::from_secs(120);

/// What one node's pod reaches; nothing where all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Row {
    /// Why no pod of the probe runs there.
    pub silent: Option<String>,
    /// Nodes whose pods it does not reach, and why.
    pub pods: BTreeMap<String, String>,
    /// Why a name is not found.
    pub dns: Option<String>,
    /// Why the API is not reached.
    pub api: Option<String>,
}

/// The rows by node.
pub type Table = BTreeMap<String, Row>;

/// Makes the pods, asks them, and removes them again.
///
/// # Errors
/// Exit 4 or 5 when the API refuses or fails; what does not reach what is no error but what is found.
pub(crate) async fn run(cluster: &Cluster, image: &str, domain: &str, ctx: &Ctx) -> Result<Table, Failure> {
    let fail = |error| addon::failure("cannot probe the pod network", &error);
    let made = make(cluster, image).await.map_err(fail);
    let table = match made {
        Ok(()) => ask_all(cluster, domain, ctx).await.map_err(fail),
        Err(failure) => Err(failure),
    };
    // Also after a failure: nothing of the probe stays.
    let namespace = ObjectId::new("v1", "Namespace", None, NAME);
    cluster.delete(&namespace).await.map_err(fail)?;
    cluster.wait(&Wait::Gone { id: namespace }, GONE, |reason| ctx.waiting(reason)).await.map_err(fail)?;
    table
}

async fn make(cluster: &Cluster, image: &str) -> Result<(), kube_apply::Error> {
    let labels = json!({"app.kubernetes.io/name": NAME, "app.kubernetes.io/managed-by": "kubeline"});
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME, "labels": labels}});
    let pods = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": NAME, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": NAME}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 0,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{
                        "name": "netexec",
                        "image": image,
                        "args": ["netexec", format!("--http-port={PORT}")],
                        "ports": [{"name": "http", "containerPort": PORT}],
                        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                        "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 65534,
                            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
                    }],
                },
            },
        },
    });
    for value in [namespace, pods] {
        let object = Object::new(value)
            .map_err(|why| kube_apply::Error::Manifest { source_name: "probe".into(), why })?;
        cluster.apply_object(&object).await?;
    }
    Ok(())
}

/// A pod of the probe.
struct Pod {
    node: String,
    name: String,
    address: String,
}

async fn ask_all(cluster: &Cluster, domain: &str, ctx: &Ctx) -> Result<Table, kube_apply::Error> {
    let wait = Wait::DaemonSet { namespace: NAME.into(), name: NAME.into() };
    match cluster.wait(&wait, READY, |reason| ctx.waiting(reason)).await {
        // Those that run are asked all the same.
        Ok(()) | Err(kube_apply::Error::NotReady { .. }) => {}
        Err(error) => return Err(error),
    }
    let (nodes, pods) = futures::try_join!(
        cluster.list("v1", "Node", None, None),
        cluster.list("v1", "Pod", Some(NAME), None),
    )?;
    let pods: Vec<Pod> = pods.iter().filter_map(running).collect();
    let mut table: Table = nodes.iter().map(|node| (text(node, "/metadata/name"), Row::default())).collect();
    for (node, row) in &mut table {
        if !pods.iter().any(|pod| pod.node == *node) {
            row.silent = Some("no pod of the probe runs there".to_owned());
        }
    }
    ctx.waiting(format!("{} pods to ask each other", pods.len()));
    let mut questions = Vec::new();
    for pod in &pods {
        for other in pods.iter().filter(|other| other.node != pod.node) {
            questions.push((pod, Some(other)));
        }
        questions.push((pod, None));
    }
    // Owned before the stream: a closure over borrowed pods is not general enough for a `Send` future.
    let mut asked = Vec::new();
    for (pod, other) in questions {
        let host =
            other.map_or_else(|| format!("kubernetes.default.svc.{domain}"), |other| other.address.clone());
        let port = if other.is_some() { PORT } else { 443 };
        let (from, to) = (pod.node.clone(), other.map(|other| other.node.clone()));
        let (cluster, name) = (cluster.clone(), pod.name.clone());
        asked.push(async move { (from, to, dial(&cluster, &name, &host, port).await) });
    }
    let answers: Vec<_> = stream::iter(asked).buffer_unordered(ctx.jobs()).collect().await;
    for (from, to, answer) in answers {
        let Some(row) = table.get_mut(&from) else { continue };
        match (to, answer) {
            (_, Dialled::Reached) => {}
            (Some(to), Dialled::NotFound(why) | Dialled::Failed(why)) => drop(row.pods.insert(to, why)),
            (None, Dialled::NotFound(why)) => row.dns = Some(why),
            (None, Dialled::Failed(why)) => row.api = Some(why),
        }
    }
    Ok(table)
}

fn running(pod: &Value) -> Option<Pod> {
    let address = text(pod, "/status/podIP");
    let runs = text(pod, "/status/phase") == "Running" && !address.is_empty();
    runs.then(|| Pod { node: text(pod, "/spec/nodeName"), name: text(pod, "/metadata/name"), address })
}

enum Dialled {
    Reached,
    /// The name has no address.
    NotFound(String),
    Failed(String),
}

/// Has a pod dial. netexec answers 200 when it reached the other end, 417 when not, 400 when the name has no address.
async fn dial(cluster: &Cluster, pod: &str, host: &str, port: u16) -> Dialled {
    let path = format!(
        "/api/v1/namespaces/{NAME}/pods/{pod}:{PORT}/proxy/dial?host={host}&port={port}&request=hostname&protocol=http&tries=1"
    );
    let asked = async {
        let request =
            http::Request::get(path).body(kube::client::Body::empty()).map_err(|e| e.to_string())?;
        let answer = cluster.client().send(request).await.map_err(|e| e.to_string())?;
        let code = answer.status().as_u16();
        let body = answer.into_body().collect_bytes().await.map_err(|e| e.to_string())?;
        Ok::<_, String>((code, String::from_utf8_lossy(&body).trim().to_owned()))
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok((200, _))) => Dialled::Reached,
        Ok(Ok((400, body))) => Dialled::NotFound(body),
        Ok(Ok((417, body))) => Dialled::Failed(reason(&body)),
        Ok(Ok((code, body))) => {
            Dialled::Failed(format!("the API server answered {code} for its pod: {body}"))
        }
        Ok(Err(why)) => Dialled::Failed(why),
        Err(_) => Dialled::Failed(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// The first of netexec's `errors`.
fn reason(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    value.pointer("/errors/0").and_then(Value::as_str).unwrap_or(body).to_owned()
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The rows as a person reads them: from each node, `ok` or `-` to each other one, to DNS and to the API.
pub(crate) fn shown(table: &Table) -> String {
    let width = table.keys().map(String::len).max().unwrap_or(0).max("from \\ to".len());
    let mut out = format!("{:width$}", "from \\ to");
    for name in table.keys().map(String::as_str).chain(["DNS", "API"]) {
        let _ = write!(out, "  {name}");
    }
    for (from, row) in table {
        let _ = write!(out, "\n{from:width$}");
        let mark = |good: bool| if good { "ok" } else { "-" };
        for to in table.keys() {
            let cell = if to == from {
                "."
            } else {
                mark(row.silent.is_none() && !row.pods.contains_key(to) && table[to].silent.is_none())
            };
            let _ = write!(out, "  {cell:w$}", w = to.len());
        }
        for lacks in [&row.dns, &row.api] {
            let _ = write!(out, "  {:3}", mark(row.silent.is_none() && lacks.is_none()));
        }
    }
    out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_does_not_reach_what() {
        let lacks = |to: &str| BTreeMap::from([(to.to_owned(), "timeout".to_owned())]);
        let table = Table::from([
            ("cp-1".to_owned(), Row::default()),
            (
                "w-1".to_owned(),
                Row { pods: lacks("cp-1"), dns: Some("no such host".into()), ..Row::default() },
            ),
            ("w-2".to_owned(), Row { silent: Some("no pod".into()), ..Row::default() }),
        ]);
        let wanted = "\
from \\ to  cp-1  w-1  w-2  DNS  API
cp-1       .     ok   -    ok   ok
w-1        -     .    -    -    ok
w-2        -     -    .    -    -";
        assert_eq!(shown(&table), wanted);
    }
}
