//! The twin of `tests/clusters/ha.json` for a lab, and the files that it names.

use std::io;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::hosts::packages::RELEASE_KEY;
use crate::lab::Lab;

/// The template that the lab's Proxmox has on each node.
pub(crate) const TEMPLATE: &str = "debian-13-cloud";

/// Writes the files that the document names: a key pair, secrets, the document itself.
pub(crate) fn files(lab: &Lab) -> io::Result<()> {
    let dir = lab.dir();
    if !dir.join("id_ed25519").exists() {
        let key = PrivateKey::random(&mut rand_core(), Algorithm::Ed25519).map_err(io::Error::other)?;
        let private = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
        let public = key.public_key().to_openssh().map_err(io::Error::other)?;
        secret(&dir.join("id_ed25519"), private.as_bytes())?;
        std::fs::write(dir.join("id_ed25519.pub"), format!("{public} lab\n"))?;
    }
    for name in ["vault-secret-id", "restic-prod", "restic-nonprod"] {
        if !dir.join(name).exists() {
            let word: String = (0..32).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
            secret(&dir.join(name), word.as_bytes())?;
        }
    }
    std::fs::copy(dir.join("pve-ca.pem"), dir.join("vault-ca.pem"))?;
    let text = serde_json::to_string_pretty(&document(lab)).map_err(io::Error::other)?;
    std::fs::write(dir.join("cluster.json"), text + "\n")
}

/// The system's own source of randomness, in the form that the key's crate takes.
fn rand_core() -> impl russh::keys::signature::rand_core::CryptoRng {
    russh::keys::key::safe_rng()
}

fn secret(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.write_all(b"\n")
}

/// The document.
pub(crate) fn document(lab: &Lab) -> Value {
    let dir = lab.dir();
    let file = |name: &str| dir.join(name).display().to_string();
    let at = |last: u8| lab.world.net.host(last).to_string();
    let range = |first: u8, last: u8| format!("{}-{}", at(first), at(last));
    let key = std::fs::read_to_string(dir.join("id_ed25519.pub")).unwrap_or_default();
    let mut artefacts: Vec<Value> = lab
        .artefacts
        .all()
        .iter()
        .map(|(name, one)| json!({ "name": name.trim_end_matches(".yaml"), "url": one.url, "sha256": one.sha256 }))
        .collect();
    // The lab signs nothing with the real repository's key.
    let key_digest: String = Sha256::digest(RELEASE_KEY).iter().map(|b| format!("{b:02x}")).collect();
    artefacts.push(json!({
        "name": "kubernetes-apt-key",
        "url": "https://pkgs.k8s.io/core:/stable:/v1.36/deb/Release.key",
        "sha256": key_digest
    }));
    let others = [202, 203].map(|n| lab.endpoint().replace(&at(201), &at(n)));
    json!({
        "apiVersion": "kubeline/v1",
        "kind": "Cluster",
        "metadata": { "name": lab.name() },
        "spec": {
            "proxmox": {
                "endpoint": lab.endpoint(),
                "endpoints": others,
                "tokenFile": file("pve-token"),
                "caFile": file("pve-ca.pem"),
                "nodes": lab.pve.nodes(),
                "pool": "k8s-prod",
                "storage": "local-lvm",
                "bridge": "vmbr0",
                "vlan": 30,
                "vmids": "3000-3099",
                "template": {
                    "name": TEMPLATE,
                    "image": { "url": "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2",
                        "checksumUrl": "https://cloud.debian.org/images/cloud/trixie/latest/SHA512SUMS", "storage": "local" }
                }
            },
            "network": { "cidr": lab.world.net.cidr(), "gateway": at(1), "nameservers": [at(1)], "searchDomain": "lab.example" },
            "vip": { "address": at(10), "routerId": 30, "ports": { "http": 8080, "https": 8443, "api": 6443 } },
            "ssh": {
                "user": "kubeline",
                "port": lab.ssh_port(),
                "identityFile": file("id_ed25519"),
                "authorizedKeys": [key.trim()]
            },
            "pools": [
                { "name": "lb", "role": "load-balancer", "count": 3, "cores": 1, "memory": "1Gi", "disk": "8Gi",
                    "addresses": range(11, 13), "spread": "hard" },
                { "name": "cp", "role": "control-plane", "count": 3, "cores": 4, "memory": "8Gi", "disk": "40Gi",
                    "addresses": range(21, 23), "spread": "hard" },
                { "name": "prod", "role": "worker", "count": 4, "cores": 8, "memory": "32Gi", "disk": "120Gi",
                    "addresses": range(31, 40), "labels": { "environment": "prod" } },
                { "name": "nonprod", "role": "worker", "count": 2, "cores": 8, "memory": "16Gi", "disk": "80Gi",
                    "addresses": range(41, 50), "labels": { "environment": "nonprod" },
                    "taints": ["environment=nonprod:NoSchedule"] },
                { "name": "nfs", "role": "nfs", "count": 1, "cores": 2, "memory": "4Gi", "disk": "16Gi",
                    "addresses": at(60), "disks": [{ "name": "data", "size": "500Gi", "mount": "/srv/nfs" }] }
            ],
            "loadBalancer": { "mode": "passthrough", "statsPort": 8404 },
            "kubernetes": {
                "version": "1.36.2",
                "podCidr": "10.244.0.0/16",
                "serviceCidr": "10.96.0.0/12",
                "kubeconfig": format!("out/{}/kubeconfig", lab.name())
            },
            "cni": { "provider": "calico", "encapsulation": "vxlan-cross-subnet" },
            "storage": {
                "exports": [
                    { "path": "/srv/nfs/k8s-prod", "storageClass": "nfs-prod", "onDelete": "archive",
                        "backup": { "schedule": "*-*-* 02:00:00", "keep": 30,
                            "repository": "sftp:backup@10.30.0.5:/srv/restic/prod", "passwordFile": file("restic-prod") } },
                    { "path": "/srv/nfs/k8s-nonprod", "storageClass": "nfs-nonprod", "onDelete": "delete", "default": true,
                        "backup": { "schedule": "Sun *-*-* 04:00:00", "keep": 4,
                            "repository": "sftp:backup@10.30.0.5:/srv/restic/nonprod", "passwordFile": file("restic-nonprod") } }
                ]
            },
            "ingress": {
                "provider": "traefik",
                "httpNodePort": 30080,
                "httpsNodePort": 30443,
                "pingNodePort": 30082,
                "certificates": {
                    "vault": {
                        "servers": ["https://vault1.lab.example:8200", "https://vault2.lab.example:8200", "https://vault3.lab.example:8200"],
                        "caFile": file("vault-ca.pem"),
                        "mount": "pki_int",
                        "role": "kubernetes",
                        "auth": { "appRole": { "roleId": "5f8a6c1e-0000-4000-8000-000000000001", "secretIdFile": file("vault-secret-id") } }
                    }
                }
            },
            "observability": {
                "prometheus": { "retention": "15d", "size": "30Gi", "storage": "local" },
                "grafana": { "host": "grafana.lab.example" },
                "logs": { "agent": "promtail", "retention": "7d", "size": "30Gi", "storage": "local" }
            },
            "backup": {
                "etcd": { "schedule": "*-*-* 00/6:00:00", "keep": 28, "export": "/srv/nfs/etcd",
                    "recipient": "age1zezrhxrugr07z23tnrqnycltga4l7s6nsk0tx5kuskejjfvq0q5splpwjh" },
                "machines": { "schedule": "Sat *-*-* 01:00:00", "keep": 4, "storage": "backup" }
            },
            "artifacts": artefacts
        }
    })
}
