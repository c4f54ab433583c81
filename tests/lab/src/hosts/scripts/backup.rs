//! The scripts of kadm-bootstrap that save and restore a cluster.
//!
//! An archive is a JSON object of paths and contents here: who packs and unpacks it are these scripts alone.

use std::collections::BTreeMap;

use super::kadm::hex;
use crate::hosts::kubeadm::{cluster as servers, pki};
use crate::hosts::programs::{Ctx, Output, cluster};
use crate::hosts::units::State;
use crate::hosts::{etcd, fs};

type Archive = BTreeMap<String, String>;

/// `$1` where the snapshot goes: saved and verified through etcd's container, in place of earlier ones.
pub fn snapshot(ctx: &mut Ctx, args: &[String]) -> Output {
    let [path] = args else { return ctx.unknown("kadm-snapshot v2", args) };
    if !ctx.root() {
        return ctx.unknown("kadm-snapshot v2 without root", args);
    }
    let temporary = "/var/lib/etcd/kubeline-snapshot.db";
    let saved = cluster::in_etcd(ctx, &["etcdctl", "snapshot", "save", temporary]);
    if saved.exit != 0 {
        return saved;
    }
    let status = cluster::in_etcd(ctx, &["etcdutl", "snapshot", "status", temporary, "-w", "json"]);
    let mut machine = ctx.machine();
    let content = machine.fs.read(temporary).map(<[u8]>::to_vec).unwrap_or_default();
    let _ = machine.fs.remove(temporary);
    if status.exit != 0 {
        return status;
    }
    let folder = crate::hosts::fs::parent(path);
    let _ = machine.fs.mkdir_p(&folder, 0o700);
    for name in machine.fs.list(&folder).unwrap_or_default() {
        if name.starts_with("etcd-before-") && name.ends_with(".db") {
            let _ = machine.fs.remove(&format!("{folder}/{name}"));
        }
    }
    machine.fs.put(path, content, 0o600, "root", "root");
    drop(machine);
    ctx.changes();
    status
}

/// `$1` where the archive goes.
pub fn backup(ctx: &mut Ctx, args: &[String]) -> Output {
    let [path] = args else { return ctx.unknown("kadm-backup v2", args) };
    if !ctx.root() {
        return ctx.unknown("kadm-backup v2 without root", args);
    }
    let temporary = "/var/lib/etcd/kubeline-backup.db";
    let saved = cluster::in_etcd(ctx, &["etcdctl", "snapshot", "save", temporary]);
    if saved.exit != 0 {
        return saved;
    }
    let status = cluster::in_etcd(ctx, &["etcdutl", "snapshot", "status", temporary, "-w", "json"]);
    let mut machine = ctx.machine();
    let mut archive = Archive::new();
    archive.insert("snapshot.db".into(), machine.fs.text(temporary));
    for file in machine.fs.walk(pki::DIR) {
        if machine.fs.read(&file).is_ok() {
            let name = file.trim_start_matches("/etc/kubernetes/").to_string();
            archive.insert(name, machine.fs.text(&file));
        }
    }
    let _ = machine.fs.remove(temporary);
    if status.exit != 0 {
        return status;
    }
    let content = serde_json::to_vec(&archive).unwrap_or_default();
    let _ = machine.fs.mkdir_p(&fs::parent(path), 0o700);
    let said = format!("{}{} {}\n", String::from_utf8_lossy(&status.stdout), hex(&content), content.len());
    machine.fs.put(path, content, 0o600, "root", "root");
    drop(machine);
    ctx.changes();
    Output::ok(said)
}

/// Puts etcd's data aside once nothing runs on it, beside what was put aside before.
pub fn aside(ctx: &mut Ctx, args: &[String]) -> Output {
    if !args.is_empty() || !ctx.root() {
        return ctx.unknown("kadm-aside v1", args);
    }
    let mut machine = ctx.machine();
    let Ok(data) = machine.fs.read(etcd::DATA).map(<[u8]>::to_vec) else { return Output::quiet() };
    machine.services.set("kubelet", State::Inactive, 0);
    let _ = machine.fs.mkdir_p("/var/lib/kubeline", 0o700);
    let numbered = (2..).map(|n| format!("/var/lib/kubeline/etcd-aside-{n}"));
    let mut places = std::iter::once("/var/lib/kubeline/etcd-aside".to_owned()).chain(numbered);
    let Some(place) = places.find(|place| !machine.fs.exists(place)) else { return Output::code(1) };
    machine.fs.put(&format!("{place}/snap/db"), data, 0o600, "root", "root");
    machine.fs.remove_all("/var/lib/etcd/member");
    drop(machine);
    ctx.changes();
    Output::quiet()
}

/// `$1` the archive, `$2` its digest, `$3` the member's name, `$4` its peer URL, `$5` the image of etcd.
pub fn restore(ctx: &mut Ctx, args: &[String]) -> Output {
    let [path, sha256, name, peer, image] = args else { return ctx.unknown("kadm-restore v1", args) };
    if !ctx.root() {
        return ctx.unknown("kadm-restore v1 without root", args);
    }
    if !image.contains("/etcd:") {
        return Output::fail(1, format!("ctr: image \"{image}\": not found"));
    }
    let mut machine = ctx.machine();
    if !machine.services.active("containerd") {
        return Output::fail(1, "FATA[0000] validate service connection: connect: no such file or directory");
    }
    let content = machine.fs.read(path).map(<[u8]>::to_vec).unwrap_or_default();
    let _ = machine.fs.remove(path);
    if hex(&content) != *sha256 {
        return Output::code(1);
    }
    let Ok(archive) = serde_json::from_slice::<Archive>(&content) else {
        return Output::fail(2, "tar: This does not look like a tar archive");
    };
    let shared = ["ca", "etcd/ca", "front-proxy-ca"].map(|f| [format!("{f}.crt"), format!("{f}.key")]);
    for file in shared.into_iter().flatten().chain(["sa.key".into(), "sa.pub".into()]) {
        let Some(text) = archive.get(&format!("pki/{file}")) else {
            return Output::fail(1, format!("install: cannot stat 'pki/{file}': No such file or directory"));
        };
        let mode = if file.ends_with(".crt") { 0o644 } else { 0o600 };
        machine.fs.put(&format!("{}/{file}", pki::DIR), text.clone(), mode, "root", "root");
    }
    let db = archive.get("snapshot.db").map(String::as_bytes).unwrap_or_default();
    let Some(snapshot) = etcd::read_snapshot(db) else {
        return Output::fail(1, "Error: snapshot restore: expected sha256");
    };
    let Some(id) = servers::cluster_id(&machine) else {
        return Output::fail(1, "the CA certificate cannot be read");
    };
    machine.kube.images.insert(image.clone());
    let address = peer.trim_start_matches("https://").trim_end_matches(":2380");
    let member = ctx.hosts.etcd().begin(&id, name, address);
    machine.fs.remove_all("/var/lib/etcd/member");
    etcd::store(&mut machine, &id, &member);
    drop(machine);
    // The objects come back with the data directory.
    ctx.hosts.kube().load(&id, &snapshot.objects);
    ctx.changes();
    Output::quiet()
}
