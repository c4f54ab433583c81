//! A drill: the holder of the address breaks, and clients tell for how long they missed it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fleet::tool::view;
use fleet::{Fleet, failure, links};
use remote::Command;
use serde_json::json;
use stage::{Ctx, Exit, Failure, Waiting};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::Keepalived;
use crate::args::How;
use crate::seen::{Seen, holders};
use crate::want::Want;

/// How often a client comes.
const EVERY: Duration = Duration::from_millis(10);
/// How long a client waits for its connection: less than TCP's first repetition, which is after a second.
const PATIENCE: Duration = Duration::from_millis(500);
/// So many connections in a row show that the address is served.
const STEADY: usize = 20;
/// How long until another machine serves.
const MOVING: Duration = Duration::from_secs(30);
/// How long a boot and the checks after it may take.
const HEALING: Duration = Duration::from_secs(300);
/// For how long a link stays down, in seconds: longer than any election.
const DOWN: &str = "8";
/// After so many seconds the machine brings its link back whatever became of the drill.
const UNDONE: &str = "20";
/// How many of the other machines have to be healthy: one may fail while the drill goes on.
const OTHERS: usize = 2;

/// Breaks this machine.
///
/// * `$1` what: `haproxy` or `keepalived` (all its processes are killed), `link` or `reboot`.
/// * `$2` the interface, `$3` how many seconds the link stays down, `$4` after how many it is brought back in any case.
/// * Exit: 0 broken, or about to be: what cuts the connection happens a moment later, by a unit of systemd's that
///   nobody has to wait for.
///
/// A link that goes down loses its routes; they are put back as they were, and again until they stay: systemd-networkd, which
/// sees the link come up a little later, removes what is none of its own. What does so is a
/// timer on the machine, armed before the link goes down: it needs neither who asked for the drill nor the unit that
/// took the link down.
pub const BREAK: &str = r#"# kubeline: vip-keepalive-break v2
set -eu
case $1 in
haproxy|keepalived)
  pids=
  for d in /proc/[0-9]*; do
    read -r name <"$d/comm" || continue
    [ "$name" = "$1" ] && pids="$pids ${d#/proc/}"
  done 2>/dev/null
  [ -n "$pids" ]
  exec kill -KILL $pids ;;
link)
  mkdir -p /run/kubeline
  ip route show dev "$2" | sort >/run/kubeline/drill-routes.txt
  ip route save dev "$2" >/run/kubeline/drill-routes
  systemd-run --quiet --collect --unit=kubeline-drill-undo --on-active="$4" --timer-property=AccuracySec=100ms sh -c '
    ip link set dev "$0" up
    cd /run/kubeline
    tries=0 same=0
    while [ -e drill-routes ] && [ "$same" -lt 3 ] && [ "$tries" -lt 30 ]; do
      if ip route show dev "$0" | sort | cmp -s - drill-routes.txt; then
        same=$((same + 1))
      else
        same=0
        ip route restore <drill-routes
      fi
      tries=$((tries + 1))
      sleep 0.5
    done
    rm -f drill-routes drill-routes.txt
    exec systemctl --no-block stop kubeline-drill-undo.timer' "$2"
  exec systemd-run --quiet --collect --unit=kubeline-drill sh -c '
    ip link set dev "$0" down
    sleep "$1"
    exec systemctl --no-block start kubeline-drill-undo.service' "$2" "$3" ;;
reboot) exec systemd-run --quiet --collect --unit=kubeline-drill systemctl reboot ;;
esac
exit 64
"#;

/// What will be broken, or why not.
///
/// # Errors
/// Exit 4 unless one machine holds the address and two others could take it over.
pub fn intent(how: How, want: &Want, seen: &Seen) -> Result<String, Failure> {
    let vip = want.vip.address;
    let refuse = |why: String| {
        Failure::precondition(format!("no drill of {vip} now: it could become an outage"))
            .because(why)
            .hint("vip-keepalive check")
    };
    let holder = match holders(seen, vip).as_slice() {
        [holder] => (*holder).to_owned(),
        [] => return Err(refuse("no machine that can be asked holds the address".to_owned())),
        many => return Err(refuse(format!("{} hold it at once", many.join(" and ")))),
    };
    let ready = |(name, machine): (&String, &crate::seen::MachineSeen)| {
        let known = want.balancers.iter().any(|b| b.name == *name);
        known
            && *name != holder
            && machine.healthy == Some(true)
            && machine.unit.is_active()
            && !machine.ended
    };
    let others = seen.machines.iter().filter(|m| ready(*m)).count();
    if others < OTHERS {
        let why = format!("{others} machines beside {holder} are healthy, and {OTHERS} have to be");
        return Err(refuse(why));
    }
    if want.port.is_none() {
        return Err(refuse(
            "the document has no control plane and no worker: nothing is served there".to_owned(),
        ));
    }
    let what = match how {
        How::Haproxy => "kills HAProxy on it",
        How::Keepalived => "kills keepalived on it",
        How::Link => "takes its interface down for some seconds",
        How::Reboot => "reboots it",
    };
    Ok(format!("{holder} holds {vip}. The drill {what}; clients miss the address for about a second.\n"))
}

/// Breaks the holder and measures until all machines are healthy again: the report as JSON.
///
/// # Errors
/// Exit 4 when the address cannot be reached from here at all; exit 5 when nobody takes over, or a machine does not
/// come back.
pub async fn run(how: How, fleet: &Fleet, want: &Want, seen: &Seen, ctx: &Ctx) -> Result<String, Failure> {
    let vip = want.vip.address;
    let [holder] = holders(seen, vip)[..] else { return Err(Failure::internal("the holder is not known")) };
    let port = want.port.ok_or_else(|| Failure::internal("there is no port to measure at"))?;
    let others: Vec<&str> = seen.machines.keys().map(String::as_str).filter(|name| *name != holder).collect();
    // Not the holder: its connection may break, and a lock with it.
    let lock = fleet.lock(&others, ctx).await?;
    let interface =
        seen.machines.get(holder).and_then(|m| m.addresses.get(&vip)).cloned().unwrap_or_default();

    let clients = Clients::start(vip, port);
    let steady = async || Ok(steady(clients.steady(Instant::now()), "connections from here fail"));
    let reached = ctx.wait_for(&format!("{vip}:{port} from here"), Duration::from_secs(5), steady).await;
    reached.map_err(|e| {
        let mut refused =
            Failure::precondition(format!("cannot measure: {vip}:{port} is not reached from here"));
        refused.causes = e.causes;
        refused.hint("run the drill where clients of the cluster are")
    })?;
    let begun = Instant::now();
    broken(how, fleet, holder, &interface).await?;
    ctx.say(&format!("{holder} is broken ({}); {vip} is watched", how.word()));

    let to = ctx
        .wait_for(&format!("another machine that holds {vip}"), MOVING, async || {
            for name in &others {
                if links::addresses(fleet.host(name)?).await.is_ok_and(|all| all.contains_key(&vip)) {
                    return Ok(Waiting::Seen((*name).to_owned()));
                }
            }
            Ok(Waiting::NotYet(format!("{} do not", others.join(" and "))))
        })
        .await?;
    let moved = Instant::now();
    ctx.wait_for(&format!("{vip}:{port} served by {to}"), MOVING, async || Ok(steady_since(&clients, moved)))
        .await?;
    let (gap, attempts, lost) = clients.gap(begun);
    ctx.say(&format!("{to} serves; {holder} is waited for"));
    healed(fleet, want, holder, ctx).await?;
    drop(lock);
    let report = json!({
        "how": how.word(), "from": holder, "to": to,
        "gapMs": gap, "attempts": attempts, "attemptsLost": lost,
    });
    Ok(format!("{report:#}\n"))
}

fn steady(is: bool, else_: &str) -> Waiting<()> {
    if is { Waiting::Seen(()) } else { Waiting::NotYet(else_.to_owned()) }
}

fn steady_since(clients: &Clients, since: Instant) -> Waiting<()> {
    // Clients that came before have their answers, or the end of their patience.
    let over = since.elapsed() > PATIENCE + EVERY * 20;
    steady(over && clients.steady(Instant::now()), "connections still fail")
}

async fn broken(how: How, fleet: &Fleet, holder: &str, interface: &str) -> Result<(), Failure> {
    let script = Command::sh(BREAK).args([how.word(), interface, DOWN, UNDONE]).sudo();
    match fleet.host(holder)?.run(&script).await {
        Ok(said) if said.success() => Ok(()),
        Ok(said) => Err(Failure::new(Exit::Precondition, format!("cannot break {} on {holder}", how.word()))
            .because(said.tail())),
        // What broke may have been the way of the answer.
        Err(e) if matches!(e.class(), remote::Class::Unreachable) => Ok(()),
        Err(e) => Err(failure(format!("cannot break {} on {holder}", how.word()), &e)),
    }
}

/// Waits until all machines are reached, healthy and willing, one of them holding the address.
async fn healed(fleet: &Fleet, want: &Want, holder: &str, ctx: &Ctx) -> Result<(), Failure> {
    let vip = want.vip.address;
    let well: Mutex<Option<Instant>> = Mutex::new(None);
    let since = || well.lock().unwrap_or_else(PoisonError::into_inner);
    ctx.wait_for(&format!("{holder}, healthy again"), HEALING, async || {
        // A connection that a reboot or a link took with it tells so only after a while: it is made anew.
        if let Some(host) = fleet.get(holder).filter(|_| since().is_none()) {
            host.close().await;
        }
        let asked = tokio::time::timeout(Duration::from_secs(20), view::<Keepalived>(fleet, want, ctx)).await;
        let now = match asked {
            Ok(Ok(now)) => now,
            Ok(Err(e)) => return Ok(Waiting::NotYet(e.doing)),
            Err(_) => return Ok(Waiting::NotYet(format!("{holder} does not answer"))),
        };
        let missing = want.balancers.iter().find_map(|b| match now.machines.get(&b.name) {
            None => Some(format!("{} is not reached", b.name)),
            Some(m) if !m.unit.is_active() => Some(format!("keepalived on {} is {}", b.name, m.unit.active)),
            Some(m) if m.healthy != Some(true) || m.ended => {
                Some(format!("HAProxy on {} does not serve", b.name))
            }
            Some(_) => None,
        });
        let missing =
            missing.or_else(|| (holders(&now, vip).len() != 1).then(|| format!("{vip} has no one holder")));
        if let Some(missing) = missing {
            *since() = None;
            return Ok(Waiting::NotYet(missing));
        }
        // keepalived believes a check that passed twice, a second apart: until then the machine takes nothing over.
        let passed = since().get_or_insert_with(Instant::now).elapsed();
        Ok(steady(passed > Duration::from_secs(3), "its checks pass, and are believed in a moment"))
    })
    .await
}

/// Clients that come one after the other, and what became of each.
struct Clients {
    seen: Arc<Mutex<Vec<(Instant, bool)>>>,
    task: JoinHandle<()>,
}

impl Clients {
    fn start(address: Ipv4Addr, port: u16) -> Clients {
        let seen = Arc::<Mutex<Vec<(Instant, bool)>>>::default();
        let sink = seen.clone();
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            loop {
                tick.tick().await;
                let sink = sink.clone();
                tokio::spawn(async move {
                    let came = Instant::now();
                    let connecting = TcpStream::connect(SocketAddr::from((address, port)));
                    let served = matches!(tokio::time::timeout(PATIENCE, connecting).await, Ok(Ok(_)));
                    sink.lock().unwrap_or_else(PoisonError::into_inner).push((came, served));
                });
            }
        });
        Clients { seen, task }
    }

    fn sorted(&self) -> Vec<(Instant, bool)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.sort();
        seen
    }

    /// True when the last clients that can know were all served.
    fn steady(&self, now: Instant) -> bool {
        let mut seen = self.sorted();
        seen.retain(|(came, _)| now.duration_since(*came) > PATIENCE);
        seen.len() >= STEADY && seen.iter().rev().take(STEADY).all(|(_, served)| *served)
    }

    fn gap(&self, since: Instant) -> (u64, usize, usize) {
        gap(&self.sorted(), since)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The longest time in ms between two clients in a row that were served, how many came, and how many were not
/// served; of those that came after `since`, though a gap may begin with one before.
fn gap(seen: &[(Instant, bool)], since: Instant) -> (u64, usize, usize) {
    let mut last: Option<Instant> = None;
    let mut longest = Duration::ZERO;
    for (came, _) in seen.iter().filter(|(_, served)| *served) {
        if let (Some(last), true) = (last, *came >= since) {
            longest = longest.max(came.duration_since(last));
        }
        last = Some(*came);
    }
    let after: Vec<bool> =
        seen.iter().filter(|(came, _)| *came >= since).map(|(_, served)| *served).collect();
    let lost = after.iter().filter(|served| !**served).count();
    (u64::try_from(longest.as_millis()).unwrap_or(u64::MAX), after.len(), lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_between_clients_that_were_served() {
        let base = Instant::now();
        let at = |ms: u64, served| (base + Duration::from_millis(ms), served);
        let seen = [at(0, true), at(10, true), at(20, false), at(30, false), at(60, true), at(70, true)];
        assert_eq!(gap(&seen, base), (50, 6, 2));
        assert_eq!(gap(&seen, base + Duration::from_millis(30)), (50, 3, 1), "it began before");
        assert_eq!(gap(&[], base), (0, 0, 0));
    }
}
