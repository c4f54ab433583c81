//! Failovers, measured: what breaks, what clients notice meanwhile, who answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pnet_datalink::MacAddr;

use crate::arp::EVERY;
use crate::gap::Noticed;
use crate::{Gaps, Machine, Result, Site, Watch, until};

/// How long the address may be anywhere but on a healthy machine before a scenario gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// So many clients in a row that are served show that service is back.
const WELL: usize = 20;

/// How long after a part came back clients are looked at.
const AFTERMATH: Duration = Duration::from_millis(1500);

/// What happens to the machine that holds the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// All processes of HAProxy are killed.
    Haproxy,
    /// All processes of keepalived are killed: nobody gives the address up.
    Keepalived,
    /// Its link loses the carrier.
    Link,
    /// Its switch drops everything, and its link stays up: it cannot tell.
    Switch,
    /// The power is gone.
    Power,
}

/// What one blow did.
#[derive(Clone, Debug)]
pub struct Round {
    /// Who held the address.
    pub from: String,
    /// Who held it then.
    pub to: String,
    /// What clients noticed.
    pub noticed: Noticed,
    /// What clients noticed when the broken part came back.
    pub healed: Noticed,
    /// The longest time in which two machines answered for the address, once the links were whole.
    pub overlap: Duration,
    /// The longest time since then in which the machine that tests did not let the watch run.
    pub stalled: Duration,
}

impl Round {
    /// Whether two machines answered for no longer than an advert interval after the links were whole. The watch asks every
    /// 10 ms, and a machine that did not let it run for a while did not let keepalived run either.
    pub fn parted_within(&self, advert: Duration) -> bool {
        self.overlap <= advert + EVERY + self.stalled
    }
}

/// Clients and a watch over one site.
pub struct Rounds<'s> {
    site: &'s Site,
    gaps: Gaps,
    watch: Watch,
    macs: BTreeMap<MacAddr, &'s Machine>,
}

impl<'s> Rounds<'s> {
    /// Starts clients and the watch, and waits until the site is well.
    ///
    /// # Errors
    /// It does not get well.
    pub async fn new(site: &'s Site) -> Result<Rounds<'s>> {
        let mut macs = BTreeMap::new();
        for machine in &site.machines {
            let shown = machine.ok(&["cat", "/sys/class/net/host0/address"]).await?;
            let mac = shown.trim().parse().map_err(|_| format!("{} has no MAC address", machine.name))?;
            macs.insert(mac, machine);
        }
        let rounds = Rounds { site, gaps: Gaps::start(site.vip, 80), watch: Watch::start(site.vip)?, macs };
        rounds.well().await?;
        Ok(rounds)
    }

    /// What clients notice.
    pub fn gaps(&self) -> &Gaps {
        &self.gaps
    }

    /// Who answers.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The machines that hold the address.
    pub async fn holders(&self) -> Vec<&'s Machine> {
        let mut holders = Vec::new();
        for machine in &self.site.machines {
            if machine.holds(self.site.vip).await {
                holders.push(machine);
            }
        }
        holders
    }

    /// Waits until one machine holds the address, all others wait for their turn, and clients are served.
    ///
    /// # Errors
    /// Not within twenty seconds.
    pub async fn well(&self) -> Result<()> {
        until("one master, all others ready, clients served", PATIENCE, async || {
            // Asking the machines themselves starts processes there, which those that are measured would have to wait for.
            if !self.gaps.well(WELL) {
                return false;
            }
            let states = futures::future::join_all(self.site.machines.iter().map(Machine::vrrp_state)).await;
            let count = |word: &str| states.iter().filter(|s| s.as_deref() == Some(word)).count();
            count("MASTER") == 1
                && count("BACKUP") + 1 == self.site.machines.len()
                && self.holders().await.len() == 1
                && self.gaps.well(WELL)
        })
        .await
    }

    /// Strikes the holder and measures until all is well again.
    ///
    /// # Errors
    /// Nobody takes over, or it does not get well afterwards.
    pub async fn strike(&self, blow: Blow) -> Result<Round> {
        let holder = *self.holders().await.first().ok_or("nobody holds the address")?;
        let begun = Instant::now();
        match blow {
            Blow::Haproxy => drop(holder.ok(&["pkill", "-KILL", "-x", "haproxy"]).await?),
            Blow::Keepalived => drop(holder.ok(&["pkill", "-KILL", "-x", "keepalived"]).await?),
            Blow::Link => holder.pull_cable().await?,
            Blow::Switch => holder.cut_off().await?,
            Blow::Power => holder.power_off().await?,
        }
        let mut to = None;
        until("another machine answers for the address", PATIENCE, async || {
            let answered = self.watch.answered(begun);
            to = answered.iter().filter_map(|mac| self.macs.get(mac)).find(|m| m.name != holder.name);
            to.is_some()
        })
        .await?;
        until("clients are served again", PATIENCE, async || {
            begun.elapsed() > Duration::from_millis(700) && self.gaps.well(WELL)
        })
        .await?;
        let noticed = self.gaps.since(begun);
        let mut whole = begun;
        match blow {
            Blow::Haproxy | Blow::Keepalived => {}
            Blow::Link => holder.plug_cable().await?,
            Blow::Switch => holder.join_again().await?,
            Blow::Power => holder.power_on().await?,
        }
        if matches!(blow, Blow::Link | Blow::Switch | Blow::Power) {
            whole = Instant::now();
        }
        self.well().await?;
        // Clients of the first moments have their answers, or the end of their patience.
        until("the moments after it", PATIENCE, async || whole.elapsed() > AFTERMATH).await?;
        let (healed, overlap) = (self.gaps.since(whole), self.watch.longest_overlap(whole));
        let stalled = self.watch.stalled(whole);
        Ok(Round {
            from: holder.name.clone(),
            to: to.map(|machine| machine.name.clone()).unwrap_or_default(),
            noticed,
            healed,
            overlap,
            stalled,
        })
    }
}

/// The value that so many of a hundred do not exceed.
pub fn percentile(values: &[u64], of_hundred: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * of_hundred).div_ceil(100).clamp(1, sorted.len().max(1));
    sorted.get(at - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let all: Vec<u64> = (1..=200).rev().collect();
        assert_eq!((percentile(&all, 50), percentile(&all, 99), percentile(&all, 100)), (100, 198, 200));
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[], 99), 0);
    }
}
