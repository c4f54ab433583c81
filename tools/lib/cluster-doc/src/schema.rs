//! The JSON Schema (2020-12) of the document.

use serde_json::{Value, json};

use crate::spec::{self, Section};

/// The schema of a document of which these sections are read; the others are allowed, not described.
pub fn schema(tool: &str, reads: &[Section]) -> Value {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let spec = spec::schema(reads, &mut generator);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("The cluster document as {tool} reads it"),
        "type": "object",
        "required": ["apiVersion", "kind", "spec"],
        "properties": {
            "$schema": { "type": "string", "description": "For editors; ignored." },
            "apiVersion": { "const": "kubeline/v1" },
            "kind": { "const": "Cluster" },
            "metadata": {
                "type": "object",
                "properties": { "name": { "type": "string", "description": "The cluster's name, first part of its machines' names." } },
                "patternProperties": { "^x-": true },
                "additionalProperties": false
            },
            "spec": spec,
            "status": { "type": "object", "description": "What the tools did; one key for each." }
        },
        "patternProperties": { "^x-": true },
        "additionalProperties": false,
        "$defs": generator.take_definitions(true),
    })
}
