//! The document's machines as SSH hosts.
//!
//! Where the document and SSH meet: `remote` knows no document and `cluster-doc` no SSH. A [`Fleet`] is one
//! connection each; a machine that does not answer is part of what is seen, while a machine that answers with
//! the wrong key or refuses the log-in ends the run.
//!
//! A tool that keeps a daemon on its machines, and nothing else, is a [`Daemon`]; [`Tool`] makes a program of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cluster_doc::Machine;
use cluster_doc::spec::{Jump, Ssh};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use remote::{Class, Error, Host, Lock, Target};
use stage::{Ctx, Exit, Failure, Guard, Site};

pub mod links;
pub mod packages;
pub mod service;
pub mod tool;
pub mod units;

pub use service::Service;
pub use tool::{Change, Daemon, Tool, View, Wanted};

/// How to reach some of the document's machines: everything about the connection but the connection.
#[derive(Clone, Debug)]
pub struct Route {
    targets: Vec<Target>,
    unreachable: BTreeMap<String, String>,
}

impl Route {
    /// The route to these machines. One that the stage before could not reach is not tried again.
    pub fn new<'m>(machines: impl IntoIterator<Item = &'m Machine>, ssh: &Ssh, site: &Site) -> Route {
        let mut route = Route { targets: Vec::new(), unreachable: BTreeMap::new() };
        for machine in machines {
            if machine.reachable {
                route.targets.push(target(machine, ssh, site));
            } else {
                let why = "the stage before could not reach it (reachable: false)".to_owned();
                route.unreachable.insert(machine.name.clone(), why);
            }
        }
        route
    }
}

/// A machine as SSH sees it.
pub fn target(machine: &Machine, ssh: &Ssh, site: &Site) -> Target {
    let known = machine.known_hosts_file.as_ref().or(ssh.known_hosts_file.as_ref());
    Target {
        port: ssh.port.get(),
        identity_file: ssh.identity_file.as_ref().map(|f| site.path(f)),
        host_keys: machine.host_keys.clone(),
        known_hosts: known.map(|f| site.path(f)),
        jump: ssh.jump.as_ref().map(|jump| Box::new(jump_target(jump, ssh, site))),
        ..Target::new(&machine.name, machine.address.to_string(), machine.user.unwrap_or(ssh.user.as_str()))
    }
}

fn jump_target(jump: &Jump, ssh: &Ssh, site: &Site) -> Target {
    let path = |f: &Option<cluster_doc::FilePath>| -> Option<PathBuf> { f.as_ref().map(|f| site.path(f)) };
    Target {
        port: jump.port.get(),
        identity_file: path(&jump.identity_file).or_else(|| path(&ssh.identity_file)),
        host_keys: jump.host_key.iter().cloned().collect(),
        known_hosts: path(&jump.known_hosts_file).or_else(|| path(&ssh.known_hosts_file)),
        ..Target::new(format!("jump host {}", jump.host), &jump.host, jump.user.as_str())
    }
}

/// Connections to machines, by name.
#[derive(Clone)]
pub struct Fleet {
    hosts: BTreeMap<String, Host>,
    unreachable: BTreeMap<String, String>,
}

impl Fleet {
    /// Connects to all machines of the route side by side.
    ///
    /// # Errors
    /// Exit 4 when one answers with another host key or refuses the log-in, all of them told together.
    pub async fn connect(route: &Route, ctx: &Ctx) -> Result<Fleet, Failure> {
        let attempts = route.targets.iter().cloned().map(|mut target| {
            target.accept_new = ctx.accept_new_host_keys();
            async move { (target.name.clone(), Host::connect(target).await) }
        });
        let mut results: Vec<_> = stream::iter(attempts).buffer_unordered(ctx.jobs()).collect().await;
        results.sort_by(|a, b| a.0.cmp(&b.0));
        let mut fleet = Fleet { hosts: BTreeMap::new(), unreachable: route.unreachable.clone() };
        let mut refused: Option<Failure> = None;
        for (name, result) in results {
            match result {
                Ok(host) => drop(fleet.hosts.insert(name, host)),
                Err(error) if error.class() == Class::Unreachable => {
                    fleet.unreachable.insert(name, chain(&error));
                }
                Err(error) => {
                    let failure = failure(format!("cannot log in to {name}"), &error);
                    refused = Some(match refused {
                        None => failure,
                        Some(mut first) => {
                            first.causes.push(format!("also: {}", failure.doing));
                            first.causes.extend(failure.causes);
                            first.hints.extend(failure.hints);
                            first
                        }
                    });
                }
            }
        }
        refused.map_or(Ok(fleet), Err)
    }

    /// The connection to a machine, when it was reached.
    pub fn get(&self, name: &str) -> Option<&Host> {
        self.hosts.get(name)
    }

    /// The connection to a machine that a step names.
    ///
    /// # Errors
    /// Exit 1: a plan names only machines that were reached.
    pub fn host(&self, name: &str) -> Result<&Host, Failure> {
        self.get(name).ok_or_else(|| Failure::internal(format!("there is no connection to {name}")))
    }

    /// The machines that were reached, by name.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &Host)> {
        self.hosts.iter().map(|(name, host)| (name.as_str(), host))
    }

    /// The machines that were not reached, by name, and why.
    pub fn unreachable(&self) -> &BTreeMap<String, String> {
        &self.unreachable
    }

    /// Does the same on every machine side by side. A machine that is lost meanwhile is left out, with the reason.
    ///
    /// # Errors
    /// The first other error, as `doing` on that machine.
    pub async fn each<T, F, R>(&self, ctx: &Ctx, doing: &str, act: F) -> Result<Outcome<T>, Failure>
    where
        F: Fn(Host) -> R,
        R: Future<Output = Result<T, Error>>,
    {
        // Owned before the stream: a closure over borrowed hosts is not general enough for a `Send` future.
        let mut all = Vec::new();
        for (name, host) in &self.hosts {
            let (name, result) = (name.clone(), act(host.clone()));
            all.push(async move { (name, result.await) });
        }
        let mut results: Vec<_> = stream::iter(all).buffer_unordered(ctx.jobs()).collect().await;
        results.sort_by(|a, b| a.0.cmp(&b.0));
        let mut outcome = Outcome { of: BTreeMap::new(), unreachable: self.unreachable.clone() };
        for (name, result) in results {
            match result {
                Ok(value) => drop(outcome.of.insert(name, value)),
                Err(error) if matches!(error.class(), Class::Unreachable) => {
                    outcome.unreachable.insert(name, chain(&error));
                }
                Err(error) => return Err(failure(format!("cannot {doing} {name}"), &error)),
            }
        }
        Ok(outcome)
    }

    /// Takes the lock of each of these machines, in the order of their names so that two operators cannot
    /// wait for one another.
    ///
    /// # Errors
    /// Exit 5 naming machine and holder.
    pub async fn lock(
        &self,
        names: impl IntoIterator<Item = impl AsRef<str>>,
        ctx: &Ctx,
    ) -> Result<Guard, Failure> {
        self.locks(names, 1, ctx).await
    }

    /// The same side by side, for one who holds locks already that keep everybody else out: without these two could
    /// each have a half.
    ///
    /// # Errors
    /// Exit 5 naming machine and holder.
    pub async fn lock_beside(
        &self,
        names: impl IntoIterator<Item = impl AsRef<str>>,
        ctx: &Ctx,
    ) -> Result<Guard, Failure> {
        self.locks(names, ctx.jobs(), ctx).await
    }

    /// Takes locks, at most so many side by side.
    async fn locks(
        &self,
        names: impl IntoIterator<Item = impl AsRef<str>>,
        beside: usize,
        ctx: &Ctx,
    ) -> Result<Guard, Failure> {
        let names: BTreeSet<String> = names.into_iter().map(|n| n.as_ref().to_owned()).collect();
        let holder = ctx.holder();
        let mut all = Vec::new();
        for name in names {
            let (host, holder) = (self.host(&name)?.clone(), holder.clone());
            all.push(async move {
                host.lock(&holder).await.map_err(|e| failure(format!("cannot lock {name}"), &e))
            });
        }
        let locks: Vec<Lock> = stream::iter(all).buffer_unordered(beside).try_collect().await?;
        Ok(Box::new(locks))
    }
}

/// What was found on each machine, and which machines could not be asked.
#[derive(Clone, Debug)]
pub struct Outcome<T> {
    /// By name.
    pub of: BTreeMap<String, T>,
    /// By name, and why.
    pub unreachable: BTreeMap<String, String>,
}

/// An error of SSH as the end of a run.
pub fn failure(doing: impl Into<String>, error: &Error) -> Failure {
    let exit = match error.class() {
        Class::Unreachable | Class::Transient => Exit::Transient,
        Class::Precondition => Exit::Precondition,
        Class::Internal => Exit::Internal,
    };
    Failure::of(exit, doing, error, error.hint())
}

/// An error with all that caused it, on one line.
fn chain(error: &Error) -> String {
    Failure::transient("").caused_by(error).causes.join(": ")
}
