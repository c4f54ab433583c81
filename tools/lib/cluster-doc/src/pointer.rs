//! A place in the document.

use std::fmt;

/// One step into an object or a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A key of an object.
    Key(String),
    /// A position in a list, from 0.
    Index(usize),
}

/// A path from the document's root to a value; prints as `spec.pools[1].memory`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer {
    steps: Vec<Step>,
}

impl Pointer {
    /// The whole document.
    pub fn root() -> Pointer {
        Pointer::default()
    }

    /// The value under a key.
    pub fn key(&self, key: &str) -> Pointer {
        self.with(Step::Key(key.into()))
    }

    /// The value at a position.
    pub fn index(&self, index: usize) -> Pointer {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Pointer {
        let mut steps = self.steps.clone();
        steps.push(step);
        Pointer { steps }
    }

    /// The steps from the root on.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The place without its last step; the root is its own parent.
    pub fn parent(&self) -> Pointer {
        Pointer { steps: self.steps[..self.steps.len().saturating_sub(1)].to_vec() }
    }

    /// The form of RFC 6901, such as `/spec/pools/1/memory`.
    pub fn json_pointer(&self) -> String {
        let part = |s: &Step| match s {
            Step::Key(k) => format!("/{}", k.replace('~', "~0").replace('/', "~1")),
            Step::Index(i) => format!("/{i}"),
        };
        self.steps.iter().map(part).collect()
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return f.write_str("the document");
        }
        for (n, step) in self.steps.iter().enumerate() {
            match step {
                Step::Index(i) => write!(f, "[{i}]")?,
                Step::Key(k) if plain(k) && n == 0 => f.write_str(k)?,
                Step::Key(k) if plain(k) => write!(f, ".{k}")?,
                Step::Key(k) => write!(f, "[{}]", serde_json::Value::from(k.as_str()))?,
            }
        }
        Ok(())
    }
}

fn plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '$')
}

#[cfg(test)]
mod tests {
    use super::Pointer;

    #[test]
    fn both_forms() {
        let at = Pointer::root().key("spec").key("pools").index(1).key("memory");
        assert_eq!(at.to_string(), "spec.pools[1].memory");
        assert_eq!(at.json_pointer(), "/spec/pools/1/memory");
        let odd = Pointer::root().key("labels").key("a/b.c");
        assert_eq!(odd.to_string(), r#"labels["a/b.c"]"#);
        assert_eq!(odd.json_pointer(), "/labels/a~1b.c");
    }
}
