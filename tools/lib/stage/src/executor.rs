//! One executor runs every plan: in order where an order is given, side by side elsewhere, bounded.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::json;

use crate::events::Events;
use crate::frame::{Frame, pressed};
use crate::plan::Plan;
use crate::{Ctx, Exit, Failure, Tool};

/// Runs the plan. After a failure no new step starts; those in hand are finished, and all that failed is told. What
/// is confined to one machine stops only what comes after it, and is given back.
pub(crate) async fn execute<T: Tool>(
    plan: &Plan<T::Step>,
    world: &T::World,
    want: &T::Want,
    ctx: &Ctx,
    frame: &Frame,
) -> Result<Vec<Failure>, Failure> {
    let mut order = Order::of(plan);
    let mut done: BTreeSet<usize> = BTreeSet::new();
    let mut started: BTreeSet<usize> = BTreeSet::new();
    let (mut failures, mut confined): (Vec<Failure>, Vec<Failure>) = Default::default();
    let mut busy = 0;
    let mut running = FuturesUnordered::new();
    let mut interrupts = frame.interrupts.clone();
    loop {
        let interrupted = *interrupts.borrow() > 0;
        while failures.is_empty() && !interrupted {
            let room = |n: &usize| ctx.has_room(T::slot(&plan.steps[*n].step), busy);
            let Some(n) = order.ready.iter().copied().find(room) else { break };
            let planned = &plan.steps[n];
            order.ready.remove(&n);
            started.insert(n);
            busy += usize::from(ctx.holds_job(T::slot(&planned.step)));
            let events = &frame.events;
            running.push(async move {
                let line = planned.step.to_string();
                emit(events, "started", n, &line, None);
                if frame.verbose > 0 {
                    ctx.say(&line);
                }
                let work = T::apply(&planned.step, world, want, ctx);
                let result = ctx.inner.progress.step(&line, work).await;
                match &result {
                    Ok(()) => emit(events, "done", n, &line, None),
                    Err(failure) => emit(events, "failed", n, &line, Some(failure)),
                }
                (n, result)
            });
        }
        if running.is_empty() {
            break;
        }
        tokio::select! {
            finished = running.next() => {
                let Some((n, result)) = finished else { break };
                busy -= usize::from(ctx.holds_job(T::slot(&plan.steps[n].step)));
                match result {
                    Ok(()) => {
                        done.insert(n);
                        order.done(n);
                    }
                    Err(failure) if failure.confined => {
                        tell(ctx, &failure);
                        confined.push(failure);
                    }
                    Err(failure) => failures.push(failure),
                }
                if frame.crash_after.is_some_and(|k| done.len() >= k) {
                    frame.crashed.store(true, Ordering::SeqCst);
                    return Err(Failure::internal("killed by the test"));
                }
            }
            () = pressed(&mut interrupts, if interrupted { 2 } else { 1 }) => {
                if interrupted {
                    let word = "the step in hand was aborted; it is repaired by running again";
                    return Err(stopped(plan, &started, &done, word));
                }
                ctx.say("finishing the step in hand; Ctrl-C again aborts it");
            }
        }
    }
    if !failures.is_empty() {
        failures.append(&mut confined);
    }
    if let Some(failure) = merged(failures) {
        return Err(failure);
    }
    if done.len() < plan.steps.len() && confined.is_empty() {
        return Err(stopped(plan, &started, &done, "run again to go on"));
    }
    Ok(confined)
}

/// Which steps may start, as others are done.
struct Order {
    /// Those whose predecessors are done, in the plan's order.
    ready: BTreeSet<usize>,
    /// How many predecessors each has that are not done.
    before: Vec<usize>,
    /// What comes after each.
    after: Vec<Vec<usize>>,
}

impl Order {
    fn of<S>(plan: &Plan<S>) -> Order {
        let mut after = vec![Vec::new(); plan.steps.len()];
        let mut before = Vec::new();
        for (n, planned) in plan.steps.iter().enumerate() {
            let first: BTreeSet<usize> = planned.after.iter().map(|id| id.0).collect();
            before.push(first.len());
            first.iter().for_each(|id| after[*id].push(n));
        }
        let ready = before.iter().enumerate().filter(|(_, count)| **count == 0).map(|(n, _)| n).collect();
        Order { ready, before, after }
    }

    fn done(&mut self, step: usize) {
        for next in std::mem::take(&mut self.after[step]) {
            self.before[next] -= 1;
            if self.before[next] == 0 {
                self.ready.insert(next);
            }
        }
    }
}

/// Says at once what went wrong with one machine while the others go on.
fn tell(ctx: &Ctx, failure: &Failure) {
    ctx.say(&std::iter::once(&failure.doing).chain(&failure.causes).cloned().collect::<Vec<_>>().join(": "));
    failure.hints.iter().for_each(|hint| ctx.say(&format!("hint: {hint}")));
}

fn emit(events: &Events, event: &str, n: usize, line: &str, failure: Option<&Failure>) {
    let mut more = json!({ "n": n + 1, "step": line });
    if let Some(failure) = failure {
        more["error"] = failure.doing.clone().into();
        more["causes"] = failure.causes.clone().into();
    }
    events.emit(event, more);
}

fn stopped<S: std::fmt::Display>(
    plan: &Plan<S>,
    started: &BTreeSet<usize>,
    done: &BTreeSet<usize>,
    word: &str,
) -> Failure {
    let last = started.iter().max().and_then(|n| plan.steps.get(*n)).map(|p| p.step.to_string());
    let after = last.map_or_else(|| "before the first step".to_owned(), |last| format!("at: {last}"));
    Failure::new(
        Exit::Interrupted,
        format!("interrupted after {} of {} steps, {after}", done.len(), plan.steps.len()),
    )
    .hint(word)
}

/// Several failures as one: the gravest exit leads, the others are told as causes.
pub(crate) fn merged(failures: Vec<Failure>) -> Option<Failure> {
    let rank = |exit: Exit| match exit {
        Exit::Internal => 0,
        Exit::Precondition => 1,
        _ => 2,
    };
    let mut failures = failures;
    failures.sort_by_key(|f| rank(f.exit));
    let mut rest = failures.into_iter();
    let mut first = rest.next()?;
    for other in rest {
        first.causes.push(format!("also: {}", other.doing));
        first.causes.extend(other.causes.into_iter().map(|c| format!("  {c}")));
        first.hints.extend(other.hints);
    }
    first.hints.dedup();
    Some(first)
}
