//! What is judged in the handshake, before anything of ours is sent.

use russh::client;
use russh::keys::PublicKeyOrCertificate;

use crate::error::Error;
use crate::hostkeys::Trust;

/// The host key is judged.
pub(crate) struct Check {
    pub(crate) trust: Trust,
}

/// A failure inside the handshake: the protocol's or our judgement.
#[derive(Debug)]
pub(crate) enum Broken {
    Protocol(russh::Error),
    Judged(Box<Error>),
}

impl From<russh::Error> for Broken {
    fn from(e: russh::Error) -> Broken {
        Broken::Protocol(e)
    }
}

impl client::Handler for Check {
    type Error = Broken;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Broken> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.trust.judge(key).map_err(|e| Broken::Judged(Box::new(e)))?;
                Ok(true)
            }
            // None was asked for.
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }
}
