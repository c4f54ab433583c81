//! ingress-install against the lab: the seven laws, and what an operator sees.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use ingress_install::IngressInstall;
use lab::Action;
use laws::addons::{add, kube};
use laws::cluster::Cluster;
use laws::ssh::Site;
use laws::{Case, Trouble, run};
use serde_json::{Value, json};
use stage::Exit;

/// Not the secret of anybody.
const SECRET: &str = "5ecret-of-the-approle-0123";

/// Three nodes with a pod network, certificates from Vault.
async fn start() -> (Site, Cluster, Value) {
    let (site, cluster, mut spec) = laws::addons::start().await;
    add(&mut spec, site.entry("lb-1", "load-balancer", 11));
    add(&mut spec, site.entry("lb-2", "load-balancer", 12));
    cluster.network().await.unwrap();
    let file = site.dir.join("secret-id");
    std::fs::write(&file, SECRET).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    spec["ingress"] = json!({"certificates": {"vault": {
        "servers": ["https://vault.lab.example:8200"], "mount": "pki", "role": "web",
        "auth": {"appRole": {"roleId": "r", "secretIdFile": "secret-id"}}}}});
    (site, cluster, spec)
}

async fn case() -> Case {
    let (site, cluster, spec) = start().await;
    let mut case = cluster.case(site, spec);
    case.secrets.push(SECRET.to_owned());
    case
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws() {
    let refused = Trouble {
        name: "refused",
        fault: kube("traefik", 1, Action::Status(403, "no".into())),
        exits: vec![Exit::Precondition],
    };
    laws::addons::keeps_the_laws::<IngressInstall>(vec![refused], case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_secret_is_taken_over_and_never_shown() {
    let case = case().await;
    let said = run::<IngressInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    std::fs::write(case.dir.join("secret-id"), "another-5ecret").unwrap();
    let said = run::<IngressInstall>(&case, &["plan"], &[], &case.document, None).await;
    assert!(said.stdout.contains("change Secret cert-manager/vault-approle"), "{said}");
    assert!(
        !said.stdout.contains("another-5ecret") && !said.stdout.contains("YW5vdGhlci01ZWNyZXQ"),
        "{said}"
    );
    let said = run::<IngressInstall>(&case, &["render"], &[], &case.document, None).await;
    assert!(said.exit == Exit::Done && !said.stdout.contains("YW5vdGhlci01ZWNyZXQ"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_readable_secret_is_refused_and_what_left_is_pruned() {
    let (site, cluster, mut spec) = start().await;
    let dir = site.dir.clone();
    let kept = cluster.kube.clone();
    let mut with = spec.clone();
    spec["ingress"]["certificates"].as_object_mut().unwrap().remove("vault");
    spec["ingress"].as_object_mut().unwrap().remove("certificates");
    let case = cluster.case(site, with.take());
    let said = run::<IngressInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");

    // Without certificates cert-manager goes, but for its definitions and namespace.
    let mut document: Value = serde_json::from_str(&case.document).unwrap();
    document["spec"] = spec;
    let said = run::<IngressInstall>(&case, &["apply"], &[], &document.to_string(), None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    use lab::world::Kubernetes as _;
    assert!(kept.get("law", "apps/v1", "Deployment", Some("cert-manager"), "cert-manager").is_none());
    assert!(kept.get("law", "v1", "Namespace", None, "cert-manager").is_some());
    let section: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(section["status"]["ingress-install"]["held"].to_string().contains("--prune-data"), "{said}");

    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir.join("secret-id"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = run::<IngressInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains("chmod 600 secret-id"), "{said}");
}

/// Lists and manifests show no secret: they are to be had where the file is not, as in CI.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_manifests_need_no_secret() {
    let (site, cluster, spec) = start().await;
    let file = site.dir.join("secret-id");
    let case = cluster.case(site, spec);
    let with = run::<IngressInstall>(&case, &["render"], &[], &case.document, None).await;
    std::fs::remove_file(file).unwrap();
    let said = run::<IngressInstall>(&case, &["render"], &[], &case.document, None).await;
    assert_eq!((said.exit, &said.stdout), (Exit::Done, &with.stdout), "{said}");
    assert!(said.stdout.contains("name: vault-approle"), "{said}");
    for verb in ["images", "artifacts"] {
        let said = run::<IngressInstall>(&case, &[verb], &[], &case.document, None).await;
        assert!(said.exit == Exit::Done && !said.stdout.is_empty(), "{said}");
    }
    // What would be sent must be known.
    for verb in ["plan", "apply"] {
        let said = run::<IngressInstall>(&case, &[verb], &[], &case.document, None).await;
        assert_eq!(said.exit, Exit::Precondition, "{said}");
    }
    assert!(case.journal.changing_since(0).is_empty());
}
