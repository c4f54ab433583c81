//! Bootstrap tokens: each made for one init or join, and dropped after it.

use std::time::Duration;

use rand::Rng as _;
use serde_json::{Value, json};
use stage::{Ctx, Failure, Waiting};
use time::OffsetDateTime;

use crate::api::{Api, ApiError};
use crate::clock;
use crate::evidence::EVIDENCE;

/// Marks bootstrap tokens of this tool.
pub const DESCRIPTION: &str = "kubeline kadm-bootstrap, for one join";

/// Words that grant something, made here and told nobody but the machines concerned.
pub(crate) fn random(alphabet: &[u8], length: usize) -> String {
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(alphabet[rng.random_range(0..alphabet.len())])).collect()
}

/// The two halves of a bootstrap token: `[a-z0-9]{6}.[a-z0-9]{16}`.
pub(crate) fn halves() -> (String, String) {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (random(alphabet, 6), random(alphabet, 16))
}

/// A bootstrap token for one join (kubernetes.io, "Authenticating with Bootstrap Tokens").
pub(crate) async fn make(api: &Api, doing: &str) -> Result<(String, String), Failure> {
    let (id, secret) = halves();
    let ends = clock::rfc3339(OffsetDateTime::now_utc() + Duration::from_secs(900));
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": { "name": format!("bootstrap-token-{id}"), "namespace": "kube-system" },
        "stringData": {
            "description": DESCRIPTION,
            "token-id": id,
            "token-secret": secret,
            "expiration": ends,
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
        },
    });
    let made = api.create("/api/v1/namespaces/kube-system/secrets", &object).await;
    made.map_err(|e| e.failure(doing))?;
    Ok((id.clone(), format!("{id}.{secret}")))
}

/// The id of a bootstrap token, when it is one of this tool.
pub(crate) fn ours(secret: &Value) -> Option<String> {
    use base64::Engine as _;
    let field = |name: &str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(secret["data"][name].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    (field("description")? == DESCRIPTION).then(|| field("token-id")).flatten()
}

/// Deletes a token; one that is gone is no fault.
///
/// # Errors
/// What the API refused.
pub(crate) async fn delete(api: &Api, id: &str) -> Result<(), Failure> {
    let deleted = api.delete(&format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}")).await;
    deleted.map(drop).map_err(|e| e.failure(format!("cannot delete the bootstrap token {id}")))
}

/// Waits until the controller manager has signed what a joining machine trusts, with this token. A kubeadm that comes
/// sooner looks again after 5 s (kubernetes/cmd/kubeadm/app/constants, DiscoveryRetryInterval).
pub(crate) async fn signed(api: &Api, id: &str, ctx: &Ctx) -> Result<(), Failure> {
    let (path, key) =
        ("/api/v1/namespaces/kube-public/configmaps/cluster-info", format!("jws-kubeconfig-{id}"));
    ctx.wait_for("the signature of a bootstrap token", EVIDENCE, || async {
        Ok(match api.lately(path).await {
            Ok(map) if map["data"][&key].is_string() => Waiting::Seen(()),
            Ok(_) => Waiting::NotYet("nobody signs it: does the controller manager run?".to_owned()),
            Err(ApiError::Refused(404, _)) => {
                Waiting::NotYet("there is no ConfigMap kube-public/cluster-info".to_owned())
            }
            Err(error) => Waiting::NotYet(error.to_string()),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_shape_that_the_api_wants() {
        let (id, secret) = halves();
        assert!((id.len(), secret.len()) == (6, 16) && id.chars().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(halves(), halves());
    }
}
