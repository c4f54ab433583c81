//! Reading parameters: forms with Proxmox's quirks, JSON bodies, multipart uploads.

use serde_json::Value as Json;

use super::reply::Fail;
use super::schema::{Value, Values};

/// Decodes `%41` (and, in forms, `+`).
pub(super) fn percent_decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let hex = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
        match (byte, hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 2;
            }
            (b'+', ..) if plus => out.push(b' '),
            _ => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads a form as pve-http-server does: `;` separates like `&`, and what follows a second `=` is lost.
pub(super) fn form(text: &str) -> Values {
    let mut values = Values::new();
    for pair in text.split(['&', ';']).filter(|p| !p.is_empty()) {
        let mut parts = pair.split('=');
        let key = percent_decode(parts.next().unwrap_or_default(), true);
        let value = percent_decode(parts.next().unwrap_or_default(), true);
        let new = match values.remove(&key) {
            None => Value::One(value),
            Some(Value::One(old)) => Value::Many(vec![old, value]),
            Some(Value::Many(mut list)) => {
                list.push(value);
                Value::Many(list)
            }
        };
        values.insert(key, new);
    }
    values
}

/// Reads a JSON body.
pub(super) fn json(text: &[u8]) -> Result<Values, Fail> {
    let parsed: Json =
        serde_json::from_slice(text).map_err(|e| Fail::die(format!("unable to parse JSON: {e}")))?;
    let Json::Object(fields) = parsed else { return Err(Fail::die("unable to parse JSON: not a hash")) };
    let scalar = |value: &Json| match value {
        Json::String(text) => text.clone(),
        Json::Bool(yes) => if *yes { "1" } else { "0" }.to_owned(),
        other => other.to_string(),
    };
    Ok(fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| match value {
            Json::Array(items) => (key.clone(), Value::Many(items.iter().map(scalar).collect())),
            other => (key.clone(), Value::One(scalar(other))),
        })
        .collect())
}

/// An uploaded file.
#[derive(Clone, Debug, Default)]
pub(super) struct Upload {
    pub content: Vec<u8>,
}

/// Reads a multipart body as pveproxy's own parser does: `Content-Disposition` must be the first header
/// line of a part, and the file, named `filename`, the last part.
pub(super) fn multipart(content_type: &str, body: &[u8]) -> Result<(Values, Upload), Fail> {
    let wrong = |why: &str| Fail::limit(501, why.to_owned());
    let boundary = content_type
        .split(';')
        .find_map(|p| p.trim().strip_prefix("boundary="))
        .map(|b| b.trim_matches('"'))
        .ok_or_else(|| wrong("multipart without a boundary"))?;
    let mark = format!("--{boundary}").into_bytes();
    let mut values = Values::new();
    let mut upload = None;
    let mut rest = body.strip_prefix(mark.as_slice()).ok_or_else(|| wrong("no boundary at the start"))?;
    let next = [b"\r\n", mark.as_slice()].concat();
    while !rest.starts_with(b"--") {
        rest = rest.strip_prefix(b"\r\n").ok_or_else(|| wrong("bad multipart body"))?;
        let end = find(rest, &next).ok_or_else(|| wrong("unterminated multipart body"))?;
        let split =
            find(rest, b"\r\n\r\n").filter(|s| *s < end).ok_or_else(|| wrong("part without headers"))?;
        let head = String::from_utf8_lossy(&rest[..split]).into_owned();
        let content = &rest[split + 4..end];
        rest = &rest[end + next.len()..];
        let first = head.lines().next().unwrap_or_default();
        if !first.to_ascii_lowercase().starts_with("content-disposition:") {
            return Err(wrong("Content-Disposition must be the first header of a part"));
        }
        let field = |name: &str| {
            let found = first.split(';').find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('='))?;
            Some(found.trim_matches('"').to_owned())
        };
        if upload.is_some() {
            return Err(wrong("the file must be the last part"));
        }
        match (field("name"), field("filename")) {
            (Some(name), Some(filename)) if name == "filename" => {
                values.insert("filename".into(), Value::One(filename));
                upload = Some(Upload { content: content.to_vec() });
            }
            (Some(name), None) => {
                values.insert(name, Value::One(String::from_utf8_lossy(content).into_owned()));
            }
            _ => return Err(wrong("unexpected part")),
        }
    }
    upload.map(|file| (values, file)).ok_or_else(|| wrong("no file in the upload"))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
