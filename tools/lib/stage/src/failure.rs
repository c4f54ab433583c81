//! What went wrong: what was being done, the causes, and a hint that can be run.

use std::fmt;

use cluster_doc::{Exit, Refusals};

/// The end of a run that did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How the process exits.
    pub exit: Exit,
    /// What was being done, as a sentence without a full stop.
    pub doing: String,
    /// Why it did not work, from the outside in.
    pub causes: Vec<String>,
    /// What helps, best a command.
    pub hints: Vec<String>,
    /// True when it concerns one machine alone; see [`Failure::confined`].
    pub confined: bool,
}

impl Failure {
    /// A failure of this class.
    pub fn new(exit: Exit, doing: impl Into<String>) -> Failure {
        Failure { exit, doing: doing.into(), causes: Vec::new(), hints: Vec::new(), confined: false }
    }

    /// The operator must act first.
    pub fn precondition(doing: impl Into<String>) -> Failure {
        Failure::new(Exit::Precondition, doing)
    }

    /// Something passing: running again may do.
    pub fn transient(doing: impl Into<String>) -> Failure {
        Failure::new(Exit::Transient, doing)
    }

    /// A fault of ours.
    pub fn internal(doing: impl Into<String>) -> Failure {
        Failure::new(Exit::Internal, doing)
    }

    /// Adds a cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Failure {
        self.causes.push(cause.into());
        self
    }

    /// Adds an error and everything behind it.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Failure {
        let mut next = Some(error);
        while let Some(error) = next {
            let said = error.to_string();
            if self.causes.last() != Some(&said) {
                self.causes.push(said);
            }
            next = error.source();
        }
        self
    }

    /// An error of a client that knows its class and what helps.
    pub fn of(
        exit: Exit,
        doing: impl Into<String>,
        error: &(dyn std::error::Error + 'static),
        hint: Option<String>,
    ) -> Failure {
        let failure = Failure::new(exit, doing).caused_by(error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }

    /// Of a step whose world has moved on, such as by a node that went off: only what comes after that step is left
    /// out. The others go on, and the run looks and plans again.
    #[must_use]
    pub fn confined(mut self) -> Failure {
        self.confined = true;
        self
    }

    /// As it stands on stderr, led by the tool's name.
    pub fn print(&self, tool: &str) -> String {
        let mut out = format!("{tool}: {}\n", self.doing);
        for cause in &self.causes {
            out.push_str(&format!("caused by: {cause}\n"));
        }
        for hint in &self.hints {
            out.push_str(&format!("hint: {hint}\n"));
        }
        out
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl std::error::Error for Failure {}

impl From<Refusals> for Failure {
    fn from(wrong: Refusals) -> Failure {
        if wrong.is_empty_input() {
            return Failure::new(Exit::Empty, wrong.to_string())
                .hint("in a pipe the stage before has failed; its own message stands above");
        }
        Failure::new(Exit::Refused, wrong.to_string())
    }
}
