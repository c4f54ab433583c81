//! Logging in: the key file first, then the agent.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, decode_secret_key};
use russh::{MethodKind, MethodSet};

use crate::check::Check;
use crate::error::Error;
use crate::hostkeys::fingerprint;
use crate::target::Target;

/// What a key file is good for.
pub(crate) enum Identity {
    /// It can sign.
    Key(Arc<PrivateKey>),
    /// It has a passphrase, or is the public half: the agent may hold it.
    Named(PublicKey),
}

/// Reads the target's key file, before anything is sent anywhere.
pub(crate) fn identity(target: &Target) -> Result<Option<Identity>, Error> {
    target.identity_file.as_deref().map(load).transpose()
}

fn load(path: &Path) -> Result<Identity, Error> {
    let unusable =
        |source: Box<dyn std::error::Error + Send + Sync>| Error::KeyFile { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(|e| unusable(Box::new(e)))?;
    if let Ok(public) = PublicKey::from_openssh(text.trim()) {
        return Ok(Identity::Named(public));
    }
    let mode = std::fs::metadata(path).map_err(|e| unusable(Box::new(e)))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::KeyFileOpen { path: path.to_owned(), mode });
    }
    // OpenSSH's own format shows the public half of a key with a passphrase.
    match PrivateKey::from_openssh(&text) {
        Ok(key) if key.is_encrypted() => return Ok(Identity::Named(key.public_key().clone())),
        _ => {}
    }
    decode_secret_key(&text, None).map(|key| Identity::Key(Arc::new(key))).map_err(|e| unusable(Box::new(e)))
}

/// Logs in, or says what was tried.
pub(crate) async fn log_in(
    handle: &mut Handle<Check>,
    target: &Target,
    identity: Option<Identity>,
) -> Result<(), Error> {
    let mut tried = Vec::new();
    let refused = |tried| Error::Auth { host: target.name.clone(), user: target.user.clone(), tried };
    let mut named = None;
    let mut first = None;
    match identity {
        Some(Identity::Key(key)) => {
            tried.push(format!("key file {}", fingerprint(key.public_key())));
            let hash = rsa_hash(handle, &key.algorithm()).await;
            let key = PrivateKeyWithHashAlg::new(key, hash);
            first = Some(key.public_key().clone());
            match handle.authenticate_publickey(&target.user, key).await {
                Ok(AuthResult::Success) => return Ok(()),
                Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                    if hopeless(&remaining_methods, partial_success, &mut tried) {
                        return Err(refused(tried));
                    }
                }
                Err(e) => return Err(broken(target, e)),
            }
        }
        Some(Identity::Named(key)) => named = Some(key),
        None => {}
    }
    let Some(socket) = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) else {
        if named.is_some() {
            tried.push("the key file needs an agent, and SSH_AUTH_SOCK is not set".to_owned());
        }
        return Err(refused(tried));
    };
    let agent = async {
        let mut agent = AgentClient::connect_uds(&socket).await?;
        let held = agent.request_identities().await?;
        Ok::<_, russh::keys::Error>((agent, held))
    };
    let (mut agent, mut held) = match agent.await {
        Ok(both) => both,
        Err(e) => {
            tried.push(format!("the agent at SSH_AUTH_SOCK ({e})"));
            return Err(refused(tried));
        }
    };
    // Servers hang up after a few keys (MaxAuthTries is 6): the one that is meant goes first.
    let is_named =
        |id: &AgentIdentity| named.as_ref().is_some_and(|key| id.public_key().key_data() == key.key_data());
    held.sort_by_key(|id| !is_named(id));
    held.retain(|id| {
        matches!(id, AgentIdentity::Certificate { .. })
            || first.as_ref().is_none_or(|key| id.public_key().key_data() != key.key_data())
    });
    if held.is_empty() {
        tried.push("the agent, which holds no other key".to_owned());
    }
    for id in held {
        let public = id.public_key().into_owned();
        tried.push(format!("agent key {}", fingerprint(&public)));
        let hash = rsa_hash(handle, &public.algorithm()).await;
        let answer = match id {
            AgentIdentity::PublicKey { key, .. } => {
                handle.authenticate_publickey_with(&target.user, key, hash, &mut agent).await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                handle.authenticate_certificate_with(&target.user, certificate, hash, &mut agent).await
            }
        };
        match answer {
            Ok(AuthResult::Success) => return Ok(()),
            Ok(AuthResult::Failure { .. }) if handle.is_closed() => {
                tried.push("then the server hung up".to_owned());
                break;
            }
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                if hopeless(&remaining_methods, partial_success, &mut tried) {
                    break;
                }
            }
            Err(e) => tried.push(format!("which did not sign ({e})")),
        }
    }
    Err(refused(tried))
}

// Whether another key is of no use, with the reason noted.
fn hopeless(remaining: &MethodSet, partial: bool, tried: &mut Vec<String>) -> bool {
    if partial {
        tried.push("which it took, but wants more than a key".to_owned());
        return true;
    }
    let offers: Vec<String> = remaining.iter().map(String::from).collect();
    if !offers.is_empty() && !remaining.contains(&MethodKind::PublicKey) {
        tried.push(format!("it offers only {}", offers.join(", ")));
        return true;
    }
    false
}

fn broken(target: &Target, source: russh::Error) -> Error {
    Error::Unreachable { host: target.name.clone(), address: target.address(), source: Box::new(source) }
}

// RFC 8332: an RSA key signs with SHA-2; what the server knows is in its extension message.
async fn rsa_hash(handle: &Handle<Check>, algorithm: &Algorithm) -> Option<HashAlg> {
    if !matches!(algorithm, Algorithm::Rsa { .. }) {
        return None;
    }
    match handle.best_supported_rsa_hash().await {
        Ok(Some(hash)) => hash,
        _ => Some(HashAlg::Sha512),
    }
}
