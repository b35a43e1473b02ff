//! What a server can refuse.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};

use crate::proto::google::rpc;
use crate::proto::steward::gateway::v1::TextErrors;

/// Of what kind a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// No credential, or one that is unknown, expired or revoked.
    Unauthorized,
    /// The credential is good and may not do this.
    Forbidden,
    /// No such thing, or none the caller may see.
    NotFound,
    /// A value is wrong; [`Error::fields`] says which and why.
    InvalidRequest,
    /// The thing exists already, or is in a state that does not allow this.
    Conflict,
    /// The agent was told to stop and is lent nothing until it is started. Is a conflict.
    AgentStopped,
    /// Nothing is left to lend, or less than was needed.
    BudgetExceeded,
    /// Too many calls; [`Error::retry_after`] says when to try again.
    RateLimited,
    /// Something behind the server keeps failing and is not asked now.
    CircuitOpen,
    /// The server cannot be reached, or does not serve now.
    Unavailable,
    /// A stream of agents is cut: what the server kept of them may be lost. Is unavailability.
    StreamBroken,
    /// No answer in time; what was asked may have been done all the same.
    DeadlineExceeded,
    /// A fault of the server's.
    ServerFault,
}

impl Kind {
    fn of(reason: &str, code: Code) -> Self {
        match (reason, code) {
            ("BUDGET_EXCEEDED" | "LIMIT_COST_PER_MONTH", _) => Self::BudgetExceeded,
            ("RATE_LIMITED" | "ACCOUNT_LOCKED", _) => Self::RateLimited,
            ("CIRCUIT_OPEN", _) => Self::CircuitOpen,
            ("AGENT_STOPPED", _) => Self::AgentStopped,
            (_, Code::Unauthenticated) => Self::Unauthorized,
            (_, Code::PermissionDenied) => Self::Forbidden,
            (_, Code::NotFound) => Self::NotFound,
            (_, Code::InvalidArgument | Code::OutOfRange) => Self::InvalidRequest,
            (_, Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted) => Self::Conflict,
            (_, Code::ResourceExhausted) => Self::RateLimited,
            (_, Code::Unavailable | Code::Cancelled) => Self::Unavailable,
            (_, Code::DeadlineExceeded) => Self::DeadlineExceeded,
            _ => Self::ServerFault,
        }
    }

    /// The reason of a refusal for which the server gave none.
    fn default_reason(self) -> &'static str {
        match self {
            Self::Unauthorized => "UNAUTHENTICATED",
            Self::Forbidden => "PERMISSION_DENIED",
            Self::NotFound => "NOT_FOUND",
            Self::InvalidRequest => "VALIDATION_ERROR",
            Self::Conflict => "CONFLICT",
            Self::AgentStopped => "AGENT_STOPPED",
            Self::BudgetExceeded => "BUDGET_EXCEEDED",
            Self::RateLimited => "RATE_LIMITED",
            Self::CircuitOpen => "CIRCUIT_OPEN",
            Self::Unavailable => "UNAVAILABLE",
            Self::StreamBroken => "STREAM_BROKEN",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::ServerFault => "INTERNAL_ERROR",
        }
    }
}

/// Something wrong in a text, such as a playbook's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// Counted from 1, as is the column; in characters.
    pub line: i32,
    pub column: i32,
    /// Of the text, where it has a place.
    pub path: String,
    pub message: String,
}

/// A refusal. The reason is stable and made for programs, the message for people.
#[derive(Clone, Debug)]
pub struct Error(Box<Refusal>);

#[derive(Clone, Debug)]
struct Refusal {
    kind: Kind,
    code: Code,
    reason: String,
    message: String,
    facts: BTreeMap<String, String>,
    fields: BTreeMap<String, String>,
    retry_after: Option<Duration>,
    errors: Vec<TextError>,
    cause: Option<Error>,
}

/// What clients answer with.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn local(kind: Kind, code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Refusal {
            kind,
            code,
            reason: kind.default_reason().into(),
            message: message.into(),
            facts: BTreeMap::new(),
            fields: BTreeMap::new(),
            retry_after: None,
            errors: Vec::new(),
            cause: None,
        }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::local(Kind::InvalidRequest, Code::InvalidArgument, message)
    }

    /// Of whoever waits on a stream of agents that is cut; what cut it is the source.
    pub(crate) fn stream_broken(cut: Self) -> Self {
        let message = format!(
            "the stream is cut ({cut}): steps under way may have been made, and what the policy \
             kept of the agents may be lost"
        );
        let mut error = Self::local(Kind::StreamBroken, Code::Unavailable, message);
        error.0.facts = cut.0.facts.clone();
        error.0.cause = Some(cut);
        error
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether it is of a kind; an agent that was stopped is a conflict, too, and a broken stream
    /// is unavailable.
    pub fn is(&self, kind: Kind) -> bool {
        self.0.kind == kind
            || matches!(
                (self.0.kind, kind),
                (Kind::AgentStopped, Kind::Conflict) | (Kind::StreamBroken, Kind::Unavailable)
            )
    }

    pub fn code(&self) -> Code {
        self.0.code
    }

    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the refusal is about, by name.
    pub fn facts(&self) -> &BTreeMap<String, String> {
        &self.0.facts
    }

    /// Which fields of the request are wrong, and why.
    pub fn fields(&self) -> &BTreeMap<String, String> {
        &self.0.fields
    }

    /// When to try again; none if the server did not say.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What is wrong with a text that was sent, or asked for.
    pub fn errors(&self) -> &[TextError] {
        &self.0.errors
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.0.message, self.0.reason)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|cause| cause as _)
    }
}

impl From<Status> for Error {
    /// The error of a failed call.
    fn from(status: Status) -> Self {
        // A proxy on the way may add details that are none: the status itself is good still.
        match rpc::Status::decode(status.details()) {
            Ok(whole) if !whole.details.is_empty() => whole.into(),
            _ => refusal(status.code(), status.message(), &[]),
        }
    }
}

impl From<rpc::Status> for Error {
    /// The error of a refusal that travels inside a stream.
    fn from(status: rpc::Status) -> Self {
        refusal(Code::from_i32(status.code), &status.message, &status.details)
    }
}

fn refusal(code: Code, message: &str, details: &[prost_types::Any]) -> Error {
    let info: rpc::ErrorInfo = detail(details, "google.rpc.ErrorInfo").unwrap_or_default();
    let bad: rpc::BadRequest = detail(details, "google.rpc.BadRequest").unwrap_or_default();
    let retry: Option<rpc::RetryInfo> = detail(details, "google.rpc.RetryInfo");
    let texts: TextErrors = detail(details, "steward.gateway.v1.TextErrors").unwrap_or_default();
    let kind = Kind::of(&info.reason, code);
    let mut error = Error::local(kind, code, message);
    if !info.reason.is_empty() {
        error.0.reason = info.reason;
    }
    error.0.facts = info.metadata;
    let violations = bad.field_violations.into_iter();
    error.0.fields = violations.map(|each| (each.field, each.description)).collect();
    error.0.retry_after = retry.map(|info| {
        let delay = info.retry_delay.unwrap_or_default();
        Duration::try_from(delay).unwrap_or_default() // below zero: at once
    });
    let each = |each: crate::proto::steward::gateway::v1::TextError| TextError {
        line: each.line,
        column: each.column,
        path: each.path,
        message: each.message,
    };
    error.0.errors = texts.errors.into_iter().map(each).collect();
    error
}

fn detail<M: prost::Message + Default>(details: &[prost_types::Any], name: &str) -> Option<M> {
    let found = details.iter().find(|each| each.type_url.rsplit('/').next() == Some(name))?;
    M::decode(found.value.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any<M: prost::Message>(name: &str, message: &M) -> prost_types::Any {
        prost_types::Any {
            type_url: format!("type.googleapis.com/{name}"),
            value: message.encode_to_vec(),
        }
    }

    fn status(code: Code, details: Vec<prost_types::Any>) -> rpc::Status {
        rpc::Status { code: code as i32, message: "no".into(), details }
    }

    fn info(reason: &str) -> prost_types::Any {
        let metadata = BTreeMap::from([("agent".to_string(), "agent_7".to_string())]);
        let info = rpc::ErrorInfo { reason: reason.into(), metadata, ..Default::default() };
        any("google.rpc.ErrorInfo", &info)
    }

    #[test]
    fn a_reason_says_more_than_its_code() {
        let error = Error::from(status(Code::ResourceExhausted, vec![info("BUDGET_EXCEEDED")]));
        assert_eq!(error.kind(), Kind::BudgetExceeded);
        assert_eq!(error.reason(), "BUDGET_EXCEEDED");
        assert_eq!(error.facts()["agent"], "agent_7");
        assert_eq!(error.to_string(), "no (BUDGET_EXCEEDED)");
    }

    #[test]
    fn a_refusal_without_details_has_the_reason_of_its_kind() {
        let error = Error::from(Status::new(Code::OutOfRange, "too far"));
        assert_eq!((error.kind(), error.reason()), (Kind::InvalidRequest, "VALIDATION_ERROR"));
        assert_eq!((error.message(), error.retry_after()), ("too far", None));
    }

    #[test]
    fn details_that_cannot_be_read_leave_the_code_and_the_message() {
        let status = Status::with_details(Code::NotFound, "gone", vec![0xff; 3].into());
        let error = Error::from(status);
        assert_eq!((error.kind(), error.message()), (Kind::NotFound, "gone"));
    }

    #[test]
    fn wrong_fields_and_the_wish_to_wait_are_read() {
        let violation = rpc::bad_request::FieldViolation {
            field: "name".into(),
            description: "is empty".into(),
            ..Default::default()
        };
        let bad = rpc::BadRequest { field_violations: vec![violation] };
        let delay = prost_types::Duration { seconds: 1, nanos: 500_000_000 };
        let retry = rpc::RetryInfo { retry_delay: Some(delay) };
        let details = vec![any("google.rpc.BadRequest", &bad), any("google.rpc.RetryInfo", &retry)];
        let error = Error::from(status(Code::Unavailable, details));
        assert_eq!(error.fields()["name"], "is empty");
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_stopped_agent_is_a_conflict() {
        let error = Error::from(status(Code::FailedPrecondition, vec![info("AGENT_STOPPED")]));
        assert_eq!(error.kind(), Kind::AgentStopped);
        assert!(error.is(Kind::Conflict) && !error.is(Kind::Unavailable));
    }

    #[test]
    fn a_stream_that_breaks_says_what_broke_it() {
        use std::error::Error as _;
        let cut = Error::from(status(Code::Unauthenticated, vec![info("TOKEN_REVOKED")]));
        let error = Error::stream_broken(cut);
        assert!(error.is(Kind::StreamBroken) && error.is(Kind::Unavailable));
        assert!(error.message().contains("no (TOKEN_REVOKED)"), "{error}");
        assert_eq!(error.facts()["agent"], "agent_7");
        let cut: &Error = error.source().unwrap().downcast_ref().unwrap();
        assert_eq!((cut.kind(), cut.reason()), (Kind::Unauthorized, "TOKEN_REVOKED"));
    }
}
