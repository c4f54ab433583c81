//! The certificates and kubeconfigs that kubeadm makes, really signed.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use crate::hosts::Machine;

/// The folder of the certificates.
pub const DIR: &str = "/etc/kubernetes/pki";

/// What went wrong with a key or certificate, as text.
pub type Fault = String;

fn fault(e: impl std::fmt::Display) -> Fault {
    e.to_string()
}

fn put(machine: &mut Machine, path: &str, content: String, mode: u32) {
    machine.fs.put(path, content, mode, "root", "root");
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + Duration::days(3650);
    params
}

/// The common name of a CA by its file.
fn ca_name(ca: &str) -> &'static str {
    match ca {
        "etcd/ca" => "etcd-ca",
        "front-proxy-ca" => "front-proxy-ca",
        _ => "kubernetes",
    }
}

/// Makes a CA unless it is there. True when it was made.
pub fn ca(machine: &mut Machine, ca: &str) -> Result<bool, Fault> {
    let (cert, key) = (format!("{DIR}/{ca}.crt"), format!("{DIR}/{ca}.key"));
    if machine.fs.exists(&cert) && machine.fs.exists(&key) {
        return Ok(false);
    }
    let pair = KeyPair::generate().map_err(fault)?;
    let certificate = ca_params(ca_name(ca)).self_signed(&pair).map_err(fault)?;
    put(machine, &cert, certificate.pem(), 0o644);
    put(machine, &key, pair.serialize_pem(), 0o600);
    Ok(true)
}

/// Who a certificate is for.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Common name.
    pub name: String,
    /// Organisation, the group in Kubernetes.
    pub group: String,
    /// Names and addresses; empty for a mere client.
    pub sans: Vec<String>,
    /// True when it may serve.
    pub server: bool,
    /// True when it may be a client.
    pub client: bool,
}

impl Subject {
    /// A client's.
    pub fn client(name: &str, group: &str) -> Subject {
        Subject { name: name.into(), group: group.into(), client: true, ..Subject::default() }
    }
}

/// A certificate and key in PEM, signed by the CA of this name on the machine.
pub fn sign(machine: &Machine, ca: &str, subject: &Subject) -> Result<(String, String), Fault> {
    let ca_key = machine.fs.text(&format!("{DIR}/{ca}.key"));
    let issuer = Issuer::new(ca_params(ca_name(ca)), KeyPair::from_pem(&ca_key).map_err(fault)?);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.name.as_str());
    if !subject.group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, subject.group.as_str());
    }
    for san in &subject.sans {
        params.subject_alt_names.push(match san.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(san.as_str().try_into().map_err(fault)?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    if subject.server {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if subject.client {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    params.use_authority_key_identifier_extension = true;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + Duration::days(365);
    let pair = KeyPair::generate().map_err(fault)?;
    let certificate = params.signed_by(&pair, &issuer).map_err(fault)?;
    Ok((certificate.pem(), pair.serialize_pem()))
}

/// Makes `NAME.crt` and `NAME.key` unless they are there. True when they were made.
pub fn leaf(machine: &mut Machine, name: &str, ca: &str, subject: &Subject) -> Result<bool, Fault> {
    let (cert, key) = (format!("{DIR}/{name}.crt"), format!("{DIR}/{name}.key"));
    if machine.fs.exists(&cert) && machine.fs.exists(&key) {
        return Ok(false);
    }
    let (certificate, private) = sign(machine, ca, subject)?;
    put(machine, &cert, certificate, 0o644);
    put(machine, &key, private, 0o600);
    Ok(true)
}

/// Makes the key pair of service accounts unless it is there. True when it was made.
pub fn service_account(machine: &mut Machine) -> Result<bool, Fault> {
    if machine.fs.exists(&format!("{DIR}/sa.key")) {
        return Ok(false);
    }
    let pair = KeyPair::generate().map_err(fault)?;
    put(machine, &format!("{DIR}/sa.key"), pair.serialize_pem(), 0o600);
    put(machine, &format!("{DIR}/sa.pub"), pair.public_key_pem(), 0o600);
    Ok(true)
}

/// Writes a kubeconfig with a client certificate of its own.
pub fn kubeconfig(
    machine: &mut Machine,
    file: &str,
    cluster: &str,
    server: &str,
    subject: &Subject,
) -> Result<(), Fault> {
    let (certificate, key) = sign(machine, "ca", subject)?;
    let ca = machine.fs.text(&format!("{DIR}/ca.crt"));
    let user = if subject.name.starts_with("system:") {
        subject.name.clone()
    } else {
        file.trim_end_matches(".conf").replace("admin", "kubernetes-admin")
    };
    let encode = |text: &str| STANDARD.encode(text);
    let content = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {server}\n  name: {cluster}\ncontexts:\n\
         - context:\n    cluster: {cluster}\n    user: {user}\n  name: {user}@{cluster}\ncurrent-context: {user}@{cluster}\nkind: Config\n\
         users:\n- name: {user}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        encode(&ca),
        encode(&certificate),
        encode(&key)
    );
    put(machine, &format!("/etc/kubernetes/{file}"), content, 0o600);
    Ok(())
}

/// The hash that pins a CA: SHA-256 of its public key info, in hex; `None` for what is no certificate.
pub fn key_hash(certificate: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let parsed = pem.parse_x509().ok()?;
    Some(Sha256::digest(parsed.public_key().raw).iter().map(|b| format!("{b:02x}")).collect())
}

/// When a certificate ends, in seconds since 1970.
pub fn ends(certificate: &str) -> Option<i64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let parsed = pem.parse_x509().ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// Encrypts with a key in hex, for the uploaded certificates: a keystream and a tag of SHA-256.
///
/// Only the lab reads it again. kubeadm uses AES-GCM, whose one visible trait is kept: a wrong key is noticed.
pub fn seal(key: &str, plain: &[u8]) -> Vec<u8> {
    let tag = Sha256::digest([key.as_bytes(), b"tag", plain].concat());
    [&tag[..16], &stream(key, plain)].concat()
}

/// Opens what [`seal`] closed; `None` with another key.
pub fn open(key: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (tag, body) = sealed.split_at_checked(16)?;
    let plain = stream(key, body);
    let expected = Sha256::digest([key.as_bytes(), b"tag", &plain].concat());
    (tag == &expected[..16]).then_some(plain)
}

fn stream(key: &str, data: &[u8]) -> Vec<u8> {
    let block = |n: usize| Sha256::digest([key.as_bytes(), &n.to_be_bytes()].concat());
    data.chunks(32)
        .enumerate()
        .flat_map(|(n, chunk)| chunk.iter().zip(block(n)).map(|(a, b)| a ^ b).collect::<Vec<_>>())
        .collect()
}

/// HMAC-SHA-256 (RFC 2104), for the signatures in `cluster-info`.
pub fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut padded = [0u8; 64];
    padded[..key.len().min(64)].copy_from_slice(&key[..key.len().min(64)]);
    let inner = Sha256::digest([&padded.map(|b| b ^ 0x36)[..], message].concat());
    Sha256::digest([&padded.map(|b| b ^ 0x5c)[..], &inner[..]].concat()).to_vec()
}
