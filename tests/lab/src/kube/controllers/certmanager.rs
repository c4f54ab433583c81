//! cert-manager, played: issuers become Ready, certificates get their Secret, the CA bundle is injected.

use base64::Engine as _;
use serde_json::{Value, json};

use super::{condition, conditions, ensure, going, holds, names, number, set_status, text, update};
use crate::kube::store::Store;

const MANAGER: &str = "cert-manager-certificates-issuing";

/// One pass.
pub(crate) fn run(store: &mut Store) {
    let works = |store: &Store, name: &str| {
        store
            .get("deployments.apps", "cert-manager", name)
            .is_some_and(|d| number(d, "/status/availableReplicas") > 0)
    };
    if works(store, "cert-manager-cainjector") {
        inject(store);
    }
    if !works(store, "cert-manager") {
        return;
    }
    for of in ["issuers.cert-manager.io", "clusterissuers.cert-manager.io"] {
        for (ns, name) in names(store, of) {
            let Some(issuer) = store.get(of, &ns, &name).cloned() else { continue };
            if !going(&issuer) {
                issuer_status(store, &issuer);
            }
        }
    }
    for (ns, name) in names(store, "certificates.cert-manager.io") {
        let Some(certificate) = store.get("certificates.cert-manager.io", &ns, &name).cloned() else {
            continue;
        };
        if !going(&certificate) {
            issue(store, &certificate);
        }
    }
}

fn inject(store: &mut Store) {
    let bundle = base64::engine::general_purpose::STANDARD.encode(&store.ca);
    for of in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"] {
        let of = format!("{of}.admissionregistration.k8s.io");
        for (_, name) in names(store, &of) {
            let Some(mut hooks) = store.get(&of, "", &name).map(|o| (**o).clone()) else { continue };
            if hooks["metadata"]["annotations"].get("cert-manager.io/inject-ca-from-secret").is_none() {
                continue;
            }
            let mut changed = false;
            for hook in hooks["webhooks"].as_array_mut().into_iter().flatten() {
                if hook["clientConfig"].get("caBundle").is_none() {
                    hook["clientConfig"]["caBundle"] = bundle.as_str().into();
                    changed = true;
                }
            }
            if changed {
                update(store, "cert-manager-cainjector", hooks);
            }
        }
    }
}

// The secret that a Vault issuer logs in with must be there; the Vault itself is taken to answer.
fn issuer_status(store: &mut Store, issuer: &Value) {
    let ns = match text(issuer, "/metadata/namespace") {
        "" => "cert-manager",
        ns => ns,
    };
    let secret = ["/spec/vault/auth/appRole/secretRef", "/spec/vault/auth/tokenSecretRef", "/spec/ca"]
        .iter()
        .find_map(|p| issuer.pointer(p))
        .map(|s| {
            if s.get("secretName").is_some() { text(s, "/secretName") } else { text(s, "/name") }.to_owned()
        });
    let mut all = conditions(issuer);
    let kind = if issuer["spec"].get("vault").is_some() { "Vault" } else { "Issuer" };
    match secret {
        Some(name) if store.get("secrets", ns, &name).is_none() => {
            let message = format!("Failed to initialize {kind} client: secrets \"{name}\" not found");
            condition(&mut all, "Ready", "False", &format!("{kind}Error"), &message);
        }
        _ if kind == "Vault" => condition(&mut all, "Ready", "True", "VaultVerified", "Vault verified"),
        _ => condition(&mut all, "Ready", "True", "IsReady", "The issuer is ready"),
    }
    all.iter_mut().for_each(|c| c["observedGeneration"] = issuer["metadata"]["generation"].clone());
    let mut status = issuer["status"].clone();
    status["conditions"] = all.into();
    set_status(store, "cert-manager-issuers", issuer, status);
}

fn issue(store: &mut Store, certificate: &Value) {
    let ns = text(certificate, "/metadata/namespace");
    let reference = &certificate["spec"]["issuerRef"];
    let (of, issuer_ns) = match text(reference, "/kind") {
        "ClusterIssuer" => ("clusterissuers.cert-manager.io", ""),
        _ => ("issuers.cert-manager.io", ns),
    };
    let good = store.get(of, issuer_ns, text(reference, "/name")).is_some_and(|i| holds(i, "Ready"));
    let mut all = conditions(certificate);
    let secret = text(certificate, "/spec/secretName");
    if !good {
        let message = format!(
            "Issuing certificate as Secret does not exist: issuer {} is not ready",
            text(reference, "/name")
        );
        condition(&mut all, "Ready", "False", "DoesNotExist", &message);
    } else {
        if store.get("secrets", ns, secret).is_none() {
            let Some((chain, key)) = self_signed(certificate) else { return };
            let b64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
            ensure(
                store,
                MANAGER,
                json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": secret, "namespace": ns,
                    "annotations": {"cert-manager.io/certificate-name": certificate["metadata"]["name"]}},
                    "data": {"tls.crt": b64(&chain), "tls.key": b64(&key), "ca.crt": b64(&chain)}}),
            );
        }
        condition(&mut all, "Ready", "True", "Ready", "Certificate is up to date and has not expired");
    }
    all.iter_mut().for_each(|c| c["observedGeneration"] = certificate["metadata"]["generation"].clone());
    let mut status = certificate["status"].clone();
    status["conditions"] = all.into();
    set_status(store, MANAGER, certificate, status);
}

fn self_signed(certificate: &Value) -> Option<(String, String)> {
    let names: Vec<String> = super::list(certificate, "/spec/dnsNames")
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let key = rcgen::KeyPair::generate().ok()?;
    let made = rcgen::CertificateParams::new(names).ok()?.self_signed(&key).ok()?;
    Some((made.pem(), key.serialize_pem()))
}
