//! Certificates: digests and ends.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use x509_parser::pem::parse_x509_pem;

use crate::seen::CertificateSeen;

/// Hex of a SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The certificate in base64 of PEM, as kubeconfig files carry it.
pub fn of_base64(text: &str) -> Option<CertificateSeen> {
    of_pem(&STANDARD.decode(text.trim()).ok()?)
}

/// The first certificate of a PEM text.
pub fn of_pem(pem: &[u8]) -> Option<CertificateSeen> {
    let (_, pem) = parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Some(CertificateSeen {
        sha256: sha256(&pem.contents),
        expires: certificate.validity().not_after.timestamp(),
    })
}

/// What `caCertHashes` of a join takes: the SHA-256 of the public key (its SubjectPublicKeyInfo), as RFC 7469 has it
/// and kubeadm's `pubkeypin` package computes it.
pub fn key_pin(pem: &[u8]) -> Option<String> {
    let (_, pem) = parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Some(format!("sha256:{}", sha256(certificate.public_key().raw)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        let seen = of_pem(certificate.pem().as_bytes()).unwrap();
        assert_eq!(seen.sha256, sha256(certificate.der()));
        assert_eq!(seen.expires, 2_208_988_800);
        assert_eq!(of_base64(&STANDARD.encode(certificate.pem())), Some(seen));
        let pin = key_pin(certificate.pem().as_bytes()).unwrap();
        use rcgen::PublicKeyData as _;
        assert_eq!(pin, format!("sha256:{}", sha256(&key.subject_public_key_info())));
        assert_eq!(of_base64("%%%"), None);
    }
}
