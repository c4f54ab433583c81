//! Waits until a machine answers over SSH with the host key in its mark. What Proxmox and the guest agent tell
//! meanwhile is asked side by side: it ends a wait that is in vain, and says what is missing.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use stage::{Ctx, Failure, Waiting};

use super::guest::{addresses, noted_keys, status};
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

/// What a machine that is up and not yet right gets as grace.
#[derive(Default)]
struct Grace(Mutex<Option<Instant>>);

impl Grace {
    fn over(&self) -> bool {
        let mut since = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        since.get_or_insert_with(Instant::now).elapsed() > ACCOUNT
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
    let keys = noted_keys(world, at, doing).await?;
    if keys.is_empty() {
        return Err(Failure::precondition(doing)
            .because("its notes hold no host key")
            .hint(format!("pve-vm replace {}", at.machine)));
    }
    let (grace, keys) = (Grace::default(), &keys);
    let grace = &grace;
    let probe = || async move {
        let ssh = std::pin::pin!(ssh::ask(want, at, address, keys));
        let sight = std::pin::pin!(sight(world, at, address));
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
            (Answer::Silent(_), Sight::Wrong(why)) => Err(refusal(doing, why, Some(console(at)))),
            (Answer::Silent(why), Sight::Tells(more)) => Ok(Waiting::NotYet(format!("{why}; {more}"))),
            (Answer::Silent(why), Sight::Nothing) => Ok(Waiting::NotYet(why)),
            (Answer::WrongKey(why, hint) | Answer::NotLetIn(why, hint), _) => {
                if grace.over() || why.contains("there is no key") {
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
    /// How far it is.
    Tells(String),
}

/// Asks Proxmox whether it runs, and its guest agent, where there is one, for its addresses.
async fn sight(world: &World, at: &At, address: Ipv4Addr) -> Sight {
    let state = world.client.read(Request::get(status(at, "current"))).await;
    match state.ok().and_then(|s| text(&s, "status")) {
        Some(state) if state != "running" => return Sight::Tells(format!("Proxmox says that it is {state}")),
        _ => {}
    }
    match agent_addresses(world, at).await {
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

fn refusal(doing: &str, why: String, hint: Option<String>) -> Failure {
    let failure = Failure::precondition(doing).because(why);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

async fn agent_addresses(world: &World, at: &At) -> Option<Vec<String>> {
    // A container has no agent.
    if !at.kind.is_vm() {
        return None;
    }
    let path = format!("{}/agent/network-get-interfaces", at.path());
    let turn = world.turn(&at.node).await;
    let value = world.client.send(&Request::get(path)).await.ok();
    drop(turn);
    value.map(|v| addresses(&v))
}
