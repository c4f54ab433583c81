//! Newtypes that cannot hold nonsense: what is parsed needs no second check.

mod files;
mod ids;
mod kubelet;
mod labels;
mod names;
mod net;
mod quantity;
mod version;

pub use files::{Calendar, Endpoint, FilePath, MountPath, Sha256};
pub use ids::{Port, RouterId, Vlan, VmId, VmIdRange};
pub use kubelet::KubeletFields;
pub use labels::{Effect, LabelKey, LabelValue, Labels, Taint};
pub use names::{BridgeName, DnsName, Name, NodeName, UserName};
pub use net::{AddressRange, Cidr};
pub use quantity::{Quantity, Retention};
pub use version::KubeVersion;

/// Declares a newtype over a parsed word: reader, schema, `Display`, `FromStr`, serde as a string.
macro_rules! word {
    ($(#[doc = $doc:literal])* $name:ident, example $example:literal) => {
        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> { $name::parse(s) }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> { to.collect_str(self) }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let s = String::deserialize(from)?;
                $name::parse(&s).map_err(serde::de::Error::custom)
            }
        }

        impl $crate::read::FromDoc for $name {
            fn from_doc(node: &$crate::read::Node<'_>, wrong: &mut $crate::Refusals) -> Option<Self> {
                match node.value {
                    serde_json::Value::String(s) => match $name::parse(s) {
                        Ok(value) => Some(value),
                        Err(why) => node.refuse(wrong, format!("{} {why}", node.shown())),
                    },
                    _ => node.refuse(wrong, format!("{} is no text; write for example {:?}", node.shown(), $example)),
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "examples": [$example] })
            }
        }
    };
}

/// Declares a newtype over a whole number in a range.
macro_rules! number {
    ($(#[doc = $doc:literal])* $name:ident($repr:ty), $min:literal ..= $max:literal) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        pub struct $name($repr);

        impl $name {
            /// The smallest.
            pub const MIN: $name = $name($min);

            /// The value when it is in range.
            pub fn new(value: $repr) -> Option<$name> { ($min..=$max).contains(&value).then_some($name(value)) }
            /// The number.
            pub fn get(self) -> $repr { self.0 }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.0.fmt(f) }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let n = <$repr>::deserialize(from)?;
                $name::new(n).ok_or_else(|| serde::de::Error::custom(concat!("not from ", $min, " to ", $max)))
            }
        }

        impl $crate::read::FromDoc for $name {
            fn from_doc(node: &$crate::read::Node<'_>, wrong: &mut $crate::Refusals) -> Option<Self> {
                let value = node.value.as_u64().and_then(|n| <$repr>::try_from(n).ok()).and_then($name::new);
                value.or_else(|| node.refuse(wrong,
                    format!(concat!("{} is no whole number from ", $min, " to ", $max), node.shown())))
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "integer", "minimum": $min, "maximum": $max })
            }
        }
    };
}

pub(crate) use {number, word};
