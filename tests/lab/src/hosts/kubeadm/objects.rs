//! The objects that kubeadm writes into a cluster.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::config::Config;
use super::pki;
use crate::hosts::{Hosts, Machine};

const SYSTEM: &str = "kube-system";

/// Stores the configuration that a later join reads.
pub fn configuration(hosts: &Hosts, id: &str, config: &Config) {
    let sans: String = match config.sans.as_slice() {
        [] => "apiServer: {}\n".into(),
        sans => format!(
            "apiServer:\n  certSANs:\n{}",
            sans.iter().map(|s| format!("  - {s}\n")).collect::<String>()
        ),
    };
    let extra = |component: &str, indent: &str| -> String {
        let args = config.extra.get(component).filter(|a| !a.is_empty());
        args.map_or(String::new(), |args| {
            let lines = args.iter().map(|(n, v)| format!("{indent}- name: {n}\n{indent}  value: {v}\n"));
            format!("{indent}extraArgs:\n{}", lines.collect::<String>())
        })
    };
    let part = |field: &str, component: &str| match extra(component, "  ") {
        none if none.is_empty() => format!("{field}: {{}}\n"),
        some => format!("{field}:\n{some}"),
    };
    let text = format!(
        "{sans}apiVersion: kubeadm.k8s.io/v1beta4\ncaCertificateValidityPeriod: 87600h0m0s\ncertificateValidityPeriod: 8760h0m0s\n\
         certificatesDir: /etc/kubernetes/pki\nclusterName: {}\ncontrolPlaneEndpoint: {}\n{manager}dns: {{}}\n\
         encryptionAlgorithm: RSA-2048\netcd:\n  local:\n    dataDir: /var/lib/etcd\n{etcd}imageRepository: {}\nkind: ClusterConfiguration\n\
         kubernetesVersion: {}\nnetworking:\n  dnsDomain: {}\n  podSubnet: {}\n  serviceSubnet: {}\nproxy: {{}}\n{scheduler}",
        config.cluster,
        config.endpoint,
        config.registry,
        config.version,
        config.domain,
        config.pod_subnet,
        config.service_subnet,
        manager = part("controllerManager", "kube-controller-manager"),
        etcd = extra("etcd", "    "),
        scheduler = part("scheduler", "kube-scheduler"),
    );
    hosts.kube().put(
        id,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubeadm-config", "namespace": SYSTEM},
            "data": {"ClusterConfiguration": text}}),
    );
    let kubelet = super::kubelet::configuration(config, &[]);
    hosts.kube().put(
        id,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubelet-config", "namespace": SYSTEM}, "data": {"kubelet": kubelet}}),
    );
}

/// Stores kube-proxy's configuration, as the add-on's phase does; annotations that others made there go.
pub fn proxy(hosts: &Hosts, id: &str, config: &Config) {
    let mut document = json!({"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "bindAddress": "0.0.0.0",
        "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf"}, "clusterCIDR": config.pod_subnet,
        "kind": "KubeProxyConfiguration", "mode": ""});
    for (name, value) in config.proxy.as_object().into_iter().flatten() {
        document[name.as_str()] = value.clone();
    }
    let text = serde_saphyr::to_string(&document).unwrap_or_default();
    hosts.kube().put(
        id,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-proxy", "namespace": SYSTEM},
            "data": {"config.conf": text}}),
    );
}

/// Reads the stored configuration again.
///
/// # Errors
/// kubeadm's text when it is not there.
pub fn read_configuration(hosts: &Hosts, id: &str) -> Result<Config, String> {
    let map = hosts.kube().get(id, "v1", "ConfigMap", Some(SYSTEM), "kubeadm-config");
    let text = map.as_ref().and_then(|m| m["data"]["ClusterConfiguration"].as_str());
    let text = text.ok_or("failed to get config map: configmaps \"kubeadm-config\" not found")?;
    let kubelet = hosts.kube().get(id, "v1", "ConfigMap", Some(SYSTEM), "kubelet-config");
    let kubelet = kubelet.as_ref().and_then(|m| m["data"]["kubelet"].as_str()).unwrap_or_default();
    let proxy = hosts.kube().get(id, "v1", "ConfigMap", Some(SYSTEM), "kube-proxy");
    let proxy = proxy.as_ref().and_then(|m| m["data"]["config.conf"].as_str()).unwrap_or_default();
    super::config::read(&format!("{text}---\n{kubelet}\n---\n{proxy}"))
}

/// Publishes where the cluster is and by which CA it is known.
pub fn cluster_info(hosts: &Hosts, id: &str, machine_ca: &str, server: &str) {
    let kubeconfig = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {server}\n  name: \"\"\ncontexts: null\n\
         current-context: \"\"\nkind: Config\nusers: null\n",
        STANDARD.encode(machine_ca)
    );
    hosts.kube().put(
        id,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster-info", "namespace": "kube-public"},
            "data": {"kubeconfig": kubeconfig}}),
    );
}

/// The detached signature of `cluster-info` by a token, as the bootstrap signer makes it.
pub fn signature(kubeconfig: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":\"{id}\"}}"));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(kubeconfig));
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(pki::hmac(secret.as_bytes(), signed.as_bytes())))
}

/// Signs `cluster-info` with all tokens that may sign and are not past their end.
pub fn sign_cluster_info(hosts: &Hosts, id: &str) {
    let Some(mut map) = hosts.kube().get(id, "v1", "ConfigMap", Some("kube-public"), "cluster-info") else {
        return;
    };
    let kubeconfig = map["data"]["kubeconfig"].as_str().unwrap_or_default().to_string();
    let mut data = Map::new();
    for token in tokens(hosts, id).iter().filter(|t| t.signs && !t.past()) {
        data.insert(
            format!("jws-kubeconfig-{}", token.id),
            json!(signature(&kubeconfig, &token.id, &token.secret)),
        );
    }
    data.insert("kubeconfig".into(), json!(kubeconfig));
    if map["data"] != Value::Object(data.clone()) {
        map["data"] = Value::Object(data);
        hosts.kube().put(id, map);
    }
}

/// A bootstrap token.
#[derive(Clone, Debug, Default)]
pub struct Token {
    /// The public part.
    pub id: String,
    /// The secret part.
    pub secret: String,
    /// Seconds since 1970 at which it ends; `None` never.
    pub expires: Option<i64>,
    /// True when it signs and authenticates.
    pub signs: bool,
    /// What it is for.
    pub description: String,
}

impl Token {
    /// True after its end.
    pub fn past(&self) -> bool {
        self.expires.is_some_and(|end| end <= OffsetDateTime::now_utc().unix_timestamp())
    }

    /// Its end as Kubernetes writes times.
    pub fn expiration(&self) -> Option<String> {
        OffsetDateTime::from_unix_timestamp(self.expires?).ok()?.format(&Rfc3339).ok()
    }
}

/// Stores a token.
pub fn put_token(hosts: &Hosts, id: &str, token: &Token) {
    let mut data = Map::new();
    let mut set = |key: &str, value: &str| data.insert(key.into(), json!(STANDARD.encode(value)));
    set("token-id", &token.id);
    set("token-secret", &token.secret);
    if let Some(end) = token.expiration() {
        set("expiration", &end);
    }
    if !token.description.is_empty() {
        set("description", &token.description);
    }
    if token.signs {
        set("usage-bootstrap-authentication", "true");
        set("usage-bootstrap-signing", "true");
        set("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token");
    }
    hosts.kube().put(
        id,
        json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": format!("bootstrap-token-{}", token.id), "namespace": SYSTEM}, "data": data}),
    );
}

/// The cluster's tokens, by their ids.
pub fn tokens(hosts: &Hosts, id: &str) -> Vec<Token> {
    let secrets = hosts.kube().list(id, "v1", "Secret");
    let mut found: Vec<Token> = secrets.iter().filter_map(token).collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

/// The token that a Secret holds.
pub fn token(secret: &Value) -> Option<Token> {
    secret["metadata"]["name"].as_str()?.strip_prefix("bootstrap-token-")?;
    let read = |key: &str| {
        let coded = secret["data"][key].as_str()?;
        String::from_utf8(STANDARD.decode(coded).ok()?).ok()
    };
    let expires =
        read("expiration").and_then(|e| OffsetDateTime::parse(&e, &Rfc3339).ok()).map(|t| t.unix_timestamp());
    Some(Token {
        id: read("token-id")?,
        secret: read("token-secret")?,
        expires,
        signs: read("usage-bootstrap-signing").is_some(),
        description: read("description").unwrap_or_default(),
    })
}

const SHARED: [(&str, &str); 8] = [
    ("ca.crt", "ca.crt"),
    ("ca.key", "ca.key"),
    ("etcd-ca.crt", "etcd/ca.crt"),
    ("etcd-ca.key", "etcd/ca.key"),
    ("front-proxy-ca.crt", "front-proxy-ca.crt"),
    ("front-proxy-ca.key", "front-proxy-ca.key"),
    ("sa.key", "sa.key"),
    ("sa.pub", "sa.pub"),
];

/// Uploads the shared certificates, sealed with a key, for two hours.
pub fn upload_certificates(hosts: &Hosts, id: &str, machine: &Machine, key: &str) {
    let mut data = Map::new();
    for (name, path) in SHARED {
        let content = machine.fs.text(&format!("{}/{path}", pki::DIR));
        data.insert(name.into(), json!(STANDARD.encode(pki::seal(key, content.as_bytes()))));
    }
    let end = OffsetDateTime::now_utc().unix_timestamp() + 7200;
    let (token_id, secret) = super::tokens::random_parts();
    let proxy = Token {
        id: token_id.clone(),
        secret,
        expires: Some(end),
        description: "Proxy for managing TTL for the kubeadm-certs secret".into(),
        ..Token::default()
    };
    put_token(hosts, id, &proxy);
    let owner = hosts.kube().get(id, "v1", "Secret", Some(SYSTEM), &format!("bootstrap-token-{token_id}"));
    let uid = owner.as_ref().map(|o| o["metadata"]["uid"].clone()).unwrap_or_default();
    let references = json!([{"apiVersion": "v1", "blockOwnerDeletion": true, "controller": true, "kind": "Secret",
        "name": format!("bootstrap-token-{token_id}"), "uid": uid.as_str().unwrap_or_default()}]);
    hosts.kube().put(
        id,
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "kubeadm-certs", "namespace": SYSTEM, "ownerReferences": references}, "data": data}),
    );
}

/// Fetches the shared certificates as path and content.
///
/// # Errors
/// kubeadm's text: gone or expired, or another key.
pub fn download_certificates(hosts: &Hosts, id: &str, key: &str) -> Result<Vec<(String, String)>, String> {
    let secret = hosts.kube().get(id, "v1", "Secret", Some(SYSTEM), "kubeadm-certs");
    let alive = |secret: &Value| {
        let owner = secret["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default();
        let proxy = tokens(hosts, id).into_iter().find(|t| format!("bootstrap-token-{}", t.id) == owner);
        proxy.is_some_and(|t| !t.past())
    };
    let Some(secret) = secret.filter(alive) else {
        return Err("error downloading certs: error downloading the secret: Secret \"kubeadm-certs\" was not found in the \"kube-system\" \
                    Namespace. This Secret might have expired. Please, run `kubeadm init phase upload-certs --upload-certs` on a control plane \
                    to generate a new one"
            .into());
    };
    let mut files = Vec::new();
    for (name, path) in SHARED {
        let sealed = secret["data"][name].as_str().and_then(|c| STANDARD.decode(c).ok()).unwrap_or_default();
        let Some(plain) = pki::open(key, &sealed) else {
            return Err("error downloading certs: error decoding secret data with provided key: cipher: message authentication failed".into());
        };
        files.push((format!("{}/{path}", pki::DIR), String::from_utf8_lossy(&plain).into_owned()));
    }
    Ok(files)
}
