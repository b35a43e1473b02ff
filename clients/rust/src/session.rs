//! An agent's session: leases over one stream, and what the server says by itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::channel::Channel;
use crate::exchange::{Exchange, Incoming, OUTBOX, opened, unknown};
use crate::proto::steward::budget::v1::budget_service_client::BudgetServiceClient;
use crate::proto::steward::budget::v1::session_request::Message as Question;
use crate::proto::steward::budget::v1::session_response::Message as Answer;
use crate::proto::steward::budget::v1::{
    Allotment, HandshakeRequest, HandshakeResponse, LeaseResumed, RefreshRequest, RefreshResponse,
    ReportAck, ReportBatch, ResumeLease, ReturnRequest, ReturnResponse, SessionHeartbeat,
    SessionRequest, SessionResponse, TakeAllotment, Usage,
};
use crate::{Error, Kind, Result};

/// Money for one agent over one stream. Many tasks may share it; the stream is closed when the last
/// clone is dropped.
///
/// What is refused is an error of the call that asked, and the session goes on.
#[derive(Clone)]
pub struct Session {
    exchange: Arc<Exchange<SessionRequest, Answer>>,
    timeout: Duration,
}

/// What the server says by itself, in its order: stop, revocation, a changed budget. A stream, which
/// ends with the session.
pub struct Pushes(mpsc::UnboundedReceiver<Answer>);

impl Session {
    pub(crate) async fn open(channel: Channel) -> Result<(Self, Pushes)> {
        let (outbox, questions) = mpsc::channel(OUTBOX);
        let (pushed, pushes) = mpsc::unbounded_channel();
        let timeout = channel.timeout;
        let mut ledger = BudgetServiceClient::new(channel);
        let answers = opened(timeout, ledger.session(ReceiverStream::new(questions))).await?;
        let sort = move |response: SessionResponse| {
            let incoming = sorted(response);
            if let Some(Incoming { number: 0, answer: Ok(message), .. }) = incoming {
                let _ = pushed.send(message); // else nobody wants to know
                return None;
            }
            incoming
        };
        let exchange = Arc::new(Exchange::new(outbox, answers, sort, |end, _| end));
        Ok((Self { exchange, timeout }, Pushes(pushes)))
    }

    /// Opens a lease.
    pub async fn handshake(&self, request: HandshakeRequest) -> Result<HandshakeResponse> {
        match self.ask(Question::Handshake(request)).await? {
            Answer::Handshake(answer) => Ok(answer),
            other => Err(unfitting(&other)),
        }
    }

    /// Books what calls used. Usages that are refused are in the answer.
    pub async fn report(&self, lease_id: &str, usages: Vec<Usage>) -> Result<ReportAck> {
        let batch = ReportBatch { lease_id: lease_id.into(), usages };
        match self.ask(Question::ReportBatch(batch)).await? {
            Answer::ReportAck(answer) => Ok(answer),
            other => Err(unfitting(&other)),
        }
    }

    /// Asks for more money and time. A denial is an answer, not an error.
    pub async fn refresh(&self, request: RefreshRequest) -> Result<RefreshResponse> {
        match self.ask(Question::Refresh(request)).await? {
            Answer::Refresh(answer) => Ok(answer),
            other => Err(unfitting(&other)),
        }
    }

    /// Closes a lease, and gives back what it has left.
    pub async fn return_lease(&self, request: ReturnRequest) -> Result<ReturnResponse> {
        match self.ask(Question::ReturnLease(request)).await? {
            Answer::ReturnLease(answer) => Ok(answer),
            other => Err(unfitting(&other)),
        }
    }

    /// Proves that the runtime lives; without, a lease runs out.
    pub async fn heartbeat(&self) -> Result<()> {
        match self.ask(Question::Heartbeat(SessionHeartbeat {})).await? {
            Answer::Heartbeat(_) => Ok(()),
            other => Err(unfitting(&other)),
        }
    }

    /// Goes on with a lease that was taken before, after the stream was cut.
    pub async fn resume_lease(&self, lease_id: &str) -> Result<LeaseResumed> {
        match self.ask(Question::ResumeLease(ResumeLease { lease_id: lease_id.into() })).await? {
            Answer::LeaseResumed(answer) => Ok(answer),
            other => Err(unfitting(&other)),
        }
    }

    /// Takes a new share of the limits, or asks for more of it.
    pub async fn take_allotment(&self, request: TakeAllotment) -> Result<Allotment> {
        match self.ask(Question::TakeAllotment(request)).await? {
            Answer::Allotment(answer) => Ok(answer),
            other => Err(unfitting(&other)),
        }
    }

    /// Ends the session, for all who share it, and returns when the server has let go of it.
    pub async fn close(&self) {
        self.exchange.close().await;
    }

    /// Sends any message, such as an event, and waits for its answer as long as a call may take.
    pub async fn ask(&self, message: Question) -> Result<Answer> {
        let lease = match &message {
            Question::ReportBatch(batch) => Some(batch.lease_id.clone()),
            _ => None,
        };
        let numbered = |number| SessionRequest {
            message_id: i64::try_from(number).expect("nobody sends so many"),
            message: Some(message),
        };
        self.exchange.ask(lease, self.timeout, numbered).await
    }
}

impl Pushes {
    /// The next one; none when the session has ended.
    pub async fn next(&mut self) -> Option<Answer> {
        self.0.recv().await
    }
}

impl Stream for Pushes {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        self.0.poll_recv(context)
    }
}

fn sorted(response: SessionResponse) -> Option<Incoming<Answer>> {
    let number = u64::try_from(response.in_reply_to).ok()?;
    let Some(message) = response.message else {
        // Said by itself it concerns later versions only, but whoever asked must not wait on.
        return (number > 0).then(|| Incoming { number, group: None, answer: Err(unknown()) });
    };
    // Batches that were booked together are answered once, with the number of the last.
    let group = match &message {
        Answer::ReportAck(ack) => Some(ack.lease_id.clone()),
        _ => None,
    };
    let answer = match message {
        Answer::Refusal(status) if number > 0 => Err(status.into()),
        message => Ok(message),
    };
    Some(Incoming { number, group, answer })
}

fn unfitting(answer: &Answer) -> Error {
    let message = format!("the server answered something else than it was asked: {answer:.80?}");
    Error::local(Kind::ServerFault, Code::Internal, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_unknown_is_a_fault_for_whoever_asked() {
        let answer = |in_reply_to| SessionResponse { in_reply_to, ..Default::default() };
        let incoming = sorted(answer(7)).unwrap();
        assert_eq!(incoming.number, 7);
        assert_eq!(incoming.answer.unwrap_err().kind(), Kind::ServerFault);
        assert!(sorted(answer(0)).is_none());
    }
}
