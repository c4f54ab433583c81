//! Small stand-ins for upstream artefacts, of the same shapes, and the HTTP server that hands them out.
//!
//! They are the lab's own text: CRDs with open schemas, namespaces, accounts, and Deployments under the names that
//! the upstream files use, so that a tool that fetches, verifies, applies and waits does all of that for real.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::journal::Window;
use crate::world::Shared;

fn yaml(documents: &[Value]) -> String {
    // JSON is YAML; one document a line keeps them easy to read and to check.
    documents.iter().map(|d| format!("---\n{d}\n")).collect()
}

/// The documents of a manifest that this module made.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn crd(group: &str, version: &str, plural: &str, kind: &str, scope: &str, status: bool) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut served = json!({"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema":
        {"type": "object", "properties": {"spec": open, "status": open}, "x-kubernetes-preserve-unknown-fields": true}}});
    if status {
        served["subresources"] = json!({"status": {}});
        served["additionalPrinterColumns"] = json!([
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]);
    }
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": scope, "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural,
            "singular": kind.to_lowercase()}, "versions": [served]}})
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn account(ns: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": ns}})
}

fn admin_role(name: &str, ns: &str) -> [Value; 2] {
    [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": ns}]}),
    ]
}

fn deployment(ns: &str, name: &str, image: &str, pod: Value) -> Value {
    let mut spec = json!({"serviceAccountName": name, "containers": [{"name": name, "image": image}]});
    for (key, value) in pod.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let labels = json!({"app.kubernetes.io/name": name});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": ns, "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}})
}

/// The CRDs of the operator's own kinds.
pub(crate) fn operator_crds() -> String {
    yaml(&[
        crd("operator.tigera.io", "v1", "installations", "Installation", "Cluster", true),
        crd("operator.tigera.io", "v1", "tigerastatuses", "TigeraStatus", "Cluster", true),
        crd("operator.tigera.io", "v1", "apiservers", "APIServer", "Cluster", true),
    ])
}

/// The CRDs of Calico's own kinds.
pub(crate) fn calico_crds() -> String {
    let group = "crd.projectcalico.org";
    yaml(&[
        crd(group, "v1", "ippools", "IPPool", "Cluster", true),
        crd(group, "v1", "felixconfigurations", "FelixConfiguration", "Cluster", false),
        crd(group, "v1", "bgpconfigurations", "BGPConfiguration", "Cluster", false),
        crd(group, "v1", "bgppeers", "BGPPeer", "Cluster", false),
        crd(group, "v1", "globalnetworkpolicies", "GlobalNetworkPolicy", "Cluster", false),
        crd(group, "v1", "globalnetworksets", "GlobalNetworkSet", "Cluster", false),
        crd(group, "v1", "networkpolicies", "NetworkPolicy", "Namespaced", false),
        crd(group, "v1", "tiers", "Tier", "Cluster", false),
    ])
}

/// `tigera-operator.yaml`: CRDs, namespace, account, RBAC, Deployment.
pub fn tigera_operator() -> String {
    let ns = "tigera-operator";
    let mut all = vec![namespace(ns), account(ns, ns)];
    all.extend(admin_role(ns, ns));
    all.push(deployment(
        ns,
        ns,
        "quay.io/tigera/operator:v1.42.3",
        json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet", "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"effect": "NoExecute", "operator": "Exists"}, {"effect": "NoSchedule", "operator": "Exists"}]}),
    ));
    format!("{}{}", operator_crds(), yaml(&all))
}

/// `calico.yaml` (BGP) and `calico-vxlan.yaml`: CRDs, accounts, ConfigMap, DaemonSet and Deployment in kube-system, with
/// the places that installers change.
pub fn calico(vxlan: bool) -> String {
    let ns = "kube-system";
    let mut all = vec![account(ns, "calico-node"), account(ns, "calico-kube-controllers")];
    all.extend(admin_role("calico-node", ns));
    let backend = if vxlan { "vxlan" } else { "bird" };
    all.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "calico-config", "namespace": ns},
        "data": {"typha_service_name": "none", "calico_backend": backend, "veth_mtu": "0",
            "cni_network_config": "{\n  \"name\": \"k8s-pod-network\"\n}"}}));
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let (ipip, over_vxlan) = if vxlan { ("Never", "Always") } else { ("Always", "Never") };
    let env = [
        variable("DATASTORE_TYPE", "kubernetes"),
        json!({"name": "CALICO_NETWORKING_BACKEND", "valueFrom": {"configMapKeyRef": {"name": "calico-config", "key": "calico_backend"}}}),
        variable("IP", "autodetect"),
        variable("CALICO_IPV4POOL_IPIP", ipip),
        variable("CALICO_IPV4POOL_VXLAN", over_vxlan),
        variable("CALICO_IPV6POOL_VXLAN", "Never"),
        variable("FELIX_IPV6SUPPORT", "false"),
    ];
    let endpoint = json!([{"configMapRef": {"name": "kubernetes-services-endpoint", "optional": true}}]);
    let labels = json!({"k8s-app": "calico-node"});
    all.push(json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "calico-node", "namespace": ns, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "hostNetwork": true, "serviceAccountName": "calico-node", "priorityClassName": "system-node-critical",
            "tolerations": [{"effect": "NoSchedule", "operator": "Exists"}, {"effect": "NoExecute", "operator": "Exists"}],
            "initContainers": [{"name": "install-cni", "image": "quay.io/calico/cni:v3.32.1", "envFrom": endpoint}],
            "containers": [{"name": "calico-node", "image": "quay.io/calico/node:v3.32.1", "envFrom": endpoint, "env": env}]}}}}));
    all.push(deployment(ns, "calico-kube-controllers", "quay.io/calico/kube-controllers:v3.32.1", json!({})));
    format!("{}{}", calico_crds(), yaml(&all))
}

/// Traefik's CRDs.
pub fn traefik_crds() -> String {
    let kinds = [
        ("ingressroutes", "IngressRoute"),
        ("ingressroutetcps", "IngressRouteTCP"),
        ("ingressrouteudps", "IngressRouteUDP"),
        ("middlewares", "Middleware"),
        ("middlewaretcps", "MiddlewareTCP"),
        ("serverstransports", "ServersTransport"),
        ("serverstransporttcps", "ServersTransportTCP"),
        ("tlsoptions", "TLSOption"),
        ("tlsstores", "TLSStore"),
        ("traefikservices", "TraefikService"),
    ];
    let all: Vec<Value> = kinds
        .iter()
        .map(|(plural, kind)| crd("traefik.io", "v1alpha1", plural, kind, "Namespaced", false))
        .collect();
    yaml(&all)
}

/// `cert-manager.yaml`: CRDs, namespace, accounts, RBAC, three Deployments, Services, webhook configurations.
pub fn cert_manager() -> String {
    let ns = "cert-manager";
    let group = "cert-manager.io";
    let mut all = vec![
        namespace(ns),
        crd(group, "v1", "certificates", "Certificate", "Namespaced", true),
        crd(group, "v1", "certificaterequests", "CertificateRequest", "Namespaced", true),
        crd(group, "v1", "issuers", "Issuer", "Namespaced", true),
        crd(group, "v1", "clusterissuers", "ClusterIssuer", "Cluster", true),
        crd("acme.cert-manager.io", "v1", "orders", "Order", "Namespaced", true),
        crd("acme.cert-manager.io", "v1", "challenges", "Challenge", "Namespaced", true),
    ];
    for (name, image) in [
        ("cert-manager", "controller"),
        ("cert-manager-webhook", "webhook"),
        ("cert-manager-cainjector", "cainjector"),
    ] {
        all.push(account(ns, name));
        all.extend(admin_role(name, ns));
        all.push(deployment(ns, name, &format!("quay.io/jetstack/cert-manager-{image}:v1.21.1"), json!({})));
    }
    let labels = json!({"app.kubernetes.io/name": "cert-manager-webhook"});
    all.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cert-manager-webhook", "namespace": ns},
        "spec": {"selector": labels, "ports": [{"name": "https", "port": 443, "targetPort": 10250}]}}));
    for (kind, path) in
        [("ValidatingWebhookConfiguration", "/validate"), ("MutatingWebhookConfiguration", "/mutate")]
    {
        all.push(json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "cert-manager-webhook",
            "annotations": {"cert-manager.io/inject-ca-from-secret": "cert-manager/cert-manager-webhook-ca"}},
            "webhooks": [{"name": "webhook.cert-manager.io", "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 30,
                "clientConfig": {"service": {"name": "cert-manager-webhook", "namespace": ns, "path": path}},
                "rules": [{"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["*/*"]}]}]}));
    }
    yaml(&all)
}

/// One artefact as it is served.
#[derive(Clone, Debug)]
pub struct Artefact {
    /// Where it can be fetched.
    pub url: String,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its text.
    pub text: String,
}

/// The HTTP server of artefacts: plain HTTP on a loopback address, `GET /NAME`.
#[derive(Debug)]
pub struct Artefacts {
    address: SocketAddr,
    all: BTreeMap<String, Artefact>,
    _stop: DropGuard,
}

#[derive(Clone)]
struct Served {
    world: Shared,
    texts: Arc<BTreeMap<String, String>>,
}

impl Artefacts {
    /// Serves the artefacts of this module on a free port of 127.0.0.1, as long as the value lives.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(world: Shared) -> io::Result<Artefacts> {
        let texts = BTreeMap::from([
            ("tigera-operator.yaml".to_owned(), tigera_operator()),
            ("calico.yaml".to_owned(), calico(false)),
            ("calico-vxlan.yaml".to_owned(), calico(true)),
            ("traefik-crds.yaml".to_owned(), traefik_crds()),
            ("cert-manager.yaml".to_owned(), cert_manager()),
        ]);
        Artefacts::serve(world, texts).await
    }

    /// Serves these texts by name.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn serve(world: Shared, texts: BTreeMap<String, String>) -> io::Result<Artefacts> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let all = texts
            .iter()
            .map(|(name, text)| {
                let sha256 = Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect();
                (
                    name.clone(),
                    Artefact { url: format!("http://{address}/{name}"), sha256, text: text.clone() },
                )
            })
            .collect();
        let served = Served { world, texts: Arc::new(texts) };
        let app = axum::Router::new().route("/{name}", axum::routing::get(fetch)).with_state(served);
        let stop = CancellationToken::new();
        let over = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                ended = axum::serve(listener, app) => tracing::error!(?ended, "the server of artefacts ended"),
            }
        });
        Ok(Artefacts { address, all, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One artefact by name, such as `tigera-operator.yaml`.
    pub fn get(&self, name: &str) -> Option<&Artefact> {
        self.all.get(name)
    }

    /// All artefacts by name.
    pub fn all(&self) -> &BTreeMap<String, Artefact> {
        &self.all
    }
}

async fn fetch(State(served): State<Served>, Path(name): Path<String>) -> Result<Body, (StatusCode, String)> {
    use crate::faults::Action;
    let line = format!("GET /{name}");
    served.world.journal.record(Window::Artefacts, "artefacts", &line, false);
    match served.world.faults.take(Window::Artefacts, "artefacts", &line) {
        Some(Action::Status(code, text) | Action::StatusAfter(code, text)) => {
            return Err((StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY), text));
        }
        Some(Action::Delay(nominal)) => served.world.clock.wait(nominal).await,
        Some(Action::Hang) => std::future::pending().await,
        // A body that fails closes the connection before it is complete.
        Some(Action::DropBefore | Action::DropAfter) => {
            let broken = io::Error::from(io::ErrorKind::ConnectionReset);
            return Ok(Body::from_stream(futures::stream::once(async { Err::<String, _>(broken) })));
        }
        _ => {}
    }
    match served.texts.get(&name) {
        Some(text) => Ok(Body::from(text.clone())),
        None => {
            served.world.journal.record_unknown(Window::Artefacts, "artefacts", &line);
            Err((StatusCode::NOT_FOUND, format!("no artefact {name}\n")))
        }
    }
}
