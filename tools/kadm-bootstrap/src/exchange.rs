//! A node's programs of Kubernetes from packages to their publishers' files, and back, at the version that runs.
//!
//! The node is emptied first, and its kubelet started anew with the other program. What kubeadm wrote, the kubelet's
//! state, the runtime and its containers stay; so do the packages that only came along.

use std::collections::{BTreeMap, BTreeSet};

use remote::{Command, Host, RemoteFile};
use serde::Serialize;
use stage::{Ctx, Failure, StepId};

use crate::api::Api;
use crate::build::Build;
use crate::fault::hold_theirs;
use crate::hosts::{self, must};
use crate::node::Node;
use crate::pin::{KNOWN, KUBERNETES, NOTES, Pin};
use crate::seen::{HostSeen, NodeSeen, Whose};
use crate::step::{Repository, Step};
use crate::version::{EXACT, right};
use crate::want::Want;
use crate::{files, kubelet, pins, prepare};

/// Where a change is noted on a machine while it goes on.
pub const EXCHANGING: &str = "/var/lib/kubeline/kadm-programs";

/// Where programs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Their publishers' files.
    Files,
    /// Packages.
    Packages,
}

/// What is changed on one machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchange {
    /// Where they come from afterwards.
    pub to: Origin,
    /// Files to fetch.
    pub pins: Vec<Pin>,
    /// Units to write, by path, with their digests.
    pub units: BTreeMap<String, String>,
    /// What apt installs.
    pub install: Vec<String>,
    /// What is held afterwards.
    pub hold: Vec<String>,
    /// The repository, when it is needed.
    pub repository: Option<Repository>,
    /// Packages to remove.
    pub remove: Vec<String>,
    /// Files to remove before the kubelet is started anew.
    pub drop: BTreeSet<String>,
    /// The notes on them, removed last.
    pub notes: BTreeSet<String>,
}

/// Why the programs of a part of the cluster are to be changed; `None` when they are as the document has them.
pub fn due(want: &Want, host: &HostSeen) -> Option<String> {
    if host.exchanging {
        return Some("the change of its programs was not seen through".to_owned());
    }
    if pins::kubernetes(want) {
        // Who has the package of kubectl alone has it for himself.
        let packages = EXACT.into_iter().filter(|p| host.packages.contains_key(*p));
        let packages: Vec<&str> = packages.collect();
        let some = packages.iter().any(|p| *p != "kubectl");
        return some
            .then(|| format!("its {} are packages, and the document pins files", packages.join(", ")));
    }
    let pinned: Vec<&str> = EXACT.into_iter().filter(|n| host.pinned.contains_key(*n)).collect();
    let (verb, what) = if pinned.len() == 1 { ("is", "a pinned file") } else { ("are", "pinned files") };
    (!pinned.is_empty())
        .then(|| format!("its {} {verb} {what}, and spec.artifacts names none any more", pinned.join(", ")))
}

impl Build<'_> {
    /// The change of one node: emptied, changed, opened again. Gives the last step; `None` when it is held.
    pub(crate) fn exchange(
        &mut self,
        node: &Node,
        host: &HostSeen,
        seen: &NodeSeen,
        via: &str,
        after: &[StepId],
        why: String,
    ) -> Option<StepId> {
        let what = match pins::kubernetes(self.want) {
            true => self.files_for(&node.name, host)?,
            false => self.packages_for(&node.name, host)?,
        };
        let drain = Step::Drain {
            via: via.to_owned(),
            node: node.name.clone(),
            seconds: self.want.drain_timeout.as_secs(),
            leaves: false,
            runs: seen.ready,
        };
        let drained = self.plan.step_after(after, drain, "its kubelet is changed");
        let (host, via) = (node.name.clone(), via.to_owned());
        let step = Step::Programs { host, via: via.clone(), ready: seen.ready, what: Box::new(what) };
        let id = self.plan.step_after(&[drained], step, why);
        // Who cordoned it by hand wants it so.
        let ours = !seen.cordoned || seen.our_cordon;
        let open = Step::Uncordon { via, node: node.name.clone() };
        Some(if ours { self.plan.step_after(&[id], open, "its programs are changed") } else { id })
    }

    fn files_for(&mut self, name: &str, host: &HostSeen) -> Option<Exchange> {
        pins::free(&mut self.plan, name, host, &EXACT).ok()?;
        let seen = host.files.get(files::KUBELET_UNIT);
        if seen.is_some_and(|f| f.whose == Whose::Foreign) {
            hold_theirs(&mut self.plan, name, files::KUBELET_UNIT);
            return None;
        }
        let unit = self.want.files.units.get(files::KUBELET_UNIT);
        let unit = unit.filter(|u| seen.is_none_or(|f| f.sha256 != u.sha256));
        let remove = EXACT.into_iter().filter(|p| host.packages.contains_key(*p));
        Some(Exchange {
            to: Origin::Files,
            pins: pins::lacking(self.want, host),
            units: unit.map(|u| (files::KUBELET_UNIT.to_owned(), u.sha256.clone())).into_iter().collect(),
            install: Vec::new(),
            hold: Vec::new(),
            repository: None,
            remove: remove.map(str::to_owned).collect(),
            drop: BTreeSet::new(),
            notes: BTreeSet::new(),
        })
    }

    fn packages_for(&mut self, name: &str, host: &HostSeen) -> Option<Exchange> {
        let version = self.want.version.to_string();
        // Of the packages alone: a program of another kind is still there, and told of first.
        let packaged = HostSeen { programs: BTreeMap::new(), ..host.clone() };
        let wrong: Vec<&str> = EXACT.into_iter().filter(|p| !right(&packaged, p, &version)).collect();
        let (install, repository) = prepare::obtain(&mut self.plan, self.want, name, host, &wrong).ok()?;
        let held = |p: &&str| host.packages.get(*p).is_some_and(|p| p.held);
        let ours = |n: &&str| host.pinned.contains_key(*n);
        let shows = |name: &str| KNOWN.iter().find(|(n, ..)| *n == name).map(|(.., path)| (*path).to_owned());
        // The plugins' package has put its own files over the others.
        let mut drop: BTreeSet<String> =
            KUBERNETES.into_iter().filter(ours).filter(|n| *n != "cni-plugins").filter_map(shows).collect();
        if host.files.get(files::KUBELET_UNIT).is_some_and(|f| f.whose == Whose::Ours) {
            drop.insert(files::KUBELET_UNIT.to_owned());
        }
        Some(Exchange {
            to: Origin::Packages,
            pins: Vec::new(),
            units: BTreeMap::new(),
            install,
            hold: EXACT.into_iter().filter(|p| !held(p)).map(str::to_owned).collect(),
            repository,
            remove: Vec::new(),
            drop,
            notes: KUBERNETES.into_iter().map(|n| format!("{NOTES}/{n}")).collect(),
        })
    }
}

/// Holds of a machine that is to be changed while another version is wanted as well.
pub(crate) fn hint(runs: &str) -> String {
    let runs = runs.trim_start_matches('v');
    format!("set spec.kubernetes.version to \"{runs}\" and run; then set it to the new one")
}

/// Changes the programs of one node, and proves that its kubelet came back with them.
///
/// # Errors
/// What failed; the next run goes on, for the machine says that it is in the middle of it.
pub async fn exchange(
    host: &Host,
    what: &Exchange,
    ready: bool,
    api: &Api,
    want: &Want,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let doing = format!("cannot change the programs of Kubernetes on {}", host.name());
    let mark = RemoteFile::new(EXCHANGING, "a change of where kubelet and kubeadm come from began here\n");
    hosts::put(host, &mark, &doing).await?;
    pins::install(host, want, &what.pins, &what.units).await?;
    if !what.remove.is_empty() {
        let mark = |verb: &str| Command::new("apt-mark").arg(verb).sudo();
        // It only came along, and its plugins are in use: `apt-get autoremove` must not take it.
        must(host, &mark("manual").arg("kubernetes-cni"), &doing).await?;
        must(host, &mark("unhold").args(what.remove.clone()), &doing).await?;
        // Unlike apt, dpkg leaves them all when something else depends on one.
        must(host, &Command::new("dpkg").arg("--remove").args(what.remove.clone()).sudo(), &doing).await?;
    }
    hosts::packages(host, want, &what.install, &what.hold, what.repository.as_ref(), ctx).await?;
    hosts::sweep(host, &what.drop).await?;
    let systemctl = |words: &[&str]| Command::new("systemctl").args(words.iter().copied()).sudo();
    must(host, &systemctl(&["daemon-reload"]), &doing).await?;
    // Its link leads to the unit that was there before.
    must(host, &systemctl(&["reenable", "kubelet"]), &doing).await?;
    kubelet::restart(host, ready, api, &doing, ctx).await?;
    hosts::sweep(host, &what.notes).await?;
    host.remove(EXCHANGING).await.map(drop).map_err(|e| fleet::failure(&doing, &e))
}
