//! The cluster's private CA and one certificate for each node, as Proxmox makes them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

/// A certificate authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What a node serves with.
pub(super) struct Leaf {
    /// The TLS configuration.
    pub tls: Arc<ServerConfig>,
    /// SHA-256 of the certificate, in upper-case hex with colons.
    pub fingerprint: String,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Authority {
    /// A new authority.
    pub fn new(cluster: &str) -> Result<Authority, Failure> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Proxmox Virtual Environment");
        params.distinguished_name.push(DnType::OrganizationName, format!("PVE Cluster Manager CA {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    /// The CA certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A node's certificate, for its name, its full name, its address and localhost.
    pub fn leaf(&self, name: &str, domain: &str, address: Ipv4Addr) -> Result<Leaf, Failure> {
        let key = KeyPair::generate()?;
        let full = format!("{name}.{domain}");
        let mut params = CertificateParams::new(vec![name.to_owned(), full.clone(), "localhost".to_owned()])?;
        params.subject_alt_names.push(SanType::IpAddress(address.into()));
        params.distinguished_name.push(DnType::CommonName, full);
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let der: CertificateDer<'static> = certificate.der().clone();
        let pairs: Vec<String> = Sha256::digest(&der).iter().map(|b| format!("{b:02X}")).collect();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![der], private)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Leaf { tls: Arc::new(tls), fingerprint: pairs.join(":") })
    }
}
