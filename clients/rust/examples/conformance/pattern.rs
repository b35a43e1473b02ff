//! What an answer's JSON must be like, as clients/conformance/README.md has it.

use regex_lite::Regex;
use serde_json::Value;

use crate::Checked;

/// Holds a value against a pattern; what is other than wanted comes back in sentences.
pub fn hold(pattern: &Value, value: &Value) -> Checked<()> {
    let mut faults = Vec::new();
    compare("it", pattern, Some(value), &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(format!("{}\ncame {value}", faults.join("\n"))) }
}

fn compare(path: &str, pattern: &Value, value: Option<&Value>, faults: &mut Vec<String>) {
    let is_good = match (pattern, value) {
        (Value::Null, value) => value.is_none(),
        (_, None) => false,
        (Value::Object(members), Some(value)) => {
            if members.contains_key("$any") {
                true
            } else if let Some(regex) = members.get("$match") {
                is_match(regex, value)
            } else if let Some(wanted) = members.get("$has") {
                has_all(wanted, value)
            } else {
                for (name, each) in members {
                    compare(&format!("{path}.{name}"), each, value.get(name), faults);
                }
                value.is_object()
            }
        }
        (Value::Array(patterns), Some(Value::Array(values))) => {
            for (at, (each, value)) in patterns.iter().zip(values).enumerate() {
                compare(&format!("{path}.{at}"), each, Some(value), faults);
            }
            patterns.len() == values.len()
        }
        (Value::Number(wanted), Some(Value::Number(came))) => {
            is_near(wanted.as_f64().unwrap_or(f64::NAN), came.as_f64().unwrap_or(f64::NAN))
        }
        (pattern, Some(value)) => pattern == value,
    };
    if !is_good {
        faults.push(match pattern {
            Value::Null => format!("expected {path} to be absent"),
            _ => format!("expected {path} to be {pattern}"),
        });
    }
}

fn is_match(regex: &Value, value: &Value) -> bool {
    let whole = format!("(?s)^(?:{})$", regex.as_str().unwrap_or_default());
    let regex = Regex::new(&whole).expect("the script's expressions are good");
    value.as_str().is_some_and(|text| regex.is_match(text))
}

fn has_all(wanted: &Value, value: &Value) -> bool {
    let (Value::Array(patterns), Value::Array(values)) = (wanted, value) else {
        return false;
    };
    patterns.iter().all(|each| values.iter().any(|value| hold(each, value).is_ok()))
}

fn is_near(wanted: f64, came: f64) -> bool {
    (wanted - came).abs() <= 1e-6 * wanted.abs().max(came.abs()).max(1.0)
}
