//! Agents of inference over one stream: one or thousands, with several steps under way.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::channel::Channel;
use crate::exchange::{Exchange, Incoming, OUTBOX, lock, opened, unknown};
use crate::proto::steward::inference::v1::inference_service_client::InferenceServiceClient;
use crate::proto::steward::inference::v1::stream_request::Message as Question;
use crate::proto::steward::inference::v1::stream_response::Message as Answer;
use crate::proto::steward::inference::v1::{
    PackedResults, PackedSteps, StepResponse, StreamAgent, StreamClose, StreamOpen, StreamOpened,
    StreamRequest, StreamResponse, StreamStep,
};
use crate::{Error, Kind, Result};

const NUMBER_BYTES: usize = 4; // of a packed int32 or float32

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
    /// Agents that a reset took out and did not bring back: the server knows them no more.
    taken_out: Arc<Mutex<BTreeSet<u32>>>,
}

impl AgentStream {
    pub(crate) async fn begin(channel: Channel) -> Result<Self> {
        let (outbox, questions) = mpsc::channel(OUTBOX);
        let most = channel.timeout;
        let mut inference = InferenceServiceClient::new(channel);
        let answers = opened(most, inference.stream(ReceiverStream::new(questions))).await?;
        let exchange = Arc::new(Exchange::new(outbox, answers, sorted, cut));
        Ok(Self { exchange, most, timeout: None, taken_out: Arc::default() })
    }

    /// The same stream, on which nothing may take longer, instead of what the client gives a call.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self.clone() }
    }

    /// Brings more agents into the stream. The answer has the number of the first.
    pub async fn open(&self, agents: Vec<StreamAgent>) -> Result<StreamOpened> {
        let count = agents.len();
        match self.ask(Question::Open(StreamOpen { agents })).await? {
            Answer::Opened(answer) => {
                if answer.policies.len() != count || answer.begun.len() != count {
                    return Err(too_few_rows(count));
                }
                Ok(answer)
            }
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
        check_rows(agents, observations)?;
        let observations = observations.iter().flat_map(|each| each.to_le_bytes()).collect();
        let packed = PackedSteps { observations, agents: agents.into(), deterministic };
        match self.ask(Question::Packed(packed)).await? {
            Answer::Packed(answer) => Steps::of(answer, agents.len()),
            other => Err(unfitting(&other)),
        }
    }

    /// Begins an agent's sequence anew, and gives the number it has from then on. One that was
    /// refused can be asked for again.
    pub async fn reset(&self, agent: u32, fresh: StreamAgent) -> Result<u32> {
        self.end(&[agent]).await?;
        lock(&self.taken_out).insert(agent);
        let fresh = StreamAgent { reset: true, ..fresh };
        let first = self.open(vec![fresh]).await?.first;
        lock(&self.taken_out).remove(&agent);
        Ok(first)
    }

    /// Takes agents out of the stream; those without an id end.
    pub async fn end(&self, agents: &[u32]) -> Result<()> {
        let taken_out = lock(&self.taken_out).clone();
        let agents_left: Vec<u32> =
            agents.iter().copied().filter(|each| !taken_out.contains(each)).collect();
        if !agents_left.is_empty() {
            match self.ask(Question::Close(StreamClose { agents: agents_left })).await? {
                Answer::Closed(_) => (),
                other => return Err(unfitting(&other)),
            }
        }
        lock(&self.taken_out).retain(|each| !agents.contains(each));
        Ok(())
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
    /// Of so many agents, if the answer has a row for each; 0: of all of the stream.
    fn of(results: PackedResults, agent_count: usize) -> Result<Self> {
        let row_count = match agent_count {
            0 => results.values.len() / NUMBER_BYTES,
            named => named,
        };
        let bytes = row_count * NUMBER_BYTES;
        let columns = [&results.values, &results.log_probs, &results.pressures];
        let has_rows = row_count > 0
            && columns.iter().all(|each| each.len() == bytes)
            && !results.actions.is_empty()
            && results.actions.len().is_multiple_of(bytes);
        if has_rows { Ok(Self(results)) } else { Err(too_few_rows(row_count)) }
    }

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

/// Refuses rows that cannot be those of these agents.
fn check_rows(agents: &[u32], observations: &[f32]) -> Result<()> {
    let (number_count, agent_count) = (observations.len(), agents.len());
    if number_count == 0 || !number_count.is_multiple_of(agent_count.max(1)) {
        return Err(Error::invalid(format!(
            "{number_count} numbers are given for {agent_count} agents; give a row for each, all \
             of them as long"
        )));
    }
    Ok(())
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

fn too_few_rows(agent_count: usize) -> Error {
    let message = format!("the answer has not a row for each of {agent_count} agents");
    Error::local(Kind::ServerFault, Code::Internal, message)
}

fn unfitting(answer: &Answer) -> Error {
    let message = format!("the server answered something else than it was asked: {answer:.80?}");
    Error::local(Kind::ServerFault, Code::Internal, message)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body::Frame;
    use http_body_util::StreamBody;
    use prost::Message as _;
    use tokio_stream::StreamExt as _;
    use tonic::Streaming;
    use tonic::codec::Codec as _;
    use tonic::codegen::Bytes;
    use tonic::codegen::http::StatusCode;
    use tonic_prost::ProstCodec;

    use super::*;
    use crate::proto::google::rpc;
    use crate::proto::steward::inference::v1::StreamClosed;

    /// A stream on which the messages are answered with these, and what was said on it.
    fn stream<const N: usize>(answers: [Answer; N]) -> (AgentStream, Arc<Mutex<Vec<Question>>>) {
        let (outbox, questions) = mpsc::channel(OUTBOX);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (hears, mut answers) = (heard.clone(), answers.into_iter());
        let frames = ReceiverStream::new(questions).map(move |request: StreamRequest| {
            lock(&hears).push(request.message.unwrap());
            let answer = StreamResponse { sequence: request.sequence, message: answers.next() };
            let mut framed = vec![0];
            framed.extend(u32::try_from(answer.encoded_len()).unwrap().to_be_bytes());
            framed.extend(answer.encode_to_vec());
            Ok::<_, Infallible>(Frame::data(Bytes::from(framed)))
        });
        let decoder = ProstCodec::<StreamRequest, StreamResponse>::default().decoder();
        let body = StreamBody::new(frames);
        let answers = Streaming::new_response(decoder, body, StatusCode::OK, None, None);
        let stream = AgentStream {
            exchange: Arc::new(Exchange::new(outbox, answers, sorted, cut)),
            most: Duration::from_secs(10),
            timeout: None,
            taken_out: Arc::default(),
        };
        (stream, heard)
    }

    fn opened(first: u32) -> Answer {
        Answer::Opened(StreamOpened { first, policies: vec!["pole@1".into()], begun: vec![true] })
    }

    fn closed() -> Answer {
        Answer::Closed(StreamClosed {})
    }

    fn refusal() -> Answer {
        let code = Code::ResourceExhausted as i32;
        Answer::Refusal(rpc::Status { code, message: "too many agents".into(), details: vec![] })
    }

    /// The agents that each message was to take out, in their order.
    fn ended(heard: &Mutex<Vec<Question>>) -> Vec<Vec<u32>> {
        let heard = lock(heard);
        let closes = heard.iter().filter_map(|each| match each {
            Question::Close(close) => Some(close.agents.clone()),
            _ => None,
        });
        closes.collect()
    }

    #[tokio::test]
    async fn a_reset_whose_second_half_is_refused_can_be_asked_for_again() {
        let answers = [closed(), refusal(), refusal(), opened(1), closed(), opened(2)];
        let (stream, heard) = stream(answers);
        for _ in 0..2 {
            let refused = stream.reset(0, StreamAgent::default()).await.unwrap_err();
            assert_eq!(refused.kind(), Kind::RateLimited);
        }
        let shared = stream.with_timeout(Duration::from_secs(5));
        assert_eq!(shared.reset(0, StreamAgent::default()).await.unwrap(), 1);
        assert_eq!(stream.reset(1, StreamAgent::default()).await.unwrap(), 2);
        assert_eq!(ended(&heard), [[0], [1]]);
    }

    #[tokio::test]
    async fn an_agent_that_a_refused_reset_took_out_can_be_ended_once() {
        let (stream, heard) = stream([closed(), refusal(), closed(), refusal()]);
        stream.reset(0, StreamAgent::default()).await.unwrap_err();
        stream.end(&[0, 1]).await.unwrap();
        stream.end(&[0]).await.unwrap_err();
        assert_eq!(ended(&heard), [[0], [1], [0]]);
    }

    #[tokio::test]
    async fn a_reset_that_cannot_end_its_agent_brings_none() {
        let (stream, heard) = stream([refusal(), closed(), opened(1)]);
        stream.reset(0, StreamAgent::default()).await.unwrap_err();
        assert_eq!(stream.reset(0, StreamAgent::default()).await.unwrap(), 1);
        assert_eq!(ended(&heard), [[0], [0]]);
    }

    #[tokio::test]
    async fn steps_that_do_not_fit_their_agents_are_refused_by_the_client() {
        let (stream, heard) = stream([]);
        for (agents, observations) in
            [(&[][..], &[][..]), (&[0, 1], &[]), (&[0, 1], &[1.0, 2.0, 3.0]), (&[0, 1], &[1.0])]
        {
            let refused = stream.step_many(agents, observations, true).await.unwrap_err();
            assert_eq!(refused.kind(), Kind::InvalidRequest);
            let values = format!("{} numbers are given for {}", observations.len(), agents.len());
            assert!(refused.message().starts_with(&values), "{refused}");
        }
        assert!(lock(&heard).is_empty());
    }

    #[tokio::test]
    async fn an_answer_without_a_row_for_each_is_a_fault_of_the_servers() {
        let whole = PackedResults {
            actions: vec![0; 8],
            values: vec![0; 8],
            log_probs: vec![0; 8],
            pressures: vec![0; 8],
            failed: vec![],
        };
        let one = vec![0; 4];
        let (stream, _) = stream(
            [
                PackedResults::default(),
                PackedResults { actions: vec![], ..whole.clone() },
                PackedResults { actions: one.clone(), ..whole.clone() },
                PackedResults { log_probs: one.clone(), ..whole.clone() },
                PackedResults { pressures: one.clone(), ..whole.clone() },
                PackedResults { values: one, ..whole.clone() },
                whole.clone(),
                whole,
            ]
            .map(Answer::Packed),
        );
        for agents in [&[0, 1][..], &[], &[], &[], &[], &[0, 1]] {
            let fault = stream.step_many(agents, &[1.0, 2.0], true).await.unwrap_err();
            assert_eq!(fault.kind(), Kind::ServerFault);
            assert!(fault.message().contains("not a row for each"), "{fault}");
        }
        for agents in [&[0, 1][..], &[]] {
            let steps = stream.step_many(agents, &[1.0, 2.0], true).await.unwrap();
            assert_eq!(steps.choices(), [0, 0]);
        }
    }

    #[tokio::test]
    async fn agents_of_which_the_server_tells_too_little_are_not_brought() {
        let (stream, _) = stream([opened(0)]);
        let fault = stream.open(vec![StreamAgent::default(); 2]).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::ServerFault);
    }

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
