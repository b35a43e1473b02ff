//! What is said over a session or a stream of agents, and what comes of it.

use std::time::Duration;

use serde_json::Value;
use steward_client::budget::v1::{SessionRequest, SessionResponse};
use steward_client::inference::v1::{StreamRequest, StreamResponse};
use steward_client::{AgentStream, Client, Pushes, Result, Session};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::contracts::Contracts;
use crate::{Checked, Outcome};

const PUSH_PATIENCE: Duration = Duration::from_secs(5);

pub enum Conversation {
    Session(Session, Pushes),
    Agents(AgentStream),
}

impl Conversation {
    pub async fn over_session(client: &Client) -> Result<Self> {
        let (session, pushes) = client.session().await?;
        Ok(Self::Session(session, pushes))
    }

    pub async fn over_stream(client: &Client) -> Result<Self> {
        Ok(Self::Agents(client.agent_stream().await?))
    }

    /// Says something, and gives the answer to come.
    pub fn ask(&self, contracts: &Contracts, said: &Value) -> Checked<JoinHandle<Outcome>> {
        let empty = || format!("{said} is no message");
        let contracts = contracts.clone();
        Ok(match self {
            Self::Session(session, _) => {
                let request: SessionRequest =
                    contracts.read("steward.budget.v1.SessionRequest", said)?;
                let (session, message) = (session.clone(), request.message.ok_or_else(empty)?);
                tokio::spawn(async move {
                    let message = Some(session.ask(message).await?);
                    Ok(shown(&contracts, SessionResponse { message, ..Default::default() }))
                })
            }
            Self::Agents(stream) => {
                let request: StreamRequest =
                    contracts.read("steward.inference.v1.StreamRequest", said)?;
                let (stream, message) = (stream.clone(), request.message.ok_or_else(empty)?);
                tokio::spawn(async move {
                    let message = Some(stream.ask(message).await?);
                    let response = StreamResponse { message, ..Default::default() };
                    Ok(contracts.written("steward.inference.v1.StreamResponse", &response))
                })
            }
        })
    }

    /// The next message that the server says by itself.
    pub async fn pushed(&mut self, contracts: &Contracts) -> Checked<Value> {
        let Self::Session(_, pushes) = self else {
            return Err("nothing is pushed over a stream of agents".into());
        };
        let pushed = timeout(PUSH_PATIENCE, pushes.next()).await;
        let message = pushed.map_err(|_| "nothing was pushed in time")?;
        let message = Some(message.ok_or("the session has ended")?);
        Ok(shown(contracts, SessionResponse { message, ..Default::default() }))
    }
}

fn shown(contracts: &Contracts, response: SessionResponse) -> Value {
    contracts.written("steward.budget.v1.SessionResponse", &response)
}
