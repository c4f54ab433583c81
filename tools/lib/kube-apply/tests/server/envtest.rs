//! A real API server: `etcd` and `kube-apiserver` from `KUBEBUILDER_ASSETS`, as envtest of controller-runtime starts them.
//!
//! No controllers run beside it.

use super::certificates::Authority;
use super::{Server, kubeconfig};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that ends with its value.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(program: &Path, folder: &Path, arguments: &[String]) -> Running {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let child =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    Running(child.unwrap_or_else(|error| panic!("{}: {error}", program.display())))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts one and waits until it says that it is ready.
pub async fn start(assets: &Path) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());

    let authority = Authority::new();
    let (server_pem, server_key) = authority.sign("kube-apiserver", "kubeline", &["localhost", "127.0.0.1"]);
    let (client_pem, client_key) = authority.sign("test", "system:masters", &[]);
    let (accounts_pem, accounts_key) = authority.sign("accounts", "kubeline", &[]);
    let files = [
        ("ca", &authority.pem),
        ("server", &server_pem),
        ("key", &server_key),
        ("accounts", &accounts_pem),
        ("accounts-key", &accounts_key),
    ];
    for (name, text) in files {
        std::fs::write(at(name), text).unwrap();
    }
    for name in ["etcd", "api"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    let path = |name: &str| at(name).display().to_string();
    let etcd_url = format!("http://127.0.0.1:{etcd_port}");
    let etcd = run(
        &assets.join("etcd"),
        &at("etcd"),
        &[
            format!("--data-dir={}", at("etcd").join("data").display()),
            format!("--listen-client-urls={etcd_url}"),
            format!("--advertise-client-urls={etcd_url}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
            "--unsafe-no-fsync".to_owned(),
        ],
    );
    let api = run(
        &assets.join("kube-apiserver"),
        &at("api"),
        &[
            format!("--etcd-servers={etcd_url}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--client-ca-file={}", path("ca")),
            format!("--tls-cert-file={}", path("server")),
            format!("--tls-private-key-file={}", path("key")),
            // It reads a public key out of a certificate, and not out of a private key in PKCS #8 form (client-go, keyutil).
            format!("--service-account-key-file={}", path("accounts")),
            format!("--service-account-signing-key-file={}", path("accounts-key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--allow-privileged=true".to_owned(),
        ],
    );
    let url = format!("https://127.0.0.1:{port}");
    let kubeconfig = kubeconfig(folder.path(), &url, Some((&authority.pem, &client_pem, &client_key)));
    let mut api = api;
    until_ready(&kubeconfig, &mut api, &at("api").join("log")).await;
    let kept: Vec<Box<dyn std::any::Any + Send + Sync>> =
        vec![Box::new(api), Box::new(etcd), Box::new(folder)];
    Server { name: "kube-apiserver", kubeconfig, controllers: false, lab: None, _kept: kept }
}

/// The default namespace is made last, when the server's own start is done.
async fn until_ready(kubeconfig: &Path, api: &mut Running, log: &Path) {
    let until = Instant::now() + Duration::from_secs(60);
    let cluster = kube_apply::Cluster::connect(kubeconfig, "start").await.unwrap();
    loop {
        let found =
            cluster.clone().patience(Duration::from_secs(1)).get("v1", "Namespace", None, "default").await;
        if let Ok(Some(_)) = found {
            return;
        }
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        let ended = api.0.try_wait().unwrap();
        assert!(ended.is_none(), "kube-apiserver ended with {ended:?}\n{}", said());
        assert!(Instant::now() < until, "kube-apiserver is not ready: {found:?}\n{}", said());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
