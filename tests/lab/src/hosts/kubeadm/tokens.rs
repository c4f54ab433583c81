//! Bootstrap tokens and uploaded certificates.

use rand::Rng;
use serde_json::json;
use time::OffsetDateTime;

use super::objects::{self, Token};
use super::{Flags, Words, cluster, pki};
use crate::hosts::etcd;
use crate::hosts::programs::{Ctx, Output};

const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

fn letters(n: usize) -> String {
    let mut rng = rand::rng();
    (0..n).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// The two parts of a new token.
pub fn random_parts() -> (String, String) {
    (letters(6), letters(16))
}

/// A new token.
pub fn random() -> String {
    let (id, secret) = random_parts();
    format!("{id}.{secret}")
}

/// A new certificate key.
pub fn random_key() -> String {
    (0..32).map(|_| format!("{:02x}", rand::random::<u8>())).collect()
}

/// A token that signs and authenticates, for so many seconds.
pub fn new(token: &str, seconds: Option<i64>, description: &str) -> Token {
    let (id, secret) = token.split_once('.').unwrap_or((token, ""));
    Token {
        id: id.into(),
        secret: secret.into(),
        expires: seconds.map(|s| OffsetDateTime::now_utc().unix_timestamp() + s),
        signs: true,
        description: description.into(),
    }
}

/// The server, cluster and CA hash of `admin.conf`, once its server was really reached.
pub async fn admin(ctx: &Ctx) -> Result<(String, String), String> {
    let (server, id) = {
        let machine = ctx.machine();
        let conf = machine.fs.text("/etc/kubernetes/admin.conf");
        if conf.is_empty() {
            return Err(
                "failed to load admin kubeconfig: open /root/.kube/config: no such file or directory".into(),
            );
        }
        let server =
            conf.lines().find_map(|l| l.trim().strip_prefix("server: ")).unwrap_or_default().to_string();
        (server, cluster::cluster_id(&machine).unwrap_or_default())
    };
    let address = server.trim_start_matches("https://").to_string();
    super::discovery::reach(ctx, &address)
        .await
        .map_err(|e| format!("Get \"{server}/api/v1/namespaces/kube-system/secrets?timeout=10s\": {e}"))?;
    if !etcd::quorate(&ctx.hosts, &id) {
        return Err(format!(
            "Get \"{server}/api/v1/namespaces/kube-system/secrets?timeout=10s\": context deadline exceeded"
        ));
    }
    Ok((server, id))
}

fn join_command(ctx: &Ctx, server: &str, token: &str, key: Option<&str>) -> String {
    let hash = pki::key_hash(&ctx.machine().fs.text(&format!("{}/ca.crt", pki::DIR))).unwrap_or_default();
    let tail = key.map(|k| format!("--control-plane --certificate-key {k}")).unwrap_or_default();
    format!(
        "kubeadm join {} --token {token} --discovery-token-ca-cert-hash sha256:{hash} {tail}",
        server.trim_start_matches("https://")
    )
}

fn seconds(ttl: &str) -> Option<i64> {
    if ttl == "0" {
        return Some(0);
    }
    let (number, unit) = ttl.split_at(ttl.len().checked_sub(1)?);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    Some(number.parse::<i64>().ok()? * factor)
}

/// `kubeadm token create`.
pub async fn create(ctx: &mut Ctx, args: &[String]) -> Output {
    let words = Words::default();
    let result = async {
        let flags = Flags::parse(
            args,
            &["ttl", "print-join-command", "certificate-key", "description", "kubeconfig", "config"],
        )?;
        let ttl = flags.get("ttl").unwrap_or("24h");
        let ttl = seconds(ttl).ok_or_else(|| {
            format!("invalid argument \"{ttl}\" for \"--ttl\" flag: time: invalid duration \"{ttl}\"")
        })?;
        let (server, id) = admin(ctx).await?;
        let token = flags.words.first().cloned().unwrap_or_else(random);
        let new = new(&token, (ttl > 0).then_some(ttl), flags.get("description").unwrap_or_default());
        if objects::tokens(&ctx.hosts, &id).iter().any(|t| t.id == new.id) {
            return Err(format!("a token with id \"{}\" already exists", new.id));
        }
        ctx.changes();
        objects::put_token(&ctx.hosts, &id, &new);
        objects::sign_cluster_info(&ctx.hosts, &id);
        let line = match flags.on("print-join-command") {
            true => join_command(ctx, &server, &token, flags.get("certificate-key")),
            false => token,
        };
        Ok(line)
    };
    match result.await {
        Ok(line) => Output::ok(format!("{line}\n")),
        Err(e) => words.end(Err(e)),
    }
}

/// `kubeadm token list`.
pub async fn list(ctx: &mut Ctx, args: &[String]) -> Output {
    let result = async {
        let flags = Flags::parse(args, &["output", "kubeconfig"])?;
        let (_, id) = admin(ctx).await?;
        Ok((objects::tokens(&ctx.hosts, &id), flags.get("output") == Some("json")))
    };
    let (tokens, as_json) = match result.await {
        Ok(found) => found,
        Err(e) => return Words::default().end(Err(e)),
    };
    // The token cleaner deletes what is past its end.
    let tokens = tokens.iter().filter(|t| !t.past());
    let mut text = String::new();
    if !as_json {
        text.push_str("TOKEN                     TTL         EXPIRES                USAGES                   DESCRIPTION   EXTRA GROUPS\n");
    }
    for token in tokens {
        let whole = format!("{}.{}", token.id, token.secret);
        if as_json {
            let mut shown = json!({"kind": "BootstrapToken", "apiVersion": "output.kubeadm.k8s.io/v1alpha3", "token": whole});
            if !token.description.is_empty() {
                shown["description"] = json!(token.description);
            }
            if let Some(end) = token.expiration() {
                shown["expires"] = json!(end);
            }
            if token.signs {
                shown["usages"] = json!(["authentication", "signing"]);
                shown["groups"] = json!(["system:bootstrappers:kubeadm:default-node-token"]);
            }
            let pretty = serde_json::to_string_pretty(&shown).unwrap_or_default();
            text.push_str(&pretty.replace("  ", "    "));
            text.push('\n');
        } else {
            let (usages, groups) = match token.signs {
                true => ("authentication,signing", "system:bootstrappers:kubeadm:default-node-token"),
                false => ("<none>", "<none>"),
            };
            let description = if token.description.is_empty() { "<none>" } else { &token.description };
            let end = token.expiration().unwrap_or_else(|| "<never>".into());
            text.push_str(&format!(
                "{whole}   23h         {end}   {usages:<22}   {description:<11}   {groups}\n"
            ));
        }
    }
    Output::ok(text)
}

/// `kubeadm token delete`.
pub async fn delete(ctx: &mut Ctx, args: &[String]) -> Output {
    let result = async {
        let flags = Flags::parse(args, &["kubeconfig"])?;
        let (_, id) = admin(ctx).await?;
        let mut text = String::new();
        for word in &flags.words {
            let token = word.split('.').next().unwrap_or_default();
            let name = format!("bootstrap-token-{token}");
            if ctx.hosts.kube().get(&id, "v1", "Secret", Some("kube-system"), &name).is_none() {
                return Err(format!(
                    "failed to delete bootstrap token \"{token}\": secrets \"{name}\" not found"
                ));
            }
            ctx.changes();
            ctx.hosts.kube().delete(&id, "v1", "Secret", Some("kube-system"), &name);
            objects::sign_cluster_info(&ctx.hosts, &id);
            text.push_str(&format!("bootstrap token \"{token}\" deleted\n"));
        }
        Ok(text)
    };
    match result.await {
        Ok(text) => Output::ok(text),
        Err(e) => Words::default().end(Err(e)),
    }
}

/// Seals and stores the shared certificates, and says so.
pub fn store_certificates(ctx: &Ctx, id: &str, key: &str, words: &mut Words) {
    objects::upload_certificates(&ctx.hosts, id, &ctx.machine(), key);
    words.out("[upload-certs] Storing the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace");
    words.out(format!("[upload-certs] Using certificate key:\n{key}"));
}

/// `kubeadm init phase upload-certs`.
pub async fn upload_certs(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut words = Words::default();
    let result = async {
        let flags = Flags::parse(args, &["upload-certs", "certificate-key", "config", "kubeconfig"])?;
        if !flags.on("upload-certs") {
            words.out("[upload-certs] Skipping phase. Please see --upload-certs");
            return Ok(());
        }
        let mut key = flags.get("certificate-key").map(String::from);
        if let Some(path) = flags.get("config") {
            key = key.or(super::init::load(&ctx.machine(), path)?.certificate_key);
        }
        let (_, id) = admin(ctx).await.map_err(|e| format!("error execution phase upload-certs: {e}"))?;
        ctx.changes();
        store_certificates(ctx, &id, &key.unwrap_or_else(random_key), &mut words);
        Ok(())
    };
    let result = result.await;
    words.end(result)
}
