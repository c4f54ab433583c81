//! What a fresh cluster has in it: the API server's own objects, and those of kubeadm.

use base64::Engine as _;
use serde_json::{Value, json};

use super::allocation::service_network;
use super::store::Store;
use super::verbs::Call;
use crate::world::ApiServer;

/// Fills an empty store.
pub(crate) fn fill(store: &mut Store, server: &ApiServer) {
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        put(
            store,
            "kube-apiserver",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        );
    }
    let (base, _) = service_network(store);
    let first = std::net::Ipv4Addr::from(base + 1).to_string();
    put(
        store,
        "kube-apiserver",
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"clusterIP": first, "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]}}),
    );
    roles(store);
    kubeadm(store, server);
    add_ons(store, &server.version);
}

fn put(store: &mut Store, manager: &str, object: Value) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let ns = text(&object["metadata"]["namespace"]);
    let Some(res) = store.resource_of_kind(&version, &kind) else { return };
    if let Err(status) = store.create(&res, &ns, object, &mut Call::component(manager)) {
        tracing::error!(message = status.message(), "an object of the fresh cluster was refused");
    }
}

fn roles(store: &mut Store) {
    let rule = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]);
    let role = |name: &str, rules: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": rules})
    };
    let read = ["get", "list", "watch"];
    put(store, "kube-apiserver", role("cluster-admin", rule));
    let view = json!([{"apiGroups": ["", "apps", "batch", "networking.k8s.io", "policy", "autoscaling", "discovery.k8s.io"],
        "resources": ["pods", "services", "configmaps", "endpoints", "persistentvolumeclaims", "deployments", "daemonsets",
        "replicasets", "statefulsets", "jobs", "cronjobs", "ingresses", "networkpolicies", "events", "serviceaccounts"], "verbs": read}]);
    put(store, "kube-apiserver", role("view", view));
    let binding = |name: &str, role: &str, group: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]})
    };
    put(store, "kube-apiserver", binding("cluster-admin", "cluster-admin", "system:masters"));
    put(store, "kubeadm", binding("kubeadm:cluster-admins", "cluster-admin", "kubeadm:cluster-admins"));
    for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)]
    {
        put(
            store,
            "kube-apiserver",
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value}),
        );
    }
}

// ConfigMaps with defaults; kubeadm on the machine then writes its own over them.
fn kubeadm(store: &mut Store, server: &ApiServer) {
    let listen = server.listen.map(|l| l.to_string()).unwrap_or_default();
    let version = if server.version.is_empty() { "v1.36.2" } else { &server.version };
    let config = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nclusterName: kubernetes\ncontrolPlaneEndpoint: {listen}\nkind: ClusterConfiguration\nkubernetesVersion: {version}\nnetworking:\n  dnsDomain: cluster.local\n  serviceSubnet: 10.96.0.0/12\n"
    );
    let ca = base64::engine::general_purpose::STANDARD.encode(&server.client_ca);
    let info = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: https://{listen}\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\nusers: null\n"
    );
    let map = |ns: &str, name: &str, key: &str, text: String| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": ns}, "data": {key: text}});
    put(store, "kubeadm", map("kube-system", "kubeadm-config", "ClusterConfiguration", config));
    put(store, "kubeadm", map("kube-public", "cluster-info", "kubeconfig", info));
    let kubelet =
        "apiVersion: kubelet.config.k8s.io/v1beta1\ncgroupDriver: systemd\nkind: KubeletConfiguration\n";
    put(store, "kubeadm", map("kube-system", "kubelet-config", "kubelet", kubelet.into()));
}

fn add_ons(store: &mut Store, version: &str) {
    let version = if version.is_empty() { "v1.36.2" } else { version };
    let account = |name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "kube-system"}});
    put(store, "kubeadm", account("kube-proxy"));
    put(store, "kubeadm", account("coredns"));
    put(
        store,
        "kubeadm",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
            "data": {"config.conf": "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: \"\"\n"}}),
    );
    put(
        store,
        "kubeadm",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": "kube-system"},
            "data": {"Corefile": ".:53 {\n    errors\n    health\n    ready\n    kubernetes cluster.local in-addr.arpa ip6.arpa\n    prometheus :9153\n    forward . /etc/resolv.conf\n    cache 30\n}\n"}}),
    );
    put(
        store,
        "kubeadm",
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "kube-proxy", "namespace": "kube-system", "labels": {"k8s-app": "kube-proxy"}},
            "spec": {"selector": {"matchLabels": {"k8s-app": "kube-proxy"}}, "updateStrategy": {"type": "RollingUpdate"},
                "template": {"metadata": {"labels": {"k8s-app": "kube-proxy"}}, "spec": {
                    "containers": [{"name": "kube-proxy", "image": format!("registry.k8s.io/kube-proxy:{version}"),
                        "command": ["/usr/local/bin/kube-proxy", "--config=/var/lib/kube-proxy/config.conf", "--hostname-override=$(NODE_NAME)"],
                        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                        "securityContext": {"privileged": true},
                        "volumeMounts": [{"name": "kube-proxy", "mountPath": "/var/lib/kube-proxy"}]}],
                    "hostNetwork": true, "nodeSelector": {"kubernetes.io/os": "linux"},
                    "priorityClassName": "system-node-critical", "serviceAccountName": "kube-proxy",
                    "tolerations": [{"operator": "Exists"}],
                    "volumes": [{"name": "kube-proxy", "configMap": {"name": "kube-proxy"}}]}}}}),
    );
    put(
        store,
        "kubeadm",
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "coredns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"k8s-app": "kube-dns"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
                "template": {"metadata": {"labels": {"k8s-app": "kube-dns"}}, "spec": {
                    "containers": [{"name": "coredns", "image": "registry.k8s.io/coredns/coredns:v1.14.2",
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "ports": [{"containerPort": 53, "name": "dns", "protocol": "UDP"}, {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
                            {"containerPort": 9153, "name": "metrics", "protocol": "TCP"}],
                        "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
                        "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true}]}],
                    "dnsPolicy": "Default", "nodeSelector": {"kubernetes.io/os": "linux"},
                    "priorityClassName": "system-cluster-critical", "serviceAccountName": "coredns",
                    "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"},
                        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}],
                    "volumes": [{"name": "config-volume", "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]}}]}}}}),
    );
    let (base, _) = service_network(store);
    let dns = std::net::Ipv4Addr::from(base + 10).to_string();
    put(
        store,
        "kubeadm",
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
            "spec": {"clusterIP": dns, "selector": {"k8s-app": "kube-dns"}, "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153}]}}),
    );
}
