//! The plan as a value: steps with their reasons, and what is held.

use std::fmt::{Display, Write as _};

use serde::Serialize;
use serde_json::{Value, json};

/// Names a step of a plan, for the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct StepId(pub(crate) usize);

/// One step, its reason and what must be done before it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Planned<S> {
    pub(crate) step: S,
    pub(crate) why: String,
    pub(crate) after: Vec<StepId>,
    /// What a person reads below the step, such as the lines of a file that change; none for most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) detail: Vec<String>,
}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldKind {
    /// A flag would allow it; the wish is met without it (exit 0).
    Flag,
    /// The wish stays unmet until the operator acts (exit 4).
    Unmet,
    /// A machine cannot be reached (exit 7).
    Unreachable,
}

/// Something that is not done, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// What it concerns, such as a machine's name.
    pub what: String,
    /// Why it is not done.
    pub why: String,
    /// What would do it: a flag or a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What it means for the exit.
    pub kind: HeldKind,
}

/// What is to be done, in order, and what is not.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<S> {
    pub(crate) steps: Vec<Planned<S>>,
    pub(crate) held: Vec<Held>,
}

impl<S> Default for Plan<S> {
    fn default() -> Self {
        Plan { steps: Vec::new(), held: Vec::new() }
    }
}

impl<S> Plan<S> {
    /// An empty plan.
    pub fn new() -> Plan<S> {
        Plan::default()
    }

    /// Adds a step that may start at once.
    pub fn step(&mut self, step: S, why: impl Into<String>) -> StepId {
        self.step_after(&[], step, why)
    }

    /// Adds a step that starts when all of `after` are done.
    pub fn step_after(&mut self, after: &[StepId], step: S, why: impl Into<String>) -> StepId {
        self.steps.push(Planned { step, why: why.into(), after: after.to_vec(), detail: Vec::new() });
        StepId(self.steps.len() - 1)
    }

    /// Adds lines that a person reads below a step; never a secret.
    pub fn detail(&mut self, step: StepId, lines: impl IntoIterator<Item = String>) {
        if let Some(planned) = self.steps.get_mut(step.0) {
            planned.detail.extend(lines);
        }
    }

    /// Adds something that is not done.
    pub fn hold(
        &mut self,
        kind: HeldKind,
        what: impl Into<String>,
        why: impl Into<String>,
        hint: Option<String>,
    ) {
        self.held.push(Held { what: what.into(), why: why.into(), hint, kind });
    }

    /// The last step so far of which this is true.
    pub fn last_of(&self, test: impl Fn(&S) -> bool) -> Option<StepId> {
        self.steps.iter().rposition(|p| test(&p.step)).map(StepId)
    }

    /// The steps in order.
    pub fn steps(&self) -> impl Iterator<Item = &S> {
        self.steps.iter().map(|p| &p.step)
    }

    /// The steps in order, each with its reason and what it waits for.
    pub fn reasons(&self) -> impl Iterator<Item = (&S, &str, &[StepId])> {
        self.steps.iter().map(|p| (&p.step, p.why.as_str(), p.after.as_slice()))
    }

    /// What is not done.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// True when there is nothing to do; it may hold something still.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// How many steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }
}

impl<S: Display + Serialize> Plan<S> {
    /// The plan as a person reads it.
    pub fn text(&self, tool: &str) -> String {
        let mut out = String::new();
        let steps = match self.steps.len() {
            0 => "nothing to do".to_owned(),
            1 => "1 step".to_owned(),
            n => format!("{n} steps"),
        };
        let held = if self.held.is_empty() { String::new() } else { format!(", {} held", self.held.len()) };
        let _ = writeln!(out, "{tool}: {steps}{held}");
        let lines: Vec<String> = self.steps.iter().map(|p| p.step.to_string()).collect();
        let width = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0).min(64);
        for (n, (line, planned)) in lines.iter().zip(&self.steps).enumerate() {
            let _ = writeln!(out, "{:>4}. {line:<width$}  # {}", n + 1, planned.why);
            for line in &planned.detail {
                let _ = writeln!(out, "      | {line}");
            }
        }
        for held in &self.held {
            let _ = writeln!(out, "held  {}: {}", held.what, held.why);
            if let Some(hint) = &held.hint {
                let _ = writeln!(out, "      hint: {hint}");
            }
        }
        out
    }

    /// The plan for programs.
    pub fn json(&self, tool: &str) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .enumerate()
            .map(|(n, p)| {
                let after: Vec<usize> = p.after.iter().map(|id| id.0 + 1).collect();
                let mut one = json!({ "n": n + 1, "do": p.step.to_string(), "why": p.why, "after": after, "step": p.step });
                if !p.detail.is_empty() {
                    one["detail"] = p.detail.clone().into();
                }
                one
            })
            .collect();
        json!({ "tool": tool, "steps": steps, "held": self.held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well() {
        let mut plan = Plan::new();
        let first = plan.step("install haproxy on lb-1", "it is not installed");
        plan.step_after(&[first], "reload haproxy on lb-1", "its configuration changes");
        plan.hold(HeldKind::Unreachable, "lb-2", "does not answer at 10.0.0.2:22", None);
        assert_eq!(
            plan.text("lb-render"),
            "lb-render: 2 steps, 1 held\n   1. install haproxy on lb-1  # it is not installed\n   \
             2. reload haproxy on lb-1   # its configuration changes\nheld  lb-2: does not answer at 10.0.0.2:22\n"
        );
        assert_eq!(plan.json("lb-render")["steps"][1]["after"], json!([1]));
    }

    #[test]
    fn details_stand_below_their_step() {
        let mut plan = Plan::new();
        let first = plan.step("change ConfigMap a/b", ".data.f: 1 lines more, 0 lines less");
        plan.detail(first, ["@@ -1 +1,2 @@".to_owned(), "+new".to_owned()]);
        plan.step("wait", "it may change");
        let wanted = "x: 2 steps\n   1. change ConfigMap a/b  # .data.f: 1 lines more, 0 lines less\n      | @@ -1 +1,2 @@\n      | \
             +new\n   2. wait                  # it may change\n";
        assert_eq!(plan.text("x"), wanted);
        let json = plan.json("x");
        assert_eq!(json["steps"][0]["detail"], json!(["@@ -1 +1,2 @@", "+new"]));
        assert_eq!(json["steps"][1].get("detail"), None);
    }
}
