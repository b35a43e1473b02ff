//! Agents of inference over one stream: one or thousands, with several steps under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::channel::Channel;
use crate::exchange::{Exchange, Incoming, OUTBOX, opened, unknown};
use crate::proto::steward::inference::v1::inference_service_client::InferenceServiceClient;
use crate::proto::steward::inference::v1::stream_request::Message as Question;
use crate::proto::steward::inference::v1::stream_response::Message as Answer;
use crate::proto::steward::inference::v1::{
    PackedResults, PackedSteps, StepResponse, StreamAgent, StreamClose, StreamOpen, StreamOpened,
    StreamRequest, StreamResponse, StreamStep,
};
use crate::{Error, Kind, Result};

/// Agents that step over one stream. Many tasks may share it; the stream is closed, and agents
/// without an id end, when the last clone is dropped.
///
/// What is refused is an error of the call that asked, and the stream goes on.
#[derive(Clone)]
pub struct AgentStream {
    exchange: Arc<Exchange<StreamRequest, Answer>>,
    /// Of the client, for whatever has none of its own.
    most: Duration,
    timeout: Option<Duration>,
}

impl AgentStream {
    pub(crate) async fn begin(channel: Channel) -> Result<Self> {
        let (outbox, questions) = mpsc::channel(OUTBOX);
        let most = channel.timeout;
        let mut inference = InferenceServiceClient::new(channel);
        let answers = opened(most, inference.stream(ReceiverStream::new(questions))).await?;
        let exchange = Arc::new(Exchange::new(outbox, answers, sorted, cut));
        Ok(Self { exchange, most, timeout: None })
    }

    /// The same stream, on which nothing may take longer, instead of what the client gives a call.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self.clone() }
    }

    /// Brings more agents into the stream. The answer has the number of the first.
    pub async fn open(&self, agents: Vec<StreamAgent>) -> Result<StreamOpened> {
        match self.ask(Question::Open(StreamOpen { agents })).await? {
            Answer::Opened(answer) => Ok(answer),
            other => Err(unfitting(&other)),
        }
    }

    /// Lets one agent make a step: the likeliest one, or one drawn at random.
    pub async fn step(
        &self,
        agent: u32,
        observation: &[f32],
        deterministic: bool,
    ) -> Result<StepResponse> {
        let step = StreamStep { agent, observation: observation.into(), deterministic };
        match self.ask(Question::Step(step)).await? {
            Answer::Step(answer) => Ok(answer),
            other => Err(unfitting(&other)),
        }
    }

    /// Lets agents of one policy make a step each. Observations are their rows, one after the other;
    /// no agents named means all of the stream.
    pub async fn step_many(
        &self,
        agents: &[u32],
        observations: &[f32],
        deterministic: bool,
    ) -> Result<Steps> {
        let observations = observations.iter().flat_map(|each| each.to_le_bytes()).collect();
        let packed = PackedSteps { observations, agents: agents.into(), deterministic };
        match self.ask(Question::Packed(packed)).await? {
            Answer::Packed(answer) => Ok(Steps(answer)),
            other => Err(unfitting(&other)),
        }
    }

    /// Begins an agent's sequence anew, and gives the number it has from then on.
    pub async fn reset(&self, agent: u32, fresh: StreamAgent) -> Result<u32> {
        self.end(&[agent]).await?;
        let fresh = StreamAgent { reset: true, ..fresh };
        Ok(self.open(vec![fresh]).await?.first)
    }

    /// Takes agents out of the stream; those without an id end.
    pub async fn end(&self, agents: &[u32]) -> Result<()> {
        match self.ask(Question::Close(StreamClose { agents: agents.into() })).await? {
            Answer::Closed(_) => Ok(()),
            other => Err(unfitting(&other)),
        }
    }

    /// Closes the stream, for all who share it, and returns when the server has let go of it.
    pub async fn close(&self) {
        self.exchange.close().await;
    }

    /// Sends any message, and waits for its answer.
    pub async fn ask(&self, message: Question) -> Result<Answer> {
        let millis = self.timeout.map_or(0, |timeout| timeout.as_millis().max(1));
        let numbered = |sequence| StreamRequest {
            sequence,
            message: Some(message),
            timeout_ms: u32::try_from(millis).unwrap_or(u32::MAX),
        };
        self.exchange.ask(None, self.timeout.unwrap_or(self.most), numbered).await
    }
}

/// What came of steps made together, in the order of their rows.
#[derive(Clone, Debug)]
pub struct Steps(PackedResults);

impl Steps {
    /// Of a discrete policy: the choice of each.
    pub fn choices(&self) -> Vec<i32> {
        let (words, _) = self.0.actions.as_chunks();
        words.iter().map(|word| i32::from_le_bytes(*word)).collect()
    }

    /// Of a continuous policy: the numbers of all, one row after the other.
    pub fn numbers(&self) -> Vec<f32> {
        floats(&self.0.actions)
    }

    /// What the policy expects to come from there on.
    pub fn values(&self) -> Vec<f32> {
        floats(&self.0.values)
    }

    /// The logarithms of the likelihoods of the actions, natural.
    pub fn log_probs(&self) -> Vec<f32> {
        floats(&self.0.log_probs)
    }

    /// Of the agents' memories.
    pub fn pressures(&self) -> Vec<f32> {
        floats(&self.0.pressures)
    }

    /// Rows for which the policy gave no finite numbers; their agents begin anew, and what else is
    /// told of them means nothing.
    pub fn failed(&self) -> &[u32] {
        &self.0.failed
    }
}

fn floats(packed: &[u8]) -> Vec<f32> {
    let (words, _) = packed.as_chunks();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn sorted(response: StreamResponse) -> Option<Incoming<Answer>> {
    let answer = match response.message {
        Some(Answer::Refusal(status)) => Err(status.into()),
        Some(message) => Ok(message),
        None => Err(unknown()),
    };
    Some(Incoming { number: response.sequence, group: None, answer })
}

/// A stream that ends before anything was answered was refused as a whole.
fn cut(end: Error, has_answered: bool) -> Error {
    if has_answered { Error::stream_broken(end) } else { end }
}

fn unfitting(answer: &Answer) -> Error {
    let message = format!("the server answered something else than it was asked: {answer:.80?}");
    Error::local(Kind::ServerFault, Code::Internal, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_results_are_read_row_by_row() {
        let steps = Steps(PackedResults {
            actions: vec![1, 0, 0, 0, 0, 0, 0, 0],
            values: [1.5_f32, -2.0].iter().flat_map(|each| each.to_le_bytes()).collect(),
            ..Default::default()
        });
        assert_eq!(steps.choices(), [1, 0]);
        assert_eq!(steps.values(), [1.5, -2.0]);
        assert!(steps.pressures().is_empty() && steps.failed().is_empty());
    }

    #[test]
    fn an_answer_that_is_unknown_is_a_fault_for_whoever_asked() {
        let incoming = sorted(StreamResponse { sequence: 7, ..Default::default() }).unwrap();
        assert_eq!(incoming.number, 7);
        assert_eq!(incoming.answer.unwrap_err().kind(), Kind::ServerFault);
    }

    #[test]
    fn a_stream_is_refused_before_its_first_answer_and_breaks_after_it() {
        assert_eq!(cut(unknown(), false).kind(), Kind::ServerFault);
        assert_eq!(cut(unknown(), true).kind(), Kind::StreamBroken);
    }
}
