//! TLS to the API: a CA, the SHA-256 fingerprint that Proxmox shows, or the system's roots.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};

/// What makes the API's certificate good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A CA signed it (PEM).
    Ca(Vec<u8>),
    /// It has this SHA-256 digest.
    Fingerprint([u8; 32]),
    /// The system's roots vouch for it.
    System,
}

/// Reads a fingerprint as Proxmox shows it: 32 pairs of hex digits, colons between them.
pub fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.trim().split(':').collect();
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(n * 2..n * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Fingerprints of further certificates that are believed, beside the one that the document gives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vouched(Arc<RwLock<BTreeSet<[u8; 32]>>>);

impl Vouched {
    /// Adds one as Proxmox shows it; anything else is passed over.
    pub(crate) fn add(&self, shown: &str) {
        if let Some(digest) = fingerprint(shown) {
            self.0.write().unwrap_or_else(PoisonError::into_inner).insert(digest);
        }
    }

    fn has(&self, digest: &[u8; 32]) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }
}

/// The configuration for a client that believes this and nothing else.
///
/// # Errors
/// A sentence that says what is wrong with the CA file.
pub(crate) fn config(trust: &Trust, vouched: &Vouched) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let mut config = match trust {
        Trust::Ca(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
                let certificate = certificate.map_err(|e| e.to_string())?;
                roots.add(certificate).map_err(|e| e.to_string())?;
            }
            if roots.is_empty() {
                return Err("it holds no certificate (PEM)".to_owned());
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::Fingerprint(digest) => {
            let verifier = Arc::new(Pinned { digest: *digest, vouched: vouched.clone(), provider });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        Trust::System => {
            let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(|e| e.to_string())?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    };
    // pveproxy speaks HTTP/1 alone.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Takes the certificate with this digest, and those that were vouched for, whatever name they bear.
#[derive(Debug)]
struct Pinned {
    digest: [u8; 32],
    vouched: Vouched,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found: [u8; 32] = Sha256::digest(end_entity).into();
        if found == self.digest || self.vouched.has(&found) {
            return Ok(ServerCertVerified::assertion());
        }
        let pairs: Vec<String> = found.iter().map(|b| format!("{b:02X}")).collect();
        Err(rustls::Error::General(format!("its certificate has the fingerprint {}", pairs.join(":"))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_proxmox_shows_them() {
        let shown = vec!["AB"; 32].join(":");
        assert_eq!(fingerprint(&shown), Some([0xab; 32]));
        assert_eq!(fingerprint(&shown.to_lowercase()), Some([0xab; 32]));
        assert_eq!(fingerprint("AB:CD"), None);
        assert_eq!(fingerprint(&shown.replace('A', "G")), None);
    }

    #[test]
    fn an_empty_ca_file_is_refused() {
        assert!(config(&Trust::Ca(b"no pem".to_vec()), &Vouched::default()).is_err());
        assert!(config(&Trust::Fingerprint([0; 32]), &Vouched::default()).is_ok());
    }
}
