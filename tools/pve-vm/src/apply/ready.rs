//! Waits until a machine answers over SSH with the host key in its mark. What Proxmox and the guest agent tell
//! meanwhile is asked side by side: it ends a wait that is in vain, and says what is missing.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use serde_json::Value;
use stage::{Ctx, Failure, Waiting};

use super::guest::{addresses, config, marked, status};
use crate::options::mac;
use crate::pve::{Request, flag, list, text};
use crate::ssh::{self, Answer};
use crate::step::At;
use crate::want::Want;
use crate::world::World;

/// How long a first boot may take.
const BOOT: Duration = Duration::from_secs(900);
/// How long a machine that answers may refuse us, or show the key of its image: cloud-init makes the account after
/// the SSH server is up.
const ACCOUNT: Duration = Duration::from_secs(120);
/// How long a machine may be off that nobody is known to start again: `qm reboot` has it off for a moment.
const OFF: Duration = Duration::from_secs(5);
/// The same where the HA manager starts it, which takes its rounds of 10 s (pve-ha-manager, HA/CRM.pm).
const RECOVERED: Duration = Duration::from_secs(120);

/// Since when a machine has not been as it should.
#[derive(Default)]
struct Grace(Mutex<Option<Instant>>);

impl Grace {
    fn over(&self, length: Duration) -> bool {
        self.since().get_or_insert_with(Instant::now).elapsed() > length
    }

    fn begin_anew(&self) {
        *self.since() = None;
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

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
    let (grace, off, keys) = (&Grace::default(), &Grace::default(), &keys);
    let probe = || async move {
        let ssh = std::pin::pin!(async {
            let _turn = world.dial().await;
            ssh::ask(want, &at.machine, address, keys).await
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
            return switched_off(world, at, &state, off).await;
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

/// It may be that a task or the HA manager is about to start it again.
async fn switched_off(world: &World, at: &At, state: &Value, off: &Grace) -> Sight {
    let managed = state.get("ha").is_some_and(|ha| flag(ha, "managed"));
    let tells = |why: &str| Sight::Tells(format!("Proxmox says that it is off; {why}"));
    if !off.over(if managed { RECOVERED } else { OFF }) {
        return tells(if managed { "the HA manager is to start it" } else { "it was switched off" });
    }
    let request = Request::get(format!("/nodes/{}/tasks", at.node));
    let tasks = world.client.read(request.with("source", "active").with("vmid", at.vmid)).await;
    if tasks.is_ok_and(|t| !list(&t).is_empty()) {
        return tells("a task has it in hand");
    }
    Sight::Elsewhere(
        format!("it was switched off while it was waited for, and nothing on node {} starts it", at.node),
        format!("pvenode task list --vmid {}, on node {}, tells who did; then run again", at.vmid, at.node),
    )
}

fn refusal(doing: &str, why: String, hint: Option<String>) -> Failure {
    let failure = Failure::precondition(doing).because(why);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

async fn agent_addresses(world: &World, at: &At, card: &str) -> Option<Vec<String>> {
    let path = format!("/nodes/{}/qemu/{}/agent/network-get-interfaces", at.node, at.vmid);
    let turn = world.turn(&at.node).await;
    let value = world.client.send(&Request::get(path)).await.ok();
    drop(turn);
    value.map(|v| addresses(&v, card))
}
