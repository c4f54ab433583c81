//! The lab's Kubernetes window: one control plane and two nodes.

use super::certificates::Authority;
use super::{Server, kubeconfig};
use lab::kube::Kube;
use lab::world::{ApiServer, Kubelet, Kubernetes, World};
use lab::{Clock, Faults, Journal, Subnet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Starts one and waits until it answers.
pub async fn start() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let net = Subnet::claim().unwrap();
    let at = SocketAddr::from((net.host(21), 6443));
    let authority = Authority::new();
    let (certificate, key) = authority.sign("kube-apiserver", "kubeline", &[&at.ip().to_string()]);
    let (client, client_key) = authority.sign("kubernetes-admin", "kubeadm:cluster-admins", &[]);
    let dir = folder.path().to_owned();
    let world = Arc::new(World {
        clock: Clock::ZERO,
        journal: Journal::default(),
        faults: Faults::default(),
        net,
        dir,
    });
    let kube = Kube::new(Arc::clone(&world));
    kube.api_up(ApiServer {
        host: "cp1".into(),
        listen: Some(at),
        certificate,
        key,
        client_ca: authority.pem.clone(),
        ca_key: String::new(),
        version: "v1.36.2".into(),
        cluster_id: "test".into(),
    });
    for (name, host) in [("cp1", 21), ("w1", 31), ("w2", 32)] {
        let kubelet = Kubelet {
            name: name.into(),
            address: Some(world.net.host(host)),
            version: "v1.36.2".into(),
            control_plane: name == "cp1",
            cores: 4,
            memory_mib: 8192,
            os_image: "Debian GNU/Linux 13 (trixie)".into(),
            ..Kubelet::default()
        };
        kube.kubelet_up("test", kubelet);
    }
    let kubeconfig =
        kubeconfig(folder.path(), &format!("https://{at}"), Some((&authority.pem, &client, &client_key)));
    let cluster = kube_apply::Cluster::connect(&kubeconfig, "start").await.unwrap();
    let cluster = cluster.patience(Duration::from_secs(20));
    cluster.version().await.unwrap();
    let controllers = has_nodes(&cluster).await;
    let kept: Vec<Box<dyn std::any::Any + Send + Sync>> = vec![Box::new(kube), Box::new(folder)];
    Server { name: "the lab", kubeconfig, controllers, lab: Some(world), _kept: kept }
}

/// A kubelet's node is there at once where the lab's controllers run.
async fn has_nodes(cluster: &kube_apply::Cluster) -> bool {
    let until = std::time::Instant::now() + Duration::from_secs(1);
    while std::time::Instant::now() < until {
        if cluster.list("v1", "Node", None, None).await.unwrap().len() == 3 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}
