//! An agent that takes a lease, pays for one call, reports it and returns the rest; then it steps
//! the policy "cartpole" a few times.
//!
//! ```console
//! $ STEWARD_SERVER=127.0.0.1:50051 STEWARD_IC_TOKEN=ic_… cargo run --example agent
//! ```

use std::env;
use std::error::Error;

use serde_json::{Value, json};
use steward_client::budget::v1::session_response::Message as Said;
use steward_client::budget::v1::{DesiredState, HandshakeRequest, ReturnRequest, Usage};
use steward_client::inference::v1::StreamAgent;
use steward_client::inference::v1::action::Kind::Choice;
use steward_client::{Client, Pushes, open_provider_key};
use tokio::task::spawn_blocking;
use uuid::Uuid;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const TRANCHE_NANOUSD: i64 = 100_000; // $0.0001
const MODEL: &str = "gpt-4o-mini";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let server = env::var("STEWARD_SERVER").unwrap_or_else(|_| "127.0.0.1:50051".into());
    let token = env::var("STEWARD_IC_TOKEN")?;
    let client = Client::builder(server).token(&token).connect().await?;
    spend(&client, &token).await?;
    balance(&client).await
}

async fn spend(client: &Client, token: &str) -> Result<()> {
    let (session, pushes) = client.session().await?;
    tokio::spawn(obey(pushes));
    let lease = session
        .handshake(HandshakeRequest {
            requested_budget_nanousd: Some(TRANCHE_NANOUSD),
            ..Default::default()
        })
        .await?;
    println!("{}: {} lent", lease.lease_id, dollars(lease.budget_granted_nanousd));

    let (base_url, key) = (lease.base_url.clone(), open_provider_key(&lease, token)?);
    let usage = spawn_blocking(move || ask(&base_url, &key)).await??;
    let booked = session.report(&lease.lease_id, vec![usage]).await?;
    println!("one call: {} spent", dollars(booked.lease_spent_nanousd));

    let request = ReturnRequest { lease_id: lease.lease_id, ..Default::default() };
    let rest = session.return_lease(request).await?;
    println!("{} returned", dollars(rest.returned_nanousd));
    session.close().await;
    Ok(())
}

async fn obey(mut pushes: Pushes) {
    while let Some(said) = pushes.next().await {
        if let Said::Control(control) = said
            && control.desired_state() == DesiredState::Stopped
        {
            println!("told to stop: {}", control.reason);
        }
    }
}

/// Asks the provider something, and says what that used; the ledger knows the price.
fn ask(base_url: &str, key: &str) -> Result<Usage> {
    let question = json!({
        "model": MODEL,
        "max_tokens": 20,
        "messages": [{"role": "user", "content": "Hello"}],
    });
    let answer = ureq::post(format!("{base_url}/chat/completions"))
        .header("authorization", format!("Bearer {key}"))
        .content_type("application/json")
        .send(question.to_string())?;
    let answer: Value = serde_json::from_reader(answer.into_body().into_reader())?;
    let count = |name: &str| answer["usage"][name].as_i64().ok_or("the provider counts no tokens");
    Ok(Usage {
        request_id: Uuid::new_v4().to_string(),
        sequence: 1,
        model: MODEL.into(),
        input_tokens: count("prompt_tokens")?,
        output_tokens: count("completion_tokens")?,
        ..Default::default()
    })
}

async fn balance(client: &Client) -> Result<()> {
    let stream = client.agent_stream().await?;
    let pole = StreamAgent { policy: "cartpole".into(), ..Default::default() };
    let opened = stream.open(vec![pole]).await?;
    let mut state = [0.0, 0.0, 0.05, 0.0];
    for step in 1..=5 {
        let decided = stream.step(opened.first, &state, true).await?;
        let is_right = decided.action.and_then(|action| action.kind) == Some(Choice(1));
        state = moved(state, if is_right { 10.0 } else { -10.0 });
        println!("{}, step {step}: the pole leans {:.4}", opened.policies[0], state[2]);
    }
    stream.close().await;
    Ok(())
}

/// The cart and its pole 20 ms later; the equations are those of Barto, Sutton and Anderson.
fn moved([place, speed, angle, spin]: [f32; 4], force: f32) -> [f32; 4] {
    let (pull, lean) = angle.sin_cos();
    let push = (force + 0.05 * spin * spin * pull) / 1.1;
    let turn = (9.8 * pull - lean * push) / (0.5 * (4.0 / 3.0 - 0.1 * lean * lean / 1.1));
    let thrust = push - 0.05 * turn * lean / 1.1;
    [place + 0.02 * speed, speed + 0.02 * thrust, angle + 0.02 * spin, spin + 0.02 * turn]
}

fn dollars(nanousd: i64) -> String {
    let whole = format!("${}.{:09}", nanousd / 1_000_000_000, nanousd % 1_000_000_000);
    whole.trim_end_matches('0').trim_end_matches('.').into()
}
