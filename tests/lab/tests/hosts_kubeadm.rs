//! kubeadm over SSH, against the Kubernetes window: a cluster comes up, grows, loses and resets machines.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may fail so")]

mod site;

use std::path::PathBuf;

use lab::world::{Kubernetes as _, Machines};
use site::{Client, Said, Site, until};

/// Keepalived and HAProxy on one machine, so that the cluster has its address.
async fn balancer(site: &Site) -> Client {
    let host = site.machine("lb-1", 11).await;
    host.ok("sudo -n -- apt-get update").await;
    host.ok("sudo -n -- apt-get install -y haproxy keepalived").await;
    let servers: String = [21, 22, 23]
        .iter()
        .map(|n| format!("  server cp{} {}:6443 check check-ssl verify none\n", n - 20, site.address(*n)))
        .collect();
    let haproxy = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\nfrontend api\n  bind *:6443\n  default_backend api\n\
         backend api\n  option httpchk GET /readyz\n  http-check expect status 200\n{servers}"
    );
    host.put("/etc/haproxy/haproxy.cfg", &haproxy).await;
    let keepalived = format!(
        "vrrp_instance V {{\n interface eth0\n virtual_router_id 30\n priority 100\n virtual_ipaddress {{\n {}/24\n }}\n}}\n",
        site.address(10)
    );
    host.put("/etc/keepalived/keepalived.conf", &keepalived).await;
    host.ok("sudo -n -- systemctl restart haproxy keepalived").await;
    host
}

async fn prepared(site: &Site, name: &str, last: u8) -> Client {
    let host = site.machine(name, last).await;
    host.put("/etc/modules-load.d/k8s.conf", "overlay\nbr_netfilter\n").await;
    host.put("/etc/sysctl.d/90-k8s.conf", "net.ipv4.ip_forward = 1\n").await;
    host.ok("sudo -n -- sysctl --system").await;
    host.put("/etc/apt/keyrings/k8s.asc", "key").await;
    host.put(
        "/etc/apt/sources.list.d/kubernetes.list",
        "deb [signed-by=/etc/apt/keyrings/k8s.asc] https://pkgs.k8s.io/core:/stable:/v1.36/deb/ /\n",
    )
    .await;
    host.ok("sudo -n -- apt-get update").await;
    host.ok("sudo -n -- apt-get install -y containerd kubelet=1.36.2-1.1 kubeadm=1.36.2-1.1").await;
    host
}

async fn init(site: &Site, host: &Client) -> Said {
    let config = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint:\n  advertiseAddress: {}\n---\n\
         apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.2\ncontrolPlaneEndpoint: {}:6443\n\
         clusterName: lab\nnetworking:\n  podSubnet: 10.244.0.0/16\n",
        site.address(21),
        site.address(10)
    );
    host.put("/etc/kubeline/kubeadm.yaml", &config).await;
    host.run("sudo -n -- kubeadm init --config /etc/kubeline/kubeadm.yaml --upload-certs").await
}

/// The token, CA hash and certificate key in what `init` printed.
fn secrets(said: &Said) -> (String, String, String) {
    let after = |word: &str| {
        said.out.split(word).nth(1).and_then(|t| t.split_whitespace().next()).unwrap().to_string()
    };
    (after("--token "), after("--discovery-token-ca-cert-hash "), after("--certificate-key "))
}

fn join(site: &Site, secrets: &(String, String, String), control_plane: bool) -> String {
    let tail = if control_plane {
        format!(" --control-plane --certificate-key {}", secrets.2)
    } else {
        String::new()
    };
    format!(
        "sudo -n -- kubeadm join {}:6443 --token {} --discovery-token-ca-cert-hash {}{tail}",
        site.address(10),
        secrets.0,
        secrets.1
    )
}

const ETCDCTL: &str = "etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt \
    --cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt --key=/etc/kubernetes/pki/etcd/healthcheck-client.key";

async fn etcdctl(host: &Client, what: &str) -> Said {
    let id = host.ok("sudo -n -- crictl ps -q --name etcd --state running").await;
    host.run(&format!("sudo -n -- crictl exec {} {ETCDCTL} {what}", id.trim())).await
}

fn facts() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("KUBELINE_FACTS") {
        return Some(given.into());
    }
    let mut at = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    while at.pop() {
        for shared in [at.join("shared/facts"), at.join("../shared/facts")] {
            if shared.is_dir() {
                return Some(shared);
            }
        }
    }
    None
}

/// A transcript without what differs from run to run and what the recording host alone had to say.
fn plain(text: &str, names: &[(String, &str)]) -> Vec<String> {
    let mut text = text.to_string();
    for (from, to) in names {
        text = text.replace(from.as_str(), to);
    }
    let hex =
        |w: &str| w.len() >= 64 && w.trim_start_matches("sha256:").chars().all(|c| c.is_ascii_hexdigit());
    let token = |w: &str| {
        w.len() == 23 && w.find('.') == Some(6) && w.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
    };
    let took =
        |w: &str| w.ends_with('s') && w.chars().next().is_some_and(|c| c.is_ascii_digit()) && w.contains('.');
    let word = |w: &str| match w {
        w if hex(w) => "HASH".to_string(),
        w if token(w) => "TOKEN".to_string(),
        w if took(w) => "TOOK".to_string(),
        w => w.to_string(),
    };
    text.lines()
        .filter(|l| {
            !l.contains('\u{1b}')
                && !l.contains("system verification failed")
                && !l.contains("SystemVerification")
        })
        .filter(|l| !l.contains("utils.go:69"))
        .map(|l| l.split(' ').map(word).collect::<Vec<_>>().join(" "))
        .collect()
}

/// Compares with a recorded run; order among the three health checks is chance, and time-outs are configuration.
fn agrees(name: &str, said: &Said, host: &str, ours: &[(String, &str)]) {
    let Some(facts) = facts() else {
        println!("skipped: no facts folder beside the workspace");
        return;
    };
    let recorded =
        |part: &str| std::fs::read_to_string(facts.join(format!("kubeadm/{name}.{part}"))).unwrap();
    let theirs = [
        (format!("[{host} "), "[HOST "),
        (format!("node {host} "), "node HOST "),
        ("10.77.0.10".to_string(), "VIP"),
        ("10.77.0.11".to_string(), "OWN"),
        ("10.77.0.12".to_string(), "OWN"),
        ("8m0s".to_string(), "4m0s"),
    ];
    let sort = |mut lines: Vec<String>| {
        let chance = |l: &str| l.starts_with("[control-plane-check]") && l.contains("is healthy after");
        lines.retain(|l| !(l.is_empty() || chance(l)));
        lines
    };
    let (want, got) = (sort(plain(&recorded("stdout"), &theirs)), sort(plain(&said.out, ours)));
    for (index, line) in want.iter().enumerate() {
        assert_eq!(got.get(index), Some(line), "{name}, line {index} of standard output");
    }
    assert_eq!(got.len(), want.len(), "{name}: {got:#?}");
    assert_eq!(plain(&said.err, ours), plain(&recorded("stderr"), &theirs), "{name}: standard error");
    assert_eq!(said.exit.map(|e| e.to_string()).as_deref(), Some(recorded("rc").trim()), "{name}");
}

fn names(site: &Site, host: &str, last: u8) -> Vec<(String, &'static str)> {
    vec![
        (format!("[{host} "), "[HOST "),
        (format!("node {host} "), "node HOST "),
        (format!("{}:", site.address(10)), "VIP:"),
        (format!("{}]", site.address(10)), "VIP]"),
        (site.address(last).to_string(), "OWN"),
        ("8m0s".into(), "4m0s"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_comes_up_and_goes() {
    let site = Site::with_kubernetes();
    let _lb = balancer(&site).await;
    let cp1 = prepared(&site, "cp1", 21).await;
    let said = init(&site, &cp1).await;
    assert_eq!(said.exit, Some(0), "{said:?}");
    agrees("init-success", &said, "cp1", &names(&site, "cp1", 21));
    let secrets = secrets(&said);
    let again = init(&site, &cp1).await;
    agrees("init-second-time", &again, "cp1", &names(&site, "cp1", 21));

    // A fresh admin talks to the API through the VIP.
    until("the VIP serves the API", async || {
        cp1.run(&format!("curl -fsS -k https://{}:6443/readyz", site.address(10))).await.out == "ok"
    })
    .await;
    let made = cp1.ok("sudo -n -- kubeadm token create --ttl 1h").await;
    assert_eq!(made.trim().len(), 23);
    let listed = cp1.ok("sudo -n -- kubeadm token list -o json").await;
    assert!(listed.contains(made.trim()));

    let w1 = prepared(&site, "w1", 31).await;
    let wrong = w1
        .run(&join(&site, &(secrets.0.clone(), format!("sha256:{}", "0".repeat(64)), String::new()), false))
        .await;
    assert_eq!(wrong.exit, Some(1));
    assert!(wrong.err.contains("none of the public keys \"sha256:"), "{wrong:?}");
    let unknown = w1
        .run(&join(&site, &("abcdef.0123456789abcdef".into(), secrets.1.clone(), String::new()), false))
        .await;
    assert!(
        unknown
            .err
            .contains("could not find a JWS signature in the cluster-info ConfigMap for token ID \"abcdef\""),
        "{unknown:?}"
    );
    let said = w1.run(&join(&site, &secrets, false)).await;
    agrees("join-worker-success", &said, "w1", &names(&site, "w1", 31));
    agrees(
        "join-worker-already-joined",
        &w1.run(&join(&site, &secrets, false)).await,
        "w1",
        &names(&site, "w1", 31),
    );

    let cp2 = prepared(&site, "cp2", 22).await;
    let zeros = (secrets.0.clone(), secrets.1.clone(), "0".repeat(64));
    let wrong = cp2.run(&join(&site, &zeros, true)).await;
    assert!(wrong.err.contains("cipher: message authentication failed"), "{wrong:?}");
    let said = cp2.run(&join(&site, &secrets, true)).await;
    agrees("join-cp-success", &said, "cp2", &names(&site, "cp2", 22));
    let cp3 = prepared(&site, "cp3", 23).await;
    assert_eq!(cp3.run(&join(&site, &secrets, true)).await.exit, Some(0));

    let members: serde_json::Value =
        serde_json::from_str(&etcdctl(&cp1, "member list -w json").await.out).unwrap();
    assert_eq!(members["members"].as_array().unwrap().len(), 3);
    assert!(members["members"][0]["ID"].as_u64().unwrap() > 1 << 53);
    let health: serde_json::Value =
        serde_json::from_str(&etcdctl(&cp1, "endpoint health --cluster -w json").await.out).unwrap();
    assert!(health.as_array().unwrap().iter().all(|e| e["health"] == true), "{health}");
    for line in [
        "api_up cp1",
        "api_up cp2",
        "api_up cp3",
        "kubelet_up cp3 control plane v1.36.2",
        "kubelet_up w1 worker v1.36.2",
    ] {
        assert_eq!(site.kube.count(line), 1, "{line}: {:#?}", site.kube.lines);
    }

    // One machine off: the quorum holds and the VIP serves. Reset of the next: it leaves etcd.
    let cp3_id = site.hosts.find("cp3").unwrap().vmid;
    site.hosts.power_off(cp3_id);
    until("the VIP still serves", async || {
        cp1.run(&format!("curl -fsS -k https://{}:6443/readyz", site.address(10))).await.out == "ok"
    })
    .await;
    let health = etcdctl(&cp1, "endpoint health --cluster -w json").await;
    assert_eq!(health.exit, Some(1));
    assert_eq!(
        (
            site.kube.count("api_down cp3"),
            site.kube.count("kubelet_down cp3"),
            site.kube.count("quorum false")
        ),
        (1, 1, 0)
    );
    let fresh = prepared(&site, "w2", 32).await;
    agrees(
        "reset-fresh-host",
        &fresh.run("sudo -n -- kubeadm reset -f").await,
        "w2",
        &names(&site, "w2", 32),
    );
    let reset = cp2.run("sudo -n -- kubeadm reset -f").await;
    agrees("reset-cp-single", &reset, "cp2", &names(&site, "cp2", 22));
    assert_eq!(cp2.run("test -e /etc/kubernetes/pki/ca.crt").await.exit, Some(1));
    // Two members are left and one of them is off: no quorum.
    assert_eq!(etcdctl(&cp1, "member list -w json").await.exit, Some(1));
    assert_eq!(site.kube.count("quorum false"), 1);
    // What there is can be saved all the same (seen of a real etcd: tests/hosts/tests/etcd.rs).
    assert_eq!(etcdctl(&cp1, "snapshot save /root/alone.db").await.exit, Some(0));
    // The machine comes back with its disks: its member runs again by itself.
    let mut boot = site.boot("cp3", 23);
    boot.vmid = cp3_id;
    site.hosts.power_on(boot);
    until("the quorum is back", async || site.kube.count("quorum true") == 1).await;
    until("the API server is back", async || site.kube.count("api_up cp3") == 2).await;
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preflight_says_what_is_missing() {
    let site = Site::with_kubernetes();
    let host = prepared(&site, "w3", 23).await;
    let preflight = "sudo -n -- kubeadm init phase preflight";
    let names = names(&site, "w3", 23);
    host.ok("sudo -n -- sysctl -w net.ipv4.ip_forward=0").await;
    agrees("preflight-ip-forward-off", &host.run(preflight).await, "w3", &names);
    host.ok("sudo -n -- sysctl -w net.ipv4.ip_forward=1").await;
    agrees("preflight-ok", &host.run(preflight).await, "w3", &names);
    host.ok("sudo -n -- systemctl stop containerd").await;
    agrees("preflight-containerd-stopped", &host.run(preflight).await, "w3", &names);
    host.ok("sudo -n -- systemctl start containerd").await;
    host.ok("sudo -n -- mkdir -p /etc/kubernetes/manifests /var/lib/etcd/member").await;
    host.ok("sudo -n -- touch /etc/kubernetes/manifests/kube-apiserver.yaml").await;
    agrees("preflight-leftover-files", &host.run(preflight).await, "w3", &names);
    agrees("version-short", &host.run("kubeadm version -o short").await, "w3", &names);
    agrees(
        "config-images-list",
        &host.run("kubeadm config images list --kubernetes-version v1.36.2").await,
        "w3",
        &names,
    );
    let bad =
        "sudo -n -- kubeadm join 127.0.0.1:6443 --token nonsense --discovery-token-ca-cert-hash sha256:00";
    agrees("join-malformed-token", &host.run(bad).await, "w3", &names);
    agrees(
        "token-create-when-no-admin-conf",
        &host.run("sudo -n -- kubeadm token create").await,
        "w3",
        &names,
    );
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_nobody_serves() {
    let site = Site::with_kubernetes();
    let cp1 = prepared(&site, "cp1", 21).await;
    let said = init(&site, &cp1).await;
    assert_eq!(said.exit, Some(0), "init does not look at its endpoint: {said:?}");
    let secrets = secrets(&said);
    let w1 = prepared(&site, "w1", 31).await;
    let said = w1.run(&join(&site, &secrets, false)).await;
    assert_eq!(said.exit, Some(1));
    assert!(said.err.contains("dial tcp") && said.err.contains("connect: no route to host"), "{said:?}");
    let said = cp1.run("sudo -n -- kubeadm token create").await;
    assert_eq!(said.exit, Some(1), "{said:?}");
}

/// A transcript without what a cgroup v1 kernel, a restart of the API server and random names add to it.
fn calm(lines: Vec<String>) -> Vec<String> {
    let noise = |l: &String| {
        l.contains("[apiclient] Error getting Pods")
            || l.contains("postupgrade.go:105]")
            || l.contains("request.go:1196]")
            || l.trim().is_empty()
    };
    let path = |w: &str| match w.trim_matches('"') {
        p if p.starts_with("/etc/kubernetes/tmp/") => "TMP".to_string(),
        _ => w.to_string(),
    };
    let lines = lines.into_iter().filter(|l| !noise(l));
    lines.map(|l| l.split(' ').map(path).collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_speaks_as_the_recorded_one() {
    let site = Site::with_kubernetes();
    balancer(&site).await;
    let cp1 = prepared(&site, "cp1", 21).await;
    let said = init(&site, &cp1).await;
    assert_eq!(said.exit, Some(0), "{said:?}");
    let secrets = secrets(&said);
    let cp2 = prepared(&site, "cp2", 22).await;
    let w1 = prepared(&site, "w1", 31).await;
    for (host, plane) in [(&cp2, true), (&w1, false)] {
        let said = host.run(&join(&site, &secrets, plane)).await;
        assert_eq!(said.exit, Some(0), "{said:?}");
    }
    let api = format!("curl -fsS -k https://{}:6443/readyz", site.address(10));
    until("the VIP serves the API", async || cp1.run(&api).await.out == "ok").await;
    // kubeadm's own limits: never newer than itself, one minor at a time, no control plane that is not Ready.
    let said = cp1.run("sudo -n -- kubeadm upgrade apply v1.36.3 --yes").await;
    assert_eq!(said.exit, Some(1), "{said:?}");
    assert!(
        said.err.contains("higher than the kubeadm version") || said.err.contains("NotReady"),
        "{said:?}"
    );
    for host in [&cp1, &cp2, &w1] {
        host.ok("sudo -n -- apt-get install -y kubeadm=1.36.3-1.1").await;
    }
    network(&site).await;
    let said = cp1.run("sudo -n -- kubeadm upgrade apply v1.36.3 --yes").await;
    upgraded("upgrade-apply-success", &said, &site, "cp1", 21);
    let said = w1.run("sudo -n -- kubeadm upgrade node").await;
    upgraded("upgrade-node-worker", &said, &site, "w1", 31);
    let said = cp2.run("sudo -n -- kubeadm upgrade node").await;
    upgraded("upgrade-node-cp", &said, &site, "cp2", 22);
    let said = cp1.run("sudo -n -- kubeadm certs renew all").await;
    upgraded("certs-renew-all", &said, &site, "cp1", 21);
    site.nothing_unknown();
}

/// A pod network, so that nodes are Ready.
async fn network(site: &Site) {
    let id = site.kube.window.as_ref().unwrap().clusters().remove(0);
    let kube = site.kube.window.as_ref().unwrap();
    kube.put(
        &id,
        serde_json::json!({ "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": { "name": "calico-node", "namespace": "kube-system" },
            "spec": { "selector": { "matchLabels": { "k8s-app": "calico-node" } },
                "template": { "metadata": { "labels": { "k8s-app": "calico-node" } },
                    "spec": { "hostNetwork": true, "tolerations": [{ "operator": "Exists" }],
                        "containers": [{ "name": "calico-node", "image": "quay.io/calico/node:v3.32.1" }] } } } }),
    );
    let ready = |n: &serde_json::Value| {
        let all = n["status"]["conditions"].as_array();
        all.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    until("all nodes are ready", async || kube.list(&id, "v1", "Node").iter().all(ready)).await;
}

/// Compares a run of `upgrade` or `certs` with the recorded one.
fn upgraded(name: &str, said: &Said, site: &Site, host: &str, last: u8) {
    let Some(facts) = facts() else {
        println!("skipped: no facts folder beside the workspace");
        return;
    };
    assert_eq!(said.exit, Some(0), "{name}: {said:?}");
    let recorded = std::fs::read_to_string(facts.join(format!("kubeadm/{name}.stdout"))).unwrap();
    let want = calm(plain(&recorded, &[]));
    let got = calm(plain(&said.out, &names(site, host, last)));
    for (index, line) in want.iter().enumerate() {
        assert_eq!(got.get(index), Some(line), "{name}, line {index} of standard output");
    }
    assert_eq!(got.len(), want.len(), "{name}: {got:#?}");
}
