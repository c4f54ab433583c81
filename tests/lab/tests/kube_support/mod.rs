//! A cluster of one or more control planes with certificates, and a client for it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests; each file uses a part"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::kube::Kube;
use lab::world::{ApiServer, Kubelet, Kubernetes, World};
use lab::{Clock, Faults, Journal, Subnet};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;

pub struct Lab {
    pub world: Arc<World>,
    pub kube: Kube,
    pub at: SocketAddr,
    pub ca: String,
    pub admin: (String, String),
    pub client: reqwest::Client,
    pub nobody: reqwest::Client,
    pub dir: tempfile::TempDir,
    server: ApiServer,
}

fn issue(issuer: &Issuer<'_, KeyPair>, cn: &str, o: Option<&str>, names: &[String]) -> (String, String) {
    let mut params = CertificateParams::new(names.to_vec()).unwrap();
    params.distinguished_name.push(DnType::CommonName, cn);
    if let Some(o) = o {
        params.distinguished_name.push(DnType::OrganizationName, o);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

impl Lab {
    pub async fn start() -> Lab {
        let _ = tracing_subscriber::fmt().with_env_filter("lab=error").with_test_writer().try_init();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let net = Subnet::claim().unwrap();
        let at = SocketAddr::from((net.host(21), 6443));
        let dir = tempfile::tempdir().unwrap();
        let world = Arc::new(World {
            clock: Clock::ZERO,
            journal: Journal::default(),
            faults: Faults::default(),
            net,
            dir: dir.path().to_owned(),
        });
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let names: Vec<String> = (21..=23).map(|n| world.net.host(n).to_string()).collect();
        let (certificate, key) = issue(&issuer, "kube-apiserver", None, &names);
        let admin = issue(&issuer, "kubernetes-admin", Some("kubeadm:cluster-admins"), &[]);
        let server = ApiServer {
            host: "cp1".into(),
            listen: Some(at),
            certificate,
            key,
            client_ca: ca.clone(),
            ca_key: String::new(),
            version: "v1.36.2".into(),
            cluster_id: "test".into(),
        };
        let kube = Kube::new(world.clone());
        kube.api_up(server.clone());
        let root = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
        let build = || reqwest::Client::builder().tls_certs_only([root.clone()]).no_proxy();
        let pem = format!("{}{}", admin.0, admin.1);
        let client = build().identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap()).build().unwrap();
        let nobody = build().build().unwrap();
        let lab = Lab { world, kube, at, ca, admin, client, nobody, dir, server };
        lab.until("the API answers", async || lab.nobody.get(lab.url("/readyz")).send().await.is_ok()).await;
        lab
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.at)
    }

    pub fn api_up(&self) {
        self.kube.api_up(self.server.clone());
    }

    pub fn node(&self, name: &str, last: u8, control_plane: bool) {
        self.kube.kubelet_up(
            "test",
            Kubelet {
                name: name.into(),
                address: Some(self.world.net.host(last)),
                version: "v1.36.2".into(),
                control_plane,
                cores: 4,
                memory_mib: 8192,
                os_image: "Debian GNU/Linux 13 (trixie)".into(),
                ..Kubelet::default()
            },
        );
    }

    pub fn get(&self, api_version: &str, kind: &str, ns: &str, name: &str) -> Value {
        let ns = (!ns.is_empty()).then_some(ns);
        self.kube.get("test", api_version, kind, ns, name).unwrap_or_default()
    }

    pub async fn until(&self, what: &str, check: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while !check().await {
            assert!(start.elapsed() < Duration::from_secs(20), "waited for: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn request(&self, method: &str, path: &str, kind: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request =
            self.client.request(method.parse().unwrap(), self.url(path)).header("Accept", "application/json");
        if let Some(body) = body {
            request = request.header("Content-Type", kind).body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let code = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Server-side apply of one object, by force, as manager `test`.
    pub async fn apply(&self, object: &Value) -> (u16, Value) {
        let path = path_of(object);
        self.request(
            "PATCH",
            &format!("{path}?fieldManager=test&force=true"),
            "application/apply-patch+yaml",
            Some(object),
        )
        .await
    }

    pub fn kubeconfig(&self) -> PathBuf {
        use base64::Engine as _;
        let b64 = |t: &str| base64::engine::general_purpose::STANDARD.encode(t);
        let text = serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": format!("https://{}", self.at), "certificate-authority-data": b64(&self.ca)}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}],
            "users": [{"name": "admin", "user": {"client-certificate-data": b64(&self.admin.0), "client-key-data": b64(&self.admin.1)}}]});
        let path = self.dir.path().join("kubeconfig");
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }
}

pub fn path_of(object: &Value) -> String {
    let version = object["apiVersion"].as_str().unwrap();
    let kind = object["kind"].as_str().unwrap().to_lowercase();
    let plural = match kind.as_str() {
        "storageclass" | "ingressclass" => format!("{kind}es"),
        _ => format!("{kind}s"),
    };
    let base = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let name = object["metadata"]["name"].as_str().unwrap();
    match object["metadata"]["namespace"].as_str() {
        Some(ns) => format!("{base}/namespaces/{ns}/{plural}/{name}"),
        None => format!("{base}/{plural}/{name}"),
    }
}

/// The folder of recorded facts, where it is present.
pub fn facts() -> Option<PathBuf> {
    let found = std::env::var_os("KUBELINE_FACTS").map(PathBuf::from).or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|a| a.join("shared/facts"))
            .find(|p| p.is_dir())
    });
    if found.is_none() {
        eprintln!(
            "skipped: there is no folder shared/facts beside the workspace, and KUBELINE_FACTS is not set"
        );
    }
    found
}
