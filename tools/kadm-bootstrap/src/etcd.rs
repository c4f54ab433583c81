//! etcd, asked through its own container on a control plane.

use std::time::Duration;

use remote::{Command, Host};
use serde::Deserialize;

use crate::seen::MemberSeen;

/// Where containerd answers.
pub const SOCKET: &str = "unix:///run/containerd/containerd.sock";

#[derive(Deserialize)]
struct Containers {
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    id: String,
}

#[derive(Deserialize)]
struct MemberList {
    members: Vec<ListedMember>,
}

/// A member as etcdctl prints it; protobuf leaves out what is empty or false.
#[derive(Deserialize)]
struct ListedMember {
    #[serde(rename = "ID")]
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "peerURLs")]
    peers: Vec<String>,
    #[serde(default, rename = "clientURLs")]
    clients: Vec<String>,
    #[serde(default, rename = "isLearner")]
    learner: bool,
}

#[derive(Deserialize)]
struct Health {
    endpoint: String,
    #[serde(default)]
    health: bool,
}

/// A command for crictl.
pub fn crictl() -> Command {
    Command::new("crictl").args(["--runtime-endpoint", SOCKET]).sudo().timeout(Duration::from_secs(30))
}

/// The ids of the running containers of a static pod.
///
/// # Errors
/// Why the runtime could not be asked.
pub async fn running(host: &Host, pod: &str) -> Result<Vec<String>, String> {
    let name = format!("^{pod}$");
    let list = crictl().args(["ps", "--name", name.as_str(), "--state", "running", "-o", "json"]);
    let output = host.run(&list).await.map_err(|e| e.to_string())?;
    if !output.success() {
        return Err(output.tail());
    }
    let list: Containers = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    Ok(list.containers.into_iter().map(|c| c.id).collect())
}

async fn container(host: &Host) -> Result<String, String> {
    let found = running(host, "etcd").await?;
    found.into_iter().next().ok_or_else(|| "no container of etcd runs".to_owned())
}

/// etcdctl in the container, with the certificates that kubeadm made for health checks.
fn etcdctl(container: &str) -> Command {
    let pki = "/etc/kubernetes/pki/etcd";
    crictl().args(["exec", container, "etcdctl", "--endpoints=https://127.0.0.1:2379"]).args([
        format!("--cacert={pki}/ca.crt"),
        format!("--cert={pki}/healthcheck-client.crt"),
        format!("--key={pki}/healthcheck-client.key"),
    ])
}

/// The members, each with whether it answers.
///
/// # Errors
/// Why etcd could not be asked there.
pub async fn members(host: &Host) -> Result<Vec<MemberSeen>, String> {
    let container = container(host).await?;
    let list = etcdctl(&container).args(["member", "list", "-w", "json"]);
    let health = etcdctl(&container).args(["endpoint", "health", "--cluster", "-w", "json"]);
    let (list, health) = futures::join!(host.run(&list), host.run(&health));
    let list = list.map_err(|e| e.to_string())?;
    if !list.success() {
        return Err(list.tail());
    }
    // It exits 1 when one member is ill, and prints the list all the same.
    let health = health.map_err(|e| e.to_string())?;
    read(&list.stdout, &health.stdout)
}

/// Reads both answers.
///
/// # Errors
/// When the list is none.
pub fn read(list: &[u8], health: &[u8]) -> Result<Vec<MemberSeen>, String> {
    let list: MemberList = serde_json::from_slice(list).map_err(|e| format!("etcdctl's list: {e}"))?;
    let health: Vec<Health> = serde_json::from_slice(health).unwrap_or_default();
    let healthy = |clients: &[String]| health.iter().any(|h| h.health && clients.contains(&h.endpoint));
    let mut members: Vec<MemberSeen> = list
        .members
        .into_iter()
        .map(|m| MemberSeen {
            healthy: healthy(&m.clients),
            id: m.id,
            name: m.name,
            learner: m.learner,
            peers: m.peers,
        })
        .collect();
    members.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(members)
}

/// What `etcdutl snapshot status -w json` tells of a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// A checksum of its content.
    pub hash: u64,
    /// etcd's revision.
    pub revision: u64,
    /// Keys in it.
    pub total_key: u64,
    /// Its size in bytes.
    pub total_size: u64,
}

/// Reads the status of a snapshot: the last line of what was printed.
///
/// # Errors
/// When it is none, or the snapshot is empty.
pub fn snapshot_status(stdout: &[u8]) -> Result<Snapshot, String> {
    let text = String::from_utf8_lossy(stdout);
    let line = text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default();
    let status: Snapshot =
        serde_json::from_str(line).map_err(|e| format!("etcdutl's word on the snapshot: {e}"))?;
    if status.total_key == 0 { Err("the snapshot has no keys".to_owned()) } else { Ok(status) }
}

/// Removes a member.
///
/// # Errors
/// Why it was not removed.
pub async fn remove(host: &Host, id: u64) -> Result<(), String> {
    let container = container(host).await?;
    let command = etcdctl(&container).args(["member", "remove", &format!("{id:x}")]);
    let output = host.run(&command).await.map_err(|e| e.to_string())?;
    if output.success() { Ok(()) } else { Err(output.tail()) }
}
