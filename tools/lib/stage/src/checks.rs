//! Findings of `check`, for people, programs and node-exporter.

use std::fmt::{Display, Write as _};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{HeldKind, Plan};

/// Something that is off.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What it concerns, such as a machine's name.
    pub what: String,
    /// What is off.
    pub message: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// A finding without a hint.
    pub fn new(what: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { what: what.into(), message: message.into(), hint: None }
    }

    /// Adds what helps.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Finding {
        self.hint = Some(hint.into());
        self
    }
}

/// The steps that are due are drift; what is held and not by choice is a finding as well.
pub(crate) fn of_plan<S: Display>(plan: &Plan<S>) -> Vec<Finding> {
    let drift = plan.steps.iter().map(|p| Finding::new(p.step.to_string(), p.why.clone()));
    let held = plan.held.iter().filter(|h| h.kind != HeldKind::Flag);
    let held = held.map(|h| Finding { what: h.what.clone(), message: h.why.clone(), hint: h.hint.clone() });
    drift.chain(held).collect()
}

/// As a person reads it.
pub(crate) fn text(tool: &str, findings: &[Finding]) -> String {
    if findings.is_empty() {
        return format!("{tool}: as the document says, and healthy\n");
    }
    let mut out = format!("{tool}: {} off\n", findings.len());
    for finding in findings {
        let _ = writeln!(out, "  {}: {}", finding.what, finding.message);
        if let Some(hint) = &finding.hint {
            let _ = writeln!(out, "    hint: {hint}");
        }
    }
    out
}

/// For programs.
pub(crate) fn json(tool: &str, findings: &[Finding]) -> Value {
    json!({ "tool": tool, "findings": findings })
}

/// For node-exporter's textfile collector (Prometheus text format 0.0.4).
pub(crate) fn metrics(tool: &str, findings: &[Finding]) -> String {
    let mut out = String::from(
        "# HELP kubeline_check_findings What the last check found to be off.\n# TYPE kubeline_check_findings gauge\n",
    );
    let _ = writeln!(out, "kubeline_check_findings{{tool=\"{tool}\"}} {}", findings.len());
    if !findings.is_empty() {
        out.push_str("# HELP kubeline_check_finding One finding.\n# TYPE kubeline_check_finding gauge\n");
    }
    let mut whats: Vec<&str> = findings.iter().map(|f| f.what.as_str()).collect();
    whats.sort_unstable();
    whats.dedup();
    for what in whats {
        let what = what.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = writeln!(out, "kubeline_check_finding{{tool=\"{tool}\",what=\"{what}\"}} 1");
    }
    out
}
