//! A fault of a machine.

use stage::{HeldKind, Plan};

use crate::step::Step;

/// Something wrong with a machine, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The machine, or several.
    pub what: String,
    /// What is wrong.
    pub why: String,
    /// What helps.
    pub hint: Option<String>,
}

/// Holds a file that is somebody's own.
pub(crate) fn hold_theirs(plan: &mut Plan<Step>, name: &str, path: &str) {
    let hint = format!("mv {path} {path}.old, then run again");
    plan.hold(HeldKind::Unmet, name, format!("{path} is somebody's own"), Some(hint));
}
