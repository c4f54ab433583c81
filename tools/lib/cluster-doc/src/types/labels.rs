//! Labels and taints of Kubernetes nodes.

use std::collections::BTreeMap;
use std::fmt;

use super::word;

/// Labels by key.
pub type Labels = BTreeMap<LabelKey, LabelValue>;

/// The key of a label or taint: `environment` or `example.com/environment`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey(String);

/// The value of a label or taint, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelValue(String);

/// Letters, digits, `-`, `_` and `.`, 63 at most, letters or digits at both ends (apimachinery's `IsQualifiedName`).
fn segment(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

impl LabelKey {
    /// The key when it is one.
    ///
    /// # Errors
    /// A sentence that says what would do.
    pub fn parse(text: &str) -> Result<LabelKey, String> {
        let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(p, n)| (Some(p), n));
        if segment(name) && prefix.is_none_or(|p| super::DnsName::parse(p).is_ok()) {
            return Ok(LabelKey(text.to_owned()));
        }
        Err("is no label key; write for example \"environment\" or \"example.com/environment\"".to_owned())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LabelValue {
    /// The value when it is one.
    ///
    /// # Errors
    /// A sentence that says what would do.
    pub fn parse(text: &str) -> Result<LabelValue, String> {
        if text.is_empty() || segment(text) {
            return Ok(LabelValue(text.to_owned()));
        }
        Err("is no label value: letters, digits, - _ and ., 63 at most, letters or digits at both ends"
            .to_owned())
    }

    /// The value as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

word!(LabelKey, example "environment");
word!(LabelValue, example "prod");

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// No new pod comes.
    NoSchedule,
    /// New pods come only when nothing else is left.
    PreferNoSchedule,
    /// Running pods are evicted too.
    NoExecute,
}

impl Effect {
    /// The word that Kubernetes has for it.
    pub fn word(self) -> &'static str {
        match self {
            Effect::NoSchedule => "NoSchedule",
            Effect::PreferNoSchedule => "PreferNoSchedule",
            Effect::NoExecute => "NoExecute",
        }
    }
}

/// A taint as `kubectl taint` writes it: `key=value:Effect` or `key:Effect`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Taint {
    /// The key.
    pub key: LabelKey,
    /// The value, often empty.
    pub value: LabelValue,
    /// What it does.
    pub effect: Effect,
}

impl Taint {
    fn parse(text: &str) -> Result<Taint, String> {
        let wrong = || {
            "is no taint; write key=value:Effect with NoSchedule, PreferNoSchedule or NoExecute, for example \
             \"environment=nonprod:NoSchedule\""
                .to_owned()
        };
        let (left, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
        let effects = [Effect::NoSchedule, Effect::PreferNoSchedule, Effect::NoExecute];
        let effect = effects.into_iter().find(|e| e.word() == effect).ok_or_else(wrong)?;
        let (key, value) = left.split_once('=').unwrap_or((left, ""));
        let key = LabelKey::parse(key).map_err(|_| wrong())?;
        let value = LabelValue::parse(value).map_err(|_| wrong())?;
        Ok(Taint { key, value, effect })
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equals = if self.value.as_str().is_empty() { "" } else { "=" };
        write!(f, "{}{equals}{}:{}", self.key, self.value, self.effect.word())
    }
}

word!(Taint, example "environment=nonprod:NoSchedule");
