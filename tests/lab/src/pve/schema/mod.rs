//! Which requests the API knows, and which parameters each of them takes.
//!
//! The tables are written in a notation of our own, parsed once at the start:
//!
//! ```text
//! group NAME                      a set of parameters; `+NAME` includes it
//! props NAME                      the keys of a property string; `*key` is the default key
//! POST /nodes/{node}/qemu async   a request; `async` answers with a UPID, `ticket` refuses API tokens
//!   right /vms/{vmid} VM.Audit    the privileges that it needs: `A&B` all, `A|B` any
//!   9: name other = int? 1..64    parameters (here only in version 9) and what they must look like
//! ```
//!
//! A look is a kind (`bool`, `int`, `num`, `str`, `arr`; `?` for optional) and any of `f=FORMAT`,
//! `props=NAME`, `A..B` (bounds of a number), `len=A..B`, `in=a,b,c`, `needs=OTHER`, `re=PATTERN` (to the
//! end of the line). `name[7]` stands for name0 to name7, in `in=` too.

mod check;
mod formats;
mod node_table;
mod qemu_props;
mod qemu_table;
mod site_table;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use regex::Regex;

pub use check::{Errors, Value, Values, property_string, verify};

/// A generation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// Proxmox VE 8 (as 8.4).
    V8,
    /// Proxmox VE 9 (as 9.1).
    V9,
}

/// The JSON type of a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// `0` or `1`.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Num,
    /// Text.
    #[default]
    Str,
    /// A list of texts.
    Arr,
}

/// What one parameter must look like.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Its type.
    pub kind: Kind,
    /// True when it may be left out.
    pub optional: bool,
    /// The name of its format.
    pub format: Option<String>,
    /// The property string that it holds.
    pub props: Option<String>,
    /// The pattern that all of it must match.
    pub pattern: Option<(String, Regex)>,
    /// Lowest number.
    pub min: Option<f64>,
    /// Highest number.
    pub max: Option<f64>,
    /// Fewest characters.
    pub min_len: Option<usize>,
    /// Most characters.
    pub max_len: Option<usize>,
    /// The only values.
    pub values: Option<Vec<String>>,
    /// Another parameter that must come along.
    pub needs: Option<String>,
    /// In a property string: another name for this key.
    pub alias: Option<String>,
    /// In a property string: the key that takes this key's name as its value.
    pub key_alias: Option<String>,
    /// In a property string: a bare value belongs to this key.
    pub default_key: bool,
}

/// Parameters by name.
pub type Looks = BTreeMap<String, Arc<Look>>;

/// The privileges that a request needs on a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Right {
    /// The path, with `{parameter}` filled from the request.
    pub path: String,
    /// The privileges.
    pub privileges: Vec<String>,
    /// True when one of them will do.
    pub any: bool,
}

/// A request that the API knows.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// The method.
    pub method: String,
    /// The path, such as `/nodes/{node}/qemu`.
    pub path: String,
    /// Answers with a UPID.
    pub upid: bool,
    /// Refuses API tokens.
    pub ticket_only: bool,
    /// Takes any parameter.
    pub lax: bool,
    /// What it needs; none: any user may.
    pub right: Option<Right>,
    /// Its parameters, those of the path as well.
    pub params: Looks,
}

/// The requests of one generation.
#[derive(Debug)]
pub struct Schema {
    /// All of them, in the order of the tables.
    pub routes: Vec<Arc<Route>>,
    /// The property strings by name.
    pub props: BTreeMap<String, Looks>,
}

/// A request found: the route and the parameters in the path.
pub type Found = (Arc<Route>, BTreeMap<String, String>);

impl Schema {
    /// The tables of a generation.
    ///
    /// # Errors
    /// A mistake in the tables, with its line.
    pub fn new(generation: Generation) -> Result<Schema, String> {
        let mut reader = Reader::new(generation);
        for table in [qemu_props::PROPS, node_table::PROPS, site_table::PROPS] {
            reader.read(table)?;
        }
        for table in [qemu_table::ROUTES, node_table::ROUTES, site_table::ROUTES] {
            reader.read(table)?;
        }
        reader.finish();
        Ok(Schema { routes: reader.routes, props: reader.props })
    }

    /// The tables of a generation, read once in a process: many labs share them.
    ///
    /// # Errors
    /// A mistake in the tables, with its line.
    pub fn shared(generation: Generation) -> Result<Arc<Schema>, String> {
        static EIGHT: OnceLock<Result<Arc<Schema>, String>> = OnceLock::new();
        static NINE: OnceLock<Result<Arc<Schema>, String>> = OnceLock::new();
        let slot = match generation {
            Generation::V8 => &EIGHT,
            Generation::V9 => &NINE,
        };
        slot.get_or_init(|| Schema::new(generation).map(Arc::new)).clone()
    }

    /// The route for a method and a path (without `/api2/json`), already percent-decoded by segment.
    pub fn find(&self, method: &str, path: &str) -> Option<Found> {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let mut best: Option<(usize, Found)> = None;
        for route in self.routes.iter().filter(|r| r.method == method) {
            let Some(params) = matches(&route.path, &parts) else { continue };
            if best.as_ref().is_none_or(|(n, _)| params.len() < *n) {
                best = Some((params.len(), (route.clone(), params)));
            }
        }
        best.map(|(_, found)| found)
    }
}

fn matches(template: &str, parts: &[&str]) -> Option<BTreeMap<String, String>> {
    let wanted: Vec<&str> = template.split('/').filter(|p| !p.is_empty()).collect();
    let mut params = BTreeMap::new();
    for (i, want) in wanted.iter().enumerate() {
        let name = want.strip_prefix('{').and_then(|w| w.strip_suffix('}'));
        match name {
            // A volume's name holds slashes: it takes the rest of the path.
            Some("volume") => {
                let rest = parts.get(i..).filter(|r| !r.is_empty())?;
                params.insert("volume".into(), rest.join("/"));
                return Some(params);
            }
            Some(name) => {
                params.insert(name.to_owned(), (*parts.get(i)?).to_owned());
            }
            None if parts.get(i) == Some(want) => {}
            None => return None,
        }
    }
    (wanted.len() == parts.len()).then_some(params)
}

enum Place {
    None,
    Group(String),
    Props(String),
    Route(Box<Route>),
}

struct Reader {
    generation: Generation,
    groups: BTreeMap<String, Looks>,
    props: BTreeMap<String, Looks>,
    routes: Vec<Arc<Route>>,
    place: Place,
}

impl Reader {
    fn new(generation: Generation) -> Reader {
        Reader {
            generation,
            groups: BTreeMap::new(),
            props: BTreeMap::new(),
            routes: Vec::new(),
            place: Place::None,
        }
    }

    fn read(&mut self, table: &str) -> Result<(), String> {
        for line in table.lines() {
            self.line(line.trim()).map_err(|why| format!("{why}: {line}"))?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (line, ours) = match (line.strip_prefix("8: "), line.strip_prefix("9: ")) {
            (Some(rest), _) => (rest, self.generation == Generation::V8),
            (_, Some(rest)) => (rest, self.generation == Generation::V9),
            _ => (line, true),
        };
        let first = line.split_whitespace().next().unwrap_or_default();
        match first {
            "" => self.finish(),
            // A parameter may have the name `group`, too.
            "group" | "props" if !line.contains(" = ") => {
                self.finish();
                let name = line[6..].trim().to_owned();
                self.place = if first == "group" { Place::Group(name) } else { Place::Props(name) };
            }
            "GET" | "POST" | "PUT" | "DELETE" => {
                self.finish();
                if ours {
                    self.place = Place::Route(Box::new(route(line)));
                }
            }
            _ if !ours => {}
            "right" => match &mut self.place {
                Place::Route(route) => route.right = Some(right(line)?),
                // A request of the other generation.
                Place::None => {}
                _ => return Err("a right outside a request".into()),
            },
            _ => self.params(line)?,
        }
        Ok(())
    }

    fn params(&mut self, line: &str) -> Result<(), String> {
        let mut new = Looks::new();
        let (names, look) = match line.split_once(" = ") {
            Some((names, spec)) => (names, Some(look(spec)?)),
            None => (line, None),
        };
        for name in names.split_whitespace() {
            if let Some(group) = name.strip_prefix('+') {
                let set = match &self.place {
                    Place::Props(_) => self.props.get(group),
                    _ => self.groups.get(group),
                };
                new.extend(set.ok_or(format!("no group {group}"))?.clone());
            } else if let Some(gone) = name.strip_prefix('-') {
                match &mut self.place {
                    Place::Props(set) => self.props.entry(set.clone()).or_default().remove(gone),
                    Place::Route(route) => route.params.remove(gone),
                    _ => None,
                };
            } else {
                let mut look = look.clone().ok_or("no look")?;
                look.default_key = name.starts_with('*');
                let look = Arc::new(look);
                for name in expand(name.trim_start_matches('*')) {
                    new.insert(name, look.clone());
                }
            }
        }
        match &mut self.place {
            Place::None => {}
            Place::Group(name) => self.groups.entry(name.clone()).or_default().extend(new),
            Place::Props(name) => self.props.entry(name.clone()).or_default().extend(new),
            Place::Route(route) => route.params.extend(new),
        }
        Ok(())
    }

    fn finish(&mut self) {
        if let Place::Route(mut route) = std::mem::replace(&mut self.place, Place::None) {
            let path = route.path.clone();
            for name in path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')) {
                let look = self.groups.get("path").and_then(|g| g.get(name));
                if let Some(look) = look {
                    route.params.entry(name.to_owned()).or_insert_with(|| look.clone());
                }
            }
            self.routes.push(Arc::new(*route));
        }
    }
}

fn route(line: &str) -> Route {
    let mut words = line.split_whitespace();
    let mut route = Route {
        method: words.next().unwrap_or_default().into(),
        path: words.next().unwrap_or_default().into(),
        ..Route::default()
    };
    for flag in words {
        match flag {
            "async" => route.upid = true,
            "ticket" => route.ticket_only = true,
            _ => route.lax = true,
        }
    }
    route
}

fn right(line: &str) -> Result<Right, String> {
    let mut words = line.split_whitespace().skip(1);
    let (Some(path), Some(list)) = (words.next(), words.next()) else {
        return Err("right PATH PRIVILEGES".into());
    };
    let any = list.contains('|');
    let privileges = list.split(['|', '&']).map(str::to_owned).collect();
    Ok(Right { path: path.into(), privileges, any })
}

fn look(spec: &str) -> Result<Look, String> {
    let mut look = Look::default();
    let (spec, pattern) = match spec.split_once("re=") {
        Some((spec, pattern)) => (spec, Some(pattern.trim())),
        None => (spec, None),
    };
    if let Some(pattern) = pattern {
        let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(|e| e.to_string())?;
        look.pattern = Some((pattern.into(), regex));
    }
    for word in spec.split_whitespace() {
        if let Some(name) = word.strip_prefix("f=") {
            look.format = Some(name.into());
        } else if let Some(name) = word.strip_prefix("props=") {
            look.props = Some(name.into());
        } else if let Some(name) = word.strip_prefix("needs=") {
            look.needs = Some(name.into());
        } else if let Some(name) = word.strip_prefix("alias=") {
            let (to, key) = name.split_once('/').map_or((name, None), |(to, key)| (to, Some(key)));
            look.alias = Some(to.into());
            look.key_alias = key.map(Into::into);
        } else if let Some(list) = word.strip_prefix("in=") {
            look.values = Some(list.split(',').flat_map(expand).collect());
        } else if let Some(range) = word.strip_prefix("len=") {
            let (low, high) = range.split_once("..").ok_or("len=A..B")?;
            look.min_len = low.parse().ok();
            look.max_len = high.parse().ok();
        } else if let Some((low, high)) = word.split_once("..") {
            look.min = low.parse().ok();
            look.max = high.parse().ok();
        } else {
            look.optional = word.ends_with('?');
            look.kind = match word.trim_end_matches('?') {
                "bool" => Kind::Bool,
                "int" => Kind::Int,
                "num" => Kind::Num,
                "str" => Kind::Str,
                "arr" => Kind::Arr,
                other => return Err(format!("unknown word {other}")),
            };
        }
    }
    Ok(look)
}

fn expand(name: &str) -> Vec<String> {
    match name.strip_suffix(']').and_then(|n| n.split_once('[')) {
        Some((name, last)) => (0..=last.parse::<u32>().unwrap_or(0)).map(|n| format!("{name}{n}")).collect(),
        None => vec![name.to_owned()],
    }
}
