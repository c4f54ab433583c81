//! `kubeadm certs`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::config::Config;
use super::{Flags, Words, pki, upgrade};
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

/// What kubeadm says of each certificate that it renews.
const RENEWED: [(&str, &str); 11] = [
    ("admin.conf", "certificate embedded in the kubeconfig file for the admin to use and for kubeadm itself"),
    ("apiserver", "certificate for serving the Kubernetes API"),
    ("apiserver-etcd-client", "certificate the apiserver uses to access etcd"),
    ("apiserver-kubelet-client", "certificate for the API server to connect to kubelet"),
    (
        "controller-manager.conf",
        "certificate embedded in the kubeconfig file for the controller manager to use",
    ),
    ("etcd-healthcheck-client", "certificate for liveness probes to healthcheck etcd"),
    ("etcd-peer", "certificate for etcd nodes to communicate with each other"),
    ("etcd-server", "certificate for serving etcd"),
    ("front-proxy-client", "certificate for the front proxy client"),
    ("scheduler.conf", "certificate embedded in the kubeconfig file for the scheduler manager to use"),
    ("super-admin.conf", "certificate embedded in the kubeconfig file for the super-admin"),
];

/// Renews one certificate; one that is not on this machine is left out.
///
/// # Errors
/// When its authority's key is not there.
pub fn renew_one(machine: &mut Machine, config: &Config, name: &str) -> Result<bool, String> {
    let Some((file, ca, subject)) = upgrade::subject(config, name) else {
        return Err(format!("no certificate {name}"));
    };
    if let Some(conf) = file.strip_suffix(".conf").map(|_| file) {
        if external(machine, "ca") {
            return Ok(false);
        }
        let path = format!("/etc/kubernetes/{conf}");
        if !machine.fs.exists(&path) {
            return Ok(false);
        }
        let text = machine.fs.text(&path);
        let server =
            text.lines().find_map(|l| l.trim().strip_prefix("server: ")).unwrap_or_default().to_string();
        pki::kubeconfig(machine, conf, &config.cluster, &server, &subject)?;
        return Ok(true);
    }
    let base = format!("/etc/kubernetes/{file}");
    if external(machine, ca) {
        return Ok(false);
    }
    if !machine.fs.exists(&format!("{base}.crt")) {
        return Ok(false);
    }
    for suffix in ["crt", "key"] {
        let _ = machine.fs.remove(&format!("{base}.{suffix}"));
    }
    pki::leaf(machine, file.trim_start_matches("pki/"), ca, &subject)
}

/// Whether the key of this authority is kept elsewhere; etcd's never is (phases/certs/renewal/manager.go).
fn external(machine: &Machine, ca: &str) -> bool {
    ca != "etcd/ca" && !machine.fs.exists(&format!("{}/{ca}.key", pki::DIR))
}

/// `kubeadm certs renew all` and of one certificate.
pub async fn renew(ctx: &mut Ctx, args: &[String]) -> Output {
    let [which] = args else { return ctx.unknown("kubeadm certs renew", args) };
    let chosen: Vec<&(&str, &str)> = RENEWED.iter().filter(|(n, _)| which == "all" || which == n).collect();
    if chosen.is_empty() {
        return ctx.unknown("kubeadm certs renew", args);
    }
    let mut words = Words::default();
    words.out(
        "[renew] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...",
    );
    words.out(
        "[renew] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' to re-upload it.\n",
    );
    // Without the cluster it goes on with defaults, and so with another name list: the lab does not.
    let config = match upgrade::stored(ctx).await {
        Ok((_, config)) => config,
        Err(e) => return words.end(Err(e)),
    };
    ctx.changes();
    {
        let mut machine = ctx.machine();
        for (name, what) in chosen {
            match renew_one(&mut machine, &config, name) {
                Ok(true) => words.out(format!("{what} renewed")),
                Ok(false) => words.out(format!("MISSING! {what}")),
                Err(e) => return words.end(Err(e)),
            }
        }
    }
    if which == "all" {
        words.out("\nDone renewing certificates. You must restart the kube-apiserver, kube-controller-manager, kube-scheduler and etcd, so that they can use the new certificates.");
    }
    words.end(Ok(()))
}
