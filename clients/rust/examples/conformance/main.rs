//! Makes the steps of clients/conformance/script.json through this client, and prints TAP.

mod contracts;
mod conversation;
mod pattern;
mod variables;

use std::error::Error as StdError;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};

use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde_json::{Value, json};
use steward_client::proto::google::rpc;
use steward_client::{Client, Error, Result};
use tokio::time::timeout;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;

use contracts::{Contracts, DynamicCodec};
use conversation::Conversation;
use variables::Variables;

/// Longer than anything takes that goes on at all.
const STEP_PATIENCE: Duration = Duration::from_secs(40);

/// Something, or what is not as the script wants it.
type Checked<T> = std::result::Result<T, String>;

/// What came of a call: its answer, or the first answers of a stream; or a refusal.
type Outcome = Result<Value>;

struct Runner {
    server: Client,
    shaky: Client,
    contracts: Contracts,
    variables: Variables,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<ExitCode, Box<dyn StdError>> {
    let script: Value = serde_json::from_slice(&fs::read(env::var("CONFORMANCE_SCRIPT")?)?)?;
    let steps = script["steps"].as_array().ok_or("the script has no steps")?;
    let mut runner = Runner {
        server: Client::builder(env::var("STEWARD_SERVER")?).connect_lazy()?,
        shaky: Client::builder(env::var("STEWARD_SHAKY")?).connect_lazy()?,
        contracts: Contracts::new(),
        variables: Variables::of_environment(),
    };
    println!("1..{}", steps.len());
    for (number, step) in (1..).zip(steps) {
        let say = step["say"].as_str().unwrap_or_default();
        if let Err(why) = runner.make_in_time(step).await {
            println!("not ok {number} - {say}");
            why.lines().for_each(|line| println!("# {line}"));
            return Ok(ExitCode::FAILURE);
        }
        println!("ok {number} - {say}");
    }
    Ok(ExitCode::SUCCESS)
}

impl Runner {
    async fn make_in_time(&mut self, step: &Value) -> Checked<()> {
        let begun = Instant::now();
        let late = |_| format!("nothing came in {STEP_PATIENCE:?}");
        timeout(STEP_PATIENCE, self.make(step)).await.map_err(late)??;
        let took_s = begun.elapsed().as_secs_f64();
        let least_s = step["at_least_s"].as_f64().unwrap_or(0.0);
        let most_s = step["at_most_s"].as_f64().unwrap_or(f64::INFINITY);
        if took_s < least_s || took_s > most_s {
            return Err(format!("expected it to take {least_s} s to {most_s} s\ncame {took_s} s"));
        }
        Ok(())
    }

    async fn make(&mut self, step: &Value) -> Checked<()> {
        if let Some(exchanges) = step["session"].as_array() {
            let conversation = Conversation::over_session(&self.client(step)?).await;
            self.converse(conversation, exchanges).await
        } else if let Some(exchanges) = step["stream"].as_array() {
            let conversation = Conversation::over_stream(&self.client(step)?).await;
            self.converse(conversation, exchanges).await
        } else {
            self.call(step).await
        }
    }

    async fn call(&mut self, step: &Value) -> Checked<()> {
        let client = self.client(step)?;
        let step = self.variables.fill(step)?;
        let method = self.contracts.method(step["call"].as_str().unwrap_or_default())?;
        let mut request = Request::new(contracts::read(method.input(), &step["send"])?);
        if let Some(timeout_s) = step["timeout_s"].as_f64() {
            request.set_timeout(Duration::from_secs_f64(timeout_s));
        }
        let outcome = if method.is_server_streaming() {
            streamed(&client, method, request, &step).await
        } else {
            answered(&client, method, request).await
        };
        let answer = held(&step, outcome)?;
        let last = answer.as_array().and_then(|answers| answers.last());
        self.variables.keep(&step, last.unwrap_or(&answer))
    }

    async fn converse(&mut self, opened: Result<Conversation>, exchanges: &[Value]) -> Checked<()> {
        let mut conversation = match opened {
            Ok(conversation) => conversation,
            Err(error) => {
                return held(&self.variables.fill(&exchanges[0])?, Err(error)).map(drop);
            }
        };
        let are_together =
            |one: &Value, next: &Value| one["together"] == true && next["together"] == true;
        for group in exchanges.chunk_by(are_together) {
            self.exchange(&mut conversation, group).await?;
        }
        Ok(())
    }

    /// Says all of a group, before it waits for what comes of each.
    async fn exchange(&mut self, conversation: &mut Conversation, group: &[Value]) -> Checked<()> {
        let mut said = Vec::new();
        for exchange in group {
            if let Some(call) = exchange.get("meanwhile") {
                self.call(call).await?;
            }
            let exchange = self.variables.fill(exchange)?;
            let message = exchange.get("send");
            let coming = message.map(|message| conversation.ask(&self.contracts, message));
            said.push((exchange, coming.transpose()?));
        }
        for (exchange, coming) in said {
            if let Some(coming) = coming {
                let answer = held(&exchange, coming.await.expect("to ask does not panic"))?;
                self.variables.keep(&exchange, &answer)?;
            }
            if let Some(pattern) = exchange.get("push") {
                let pushed = conversation.pushed(&self.contracts).await?;
                pattern::hold(pattern, &pushed)?;
                self.variables.keep(&exchange, &pushed)?;
            }
        }
        Ok(())
    }

    fn client(&self, step: &Value) -> Checked<Client> {
        let client = if step["at"] == "shaky" { &self.shaky } else { &self.server };
        let credential = self.variables.fill(&step["as"])?;
        Ok(credential.as_str().map_or_else(|| client.clone(), |token| client.with_token(token)))
    }
}

async fn answered(
    client: &Client,
    method: MethodDescriptor,
    request: Request<DynamicMessage>,
) -> Outcome {
    let path = path_of(&method);
    let response = Grpc::new(client.channel()).unary(request, path, DynamicCodec(method)).await?;
    Ok(contracts::written(response.get_ref()))
}

/// As many answers as are expected, and one more where the stream is to end after them.
async fn streamed(
    client: &Client,
    method: MethodDescriptor,
    request: Request<DynamicMessage>,
    step: &Value,
) -> Outcome {
    let path = path_of(&method);
    let mut grpc = Grpc::new(client.channel());
    let response = grpc.server_streaming(request, path, DynamicCodec(method)).await?;
    let (mut stream, mut answers) = (response.into_inner(), Vec::new());
    let wanted = step["answers"].as_array().map_or(1, Vec::len);
    let most = wanted + usize::from(step["ends"] == true);
    while answers.len() < most
        && let Some(answer) = stream.message().await?
    {
        answers.push(contracts::written(&answer));
    }
    Ok(answers.into())
}

fn path_of(method: &MethodDescriptor) -> PathAndQuery {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    path.parse().expect("names are good in a path")
}

/// Holds what came against what a step or an exchange expects; gives the answer, if that came.
fn held(step: &Value, outcome: Outcome) -> Checked<Value> {
    let answer = step.get("answers").or(step.get("answer"));
    match (step.get("refusal"), outcome) {
        (Some(refusal), Err(error)) => {
            let mut refusal = refusal.clone();
            if let Some(Value::Array(fields)) = refusal.get_mut("fields") {
                fields.sort_by_key(Value::to_string);
            }
            pattern::hold(&refusal, &shown(&error))?;
            Ok(Value::Null)
        }
        (None, Ok(came)) => {
            pattern::hold(answer.unwrap_or(&json!({})), &came)?;
            Ok(came)
        }
        (Some(refusal), Ok(came)) => Err(format!("expected a refusal: {refusal}\ncame {came}")),
        (None, Err(error)) => Err(format!("expected an answer\ncame {}", shown(&error))),
    }
}

fn shown(error: &Error) -> Value {
    let code = rpc::Code::try_from(error.code() as i32).expect("there are no other codes");
    let errors = error.errors().iter().map(|each| {
        json!({
            "line": each.line,
            "column": each.column,
            "path": each.path,
            "message": each.message,
        })
    });
    json!({
        "kind": format!("{:?}", error.kind()),
        "code": code.as_str_name(),
        "reason": error.reason(),
        "message": error.message(),
        "facts": error.facts(),
        "fields": error.fields().keys().collect::<Vec<_>>(),
        "errors": errors.collect::<Vec<_>>(),
        "retry_after": error.retry_after().is_some(),
    })
}
