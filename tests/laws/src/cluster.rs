//! A Kubernetes cluster of the lab for cases of the laws: its API at the shared address, nodes, artefacts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::kube::Kube;
use lab::kube::artefacts::Artefacts;
use lab::world::{ApiServer, Kubelet, Kubernetes as _, World};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::Case;
use crate::ssh::Site;

/// The lab's name of the cluster.
const ID: &str = "law";
/// The last octet of the shared address, where the API listens.
const VIP: u8 = 10;
const PORT: u16 = 6443;
/// The version of Kubernetes.
const VERSION: &str = "1.36.2";

/// Kinds that a run leaves objects of. Pods and what controllers make beside them follow from these.
const KINDS: [(&str, &str); 29] = [
    ("v1", "Namespace"),
    ("v1", "Node"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("v1", "PersistentVolume"),
    ("v1", "PersistentVolumeClaim"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "StatefulSet"),
    ("coordination.k8s.io/v1", "Lease"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "IngressClass"),
    ("policy/v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("apiregistration.k8s.io/v1", "APIService"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("operator.tigera.io/v1", "Installation"),
    ("crd.projectcalico.org/v1", "IPPool"),
    ("crd.projectcalico.org/v1", "FelixConfiguration"),
    ("crd.projectcalico.org/v1", "BGPConfiguration"),
    ("crd.projectcalico.org/v1", "BGPPeer"),
    ("crd.projectcalico.org/v1", "GlobalNetworkPolicy"),
    ("traefik.io/v1alpha1", "TLSOption"),
    ("cert-manager.io/v1", "ClusterIssuer"),
];

/// A cluster beside the machines of a [`Site`]; without pod network and nodes at first.
pub struct Cluster {
    /// Its objects.
    pub kube: Kube,
    /// The upstream artefacts.
    pub artefacts: Artefacts,
    world: Arc<World>,
}

impl Cluster {
    /// Starts the API, and writes `kubeconfig` into the operator's folder.
    ///
    /// # Errors
    /// No certificates, no port, or no answer within ten seconds.
    pub async fn start(site: &Site) -> io::Result<Cluster> {
        let world = site.world.clone();
        let address = SocketAddr::from((site.address(VIP), PORT));
        let authority = Authority::new()?;
        let (certificate, key) = authority.sign("kube-apiserver", None, &[address.ip().to_string()])?;
        let admin = authority.sign("kubernetes-admin", Some("kubeadm:cluster-admins"), &[])?;
        let kube = Kube::new(world.clone());
        kube.api_up(ApiServer {
            host: "cp-1".into(),
            listen: Some(address),
            certificate,
            key,
            client_ca: authority.pem.clone(),
            ca_key: String::new(),
            version: format!("v{VERSION}"),
            cluster_id: ID.into(),
        });
        kubeconfig(&site.dir.join("kubeconfig"), address, &authority.pem, &admin)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = tokio::net::TcpStream::connect(address).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let artefacts = Artefacts::start(world.clone()).await?;
        Ok(Cluster { kube, artefacts, world })
    }

    /// A kubelet comes up.
    pub fn node(&self, name: &str, address: Ipv4Addr, control_plane: bool) {
        let kubelet = Kubelet {
            name: name.into(),
            address: Some(address),
            version: format!("v{VERSION}"),
            control_plane,
            cores: 8,
            memory_mib: 16384,
            os_image: "Debian GNU/Linux 13 (trixie)".into(),
            ..Kubelet::default()
        };
        self.kube.kubelet_up(ID, kubelet);
    }

    /// A kubelet goes silent.
    pub fn silent(&self, name: &str) {
        self.kube.kubelet_down(ID, name);
    }

    /// An object.
    pub fn get(&self, api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Option<Value> {
        self.kube.get(ID, api_version, kind, namespace, name)
    }

    /// All objects of a kind.
    pub fn list(&self, api_version: &str, kind: &str) -> Vec<Value> {
        self.kube.list(ID, api_version, kind)
    }

    /// Writes an object as somebody else.
    pub fn put(&self, object: Value) {
        self.kube.put(ID, object);
    }

    /// Waits until a look at the cluster finds what is looked for.
    ///
    /// # Errors
    /// Not within 20 seconds.
    pub async fn until(&self, what: &str, found: impl Fn(&Cluster) -> bool) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !found(self) {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("waited for: {what}")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Plays a pod network that is there already: the nodes become ready.
    ///
    /// # Errors
    /// They do not.
    pub async fn network(&self) -> io::Result<()> {
        let labels = json!({"k8s-app": "calico-node"});
        self.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "calico-system"}}));
        self.put(json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "calico-node", "namespace": "calico-system"},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                "hostNetwork": true, "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "calico-node", "image": "quay.io/calico/node:v3.32.1"}]}}}}));
        self.until("ready nodes", |cluster| {
            let nodes = cluster.list("v1", "Node");
            let ready = |node: &Value| {
                let all = node["status"]["conditions"].as_array().into_iter().flatten();
                all.clone().any(|c| c["type"] == "Ready" && c["status"] == "True")
            };
            !nodes.is_empty() && nodes.iter().all(ready)
        })
        .await
    }

    /// `spec.vip` with the API's address.
    pub fn vip(&self) -> Value {
        json!({"address": self.world.net.host(VIP), "routerId": 30, "ports": {"api": PORT}})
    }

    /// `spec.kubernetes`.
    pub fn kubernetes(&self) -> Value {
        json!({"version": VERSION, "podCidr": "10.244.0.0/16", "serviceCidr": "10.96.0.0/12", "kubeconfig": "kubeconfig"})
    }

    /// `spec.artifacts`: the lab's own, under the names that tools know.
    pub fn artifacts(&self) -> Value {
        let all = self.artefacts.all().iter().map(|(file, artefact)| {
            let name = file.trim_end_matches(".yaml");
            json!({"name": name, "url": artefact.url, "sha256": artefact.sha256})
        });
        all.collect()
    }

    /// A case whose world is this cluster beside the site's machines.
    pub fn case(self, site: Site, spec: Value) -> Case {
        let mut case = site.case(spec);
        let cluster = Arc::new(self);
        let machines = std::mem::replace(&mut case.picture, Box::new(String::new));
        let seen = cluster.clone();
        case.picture = Box::new(move || machines() + &picture(&seen));
        case.same.push((cluster.artefacts.address().to_string(), "ARTEFACTS".to_owned()));
        case.keep = Box::new((std::mem::replace(&mut case.keep, Box::new(())), cluster));
        case
    }
}

/// All objects as they are wanted: no status, nothing that the server or chance decides.
fn picture(cluster: &Cluster) -> String {
    let mut text = String::new();
    for (api_version, kind) in KINDS {
        for mut object in cluster.list(api_version, kind) {
            if is_of_chance(&object) {
                continue;
            }
            plain(&mut object);
            text.push_str(&format!("{object}\n"));
        }
    }
    text
}

/// What holds this world's CA, and the kubelets' heartbeats.
fn is_of_chance(object: &Value) -> bool {
    let (kind, metadata) = (&object["kind"], &object["metadata"]);
    (kind == "ConfigMap" && (metadata["name"] == "kube-root-ca.crt" || metadata["name"] == "cluster-info"))
        || (kind == "Lease" && metadata["namespace"] == "kube-node-lease")
}

fn plain(object: &mut Value) {
    let secret = object["kind"] == "Secret";
    let Some(map) = object.as_object_mut() else { return };
    map.remove("status");
    if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
        for chance in
            ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "ownerReferences"]
        {
            metadata.remove(chance);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|name, _| !name.starts_with("deployment.kubernetes.io/"));
        }
    }
    if let Some(data) = map.get_mut("data").and_then(Value::as_object_mut).filter(|_| secret) {
        data.values_mut().for_each(|value| *value = "(hidden)".into());
    }
    for name in ["clusterIP", "clusterIPs", "claimRef", "podCIDR", "podCIDRs"] {
        if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove(name);
        }
    }
    for hook in map.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        hook["clientConfig"]["caBundle"] = "(chance)".into();
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> io::Result<Authority> {
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(io::Error::other)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let pem = params.self_signed(&key).map_err(io::Error::other)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    fn sign(&self, name: &str, organisation: Option<&str>, hosts: &[String]) -> io::Result<(String, String)> {
        let mut params = CertificateParams::new(hosts.to_vec()).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(organisation) = organisation {
            params.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn kubeconfig(path: &Path, server: SocketAddr, ca: &str, admin: &(String, String)) -> io::Result<()> {
    let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "law",
        "clusters": [{"name": "law", "cluster": {"server": format!("https://{server}"), "certificate-authority-data": STANDARD.encode(ca)}}],
        "contexts": [{"name": "law", "context": {"cluster": "law", "user": "admin"}}],
        "users": [{"name": "admin", "user": {"client-certificate-data": STANDARD.encode(&admin.0), "client-key-data": STANDARD.encode(&admin.1)}}]});
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.to_string().as_bytes())
}
