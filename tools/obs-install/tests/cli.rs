//! obs-install against the lab: the seven laws, and what an operator sees.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use laws::addons::add;
use laws::cluster::Cluster;
use laws::ssh::Site;
use laws::{Case, run};
use obs_install::ObsInstall;
use serde_json::{Value, json};
use stage::Exit;

/// Three nodes with a pod network.
async fn start() -> (Site, Cluster, Value) {
    let (site, cluster, mut spec) = laws::addons::start().await;
    add(&mut spec, site.entry("lb-1", "load-balancer", 11));
    cluster.network().await.unwrap();
    spec["observability"] = json!({
        "prometheus": {"retention": "15d", "size": "8Gi"},
        "grafana": {"host": "grafana.lab.example"},
        "logs": {"agent": "promtail", "retention": "7d", "size": "8Gi"},
    });
    (site, cluster, spec)
}

async fn case() -> Case {
    let (site, cluster, spec) = start().await;
    cluster.case(site, spec)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws() {
    laws::addons::keeps_the_laws::<ObsInstall>(Vec::new(), case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_is_made_once_and_data_outlives_destroy() {
    let (site, cluster, spec) = start().await;
    let kube = cluster.kube.clone();
    let case = cluster.case(site, spec);
    let said = run::<ObsInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert!(said.stderr.contains("Promtail has had no fixes"), "{said}");
    use lab::world::Kubernetes as _;
    let password = || {
        let secret = kube.get("law", "v1", "Secret", Some("monitoring"), "grafana-admin").unwrap();
        secret["data"]["password"].as_str().unwrap().to_owned()
    };
    let first = password();
    assert!(first.len() >= 40 && !said.stdout.contains(&first) && !said.stderr.contains(&first));
    let other = case.document.replace("\"7d\"", "\"14d\"");
    let said = run::<ObsInstall>(&case, &["apply"], &[], &other, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert!(said.done.iter().any(|step| step.contains("StatefulSet monitoring/loki")), "{:?}", said.done);
    assert_eq!(first, password());

    let gone = run::<ObsInstall>(&case, &["destroy", "--yes"], &[], &case.document, None).await;
    assert_eq!(gone.exit, Exit::Done, "{gone}");
    assert!(kube.get("law", "apps/v1", "StatefulSet", Some("monitoring"), "prometheus").is_none());
    assert!(kube.get("law", "v1", "PersistentVolumeClaim", Some("monitoring"), "prometheus").is_some());
    let gone = run::<ObsInstall>(&case, &["destroy", "--yes"], &["--prune-data"], &case.document, None).await;
    assert_eq!(gone.exit, Exit::Done, "{gone}");
    assert!(kube.get("law", "v1", "Namespace", None, "monitoring").is_none());
    let again =
        run::<ObsInstall>(&case, &["destroy", "--yes"], &["--prune-data"], &case.document, None).await;
    assert_eq!((again.exit, again.done.len()), (Exit::Done, 0), "{again}");
}

/// A claim that cannot grow is held with the server's words, and all else is done: the rest does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_of_another_size_is_held_and_the_rest_is_done() {
    use lab::world::Kubernetes as _;
    let (site, cluster, spec) = start().await;
    let kube = cluster.kube.clone();
    let case = cluster.case(site, spec);
    let said = run::<ObsInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    for size in ["9Gi", "7Gi"] {
        let other = case.document.replace("\"8Gi\"", &format!("\"{size}\"")).replace("\"7d\"", "\"14d\"");
        let said = run::<ObsInstall>(&case, &["apply"], &[], &other, None).await;
        assert_eq!(said.exit, Exit::Precondition, "{said}");
        assert!(said.stderr.contains("PersistentVolumeClaim monitoring/loki"), "{said}");
        assert!(said.stderr.contains("its data moved"), "{said}");
        let map = kube.get("law", "v1", "ConfigMap", Some("monitoring"), "loki").unwrap().to_string();
        assert!(map.contains("336h"), "{map}");
        let claim = kube.get("law", "v1", "PersistentVolumeClaim", Some("monitoring"), "loki").unwrap();
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "8Gi");
    }
}
