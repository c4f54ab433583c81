//! Templates with strict variables and our filters.
//!
//! A template is a pair with its typed data: [`Template`] names the type that fills it, so a template and the
//! code that renders it cannot drift apart unseen. An undefined variable is an error, and there is no HTML
//! escaping: these are configuration files. Filters:
//!
//! * `json`: a value as compact JSON, which YAML reads as well; the way to put any text into YAML.
//! * `indent_by(n)`: every line but the first moved right by n spaces.

use std::marker::PhantomData;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde::Serialize;

/// A template and the type of its data.
#[derive(Clone, Copy, Debug)]
pub struct Template<T> {
    name: &'static str,
    source: &'static str,
    data: PhantomData<fn(&T)>,
}

/// A template that did not render: a fault of the program, not of its input.
#[derive(Debug, thiserror::Error)]
#[error("cannot render {name}")]
pub struct Error {
    /// The template.
    pub name: &'static str,
    /// What is wrong with it.
    #[source]
    pub source: minijinja::Error,
}

impl<T: Serialize> Template<T> {
    /// A template, by name and text.
    pub const fn new(name: &'static str, source: &'static str) -> Template<T> {
        Template { name, source, data: PhantomData }
    }

    /// Fills the template.
    ///
    /// # Errors
    /// A syntax error or an undefined variable.
    pub fn render(&self, data: &T) -> Result<String, Error> {
        let wrong = |source| Error { name: self.name, source };
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
        environment.set_syntax(syntax.build().map_err(wrong)?);
        environment.add_filter("json", json);
        environment.add_filter("indent_by", indent_by);
        environment.add_template(self.name, self.source).map_err(wrong)?;
        environment.get_template(self.name).and_then(|t| t.render(Value::from(Serde(data)))).map_err(wrong)
    }
}

fn json(value: Value) -> Result<String, minijinja::Error> {
    serde_json::to_string(&value)
        .map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))
}

fn indent_by(text: String, spaces: usize) -> String {
    text.replace('\n', &format!("\n{}", " ".repeat(spaces)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Data {
        name: &'static str,
        lines: Vec<&'static str>,
    }

    const DATA: Data = Data { name: "a \"b\"", lines: vec![] };

    #[test]
    fn renders_and_filters() {
        let text =
            "name: {{ name|json }}\n{% for line in lines %}\n- {{ line|indent_by(2) }}\n{% endfor %}\nend\n";
        let data = Data { lines: vec!["x\ny", "z"], ..DATA };
        let out = Template::<Data>::new("t", text).render(&data).unwrap();
        assert_eq!(out, "name: \"a \\\"b\\\"\"\n- x\n  y\n- z\nend\n");
    }

    #[test]
    fn an_undefined_variable_is_an_error() {
        let error = Template::<Data>::new("t", "{{ nmae }}").render(&DATA).unwrap_err();
        assert_eq!(error.to_string(), "cannot render t");
        assert!(Template::<Data>::new("t", "{% if nmae %}x{% endif %}").render(&DATA).is_err());
    }
}
