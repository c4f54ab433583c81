//! Waits until a machine answers over SSH with the key that is known, or that its guest agent shows.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use stage::{Ctx, Failure, Waiting};

use super::guest::{addresses, note_keys, public_key};
use crate::pve::{Error, Request, text};
use crate::ssh::{self, Answer};
use crate::step::At;
use crate::want::Want;
use crate::world::World;

/// How long a first boot may take.
const BOOT: Duration = Duration::from_secs(900);
/// How long a machine that answers may refuse us: cloud-init makes the account after the SSH server is up.
const ACCOUNT: Duration = Duration::from_secs(120);

const KEYS: [&str; 3] =
    ["/etc/ssh/ssh_host_ed25519_key.pub", "/etc/ssh/ssh_host_ecdsa_key.pub", "/etc/ssh/ssh_host_rsa_key.pub"];

/// Waits, and notes keys that are new in the machine's mark.
pub async fn ready(
    world: &World,
    want: &Want,
    ctx: &Ctx,
    at: &At,
    address: Ipv4Addr,
    known: &[String],
    doing: &str,
) -> Result<(), Failure> {
    let refused: Mutex<Option<Instant>> = Mutex::new(None);
    let learning = known.is_empty();
    let probe = || async {
        let keys = if learning {
            match agent_keys(world, at, doing).await? {
                Waiting::Seen(keys) => keys,
                Waiting::NotYet(why) => return Ok(Waiting::NotYet(why)),
            }
        } else {
            known.to_vec()
        };
        match ssh::ask(want, &at.machine, address, &keys).await {
            Answer::Yes => Ok(Waiting::Seen(keys)),
            Answer::Silent(why) if learning => {
                let told = agent_addresses(world, at).await;
                Ok(Waiting::NotYet(format!(
                    "{why}{}",
                    told.map(|t| format!("; its agent shows {t}")).unwrap_or_default()
                )))
            }
            Answer::Silent(why) => Ok(Waiting::NotYet(why)),
            // cloud-init makes new keys during the first boot; the next look shows them.
            Answer::WrongKey(why, _) if learning => Ok(Waiting::NotYet(why)),
            Answer::WrongKey(why, hint) => Err(refusal(doing, why, hint)),
            Answer::NotLetIn(why, hint) => {
                let mut since = refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if since.get_or_insert_with(Instant::now).elapsed() > ACCOUNT
                    || why.contains("there is no key")
                {
                    return Err(refusal(doing, why, hint));
                }
                Ok(Waiting::NotYet(why))
            }
        }
    };
    let keys = ctx.wait_for(&format!("{at} at {address}"), BOOT, probe).await.map_err(|mut failure| {
        if failure.causes.iter().any(|c| c.contains("guest agent is not running")) {
            failure.hints.push("the template's image must have qemu-guest-agent installed".to_owned());
        }
        failure
    })?;
    if learning {
        note_keys(world, ctx, at, &keys, &want.design.cluster, doing).await?;
    }
    Ok(())
}

fn refusal(doing: &str, why: String, hint: Option<String>) -> Failure {
    let failure = Failure::precondition(doing).because(why);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The machine's public host key over the guest agent, a channel that the API authenticates.
async fn agent_keys(world: &World, at: &At, doing: &str) -> Result<Waiting<Vec<String>>, Failure> {
    let path = format!("/nodes/{}/qemu/{}/agent/file-read", at.node, at.vmid);
    let mut last = "no host key is there yet".to_owned();
    for file in KEYS {
        let turn = world.turn(&at.node).await;
        let answer = world.client.send(&Request::get(&path).with("file", file)).await;
        drop(turn);
        match answer {
            Ok(value) => {
                if let Some(key) = text(&value, "content").as_deref().and_then(public_key) {
                    return Ok(Waiting::Seen(vec![key]));
                }
            }
            Err(error) if error.status() == Some(403) => {
                return Err(error.failure(doing, &world.client.grantee()));
            }
            Err(error) if error.to_string().contains("No QEMU guest agent configured") => {
                return Err(error.failure(doing, &world.client.grantee()).hint(format!(
                    "on node {}: qm set {} --agent 1, then stop and start it",
                    at.node, at.vmid
                )));
            }
            // That file is not there; another may be.
            Err(Error::Refused { said, .. }) if said.contains("No such file") => last = said,
            Err(error) if error.is_absent() => return Err(error.failure(doing, &world.client.grantee())),
            Err(error) => return Ok(Waiting::NotYet(error.to_string())),
        }
    }
    Ok(Waiting::NotYet(last))
}

async fn agent_addresses(world: &World, at: &At) -> Option<String> {
    let path = format!("/nodes/{}/qemu/{}/agent/network-get-interfaces", at.node, at.vmid);
    let turn = world.turn(&at.node).await;
    let value = world.client.send(&Request::get(path)).await.ok();
    drop(turn);
    let all = addresses(&value?);
    Some(if all.is_empty() { "no address".to_owned() } else { all.join(", ") })
}
