//! A new host key, for a machine that is yet to boot for the first time.

use std::fmt;
use std::ops::Deref;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

use crate::Error;

/// A new Ed25519 host key. The private half lives in this value's memory, which is wiped when it goes.
pub struct NewHostKey {
    key: PrivateKey,
    public: String,
}

impl NewHostKey {
    /// Makes a key from the system's randomness.
    ///
    /// # Errors
    /// `NewKey` when the key cannot be encoded.
    pub fn random() -> Result<NewHostKey, Error> {
        let made = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519);
        let key = made.map_err(unusable)?;
        let public = key.public_key().to_openssh().map_err(unusable)?.trim().to_owned();
        Ok(NewHostKey { key, public })
    }

    /// The public half, as `ssh-ed25519 AAAA...`, without a comment.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The private half in OpenSSH's form; what this gives is wiped when it goes.
    ///
    /// # Errors
    /// `NewKey` when the key cannot be encoded.
    pub fn private(&self) -> Result<impl Deref<Target = String> + use<>, Error> {
        self.key.to_openssh(LineEnding::LF).map_err(unusable)
    }
}

/// Without the private half.
impl fmt::Debug for NewHostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.public)
    }
}

fn unusable(error: russh::keys::ssh_key::Error) -> Error {
    Error::NewKey { source: error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_another_and_shows_its_public_half_alone() {
        let (one, other) = (NewHostKey::random().unwrap(), NewHostKey::random().unwrap());
        assert_ne!(one.public(), other.public());
        assert!(one.public().starts_with("ssh-ed25519 AAAA"), "{one:?}");
        let private = one.private().unwrap();
        assert!(private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
        let again = PrivateKey::from_openssh(private.as_str()).unwrap();
        assert_eq!(again.public_key().to_openssh().unwrap().trim(), one.public());
        assert!(!format!("{one:?}").contains("PRIVATE"));
    }
}
