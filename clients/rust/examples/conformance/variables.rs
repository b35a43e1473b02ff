//! What `${NAME}` stands for in a script.

use std::collections::BTreeMap;
use std::env;

use regex_lite::{Captures, Regex};
use serde_json::Value;

use crate::Checked;

const PREFIX: &str = "STEWARD_VAR_";

pub struct Variables {
    name: Regex,
    values: BTreeMap<String, String>,
}

impl Variables {
    pub fn of_environment() -> Self {
        let variable =
            |(name, value): (String, String)| Some((name.strip_prefix(PREFIX)?.into(), value));
        Self {
            name: Regex::new(r"\$\{(\w+)\}").expect("the expression is good"),
            values: env::vars().filter_map(variable).collect(),
        }
    }

    /// The same, with the values in place of the names in every text.
    pub fn fill(&self, part: &Value) -> Checked<Value> {
        Ok(match part {
            Value::String(text) => self.fill_text(text)?.into(),
            Value::Array(items) => {
                items.iter().map(|each| self.fill(each)).collect::<Checked<Vec<_>>>()?.into()
            }
            Value::Object(members) => {
                let filled =
                    members.iter().map(|(name, each)| Ok((name.clone(), self.fill(each)?)));
                Value::Object(filled.collect::<Checked<_>>()?)
            }
            other => other.clone(),
        })
    }

    /// Takes values out of an answer, as the `keep` of a step says: `{"NAME": "path.to.0.field"}`.
    pub fn keep(&mut self, step: &Value, answer: &Value) -> Checked<()> {
        for (name, path) in step["keep"].as_object().into_iter().flatten() {
            let pointer = format!("/{}", path.as_str().unwrap_or_default().replace('.', "/"));
            let value = answer.pointer(&pointer);
            let value =
                value.ok_or_else(|| format!("expected {path} to be there\ncame {answer}"))?;
            let text = value.as_str().map_or_else(|| value.to_string(), String::from);
            self.values.insert(name.clone(), text);
        }
        Ok(())
    }

    fn fill_text(&self, text: &str) -> Checked<String> {
        let mut unknown = None;
        let filled = self.name.replace_all(text, |found: &Captures<'_>| {
            let value = self.values.get(&found[1]);
            if value.is_none() {
                unknown = Some(format!("nobody has set {}", &found[0]));
            }
            value.cloned().unwrap_or_default()
        });
        let filled = filled.into_owned();
        unknown.map_or(Ok(filled), Err)
    }
}
