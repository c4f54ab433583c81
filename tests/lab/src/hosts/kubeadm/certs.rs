//! `kubeadm certs`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::pki::{self, Subject};
use super::{Flags, Words};
use crate::hosts::Machine;
use crate::hosts::programs::{Ctx, Output};

/// Name, file below `/etc/kubernetes`, authority.
const LEAVES: [(&str, &str, &str); 11] = [
    ("admin.conf", "admin.conf", "ca"),
    ("apiserver", "pki/apiserver.crt", "ca"),
    ("apiserver-etcd-client", "pki/apiserver-etcd-client.crt", "etcd-ca"),
    ("apiserver-kubelet-client", "pki/apiserver-kubelet-client.crt", "ca"),
    ("controller-manager.conf", "controller-manager.conf", "ca"),
    ("etcd-healthcheck-client", "pki/etcd/healthcheck-client.crt", "etcd-ca"),
    ("etcd-peer", "pki/etcd/peer.crt", "etcd-ca"),
    ("etcd-server", "pki/etcd/server.crt", "etcd-ca"),
    ("front-proxy-client", "pki/front-proxy-client.crt", "front-proxy-ca"),
    ("scheduler.conf", "scheduler.conf", "ca"),
    ("super-admin.conf", "super-admin.conf", "ca"),
];
const AUTHORITIES: [(&str, &str); 3] =
    [("ca", "pki/ca.crt"), ("etcd-ca", "pki/etcd/ca.crt"), ("front-proxy-ca", "pki/front-proxy-ca.crt")];

fn ends(machine: &Machine, file: &str) -> Option<i64> {
    let text = machine.fs.read(&format!("/etc/kubernetes/{file}")).ok()?;
    let text = String::from_utf8_lossy(text);
    if file.ends_with(".crt") {
        return pki::ends(&text);
    }
    let coded = text.lines().find_map(|l| l.trim().strip_prefix("client-certificate-data: "))?;
    pki::ends(&String::from_utf8(STANDARD.decode(coded).ok()?).ok()?)
}

/// `kubeadm certs check-expiration`.
pub fn check(ctx: &mut Ctx, args: &[String]) -> Output {
    let flags = match Flags::parse(args, &["output", "config", "kubeconfig"]) {
        Ok(flags) => flags,
        Err(e) => return Words::default().end(Err(e)),
    };
    if flags.get("output") != Some("json") {
        return ctx.unknown("kubeadm certs check-expiration", args);
    }
    let machine = ctx.machine();
    if machine.fs.exists("/etc/kubernetes/pki/ca.crt")
        && !machine.fs.exists("/etc/kubernetes/pki/apiserver.key")
    {
        let path = "/etc/kubernetes/pki/apiserver.key";
        return Words::default().end(Err(format!(
            "Error checking external CA condition for ca certificate authority: failure loading key for apiserver: couldn't load the private key \
             file {path}: open {path}: no such file or directory"
        )));
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let entry = |name: &str, file: &str, ca: Option<&str>| -> Value {
        let end = ends(&machine, file);
        let date = end
            .and_then(|e| OffsetDateTime::from_unix_timestamp(e).ok())
            .and_then(|t| t.format(&Rfc3339).ok());
        let mut shown = json!({"name": name, "expirationDate": date, "residualTime": end.map_or(0, |e| e - now), "externallyManaged": false});
        if let Some(ca) = ca {
            shown["caName"] = json!(ca);
        }
        shown["missing"] = json!(end.is_none());
        shown
    };
    let leaves: Vec<Value> = LEAVES.iter().map(|(n, f, ca)| entry(n, f, Some(ca))).collect();
    let authorities: Vec<Value> = AUTHORITIES.iter().map(|(n, f)| entry(n, f, None)).collect();
    let shown = json!({"kind": "CertificateExpirationInfo", "apiVersion": "output.kubeadm.k8s.io/v1alpha3", "certificates": leaves,
        "certificateAuthorities": authorities});
    Output::ok(format!(
        "{}\n",
        serde_json::to_string_pretty(&shown).unwrap_or_default().replace("  ", "    ")
    ))
}

/// `kubeadm certs renew NAME` for the plain clients. Others are unknown to the lab.
pub fn renew(ctx: &mut Ctx, args: &[String]) -> Output {
    let [name] = args else { return ctx.unknown("kubeadm certs renew", args) };
    let client = match name.as_str() {
        "apiserver-kubelet-client" => {
            ("ca", Subject::client("kube-apiserver-kubelet-client", "kubeadm:cluster-admins"))
        }
        "front-proxy-client" => ("front-proxy-ca", Subject::client("front-proxy-client", "")),
        _ => return ctx.unknown("kubeadm certs renew", args),
    };
    ctx.changes();
    let mut machine = ctx.machine();
    for suffix in ["crt", "key"] {
        let _ = machine.fs.remove(&format!("{}/{name}.{suffix}", pki::DIR));
    }
    match pki::leaf(&mut machine, name, client.0, &client.1) {
        Ok(_) => Output::ok(format!("certificate for {name} renewed\n")),
        Err(e) => Words::default().end(Err(e)),
    }
}
