//! Serving certificates of kubelets: the first ones, their renewal, and what is not approved.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail so")]

mod site;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster_doc::Exit;
use lab::hosts::kubeadm::kubelet::SERVING;
use lab::world::Kubernetes as _;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use site::{Ran, Site};

const API: &str = "certificates.k8s.io/v1";
const KIND: &str = "CertificateSigningRequest";

fn status(ran: &Ran) -> Value {
    let document: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
    document["status"]["kadm-bootstrap"]["kubeletServingCertificates"].clone()
}

/// What a machine serves with.
fn pem(site: &Site, name: &str) -> String {
    site.hosts.find(name).unwrap().machine().fs.text(SERVING)
}

/// The kubelet loses its certificate, as one that ends, and asks anew.
async fn ends(site: &Site, name: &str) {
    for argv in [&["rm", "-f", SERVING][..], &["systemctl", "restart", "kubelet"]] {
        assert_eq!(site.hosts.exec(name, argv).await.unwrap().exit, 0);
    }
}

fn open(site: &Site, id: &str) -> Vec<String> {
    let all = site.kube.list(id, API, KIND);
    let open = all.iter().filter(|r| r["status"]["conditions"].is_null());
    open.map(|r| r["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubelets_serve_with_certificates_of_the_cluster() {
    let site = Site::new(1, 2).await;
    let document = site.document();
    let ran = site.done(&[], &document).await;
    assert_eq!(status(&ran), true);
    let id = site.kube.clusters().remove(0);
    for (name, last) in [("cp-1", 21), ("w-1", 31), ("w-2", 32)] {
        let pem = pem(&site, name);
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = block.parse_x509().unwrap();
        let san = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
        assert_eq!(certificate.subject().to_string(), format!("O=system:nodes, CN=system:node:{name}"));
        let address = format!("{}", site.world.net.host(last));
        let names: Vec<String> = san.iter().map(ToString::to_string).collect();
        assert!(names.iter().any(|n| n.contains(name)) && names.len() == 2, "{names:?} {address}");
        let host = site.hosts.find(name).unwrap();
        assert_eq!(host.machine().fs.node(SERVING).unwrap().mode & 0o777, 0o600);
    }
    assert!(open(&site, &id).is_empty());

    // Renewed without this tool: the approver in the cluster does it.
    let before = pem(&site, "w-2");
    ends(&site, "w-2").await;
    site.until("the approver has answered", || {
        let all = site.kube.list(&id, API, KIND);
        all.len() == 4 && all.iter().all(|r| r["status"]["certificate"].is_string())
    })
    .await;
    site.until("the kubelet has taken it up", || {
        site.hosts.settle();
        pem(&site, "w-2").contains("BEGIN CERTIFICATE")
    })
    .await;
    assert_ne!(pem(&site, "w-2"), before);
    let again = site.run(&[], &document).await;
    assert_eq!((again.exit, status(&again)), (Exit::Done, json!(true)), "{}", again.err);

    // Without the approver the request waits, plan says so, and a run does both.
    site.kube.delete(&id, "apps/v1", "Deployment", Some("kube-system"), "kubelet-csr-approver");
    site.until("its pod is gone", || {
        let pods = site.kube.list(&id, "v1", "Pod");
        !pods.iter().any(|p| p["metadata"]["name"].as_str().unwrap().starts_with("kubelet-csr-approver"))
    })
    .await;
    ends(&site, "w-1").await;
    site.until("the kubelet has asked", || open(&site, &id).len() == 1).await;
    let plan = site.run(&["plan"], &document).await;
    assert!(plan.out.contains("install the approver of kubelets' serving certificates"), "{}", plan.out);
    assert!(plan.out.contains("approve the serving certificate of w-1"), "{}", plan.out);
    let check = site.run(&["check"], &document).await;
    assert_eq!(check.exit, Exit::Differs, "{}", check.out);
    let ran = site.run(&[], &document).await;
    assert_eq!((ran.exit, status(&ran)), (Exit::Done, json!(true)), "{}", ran.err);
    site.nothing_unknown();
}

/// A node that asks for another's name, or for another's address, gets nothing from the tool, and a person is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_the_node_s_own_is_not_approved() {
    let site = Site::new(1, 1).await;
    let document = site.document();
    assert_eq!(site.run(&[], &document).await.exit, Exit::Done);
    let id = site.kube.clusters().remove(0);
    let forged = |name: &str, dns: &str, last: u8| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:w-1");
        params.subject_alt_names = vec![
            SanType::DnsName(dns.try_into().unwrap()),
            SanType::IpAddress(site.world.net.host(last).into()),
        ];
        let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let object = json!({ "apiVersion": API, "kind": KIND, "metadata": { "name": name },
            "spec": { "request": STANDARD.encode(request), "signerName": "kubernetes.io/kubelet-serving",
                "username": "system:node:w-1", "groups": ["system:nodes", "system:authenticated"],
                "usages": ["digital signature", "server auth"] } });
        site.kube.put(&id, object);
    };
    forged("csr-name", "cp-1", 31);
    forged("csr-address", "w-1", 21);
    site.done(&[], &document).await;
    let mut waiting = open(&site, &id);
    waiting.sort();
    assert_eq!(waiting, ["csr-address", "csr-name"]);
    let check = site.run(&["check"], &document).await;
    assert_eq!(check.exit, Exit::Differs);
    for word in ["csr-name waits for a person: it is for the name cp-1", "csr-address waits for a person"] {
        assert!(check.out.contains(word), "{}", check.out);
    }
    site.nothing_unknown();
}
