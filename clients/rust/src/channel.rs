//! The connection, as generated clients take it: it shows the credential, keeps the deadline,
//! gives requests their identity, and makes a call again where that is right.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Request, Response, header, request};
use tonic::codegen::{Bytes, Service};
use tonic::{Code, Status};

use crate::Error;
use crate::credential::{Credential, Pair};
use crate::method::{Method, delay, identified};
use crate::proto::steward::auth::v1::RefreshRequest;
use crate::proto::steward::auth::v1::auth_service_client::AuthServiceClient;

const TIMEOUT: &str = "grpc-timeout";

/// A connection for generated clients, such as `BudgetServiceClient::new(client.channel())`.
#[derive(Clone, Debug)]
pub struct Channel {
    pub(crate) transport: tonic::transport::Channel,
    pub(crate) credential: Arc<Credential>,
    /// For calls that have no deadline of their own and whose answer is one message.
    pub(crate) timeout: Duration,
    /// How often a call is made at most.
    pub(crate) attempts: u32,
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future =
        Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(())) // each attempt waits until the transport is
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move { Ok(channel.carry(request).await.unwrap_or_else(Status::into_http)) })
    }
}

/// A call that can be made more than once.
struct Call {
    method: Method,
    head: request::Parts,
    body: Bytes,
    deadline: Option<Instant>,
    /// Doing it twice has the effect of doing it once.
    safe: bool,
}

impl Channel {
    async fn carry(&self, request: Request<Body>) -> std::result::Result<Response<Body>, Status> {
        match Method::at(request.uri().path()) {
            Some(method) if !method.streams_requests => {
                let call = self.call_of(method, request).await?;
                let Some(deadline) = call.deadline else {
                    return self.bring(call).await;
                };
                let late = |_| Status::deadline_exceeded("there was no answer in time");
                timeout_at(deadline, self.bring(call)).await.map_err(late)?
            }
            method => {
                let (mut head, body) = request.into_parts();
                if !method.is_some_and(|method| method.public) {
                    let shown = self.shown().await?;
                    show(&mut head, &shown)?;
                }
                self.send(Request::from_parts(head, body)).await
            }
        }
    }

    async fn call_of(
        &self,
        method: Method,
        request: Request<Body>,
    ) -> std::result::Result<Call, Status> {
        let (head, body) = request.into_parts();
        let asked = head.headers.get(TIMEOUT).and_then(|value| read_timeout(value.to_str().ok()?));
        let timeout = asked.or((!method.streams_answers).then_some(self.timeout));
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let body = body.collect().await?.to_bytes();
        let whole = method.request_id.and_then(|field| identified(&body, field));
        let safe = method.reads || whole.is_some();
        Ok(Call { method, head, body: whole.unwrap_or(body), deadline, safe })
    }

    /// Brings a call to its answer, in as many attempts as it may take.
    async fn bring(&self, call: Call) -> std::result::Result<Response<Body>, Status> {
        // A caller who shows something else for one call knows better.
        let shows = !call.method.public && !call.head.headers.contains_key(header::AUTHORIZATION);
        let (mut attempt, mut renewed) = (1, false);
        loop {
            let shown = if shows { self.shown().await? } else { String::new() };
            let status = match self.attempt(&call, &shown).await {
                Ok(response) => return Ok(response),
                Err(status) => status,
            };
            if status.code() == Code::Unauthenticated && !renewed && self.renewed(&shown).await? {
                renewed = true;
                continue;
            }
            let in_time = |wait: &Duration| {
                call.deadline.is_none_or(|deadline| Instant::now() + *wait < deadline)
            };
            let wait = delay(&Error::from(status.clone()), attempt, call.safe).filter(in_time);
            match wait {
                Some(wait) if attempt < self.attempts => sleep(wait).await,
                _ => return Err(status),
            }
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        shown: &str,
    ) -> std::result::Result<Response<Body>, Status> {
        let mut head = call.head.clone();
        show(&mut head, shown)?;
        if let Some(deadline) = call.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            head.headers.insert(TIMEOUT, written_timeout(left));
        }
        let body = Body::new(Full::new(call.body.clone()));
        let response = self.send(Request::from_parts(head, body)).await?;
        if call.method.streams_answers {
            return Ok(response);
        }
        // How a call went stands after its answer.
        let (head, body) = response.into_parts();
        let whole = body.collect().await?;
        match whole.trailers().and_then(Status::from_header_map) {
            Some(status) if status.code() != Code::Ok => Err(status),
            _ => Ok(Response::from_parts(head, Body::new(whole))),
        }
    }

    /// Sends a request, and reads the head of the response; all of it, if that is a refusal.
    async fn send(&self, request: Request<Body>) -> std::result::Result<Response<Body>, Status> {
        let mut transport = self.transport.clone();
        poll_fn(|context| transport.poll_ready(context)).await.map_err(unreached)?;
        let response = transport.call(request).await.map_err(unreached)?;
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != Code::Ok => Err(status),
            _ => Ok(response.map(|body| Body::new(body.map_err(cut)))),
        }
    }

    /// The token to show now; empty for none. A sign-in that is ending is renewed first.
    async fn shown(&self) -> std::result::Result<String, Status> {
        match &*self.credential {
            Credential::Nobody => Ok(String::new()),
            Credential::Token(token) => Ok(token.clone()),
            Credential::SignIn(pair) => {
                let mut pair = pair.lock().await;
                if pair.is_ending(std::time::Instant::now()) {
                    self.renew(&mut pair).await?;
                }
                Ok(pair.access_token.clone())
            }
        }
    }

    /// Gets another token than the one that was shown; false if there is no way to.
    async fn renewed(&self, shown: &str) -> std::result::Result<bool, Status> {
        let Credential::SignIn(pair) = &*self.credential else {
            return Ok(false);
        };
        let mut pair = pair.lock().await;
        if shown.is_empty() || pair.access_token != shown {
            return Ok(!shown.is_empty()); // another call has renewed it meanwhile
        }
        self.renew(&mut pair).await
    }

    /// Exchanges the refresh token, one call at a time: it is good for one.
    async fn renew(&self, pair: &mut Pair) -> std::result::Result<bool, Status> {
        if pair.refresh_token.is_empty() {
            return Ok(false);
        }
        let asked = std::time::Instant::now();
        let nobody = Self { credential: Arc::new(Credential::Nobody), ..self.clone() };
        let request = RefreshRequest { refresh_token: pair.refresh_token.clone() };
        match AuthServiceClient::new(nobody).refresh(request).await {
            Ok(answer) => *pair = Pair::of_refresh(answer.into_inner(), asked),
            Err(status) if status.code() == Code::Unauthenticated => {
                pair.refresh_token.clear();
                return Ok(false);
            }
            Err(status) => return Err(status),
        }
        Ok(true)
    }
}

fn show(head: &mut request::Parts, token: &str) -> std::result::Result<(), Status> {
    if token.is_empty() || head.headers.contains_key(header::AUTHORIZATION) {
        return Ok(());
    }
    let wrong = |_| Status::invalid_argument("the credential has characters that no header has");
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(wrong)?;
    value.set_sensitive(true);
    head.headers.insert(header::AUTHORIZATION, value);
    Ok(())
}

/// What it means that there was no response.
pub(crate) fn unreached(error: tonic::transport::Error) -> Status {
    let (mut causes, mut cause) = (error.to_string(), error.source());
    let mut late = false;
    while let Some(each) = cause {
        causes = format!("{causes}: {each}");
        late |= each.is::<tonic::TimeoutExpired>();
        cause = each.source();
    }
    if late {
        return Status::deadline_exceeded("there was no answer in time");
    }
    match Status::from_error(error.into()) {
        status if matches!(status.code(), Code::Unknown | Code::Unavailable) => {
            Status::unavailable(format!("the server cannot be reached: {causes}"))
        }
        status => status,
    }
}

/// What it means that the rest of a response cannot be read. A server's own word on how a call went
/// is no such error: that is part of the response.
fn cut(error: Status) -> Status {
    match error.code() {
        Code::Unknown => Status::unavailable(format!("the connection is cut: {}", error.message())),
        _ => error,
    }
}

/// Reads a timeout as gRPC writes it: up to eight digits and a unit.
fn read_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

fn written_timeout(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999; // eight digits
    let text = match (timeout.as_micros(), timeout.as_millis()) {
        (micros, _) if micros <= MOST => format!("{micros}u"),
        (_, millis) if millis <= MOST => format!("{millis}m"),
        _ => format!("{}S", timeout.as_secs().min(99_999_999)),
    };
    HeaderValue::try_from(text).expect("digits and a letter are a header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_connection_that_is_cut_is_unavailability() {
        let error = Error::from(cut(Status::unknown("error reading a body from connection")));
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.message().contains("reading a body"));
        assert_eq!(cut(Status::resource_exhausted("calm down")).code(), Code::ResourceExhausted);
    }

    #[test]
    fn a_timeout_is_read_as_it_was_written() {
        for seconds in [0, 1, 99, 100, 100_000] {
            let timeout = Duration::from_secs(seconds);
            let written = written_timeout(timeout);
            assert_eq!(read_timeout(written.to_str().unwrap()), Some(timeout));
        }
    }

    #[test]
    fn what_is_no_timeout_is_none() {
        for text in ["", "5", "m", "5x", "123456789m", "-1S", "5\u{b5}"] {
            assert_eq!(read_timeout(text), None, "{text:?}");
        }
    }
}
