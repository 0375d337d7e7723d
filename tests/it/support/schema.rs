//! The schema of the feed's messages, `docs/feed.schema.json`: every message of a stream in a test is checked against it.
//!
//! Implements the few keywords of JSON Schema (2020-12) that it uses; an unknown keyword fails the test, so that none is ignored.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/feed.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

/// Asserts that an instance matches a definition.
fn check(definition: &str, instance: &Value) {
    if let Err(fault) = judge(defined(definition), instance) {
        panic!("{instance} is not a {definition}: {fault}");
    }
}

fn defined(name: &str) -> &'static Value {
    let found = SCHEMA["$defs"].get(name);
    found.unwrap_or_else(|| panic!("the schema does not define {name}"))
}

type CallAction = Result<(), String>;

fn judge(schema: &Value, instance: &Value) -> CallAction {
    let keywords = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Bool(false) => return Err(format!("{instance} is not allowed here")),
        schema => schema.as_object().unwrap(),
    };
    for (keyword, value) in keywords {
        let holds = match keyword.as_str() {
            "description" => true,
            "$ref" => {
                let name = value.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                judge(defined(name), instance)?;
                true
            }
            "const" => instance == value,
            "enum" => value.as_array().unwrap().contains(instance),
            "type" => is_of_type(value.as_str().unwrap(), instance),
            "allOf" => {
                for schema in value.as_array().unwrap() {
                    judge(schema, instance)?;
                }
                true
            }
            "oneOf" | "anyOf" => choose(keyword, value.as_array().unwrap(), instance)?,
            "required" => instance.as_object().is_none_or(|members| {
                let names = value.as_array().unwrap().iter();
                names
                    .map(|name| name.as_str().unwrap())
                    .all(|name| members.contains_key(name))
            }),
            "properties" => {
                judge_members(value.as_object().unwrap(), instance)?;
                true
            }
            "additionalProperties" => {
                assert_eq!(*value, json!(false));
                let known = keywords["properties"].as_object().unwrap();
                let members = instance.as_object();
                members.is_none_or(|members| members.keys().all(|name| known.contains_key(name)))
            }
            "items" => {
                for item in instance.as_array().into_iter().flatten() {
                    judge(value, item)?;
                }
                true
            }
            "minItems" => instance
                .as_array()
                .is_none_or(|items| items.len() >= size(value)),
            "maxItems" => instance
                .as_array()
                .is_none_or(|items| items.len() <= size(value)),
            "minLength" => instance
                .as_str()
                .is_none_or(|text| text.chars().count() >= size(value)),
            "maxLength" => instance
                .as_str()
                .is_none_or(|text| text.chars().count() <= size(value)),
            "minimum" => instance
                .as_f64()
                .is_none_or(|number| number >= value.as_f64().unwrap()),
            "maximum" => instance
                .as_f64()
                .is_none_or(|number| number <= value.as_f64().unwrap()),
            "exclusiveMinimum" => instance
                .as_f64()
                .is_none_or(|number| number > value.as_f64().unwrap()),
            "exclusiveMaximum" => instance
                .as_f64()
                .is_none_or(|number| number < value.as_f64().unwrap()),
            "pattern" => instance
                .as_str()
                .is_none_or(|text| matches(value.as_str().unwrap(), text)),
            unknown => panic!("the schema uses {unknown}, which is not judged here"),
        };
        if !holds {
            return Err(format!("{instance} against {keyword}: {value}"));
        }
    }
    Ok(())
}

fn size(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn is_of_type(name: &str, instance: &Value) -> bool {
    match name {
        "object" => instance.is_object(),
        "array" => instance.is_array(),
        "string" => instance.is_string(),
        "number" => instance.is_number(),
        "integer" => instance.is_i64() || instance.is_u64(),
        "boolean" => instance.is_boolean(),
        "null" => instance.is_null(),
        unknown => panic!("{unknown} is not a type"),
    }
}

fn choose(keyword: &str, schemas: &[Value], instance: &Value) -> Result<bool, String> {
    let verdicts: Vec<CallAction> = schemas
        .iter()
        .map(|schema| judge(schema, instance))
        .collect();
    let fitting = verdicts.iter().filter(|verdict| verdict.is_ok()).count();
    if fitting == 0 {
        let faults: Vec<String> = verdicts.into_iter().filter_map(Result::err).collect();
        return Err(faults.join("; "));
    }
    Ok(keyword == "anyOf" || fitting == 1)
}

fn judge_members(known: &Map<String, Value>, instance: &Value) -> CallAction {
    for (name, value) in instance.as_object().into_iter().flatten() {
        if let Some(schema) = known.get(name) {
            judge(schema, value).map_err(|fault| format!("{name}: {fault}"))?;
        }
    }
    Ok(())
}

/// The patterns that the schema uses.
fn matches(pattern: &str, text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let shaped = |shape: &str| {
        shape.len() == text.len()
            && shape
                .bytes()
                .zip(text.bytes())
                .all(|(shape, byte)| match shape {
                    b'9' => byte.is_ascii_digit(),
                    b'f' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                    other => byte == other,
                })
    };
    match pattern {
        r"^\d+$" => digits(text),
        r"^\d+(\.\d+)?$" => match text.split_once('.') {
            Some((whole, part)) => digits(whole) && digits(part),
            None => digits(text),
        },
        // Above zero, as exact as a reading can be.
        r"^(?=.*[1-9])\d{1,20}(\.\d{1,18})?$" => {
            let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
            text.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
                && digits(whole)
                && digits(part)
                && whole.len() <= 20
                && part.len() <= 18
        }
        r"^[^\s\u0000-\u001f\u007f]+$" => text
            .chars()
            .all(|character| !character.is_whitespace() && !character.is_ascii_control()),
        r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$" => shaped("9999-99-99T99:99:99.999999Z"),
        "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" => {
            shaped("ffffffff-ffff-ffff-ffff-ffffffffffff")
        }
        unknown => panic!("the schema uses the pattern {unknown}, which is not judged here"),
    }
}

/// A text frame of the service.
pub fn check_frame(text: &str) {
    check("serverFrame", &serde_json::from_str(text).unwrap());
}

/// The reason of a close frame; an empty one answers a client that closed.
pub fn check_close(reason: &Value) {
    if *reason != json!({}) {
        check("closeReason", reason);
    }
}

/// Server-sent events: the text after `data:`.
pub fn check_stream(text: &str) {
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        check("sseData", &serde_json::from_str(data).unwrap());
    }
}

/// Whether a client may send this.
pub fn allows_client_message(message: &Value) -> bool {
    judge(defined("clientMessage"), message).is_ok()
}

/// Names under `$defs`.
pub fn definitions() -> Vec<String> {
    SCHEMA["$defs"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}
