//! Waits until a machine answers over SSH with the host key in its mark. What Proxmox and the guest agent tell
//! meanwhile is asked side by side: it ends a wait that is in vain, and says what is missing.

use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use stage::{Ctx, Failure, Waiting};

use super::guest::{addresses, config, marked, status};
use super::off::{Grace, switched_off};
use super::persist::refusal;
use crate::options::mac;
use crate::pve::{Request, text};
use crate::ssh::{self, Answer};
use crate::step::At;
use crate::want::Want;
use crate::world::World;

/// How long a first boot may take.
const BOOT: Duration = Duration::from_secs(900);
/// How long a machine that answers may refuse us, or show the key of its image: cloud-init makes the account after
/// the SSH server is up.
const ACCOUNT: Duration = Duration::from_secs(120);

/// Waits for the proof: SSH with the key in its mark.
pub async fn ready(
    world: &World,
    want: &Want,
    ctx: &Ctx,
    at: &At,
    address: Ipv4Addr,
    doing: &str,
) -> Result<(), Failure> {
    let options = config(world, at).await.map_err(|e| e.failure(doing, &world.client.grantee()))?;
    let keys = marked(&options).map(|m| m.host_keys).unwrap_or_default();
    let card = options.get("net0").and_then(|net| mac(net)).map(|(_, mac)| mac).unwrap_or_default();
    let card = card.as_str();
    if keys.is_empty() {
        return Err(Failure::precondition(doing)
            .because("its notes hold no host key")
            .hint(format!("pve-vm replace {}", at.machine)));
    }
    let (grace, off, keys) = (&Grace::default(), &Grace::default(), &Mutex::new(keys));
    let probe = || async move {
        let noted = keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let noted = &noted;
        let ssh = std::pin::pin!(async {
            let _turn = world.dial().await;
            ssh::ask(want, at, address, noted).await
        });
        let sight = std::pin::pin!(sight(world, at, address, card, off));
        // Whichever is first; only SSH is the proof.
        let (answer, sight) = match select(ssh, sight).await {
            Either::Left((answer, sight)) => match answer {
                Answer::Yes => return Ok(Waiting::Seen(())),
                answer => (answer, sight.await),
            },
            Either::Right((sight, ssh)) => (ssh.await, sight),
        };
        match (answer, sight) {
            (Answer::Yes, _) => Ok(Waiting::Seen(())),
            (_, Sight::Elsewhere(why, hint)) => {
                Err(Failure::transient(doing).because(why).hint(hint).confined())
            }
            (Answer::Silent(_), Sight::Wrong(why)) => Err(refusal(doing, why, Some(console(at)))),
            (Answer::Silent(why), Sight::Tells(more)) => Ok(Waiting::NotYet(format!("{why}; {more}"))),
            (Answer::Silent(why), Sight::Nothing) => Ok(Waiting::NotYet(why)),
            (Answer::WrongKey(why, hint) | Answer::NotLetIn(why, hint), _) => {
                if grace.over(ACCOUNT) || why.contains("there is no key") {
                    return Err(refusal(doing, why, hint));
                }
                // Another run at the same machine may have noted its key for a moment, and taken it back.
                let mark = config(world, at).await.ok().and_then(|options| marked(&options));
                if let Some(mark) = mark.filter(|m| !m.host_keys.is_empty()) {
                    *keys.lock().unwrap_or_else(PoisonError::into_inner) = mark.host_keys;
                }
                Ok(Waiting::NotYet(why))
            }
        }
    };
    let what = format!("{at} to answer at {address}");
    ctx.wait_for(&what, BOOT, probe).await.map_err(|failure| failure.hint(console(at)))
}

fn console(at: &At) -> String {
    format!("look at its console: guest {} on node {}", at.vmid, at.node)
}

/// What is seen of a machine from outside.
enum Sight {
    /// Nothing that helps.
    Nothing,
    /// It is not as it has to be, and waiting will not help.
    Wrong(String),
    /// It is not there or not on any more: why, and what helps. Another look finds out what is due.
    Elsewhere(String, String),
    /// How far it is.
    Tells(String),
}

/// Asks Proxmox whether it runs, and its guest agent, where there is one, for its addresses.
async fn sight(world: &World, at: &At, address: Ipv4Addr, card: &str, off: &Grace) -> Sight {
    match world.client.read(Request::get(status(at, "current"))).await {
        Ok(state) if text(&state, "status").is_some_and(|s| s != "running") => {
            return match switched_off(world, at, &state, off).await {
                Ok(missing) => Sight::Tells(missing),
                Err((why, hint)) => Sight::Elsewhere(why, hint),
            };
        }
        Ok(_) => off.begin_anew(),
        Err(error) if error.is_absent() => {
            let why = format!("it is not on node {} any more: {error}", at.node);
            return Sight::Elsewhere(why, "somebody moved or removed it meanwhile; run again".to_owned());
        }
        // The node's trouble; whether it is off is watched for all steps.
        Err(_) => return Sight::Nothing,
    }
    match agent_addresses(world, at, card).await {
        None => Sight::Nothing,
        Some(all) if all.is_empty() => Sight::Tells("its agent shows no address yet".to_owned()),
        Some(all) if all.iter().any(|a| *a == address.to_string()) => {
            Sight::Tells("its agent shows that address".to_owned())
        }
        Some(all) => Sight::Wrong(format!(
            "it does not answer at {address}, and its agent shows another address: {}",
            all.join(", ")
        )),
    }
}

async fn agent_addresses(world: &World, at: &At, card: &str) -> Option<Vec<String>> {
    // A container has no agent.
    if !at.kind.is_vm() {
        return None;
    }
    let path = format!("{}/agent/network-get-interfaces", at.path());
    let turn = world.turn(&at.node).await;
    let value = world.client.send(&Request::get(path)).await.ok();
    drop(turn);
    value.map(|v| addresses(&v, card))
}
