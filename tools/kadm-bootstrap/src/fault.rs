//! A fault of a machine.

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
