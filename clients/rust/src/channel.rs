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
use tokio::sync::OwnedMutexGuard;
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

/// May be made again: for ten seconds a token that is spent gives its successor once more.
const REFRESH: &str = "/steward.auth.v1.AuthService/Refresh";
/// How long a renewal may take, with all its attempts; calls wait for it.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

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
                    show(&mut head, &self.shown(true).await)?;
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
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let body = body.collect().await?.to_bytes();
        let whole = method.request_id.and_then(|field| identified(&body, field));
        let safe = method.reads || whole.is_some() || head.uri.path() == REFRESH;
        Ok(Call { method, head, body: whole.unwrap_or(body), deadline, safe })
    }

    /// Brings a call to its answer, in as many attempts as it may take.
    async fn bring(&self, call: Call) -> std::result::Result<Response<Body>, Status> {
        // A caller who shows something else for one call knows better.
        let shows = !call.method.public && !call.head.headers.contains_key(header::AUTHORIZATION);
        let (mut attempt, mut renewed) = (1, false);
        loop {
            let shown =
                if shows { self.shown(call.method.streams_answers).await } else { String::new() };
            let status = match self.attempt(&call, &shown).await {
                Ok(response) => return Ok(response),
                Err(status) => status,
            };
            if status.code() == Code::Unauthenticated && !renewed && self.renewed(&shown).await? {
                renewed = true;
                continue;
            }
            let in_time = |wait: &Duration| {
                let then = Instant::now().checked_add(*wait);
                call.deadline.is_none_or(|deadline| then.is_some_and(|then| then < deadline))
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
    async fn shown(&self, for_stream: bool) -> String {
        let pair = match &*self.credential {
            Credential::Nobody => return String::new(),
            Credential::Token(token) => return token.clone(),
            Credential::SignIn(pair) => pair,
        };
        let came = std::time::Instant::now();
        let held = pair.clone().lock_owned().await;
        if !held.is_ending(came, for_stream) || held.failed_since(came) {
            return held.access_token.clone();
        }
        // Where that fails, the token there is may still be good; else the call will tell.
        let _ = self.renew(held).await;
        pair.lock().await.access_token.clone()
    }

    /// Gets another token than the one that was shown; false if there is no way to.
    async fn renewed(&self, shown: &str) -> std::result::Result<bool, Status> {
        let Credential::SignIn(pair) = &*self.credential else {
            return Ok(false);
        };
        let pair = pair.clone().lock_owned().await;
        if shown.is_empty() {
            return Ok(false);
        }
        if pair.access_token != shown {
            return Ok(!pair.access_token.is_empty()); // another call has renewed it meanwhile
        }
        self.renew(pair).await
    }

    /// Renews a sign-in, one call at a time. Goes on when whoever needed it waits no longer: the
    /// server may have spent the refresh token.
    async fn renew(&self, pair: OwnedMutexGuard<Pair>) -> std::result::Result<bool, Status> {
        if pair.refresh_token.is_empty() {
            return Ok(false);
        }
        let nobody = Self {
            credential: Arc::new(Credential::Nobody),
            timeout: self.timeout.min(REFRESH_TIMEOUT),
            ..self.clone()
        };
        let broken_off = |error| Status::internal(format!("a renewal broke off: {error}"));
        tokio::spawn(nobody.exchange(pair)).await.map_err(broken_off)?
    }

    /// Exchanges the refresh token for the next pair; false if it is not taken.
    async fn exchange(self, mut pair: OwnedMutexGuard<Pair>) -> std::result::Result<bool, Status> {
        let asked = std::time::Instant::now();
        let request = RefreshRequest { refresh_token: pair.refresh_token.clone() };
        match AuthServiceClient::new(self).refresh(request).await {
            Ok(answer) => *pair = Pair::of_refresh(answer.into_inner(), asked),
            Err(status) if status.code() == Code::Unauthenticated => {
                pair.refresh_token.clear();
                return Ok(false);
            }
            Err(status) => {
                pair.note_failure();
                return Err(status);
            }
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
        status if is_cut(status.code()) => {
            Status::unavailable(format!("the server cannot be reached: {causes}"))
        }
        status => status,
    }
}

/// What it means that the rest of a response cannot be read. A server's own word on how a call went
/// is no such error: that is part of the response.
fn cut(error: Status) -> Status {
    if is_cut(error.code()) {
        return Status::unavailable(format!("the connection is cut: {}", error.message()));
    }
    error
}

/// Codes that the transport gives, by itself, to a connection that ends amid a call.
fn is_cut(code: Code) -> bool {
    matches!(code, Code::Unknown | Code::Unavailable | Code::Cancelled)
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
    use tokio::net::TcpListener;
    use tokio::sync::Mutex;
    use tokio::time::timeout;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::Kind;
    use crate::proto::steward::auth::v1::LoginResponse;

    /// Of somebody whose sign-in is ending, at a server that accepts and says nothing.
    async fn ending() -> (Channel, Arc<Mutex<Pair>>, TcpListener) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", server.local_addr().unwrap());
        let answer = LoginResponse {
            access_token: "access".into(),
            refresh_token: "refresh".into(),
            expires_in: 0,
            ..Default::default()
        };
        let pair = Arc::new(Mutex::new(Pair::of_login(&answer, std::time::Instant::now())));
        let channel = Channel {
            transport: Endpoint::from_shared(address).unwrap().connect_lazy(),
            credential: Arc::new(Credential::SignIn(pair.clone())),
            timeout: Duration::from_secs(30),
            attempts: 1,
        };
        (channel, pair, server)
    }

    #[tokio::test]
    async fn a_refresh_may_be_made_again_and_a_login_may_not() {
        let (channel, ..) = ending().await;
        for (path, safe) in [(REFRESH, true), ("/steward.auth.v1.AuthService/Login", false)] {
            let request = Request::post(path).body(Body::empty()).unwrap();
            let call = channel.call_of(Method::at(path).unwrap(), request).await.unwrap();
            assert_eq!(call.safe, safe, "{path}");
        }
    }

    #[tokio::test]
    async fn a_renewal_that_fails_leaves_the_token_there_is() {
        let (channel, pair, server) = ending().await;
        drop(server);
        let came = std::time::Instant::now();
        assert_eq!(channel.shown(false).await, "access");
        let pair = pair.lock().await;
        assert!(pair.failed_since(came));
        assert_eq!(pair.refresh_token, "refresh");
    }

    #[tokio::test]
    async fn a_renewal_goes_on_when_whoever_needed_it_waits_no_longer() {
        let (channel, pair, server) = ending().await;
        let came = std::time::Instant::now();
        timeout(Duration::from_millis(100), channel.shown(false)).await.unwrap_err();
        assert!(pair.try_lock().is_err());
        drop(server); // now it fails
        assert!(pair.lock().await.failed_since(came));
    }

    #[test]
    fn a_connection_that_is_cut_is_unavailability() {
        for status in [Status::unknown("connection closed"), Status::cancelled("connection closed")]
        {
            let error = Error::from(cut(status));
            assert_eq!((error.kind(), error.code()), (Kind::Unavailable, Code::Unavailable));
            assert!(error.message().contains("connection closed"));
        }
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
