//! Serving certificates of kubelets: asked for, approved by whoever may, signed by the controller manager.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SignatureAlgorithm,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{MANAGER, Plant, create, list, names, pods, set_status, text};
use crate::kube::auth::{self, Identity, Wish};
use crate::kube::requests::{self, Request, SERVING};
use crate::kube::store::{Store, hash};
use crate::kube::verbs::now;

const STORE: &str = "certificatesigningrequests.certificates.k8s.io";

/// Kubelets that want a serving certificate ask for one, and take what they are given.
pub(crate) fn kubelets(store: &mut Store, plant: &mut Plant) {
    let asking: Vec<String> = plant
        .machines
        .values()
        .filter(|m| m.up && !m.registers && m.kubelet.asks && !m.kubelet.serves && m.serving.issued.is_none())
        .map(|m| m.kubelet.name.clone())
        .collect();
    for name in asking {
        // It waits until its node says its addresses.
        let Some(node) = store.get("nodes", "", &name) else { continue };
        if list(node, "/status/addresses").is_empty() {
            continue;
        }
        let Some(machine) = plant.machines.get(&name).cloned() else { continue };
        let mut serving = machine.serving.clone();
        if let Some((request, key)) = serving.asked.clone() {
            let object = store.get(STORE, "", &request).cloned();
            let issued = object.as_ref().map(|o| text(o, "/status/certificate").to_owned());
            match (object, issued) {
                (Some(_), Some(coded)) if !coded.is_empty() => {
                    let pem = STANDARD.decode(coded).ok().and_then(|p| String::from_utf8(p).ok());
                    serving.issued = pem.map(|pem| (pem, key));
                    serving.asked = None;
                }
                (Some(object), _)
                    if !requests::has(&object, "Denied") && !requests::has(&object, "Failed") =>
                {
                    continue;
                }
                // Denied, failed or gone: it asks again after a while.
                _ => serving.asked = None,
            }
        } else {
            let after = Duration::from_secs(if serving.tries == 0 { 1 } else { 30 });
            if !plant.due(format!("asks {name} {} {}", machine.starts, serving.tries), after) {
                continue;
            }
            serving.tries += 1;
            let request = format!("csr-{}", &hash(&json!([name, machine.starts, serving.tries]))[..5]);
            let Some((pem, key)) = ask(&name, machine.kubelet.address.map(IpAddr::from)) else { continue };
            let user = format!("system:node:{name}");
            let made = create(
                store,
                "kubelet",
                json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": request},
                    "spec": {"request": STANDARD.encode(pem), "signerName": SERVING, "username": user,
                        "groups": ["system:nodes", "system:authenticated"], "usages": ["digital signature", "server auth"]}}),
            );
            // A name that is taken: another one in the next pass.
            serving.asked = made.is_ok().then_some((request, key));
        }
        if let Some(machine) = plant.machines.get_mut(&name) {
            machine.serving = serving;
        }
    }
}

/// A request as the kubelet makes it, and its key (PEM).
fn ask(name: &str, address: Option<IpAddr>) -> Option<(String, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
    params.subject_alt_names.push(SanType::DnsName(name.try_into().ok()?));
    params.subject_alt_names.extend(address.map(SanType::IpAddress));
    let pair = KeyPair::generate().ok()?;
    let request = params.serialize_request(&pair).ok()?.pem().ok()?;
    Some((request, pair.serialize_pem()))
}

/// postfinance/kubelet-csr-approver, played: what its environment has it check, and only while its pod runs and its
/// account may.
pub(crate) fn approver(store: &mut Store) {
    let Some(pod) = store
        .list("pods", None)
        .find(|p| text(p, "/spec/containers/0/image").contains("/kubelet-csr-approver:") && pods::is_ready(p))
        .cloned()
    else {
        return;
    };
    let Some(res) = store.resource_of_store(STORE) else { return };
    let (ns, account) = (text(&pod, "/metadata/namespace"), text(&pod, "/spec/serviceAccountName"));
    let identity = Identity::User {
        name: format!("system:serviceaccount:{ns}:{account}"),
        groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{ns}")],
    };
    let may = |store: &Store, verb: &str, sub: &str| {
        auth::allow(store, &identity, &Wish { verb, res: &res, sub, ns: "", name: "" }).is_ok()
    };
    let allowed = ["get", "list", "watch"].iter().all(|verb| may(store, verb, ""))
        && may(store, "update", "approval")
        && requests::may_approve(store, &identity, &res, SERVING);
    if !allowed {
        return;
    }
    let env: BTreeMap<String, String> = list(&pod, "/spec/containers/0/env")
        .iter()
        .map(|e| (text(e, "/name").to_owned(), text(e, "/value").to_owned()))
        .collect();
    for (_, name) in names(store, STORE) {
        let Some(object) = store.get(STORE, "", &name).cloned() else { continue };
        let open = object["spec"]["signerName"] == SERVING
            && !requests::has(&object, "Approved")
            && !requests::has(&object, "Denied");
        if !open {
            continue;
        }
        let verdict = judge(&object, &pod, &env);
        if verdict.is_err() && env.get("SKIP_DENY_STEP").is_some_and(|v| v == "true") {
            continue;
        }
        let (kind, reason, message) = match verdict {
            Ok(()) => (
                "Approved",
                "kubelet-serving cert validated",
                "CSR complied with kubelet-csr-approver validation process".to_owned(),
            ),
            Err(why) => ("Denied", "kubelet-serving cert denied", why),
        };
        condition(store, &object, kind, reason, &message);
    }
}

fn condition(store: &mut Store, object: &Value, kind: &str, reason: &str, message: &str) {
    let mut status = object["status"].clone();
    let mut all = list(object, "/status/conditions").to_vec();
    all.push(json!({"type": kind, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": now(), "lastTransitionTime": now()}));
    status["conditions"] = all.into();
    set_status(store, MANAGER, object, status);
}

// The checks of its release 1.2: names by the regular expression, addresses by what the name resolves to (here: the
// pod's hostAliases) and by the prefixes.
fn judge(object: &Value, pod: &Value, env: &BTreeMap<String, String>) -> Result<(), String> {
    let request = Request::of(object).ok_or("no request")?;
    let user = text(object, "/spec/username");
    let node =
        user.strip_prefix("system:node:").ok_or("CSR Spec.Username is not prefixed with system:node:")?;
    if request.common_name != user {
        return Err("CSR username does not match the parsed x509 certificate request commonname".into());
    }
    if request.names.len() > 1 {
        return Err("The x509 Cert Request contains more DNS names than allowed".into());
    }
    let pattern = env.get("PROVIDER_REGEX").map_or(".*", String::as_str);
    let pattern = regex::Regex::new(pattern).map_err(|e| e.to_string())?;
    let prefixes = env.get("PROVIDER_IP_PREFIXES").map_or("0.0.0.0/0", String::as_str);
    let inside = |address: &IpAddr| prefixes.split(',').any(|p| contains(p, address));
    for name in &request.names {
        if !name.starts_with(node) || !pattern.is_match(name) {
            return Err("The SAN DNS name in the x509 CSR is not allowed".into());
        }
        if env.get("BYPASS_DNS_RESOLUTION").is_none_or(|v| v != "true") {
            let resolved: Vec<IpAddr> = list(pod, "/spec/hostAliases")
                .iter()
                .filter(|a| list(a, "/hostnames").iter().any(|h| h == name.as_str()))
                .filter_map(|a| text(a, "/ip").parse().ok())
                .collect();
            if resolved.is_empty() {
                return Err("The SAN DNS Name could not be resolved, denying the CSR".into());
            }
            if !resolved.iter().all(inside) || request.addresses.iter().any(|a| !resolved.contains(a)) {
                return Err("One of the SAN IP addresses is not one of the resolved".into());
            }
        }
    }
    match request.addresses.iter().all(inside) {
        true => Ok(()),
        false => Err("One of the SAN IP addresses is not part of the allowed IP Prefixes/Subnets".into()),
    }
}

fn contains(prefix: &str, address: &IpAddr) -> bool {
    let (Some((base, bits)), IpAddr::V4(address)) = (prefix.split_once('/'), address) else { return false };
    let (Ok(base), Ok(bits)) = (base.parse::<std::net::Ipv4Addr>(), bits.parse::<u32>()) else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
    u32::from(base) & mask == u32::from(*address) & mask
}

/// A public key as it stood in a request; kubelets ask with ECDSA P-256.
struct Asked(Vec<u8>);

impl PublicKeyData for Asked {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// The controller manager signs what was approved; for kubelets' serving certificates only what its own rules allow
/// (ValidateKubeletServingCSR in pkg/apis/certificates/helpers.go).
pub(crate) fn signer(store: &mut Store, plant: &Plant) {
    let Some((_, key)) = plant.signer.clone() else { return };
    for (_, name) in names(store, STORE) {
        let Some(object) = store.get(STORE, "", &name).cloned() else { continue };
        let due = object["spec"]["signerName"] == SERVING
            && requests::has(&object, "Approved")
            && !requests::has(&object, "Failed")
            && text(&object, "/status/certificate").is_empty();
        if !due {
            continue;
        }
        match sign(&object, &key) {
            Ok(pem) => {
                let mut status = object["status"].clone();
                status["certificate"] = STANDARD.encode(pem).into();
                set_status(store, MANAGER, &object, status);
            }
            Err(why) => condition(store, &object, "Failed", "SignerValidationFailure", &why),
        }
    }
}

fn sign(object: &Value, ca_key: &str) -> Result<String, String> {
    let request = Request::of(object).ok_or("no request")?;
    let usages: Vec<&str> = list(object, "/spec/usages").iter().filter_map(Value::as_str).collect();
    if request.organisations != ["system:nodes"] || !request.common_name.starts_with("system:node:") {
        return Err("subject is not that of a node".into());
    }
    if request.names.is_empty() && request.addresses.is_empty() || request.others > 0 {
        return Err("at least one of DNS name or IP is required, and nothing else is allowed".into());
    }
    let known = ["digital signature", "key encipherment", "server auth"];
    if !usages.contains(&"server auth") || usages.iter().any(|u| !known.contains(u)) {
        return Err("usages did not match".into());
    }
    let fault = |e: rcgen::Error| e.to_string();
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = DistinguishedName::new();
    issuer.distinguished_name.push(DnType::CommonName, "kubernetes");
    issuer.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = Issuer::new(issuer, KeyPair::from_pem(ca_key).map_err(fault)?);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, request.common_name.as_str());
    for name in &request.names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(fault)?));
    }
    params.subject_alt_names.extend(request.addresses.iter().copied().map(SanType::IpAddress));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let at = OffsetDateTime::now_utc();
    params.not_before = at - time::Duration::minutes(5);
    params.not_after = at + time::Duration::days(365);
    params.signed_by(&Asked(request.key), &issuer).map(|c| c.pem()).map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_was_asked_and_is_signed() {
        let (pem, key) = ask("w-1", Some([10, 0, 0, 7].into())).unwrap();
        let mut object = json!({"spec": {"request": STANDARD.encode(&pem), "usages": ["digital signature", "server auth"]}});
        let request = Request::of(&object).unwrap();
        assert_eq!(request.common_name, "system:node:w-1");
        assert_eq!((request.names, request.addresses.len(), request.others), (vec!["w-1".to_owned()], 1, 0));
        let ca = KeyPair::generate().unwrap().serialize_pem();
        let signed = sign(&object, &ca).unwrap();
        let (_, parsed) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let pair = KeyPair::from_pem(&key).unwrap();
        assert_eq!(parsed.parse_x509().unwrap().public_key().raw, pair.subject_public_key_info());
        object["spec"]["usages"] = json!(["client auth"]);
        assert!(sign(&object, &ca).is_err());
        assert!(
            contains("10.0.0.0/24", &[10, 0, 0, 9].into()) && !contains("10.0.0.7/32", &[10, 0, 0, 9].into())
        );
    }
}
