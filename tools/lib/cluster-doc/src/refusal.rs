//! What is wrong with a document: the place, the finding and the remedy.

use std::fmt;

use crate::Pointer;

/// One mistake in the document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Where it is.
    pub at: Pointer,
    /// Line and column of that place, from 1; `None` until the text is known.
    pub position: Option<(usize, usize)>,
    /// What was found and what would do.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)?;
        match (self.position, self.at.steps().is_empty()) {
            (Some((line, column)), true) => write!(f, " (line {line}, column {column})"),
            (Some((line, column)), false) => {
                write!(f, " ({}, line {line}, column {column})", self.at.json_pointer())
            }
            (None, _) => Ok(()),
        }
    }
}

/// All mistakes that were found, reported together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    list: Vec<Refusal>,
    empty_input: bool,
}

impl Refusals {
    /// The refusal of an input without a document in it.
    pub fn empty_input() -> Refusals {
        Refusals { list: Vec::new(), empty_input: true }
    }

    /// A single mistake.
    pub fn one(at: Pointer, message: impl Into<String>) -> Refusals {
        let mut all = Refusals::default();
        all.add(at, message);
        all
    }

    /// Adds a mistake.
    pub fn add(&mut self, at: Pointer, message: impl Into<String>) {
        self.list.push(Refusal { at, position: None, message: message.into() });
    }

    /// Adds a mistake whose line and column are known already.
    pub fn add_at(&mut self, position: (usize, usize), message: impl Into<String>) {
        self.list.push(Refusal { at: Pointer::root(), position: Some(position), message: message.into() });
    }

    /// Takes over the mistakes of another list.
    pub fn extend(&mut self, other: Refusals) {
        self.list.extend(other.list);
        self.empty_input |= other.empty_input;
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && !self.empty_input
    }

    /// True when there was no document at all (exit 8 rather than 3).
    pub fn is_empty_input(&self) -> bool {
        self.empty_input
    }

    /// The mistakes, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Refusal> {
        self.list.iter()
    }

    /// Fills in line and column from the document's text.
    pub(crate) fn located(mut self, text: &str) -> Refusals {
        for refusal in self.list.iter_mut().filter(|r| r.position.is_none()) {
            refusal.position = crate::locate::position(text, &refusal.at);
        }
        self
    }

    /// `Ok` with the value when nothing is wrong.
    ///
    /// # Errors
    /// These refusals, when there are any, or when there is no value.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Refusals> {
        match value {
            Some(value) if self.is_empty() => Ok(value),
            None if self.is_empty() => Err(Refusals::one(Pointer::root(), "cannot be read")),
            _ => Err(self),
        }
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.empty_input {
            return f.write_str("the input is empty: there is no document to read");
        }
        match self.list.as_slice() {
            [one] => write!(f, "{one}"),
            many => {
                write!(f, "{} mistakes in the document", many.len())?;
                many.iter().try_for_each(|r| write!(f, "\n  {r}"))
            }
        }
    }
}

impl std::error::Error for Refusals {}
