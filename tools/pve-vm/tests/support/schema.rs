//! Proxmox's published schema (pve-docs, apidata.js), applied to requests as they came over the wire. It shares nothing
//! with the lab's own validator, nor with the client.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a schema that cannot be read ends the test")]

use std::collections::BTreeMap;

use lab::pve::RawRequest;
use regex::Regex;
use serde_json::Value;

/// Parameters as they were sent.
type Sent = Vec<(String, String)>;

/// One release's schema.
pub struct Published {
    endpoints: Vec<Value>,
    formats: Value,
    strings: Value,
}

impl Published {
    pub fn new(schema: Value) -> Published {
        let part = |name: &str| schema[name].clone();
        Published {
            endpoints: part("endpoints").as_array().unwrap().clone(),
            formats: part("named_formats"),
            strings: part("property_strings"),
        }
    }

    /// What is wrong with a request, and its method and route.
    pub fn judge(&self, request: &RawRequest) -> (String, Vec<String>) {
        let url = reqwest::Url::parse(&format!("https://host{}", request.target)).unwrap();
        let path = url.path().strip_prefix("/api2/json").unwrap_or("outside of /api2/json");
        let Some((endpoint, mut sent)) = self.route(&request.method, path) else {
            return (format!("{} {path}", request.method), vec!["there is no such route".into()]);
        };
        let line = format!("{} {}", request.method, endpoint["path"].as_str().unwrap());
        let mut wrong = Vec::new();
        sent.extend(pairs(url.query().unwrap_or_default(), &mut wrong));
        match request.kind.split(';').next().unwrap_or_default() {
            "" if request.body.is_empty() => {}
            "application/x-www-form-urlencoded" => {
                sent.extend(pairs(std::str::from_utf8(&request.body).unwrap(), &mut wrong));
            }
            "multipart/form-data" => sent.extend(multipart(request, &mut wrong)),
            other => wrong.push(format!("a body of the type \"{other}\"")),
        }
        if matches!(request.method.as_str(), "GET" | "DELETE") && !request.body.is_empty() {
            wrong.push("a body, which only POST and PUT may have".into());
        }
        if endpoint["allowtoken"] == false {
            wrong.push("it is not for tokens".into());
        }
        self.parameters(&endpoint["parameters"], &sent, &mut wrong);
        (line, wrong)
    }

    fn route(&self, method: &str, path: &str) -> Option<(&Value, Sent)> {
        let asked: Vec<&str> = path.split('/').collect();
        self.endpoints.iter().filter(|e| e["method"] == method).find_map(|endpoint| {
            let parts: Vec<&str> = endpoint["path"].as_str()?.split('/').collect();
            let mut found = Sent::new();
            for (part, here) in parts.iter().zip(&asked) {
                match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
                    Some(name) => found.push((name.to_owned(), decoded(here))),
                    None if part == here => {}
                    None => return None,
                }
            }
            (parts.len() == asked.len()).then_some((endpoint, found))
        })
    }

    fn parameters(&self, known: &Value, sent: &Sent, wrong: &mut Vec<String>) {
        let known = known.as_object().unwrap();
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in sent {
            let listed = |p: &&Value| p["type"] == "array";
            let Some(rule) = known.get(name).or_else(|| indexed(known, name)) else {
                wrong.push(format!("{name}: not defined in the schema"));
                continue;
            };
            if seen.insert(name, value).is_some() && !listed(&rule) {
                wrong.push(format!("{name}: sent twice"));
            }
            self.value(name, rule, value, wrong);
        }
        for (name, rule) in known {
            let here = seen.contains_key(name.as_str());
            if !here && rule["optional"] != true && rule.get("indexed").is_none() {
                wrong.push(format!("{name}: missing and not optional"));
            }
            if let (true, Some(other)) = (here, rule["requires"].as_str())
                && !seen.contains_key(other)
            {
                wrong.push(format!("{other}: missing property required by '{name}'"));
            }
            if let (true, Some(kinds)) = (here, rule["instance-types"].as_array()) {
                let kind = seen.get(rule["type-property"].as_str().unwrap()).copied().unwrap_or_default();
                if !kinds.iter().any(|k| k == kind) {
                    wrong.push(format!("{name}: not for the type {kind}"));
                }
            }
        }
    }

    fn value(&self, name: &str, rule: &Value, value: &str, wrong: &mut Vec<String>) {
        let mut refuse = |why: String| wrong.push(format!("{name}: {why}: {value}"));
        let number = value.parse::<f64>().ok();
        match rule["type"].as_str().unwrap_or("string") {
            "boolean" if value != "0" && value != "1" => refuse("no boolean".into()),
            "integer" if value.parse::<i64>().is_err() => refuse("no integer".into()),
            "number" if number.is_none() => refuse("no number".into()),
            _ => {}
        }
        let length = value.chars().count() as u64;
        if rule["maxLength"].as_u64().is_some_and(|most| length > most) {
            refuse("too long".into());
        }
        if rule["minLength"].as_u64().is_some_and(|least| length < least) {
            refuse("too short".into());
        }
        if rule["maximum"].as_f64().zip(number).is_some_and(|(most, is)| is > most) {
            refuse("too much".into());
        }
        if rule["minimum"].as_f64().zip(number).is_some_and(|(least, is)| is < least) {
            refuse("too little".into());
        }
        if rule["enum"].as_array().is_some_and(|all| !all.iter().any(|one| one == value)) {
            refuse("not in the enumeration".into());
        }
        if rule["pattern"].as_str().is_some_and(|pattern| !matches(pattern, "", value)) {
            refuse("does not match the pattern".into());
        }
        if let Some(format) = rule["format"].as_str() {
            self.format(name, format, value, wrong);
        }
        if let Some(string) = rule["format_ref"].as_str() {
            self.property_string(name, string, value, wrong);
        }
    }

    fn format(&self, name: &str, format: &str, value: &str, wrong: &mut Vec<String>) {
        if let Some(one) = format.strip_suffix("-list").filter(|one| self.formats.get(one).is_some()) {
            let items = value.split(['\0', ',', ';', ' ', '\t', '\n']).filter(|i| !i.is_empty());
            items.for_each(|item| self.format(name, one, item, wrong));
            return;
        }
        let rule = &self.formats[format];
        if rule["kind"] == "property-string" {
            return self.property_string(name, rule["format_ref"].as_str().unwrap(), value, wrong);
        }
        let good = match (rule["regex"].as_str(), format) {
            (Some(regex), _) => matches(regex, rule["flags"].as_str().unwrap_or_default(), value),
            (None, "pve-startup-order") => {
                matches(r"((order=)?\d+|up=\d+|down=\d+)(,(up=\d+|down=\d+))*", "", value)
            }
            (None, "address") => value.parse::<std::net::IpAddr>().is_ok() || self.dns(value),
            (None, "lxc-ip-with-ll-iface") => value.parse::<std::net::IpAddr>().is_ok(),
            (None, "pve-lxc-mp-string") => !value.split('/').any(|part| part == "." || part == ".."),
            (None, "pve-qm-bootdev") => matches(r"(ide|sata|scsi|virtio|net|usb|hostpci)\d+", "", value),
            (None, "CIDRv4" | "pve-ipv4-config") => {
                matches(r"dhcp|manual|\d+(\.\d+){3}/([89]|[12]\d|3[0-2])", "", value)
            }
            (None, "pve-volume-id-or-qm-path" | "pve-volume-id-or-absolute-path") => {
                value == "none" || matches(r"[a-z][a-z0-9\-_.]*[a-z0-9]:.+", "i", value)
            }
            (None, "pve-calendar-event") => matches(r"[a-z0-9*.,: \-/]+", "i", value),
            (None, "pve-storage-content") => {
                matches("images|rootdir|vztmpl|iso|backup|snippets|import", "", value)
            }
            (None, "storage-pair") => matches(r"1|[a-z][a-z0-9\-_.]*(:[a-z][a-z0-9\-_.]*)?", "i", value),
            (None, other) => panic!("the format {other} of {name} is not known to the test"),
        };
        if !good {
            wrong.push(format!("{name}: no {format}: {value}"));
        }
    }

    fn dns(&self, value: &str) -> bool {
        matches(self.formats["dns-name"]["regex"].as_str().unwrap(), "", value)
    }

    fn property_string(&self, name: &str, string: &str, value: &str, wrong: &mut Vec<String>) {
        // Where a second form is there, it is the one for new disks (`import-from`).
        let mut fewest: Option<Vec<String>> = None;
        for form in [string.to_owned(), format!("{string}#2")] {
            let Some(known) = self.strings.get(&form).and_then(Value::as_object) else { continue };
            let mut found = Vec::new();
            self.properties(name, known, value, &mut found);
            if fewest.as_ref().is_none_or(|least| found.len() < least.len()) {
                fewest = Some(found);
            }
        }
        wrong.extend(fewest.unwrap_or_else(|| panic!("no property string {string}")));
    }

    fn properties(
        &self,
        name: &str,
        known: &serde_json::Map<String, Value>,
        value: &str,
        wrong: &mut Vec<String>,
    ) {
        let mut sent = Sent::new();
        for part in value.split(',') {
            match part.split_once('=') {
                Some((key, value)) => {
                    let rule = known.get(key);
                    let alias = rule.and_then(|r| r["alias"].as_str());
                    // A card's model is the key of its address.
                    let model =
                        rule.and_then(|r| r["keyAlias"].as_str()).map(|m| (m.to_owned(), key.to_owned()));
                    sent.extend(model);
                    sent.push((alias.unwrap_or(key).to_owned(), value.to_owned()));
                }
                None => match known.iter().find(|(_, rule)| rule["default_key"] == true) {
                    Some((key, _)) => sent.push((key.clone(), part.to_owned())),
                    None => wrong.push(format!("{name}: {part} has no key")),
                },
            }
        }
        for (key, value) in &mut sent {
            if known.get(key).is_some_and(|r| r["type"] == "boolean") {
                *value = match value.as_str() {
                    "on" | "yes" | "true" => "1".into(),
                    "off" | "no" | "false" => "0".into(),
                    other => other.to_owned(),
                };
            }
        }
        let mut inner = Vec::new();
        self.parameters(
            &Value::Object(
                known
                    .iter()
                    .filter(|(_, r)| r.get("alias").is_none())
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect(),
            ),
            &sent,
            &mut inner,
        );
        wrong.extend(inner.into_iter().map(|why| format!("{name}.{why}")));
    }
}

fn indexed<'k>(known: &'k serde_json::Map<String, Value>, name: &str) -> Option<&'k Value> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number: u64 = name[stem.len()..].parse().ok()?;
    let rule = known.get(&format!("{stem}[n]"))?;
    (number <= rule["indexed"]["max"].as_u64()?).then_some(rule)
}

fn matches(pattern: &str, flags: &str, value: &str) -> bool {
    let flags = if flags.is_empty() { String::new() } else { format!("(?{flags})") };
    Regex::new(&format!("^{flags}(?:{pattern})$"))
        .unwrap_or_else(|e| panic!("{pattern}: {e}"))
        .is_match(value)
}

fn decoded(segment: &str) -> String {
    // A plus stands for itself in a path.
    let mut all = Vec::new();
    pairs_of(&segment.replace('+', "%2B"), &mut all);
    all.pop().map(|(name, _)| name).unwrap_or_default()
}

/// Names and values of a form. Proxmox also ends a pair at `;`, and a value at its second `=`.
fn pairs(form: &str, wrong: &mut Vec<String>) -> Sent {
    if form.contains(';') || form.split('&').any(|pair| pair.matches('=').count() > 1) {
        wrong.push(format!("a bare ; or = in a value: {form}"));
    }
    let mut all = Sent::new();
    pairs_of(form, &mut all);
    all
}

fn pairs_of(form: &str, all: &mut Sent) {
    let url = reqwest::Url::parse(&format!("https://host/?{form}")).unwrap();
    all.extend(url.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())));
}

/// The fields of an upload, the file last and called `filename` (pve-http-server, AnyEvent.pm).
fn multipart(request: &RawRequest, wrong: &mut Vec<String>) -> Sent {
    let boundary = request.kind.split_once("boundary=").unwrap().1;
    let text = String::from_utf8_lossy(&request.body);
    let mut all = Sent::new();
    for part in text.split(&format!("--{boundary}")).filter(|p| p.contains("name=\"")) {
        let (head, body) = part.trim_start_matches("\r\n").split_once("\r\n\r\n").unwrap();
        if !head.to_lowercase().starts_with("content-disposition") {
            wrong.push("a part does not begin with its disposition".into());
        }
        let quoted = |key: &str| Some(head.split_once(key)?.1.split('"').next()?.to_owned());
        let name = quoted(" name=\"").unwrap();
        let value = quoted("filename=\"").unwrap_or_else(|| body.trim_end_matches("\r\n").to_owned());
        all.push((name, value));
    }
    if all.last().is_none_or(|(name, _)| name != "filename") {
        wrong.push("the file is not the last part".into());
    }
    all
}
