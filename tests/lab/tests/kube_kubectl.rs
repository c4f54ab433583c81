//! kubectl against the lab, as a person uses it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking and say what they skip"
)]

mod kube_support;

use std::path::Path;
use std::process::{Command, Output};

use kube_support::Lab;

fn kubectl(config: &Path, home: &Path, args: &[&str]) -> Output {
    Command::new("kubectl")
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("KUBECONFIG", config)
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_works() {
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        eprintln!("skipped: kubectl is not installed");
        return;
    }
    let lab = Lab::start().await;
    lab.node("cp1", 21, true);
    lab.node("w1", 31, false);
    lab.until("the pods of kube-proxy", async || {
        use lab::world::Kubernetes as _;
        lab.kube.list("test", "v1", "Pod").iter().filter(|p| p["status"]["phase"] == "Running").count() >= 6
    })
    .await;
    let (config, home) = (lab.kubeconfig(), lab.dir.path().to_owned());
    let all = tokio::task::spawn_blocking(move || {
        let run = |args: &[&str]| {
            let out = kubectl(&config, &home, args);
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let error = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "kubectl {args:?}\n{text}{error}");
            format!("{text}{error}")
        };
        let has = |args: &[&str], parts: &[&str]| {
            let text = run(args);
            for part in parts {
                assert!(text.contains(part), "kubectl {args:?}: no {part:?} in\n{text}");
            }
        };
        has(&["version"], &["Server Version: v1.36.2"]);
        has(
            &["get", "nodes", "-o", "wide"],
            &["NAME", "INTERNAL-IP", "cp1", "control-plane", "NotReady", "v1.36.2", "trixie"],
        );
        has(&["get", "pods", "-A"], &["kube-proxy-", "1/1", "Running", "etcd-cp1", "Pending"]);
        has(&["get", "node", "cp1", "-o", "yaml"], &["kind: Node", "node-role.kubernetes.io/control-plane"]);
        has(&["describe", "node", "w1"], &["Roles:", "KubeletNotReady", "Allocated resources"]);
        has(&["api-resources"], &["deployments", "deploy", "apps/v1", "customresourcedefinitions"]);
        has(&["explain", "deployment.spec.strategy"], &["rollingUpdate"]);

        let dir = home.join("kustomize");
        std::fs::create_dir_all(&dir).unwrap();
        let web = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: 2\n  selector:\n    matchLabels: {app: web}\n  template:\n    metadata:\n      labels: {app: web}\n    spec:\n      hostNetwork: true\n      tolerations: [{operator: Exists}]\n      containers:\n      - name: c\n        image: web:1\n";
        std::fs::write(dir.join("web.yaml"), web).unwrap();
        std::fs::write(dir.join("kustomization.yaml"), "namespace: shop\nresources: [web.yaml, ns.yaml]\n")
            .unwrap();
        std::fs::write(dir.join("ns.yaml"), "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n")
            .unwrap();
        let path = dir.to_str().unwrap();
        has(&["apply", "-k", path], &["namespace/shop created", "deployment.apps/web created"]);
        has(&["apply", "-k", path], &["deployment.apps/web unchanged"]);
        has(
            &["apply", "--server-side", "--force-conflicts", "-k", path],
            &["deployment.apps/web serverside-applied"],
        );
        has(&["diff", "--server-side", "--force-conflicts", "-k", path], &[]);
        has(
            &["wait", "-n", "shop", "--for=condition=Available", "deploy/web", "--timeout=20s"],
            &["condition met"],
        );
        has(
            &["rollout", "status", "-n", "shop", "deploy/web", "--timeout=20s"],
            &["successfully rolled out"],
        );
        has(&["scale", "-n", "shop", "deploy/web", "--replicas=3"], &["scaled"]);
        has(
            &[
                "wait",
                "-n",
                "shop",
                "--for=jsonpath={.status.availableReplicas}=3",
                "deploy/web",
                "--timeout=20s",
            ],
            &["condition met"],
        );
        has(&["get", "deploy", "-n", "shop"], &["READY", "3/3"]);
        has(&["get", "pods", "-n", "shop", "-l", "app=web", "-o", "name"], &["pod/web-"]);
        has(&["describe", "deploy", "-n", "shop", "web"], &["RollingUpdateStrategy", "NewReplicaSet"]);
        has(&["label", "node", "w1", "environment=prod"], &["node/w1 labeled"]);
        has(&["taint", "node", "w1", "environment=nonprod:NoSchedule"], &["node/w1 tainted"]);
        has(
            &["drain", "w1", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=20s"],
            &["node/w1 cordoned", "node/w1 drained"],
        );
        has(&["uncordon", "w1"], &["node/w1 uncordoned"]);
        // (`kubectl create configmap` sends protobuf, which the lab does not read.)
        std::fs::write(
            home.join("c.yaml"),
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: shop}\ndata: {a: b}\n",
        )
        .unwrap();
        has(&["create", "-f", home.join("c.yaml").to_str().unwrap()], &["configmap/c created"]);
        has(
            &["patch", "configmap", "-n", "shop", "c", "-p", "{\"data\":{\"a\":\"z\"}}"],
            &["configmap/c patched"],
        );
        has(&["delete", "namespace", "shop", "--timeout=20s"], &["deleted"]);
        let missing = kubectl(&config, &home, &["get", "node", "nosuch"]);
        assert_eq!(
            String::from_utf8_lossy(&missing.stderr),
            "Error from server (NotFound): nodes \"nosuch\" not found\n"
        );
        let typo = web.replace("replicas:", "replicaz:");
        std::fs::write(dir.join("web.yaml"), typo).unwrap();
        let refused = kubectl(&config, &home, &["apply", "-f", dir.join("web.yaml").to_str().unwrap()]);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && text.contains("unknown field \"spec.replicaz\""), "{text}");
    });
    all.await.unwrap();
    let unknown = lab.world.journal.unknown();
    assert!(unknown.is_empty(), "{unknown:?}");
}
