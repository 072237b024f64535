//! Checks a value against speedscope's own schema (`schema/speedscope.json`, from the npm package
//! `speedscope` 1.25.0, MIT licence). Knows the keywords that this schema uses and refuses any other.

use serde_json::Value;

/// Panics where the value is no valid file.
pub fn check(file: &Value) {
    let schema: Value = serde_json::from_str(include_str!("../schema/speedscope.json")).unwrap();
    if let Err(what) = satisfies(file, &schema, &schema) {
        panic!("against the schema: {what}");
    }
}

fn satisfies(value: &Value, rules: &Value, schema: &Value) -> Result<(), String> {
    for (keyword, rule) in rules.as_object().expect("rules are an object") {
        let is_satisfied = match keyword.as_str() {
            "$schema" | "definitions" | "title" | "properties" => Ok(()),
            "$ref" => satisfies(value, referred(rule, schema), schema),
            "type" => require(is_of_type(value, rule), rule),
            "const" => require(value == rule, rule),
            "enum" => require(rule.as_array().expect("a list").contains(value), rule),
            "required" => rule
                .as_array()
                .expect("a list")
                .iter()
                .try_for_each(|name| require(value.get(name.as_str().expect("a name")).is_some(), name)),
            "items" => {
                value.as_array().into_iter().flatten().try_for_each(|item| satisfies(item, rule, schema))
            }
            "anyOf" => {
                let mut rules = rule.as_array().expect("a list").iter();
                require(rules.any(|rules| satisfies(value, rules, schema).is_ok()), rule)
            }
            other => panic!("the schema has a keyword that this check does not know: {other}"),
        };
        is_satisfied.map_err(|what| format!("{keyword}: {what}"))?;
    }
    for (name, rules) in rules["properties"].as_object().into_iter().flatten() {
        if let Some(property) = value.get(name) {
            satisfies(property, rules, schema).map_err(|what| format!("{name}: {what}"))?;
        }
    }
    Ok(())
}

fn require(is_satisfied: bool, rule: &Value) -> Result<(), String> {
    if is_satisfied { Ok(()) } else { Err(format!("not {rule}")) }
}

fn referred<'a>(path: &Value, schema: &'a Value) -> &'a Value {
    let path = path.as_str().and_then(|path| path.strip_prefix('#')).expect("a path in the schema");
    schema.pointer(path).expect("a definition")
}

fn is_of_type(value: &Value, name: &Value) -> bool {
    match name.as_str().expect("a type's name") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        other => panic!("the schema has a type that this check does not know: {other}"),
    }
}

#[test]
#[should_panic(expected = "against the schema")]
fn a_profile_without_weights_is_refused() {
    check(&serde_json::json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "shared": { "frames": [] },
        "profiles": [{
            "type": "sampled", "name": "", "unit": "none", "startValue": 0, "endValue": 0, "samples": []
        }],
    }));
}
