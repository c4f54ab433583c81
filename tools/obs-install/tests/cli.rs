//! obs-install against the lab: the seven laws, and what an operator sees.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

use lab::{Action, Clock, Fault, Window};
use laws::cluster::Cluster;
use laws::ssh::Site;
use laws::{Case, Trouble, run};
use obs_install::ObsInstall;
use serde_json::{Value, json};
use stage::Exit;

/// Three nodes with a pod network.
async fn start() -> (Site, Cluster, Value) {
    let site = Site::new(Clock::ZERO).unwrap();
    let cluster = Cluster::start(&site).await.unwrap();
    let mut machines = vec![site.entry("lb-1", "load-balancer", 11)];
    for (name, last, role) in [("cp-1", 21, "control-plane"), ("w-1", 31, "worker"), ("w-2", 32, "worker")] {
        cluster.node(name, site.address(last), role == "control-plane");
        machines.push(site.entry(name, role, last));
    }
    cluster.network().await.unwrap();
    let spec = json!({
        "vip": cluster.vip(), "machines": machines, "kubernetes": cluster.kubernetes(),
        "observability": {
            "prometheus": {"retention": "15d", "size": "8Gi"},
            "grafana": {"host": "grafana.lab.example"},
            "logs": {"agent": "promtail", "retention": "7d", "size": "8Gi"},
        },
    });
    (site, cluster, spec)
}

async fn case() -> Case {
    let (site, cluster, spec) = start().await;
    cluster.case(site, spec)
}

fn kube(matching: &str, times: usize, action: Action) -> Fault {
    Fault { window: Window::Kube, matching: matching.into(), skip: 0, times, action }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws() {
    let trouble = |name, fault, exits: &[Exit]| Trouble { name, fault, exits: exits.to_vec() };
    let troubles = [
        trouble("the API is overloaded", kube("PATCH", 3, Action::Status(503, "busy".into())), &[Exit::Done]),
        trouble("cut after a write", kube("PATCH", 1, Action::DropAfter), &[Exit::Done]),
    ];
    let summary = laws::check::<ObsInstall>(&[], &troubles, case).await.unwrap_or_else(|e| panic!("{e}"));
    println!("{summary}");
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
