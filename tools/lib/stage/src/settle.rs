//! Making it so: consent, locks, the executor, and looking again until nothing is left.

use cluster_doc::{Document, Exit};
use serde_json::Value;

use crate::ctx::Ctx;
use crate::executor::{execute, merged};
use crate::frame::{Frame, looking, pressed};
use crate::output::Output;
use crate::own::{Consent, Own};
use crate::plan::{Held, HeldKind, Plan};
use crate::{Failure, Guard, Prompt, Tool};

/// What the movements after the first look have in common.
pub(crate) struct Scene<'a, T: Tool> {
    pub(crate) verb: &'a str,
    pub(crate) world: &'a T::World,
    pub(crate) want: &'a T::Want,
    pub(crate) doc: &'a Document,
    pub(crate) ctx: &'a Ctx,
    pub(crate) frame: &'a Frame,
    pub(crate) prompt: Option<Prompt>,
}

/// `plan`, `teardown`, or the planner of an own verb.
type Plans<'a, T> = &'a (dyn Fn(&<T as Tool>::Want, &<T as Tool>::Seen) -> Plan<<T as Tool>::Step> + Sync);

impl<T: Tool> Scene<'_, T> {
    /// Runs one of the tool's own verbs; `Tell` ended before anything was connected.
    pub(crate) async fn own(self, own: Own<T>, seen: T::Seen, output: &mut Output) -> Result<Exit, Failure> {
        match own {
            Own::Tell(tell) => {
                output.write(tell(self.want)?.as_bytes())?;
                Ok(Exit::Done)
            }
            Own::Look(look) => {
                let (text, exit) = look(self.want, &seen)?;
                output.write(text.as_bytes())?;
                Ok(exit)
            }
            Own::Settle { consent, planner } => match self.made_so(consent, &*planner, seen, output).await? {
                None => Ok(Exit::Done),
                Some((held, seen)) => self.told(&held, &seen, output),
            },
            Own::Once { consent, intent, run } => {
                let lines = intent(self.want, &seen)?;
                if consent.is_some_and(|c| c.plan) {
                    output.write(lines.as_bytes())?;
                    return Ok(Exit::Done);
                }
                if consent.is_some_and(|c| !c.yes) {
                    self.confirm(&lines)?;
                }
                let text = self.finished(run(self.world, self.want, &seen, self.ctx)).await?;
                output.write(text.as_bytes())?;
                Ok(Exit::Done)
            }
        }
    }

    /// The document with the tool's section as it is now, and the exit that what is held means.
    pub(crate) fn told(&self, held: &[Held], seen: &T::Seen, output: &mut Output) -> Result<Exit, Failure> {
        let section = with_held(T::status(self.want, seen), held);
        output.write(self.doc.with_status(T::NAME, section).as_bytes())?;
        Ok(exit_of(held))
    }

    /// Asks, locks and settles; `None` when only the plan was to be shown.
    pub(crate) async fn made_so(
        &self,
        consent: Option<Consent>,
        planner: Plans<'_, T>,
        seen: T::Seen,
        output: &mut Output,
    ) -> Result<Option<(Vec<Held>, T::Seen)>, Failure> {
        let plan = planner(self.want, &seen);
        if consent.is_some_and(|c| c.plan) {
            output.write(plan.text(T::NAME).as_bytes())?;
            return Ok(None);
        }
        if !plan.is_empty() && consent.is_some_and(|c| !c.yes) {
            self.confirm(&plan.text(T::NAME))?;
        }
        let (guard, plan, seen) = self.guarded(plan, planner, seen).await?;
        let settled = self.settle(plan, planner, seen).await?;
        drop(guard);
        Ok(Some(settled))
    }

    /// Locks what the plan would change, then looks and plans again: what was seen before the lock may be old.
    pub(crate) async fn guarded(
        &self,
        plan: Plan<T::Step>,
        planner: Plans<'_, T>,
        seen: T::Seen,
    ) -> Result<(Option<Guard>, Plan<T::Step>, T::Seen), Failure> {
        let Scene { world, want, ctx, frame, .. } = *self;
        if plan.is_empty() {
            return Ok((None, plan, seen));
        }
        let Some(guard) = looking(frame, T::guard(&plan, world, want, ctx)).await? else {
            return Ok((None, plan, seen));
        };
        let seen = looking(frame, T::observe(world, want, ctx)).await?;
        let plan = planner(want, &seen);
        Ok((Some(guard), plan, seen))
    }

    /// Runs a plan and looks again until nothing is left: what one pass brought to light may be due in a second.
    pub(crate) async fn settle(
        &self,
        first: Plan<T::Step>,
        planner: Plans<'_, T>,
        mut seen: T::Seen,
    ) -> Result<(Vec<Held>, T::Seen), Failure> {
        const PASSES: usize = 3;
        let Scene { world, want, ctx, frame, .. } = *self;
        let mut plan = first;
        let mut confined = Vec::new();
        for pass in 0.. {
            if plan.is_empty() {
                for held in plan.held() {
                    ctx.say(&format!("held {}: {}", held.what, held.why));
                    if let Some(hint) = &held.hint {
                        ctx.say(&format!("hint: {hint}"));
                    }
                }
                return Ok((plan.held, seen));
            }
            if pass == PASSES {
                break;
            }
            confined = execute::<T>(&plan, world, want, ctx, frame).await?;
            seen = T::observe(world, want, ctx).await?;
            plan = planner(want, &seen);
        }
        if let Some(failure) = merged(confined) {
            return Err(failure);
        }
        let mut failure = Failure::transient(format!(
            "did not settle: {} steps are due again after {PASSES} passes",
            plan.len()
        ));
        for (step, why, _) in plan.reasons().take(5) {
            failure = failure.because(format!("{step}: {why}"));
        }
        Err(failure.hint(format!("something else may be changing the same; see: {} plan", T::NAME)))
    }

    /// Waits for what is done once: a first Ctrl-C is told and waited out, a second one aborts it.
    async fn finished<V>(&self, doing: impl Future<Output = Result<V, Failure>>) -> Result<V, Failure> {
        let mut interrupts = self.frame.interrupts.clone();
        tokio::pin!(doing);
        for times in 1..=2 {
            tokio::select! {
                result = &mut doing => return result,
                () = pressed(&mut interrupts, times) => if times == 1 {
                    self.ctx.say("finishing what is in hand; Ctrl-C again aborts it");
                },
            }
        }
        Err(Failure::new(Exit::Interrupted, format!("aborted in the middle of {}", self.verb))
            .hint(format!("{} check   (tells what is off; a run of {0} repairs it)", T::NAME)))
    }

    /// Asks the person at the terminal.
    fn confirm(&self, intent: &str) -> Result<(), Failure> {
        let verb = self.verb;
        let refuse =
            |why: &str| Failure::precondition(format!("{} {verb} was not confirmed", T::NAME)).because(why);
        let Some(prompt) = &self.prompt else {
            return Err(refuse("there is no terminal to ask on").hint(format!("{} --yes", self.frame.line)));
        };
        match prompt(&format!("{intent}Type yes to do this: ")) {
            Ok(answer) if answer.trim() == "yes" => Ok(()),
            Ok(_) => Err(refuse("the answer was not yes")),
            Err(e) => Err(refuse(&e.to_string())),
        }
    }
}

/// The exit that what is held means.
pub(crate) fn exit_of(held: &[Held]) -> Exit {
    let any = |kind| held.iter().any(|h| h.kind == kind);
    match () {
        () if any(HeldKind::Unmet) => Exit::Precondition,
        () if any(HeldKind::Unreachable) => Exit::Partial,
        () => Exit::Done,
    }
}

fn with_held(section: Value, held: &[Held]) -> Value {
    let mut section = section;
    if let (Value::Object(map), false) = (&mut section, held.is_empty()) {
        map.insert("held".to_owned(), serde_json::to_value(held).unwrap_or_default());
    }
    section
}
