//! Making it so: objects are applied in their order, and what would not change is not written.

use crate::cluster::Cluster;
use crate::error::Error;
use crate::object::{Object, ObjectId};
use crate::observe::{Run, What, conflicts, defined, defines, is_immutable};
use crate::set::{ManifestSet, Stage};
use crate::wait::Wait;
use crate::wire::{Answer, Fault, Refusal};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// The status of an answer to a write that made something new.
const CREATED: u16 = 201;
/// How long a definition may take until it is established.
const DEFINITION: Duration = Duration::from_secs(60);
/// How long after that its API may be missing on a server.
const SERVED: Duration = Duration::from_secs(10);

/// An object that was applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Whether it is new.
    pub created: bool,
    /// The object as the server has it now.
    pub object: Value,
}

/// What became of an object of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is new.
    Created,
    /// It was changed.
    Changed,
    /// It was as wanted; nothing was written.
    Same,
}

/// What an apply has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// One object is done.
    Done(&'a ObjectId, Outcome),
    /// What is being waited for.
    Waiting(&'a str),
}

impl Cluster {
    /// Applies one object: one write, whatever is there.
    pub async fn apply_object(&self, object: &Object) -> Result<Applied, Error> {
        let answer = self.write(object).await?;
        let object = answer.json(&format!("apply {}", object.id()))?;
        Ok(Applied { created: answer.code == CREATED, object })
    }

    /// As [`Cluster::apply_object`], without reading the object that the server answers with.
    async fn write(&self, object: &Object) -> Result<Answer, Error> {
        let id = object.id();
        // For a moment after a definition is established its API is not listed, or another API server does not serve it.
        let until = Instant::now() + self.wire.patience.min(SERVED);
        let mut pause = Duration::from_millis(50);
        loop {
            let late = Instant::now() + pause > until;
            match self.resource(&id.api_version, &id.kind).await? {
                None if late => return Err(unknown_kind(&id)),
                None => self.discovery.forget_absent(&[(id.api_version.clone(), id.kind.clone())]),
                Some(resource) => match self.patch(&resource, object, Run::Real).await {
                    Ok(answer) => return Ok(answer),
                    Err(Fault::Refused(refusal)) if !late && is_unserved(&refusal) => {}
                    Err(fault) => return Err(applying(&id, fault)),
                },
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Applies a set in its order: namespaces; definitions, until they are established; the rest, several at once.
    ///
    /// What is as wanted is not written. Kinds that neither the cluster nor the set knows are refused before
    /// anything is written. The first failure ends it; running it again goes on.
    pub async fn apply(
        &self,
        set: &ManifestSet,
        progress: impl Fn(Progress<'_>) + Sync,
    ) -> Result<Vec<(ObjectId, Outcome)>, Error> {
        self.look_anew(set).await?;
        for object in set.objects() {
            let id = object.id();
            if self.resource(&id.api_version, &id.kind).await?.is_none() && !defines(set, &id) {
                return Err(unknown_kind(&id));
            }
        }
        let (parent, outcome) = self.open_set(set).await?;
        progress(Progress::Done(&parent, outcome));
        // A set that has had no parent until now has no member either: each object is new, or gets the set's label, so that
        // asking first whether it would change has one answer.
        let fresh = outcome == Outcome::Created;
        let mut done = vec![(parent, outcome)];
        for stage in Stage::ALL {
            let objects: Vec<&Object> = set.stage(stage).collect();
            done.extend(self.parallel(&objects, |object| self.apply_one(object, fresh, &progress)).await?);
            if stage == Stage::Definitions {
                let unserved = self.unserved(objects).await?;
                self.parallel(&unserved, |object| self.established(object, &progress)).await?;
                self.look_anew(set).await?;
            }
        }
        Ok(done)
    }

    /// Deletes an object, waits until it is gone, and creates it anew: for a field that cannot be changed.
    pub async fn recreate(
        &self,
        object: &Object,
        deadline: Duration,
        say: impl Fn(&str),
    ) -> Result<Applied, Error> {
        let id = object.id();
        self.delete(&id).await?;
        self.wait(&Wait::Gone { id }, deadline, say).await?;
        self.apply_object(object).await
    }

    async fn apply_one(
        &self,
        object: &Object,
        fresh: bool,
        progress: &(impl Fn(Progress<'_>) + Sync),
    ) -> Result<(ObjectId, Outcome), Error> {
        let id = object.id();
        let outcome = if fresh { self.written(object).await? } else { self.settle(object).await? };
        progress(Progress::Done(&id, outcome));
        Ok((id, outcome))
    }

    /// Applies an object if a dry run says that something would change.
    pub(crate) async fn settle(&self, object: &Object) -> Result<Outcome, Error> {
        let id = object.id();
        if let Some(resource) = self.resource(&id.api_version, &id.kind).await? {
            let dry = self.try_out(&resource, object);
            let (live, dry) = futures::join!(self.read(&resource, &id), dry);
            match live?.map_or(Ok(What::Create), |live| self.judge(Some(&live), dry)) {
                Ok(What::Same) => return Ok(Outcome::Same),
                Ok(What::Conflict { fields }) => {
                    return Err(Error::Conflict { object: Box::new(id), fields });
                }
                Ok(What::Immutable { reason }) => {
                    return Err(Error::Immutable { object: Box::new(id), reason });
                }
                Ok(_) => {}
                Err(fault) => return Err(applying(&id, fault)),
            }
        }
        self.written(object).await
    }

    async fn written(&self, object: &Object) -> Result<Outcome, Error> {
        let created = self.write(object).await?.code == CREATED;
        Ok(if created { Outcome::Created } else { Outcome::Changed })
    }

    /// The definitions whose kinds the API does not list after a moment: one request for each group tells of all of them.
    async fn unserved<'a>(&self, mut definitions: Vec<&'a Object>) -> Result<Vec<&'a Object>, Error> {
        let mut pause = Duration::from_millis(25);
        loop {
            let kinds: Vec<_> = definitions.iter().flat_map(|object| served_kinds(object)).collect();
            self.discovery.forget_absent(&kinds);
            let versions: BTreeSet<&String> = kinds.iter().map(|(api_version, _)| api_version).collect();
            let asked = versions.into_iter().map(|api_version| self.resource(api_version, ""));
            futures::future::try_join_all(asked).await?;
            let mut missing = Vec::new();
            for object in definitions {
                for (api_version, kind) in served_kinds(object) {
                    if self.resource(&api_version, &kind).await?.is_none() {
                        missing.push(object);
                        break;
                    }
                }
            }
            if missing.is_empty() || pause > Duration::from_millis(400) {
                return Ok(missing);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            definitions = missing;
        }
    }

    async fn established(
        &self,
        object: &Object,
        progress: &(impl Fn(Progress<'_>) + Sync),
    ) -> Result<(), Error> {
        let wait = Wait::CrdEstablished { name: object.name().to_owned() };
        self.wait(&wait, DEFINITION, |text| progress(Progress::Waiting(text))).await
    }
}

/// Each version that a definition serves, with the kind: `crd.projectcalico.org/v1`, `IPPool`.
fn served_kinds(definition: &Object) -> Vec<(String, String)> {
    let (group, kind) = defined(definition.value());
    let versions = definition.value().pointer("/spec/versions").and_then(Value::as_array);
    let served = versions.into_iter().flatten().filter(|one| one["served"] == true);
    let name = |one: &Value| format!("{group}/{}", one["name"].as_str().unwrap_or_default());
    served.map(|one| (name(one), kind.clone())).collect()
}

/// The 404 of a path that the server does not serve is plain text; that of a missing object or namespace is not.
fn is_unserved(refusal: &Refusal) -> bool {
    refusal.code == 404 && refusal.details.kind.is_empty()
}

fn unknown_kind(id: &ObjectId) -> Error {
    Error::UnknownKind { object: id.to_string(), api_version: id.api_version.clone(), kind: id.kind.clone() }
}

fn applying(id: &ObjectId, fault: Fault) -> Error {
    if let Fault::Refused(refusal) = &fault {
        if let Some(fields) = conflicts(refusal) {
            return Error::Conflict { object: Box::new(id.clone()), fields };
        }
        if is_immutable(refusal) {
            return Error::Immutable { object: Box::new(id.clone()), reason: refusal.message.clone() };
        }
    }
    fault.into_error(&format!("apply {id}"))
}
