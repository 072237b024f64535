//! Checks JSON by a JSON schema, as far as published schemas of the formats that we write use it. A word of the schema
//! that is not known here is an error: nothing passes unchecked.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Words that ask for nothing by themselves.
const ASK_NOTHING: [&str; 3] = ["$schema", "definitions", "title"];

/// Makes sure that `value` is as `schema` has it.
pub fn check_schema(schema: &Value, value: &Value) -> Result<()> {
    check(schema, schema, value)
}

fn check(root: &Value, schema: &Value, value: &Value) -> Result<()> {
    for (word, asked) in schema.as_object().context("a schema that is no object")? {
        match word.as_str() {
            "$ref" => check(root, referred(root, asked)?, value)?,
            "type" => ensure!(is_of_type(asked, value)?, "no {asked}: {value:.200}"),
            "const" => ensure!(value == asked, "not {asked}: {value:.200}"),
            "enum" => ensure!(array(asked)?.contains(value), "none of {asked}: {value:.200}"),
            "required" => {
                for name in array(asked)? {
                    let name = name.as_str().context("a name")?;
                    ensure!(value.get(name).is_some(), "no {name} in {value:.200}");
                }
            }
            "properties" => {
                for (name, schema) in asked.as_object().context("properties")? {
                    let Some(value) = value.get(name) else { continue };
                    check(root, schema, value).with_context(|| name.clone())?;
                }
            }
            "items" => {
                for (index, item) in array(value)?.iter().enumerate() {
                    check(root, asked, item).with_context(|| format!("item {index}"))?;
                }
            }
            "anyOf" => {
                let tried: Vec<_> =
                    array(asked)?.iter().filter_map(|schema| check(root, schema, value).err()).collect();
                ensure!(tried.len() < array(asked)?.len(), "nothing fits: {tried:?}");
            }
            other => ensure!(ASK_NOTHING.contains(&other), "unknown to this check: {other}"),
        }
    }
    Ok(())
}

fn referred<'a>(root: &'a Value, reference: &Value) -> Result<&'a Value> {
    let path = reference.as_str().and_then(|text| text.strip_prefix('#')).context("a reference")?;
    root.pointer(path).with_context(|| format!("nothing at {path}"))
}

fn array(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("no array: {value:.200}"))
}

fn is_of_type(asked: &Value, value: &Value) -> Result<bool> {
    Ok(match asked.as_str() {
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => bail!("unknown to this check: type {asked}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_word_is_asked_for() {
        let schema = json!({
            "definitions": { "A": { "type": "object", "required": ["n"], "properties": { "n": { "type": "number" } } } },
            "type": "array",
            "items": { "anyOf": [{ "$ref": "#/definitions/A" }, { "enum": ["x", "y"] }, { "const": "z" }] },
        });
        for good in [json!([]), json!([{ "n": 1.5 }, "x", "y", "z", { "n": 0, "more": [] }])] {
            check_schema(&schema, &good).unwrap();
        }
        for bad in [json!({}), json!([{}]), json!([{ "n": "1" }]), json!(["w"]), json!([[]])] {
            assert!(check_schema(&schema, &bad).is_err(), "{bad}");
        }
        assert!(check_schema(&json!({ "minimum": 1 }), &json!(2)).is_err());
        assert!(check_schema(&json!({ "$ref": "#/definitions/B" }), &json!(2)).is_err());
    }
}
