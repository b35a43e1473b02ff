//! What the contracts say of each method, and what follows for trying again.

use std::time::Duration;

use tonic::Code;
use tonic::codegen::Bytes;

use crate::Error;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// A flag that says whether it is compressed and four bytes of length come before each message.
const PREFIX_BYTES: usize = 5;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Method {
    /// It is a GET over HTTP: it changes nothing.
    pub reads: bool,
    /// The number of the field of its request with an identity that repeats do not execute again.
    pub request_id: Option<u32>,
    /// No credential is shown.
    pub public: bool,
    pub streams_requests: bool,
    pub streams_answers: bool,
}

include!(concat!(env!("OUT_DIR"), "/methods.rs"));

impl Method {
    /// Looks a method up by its path, `/package.Service/Method`.
    pub fn at(path: &str) -> Option<Self> {
        let found = METHODS.binary_search_by(|(known, _)| (*known).cmp(path)).ok()?;
        Some(METHODS[found].1)
    }
}

/// How long to wait after a refusal before the call is made again; none: it is not.
///
/// `attempt` counts from 1. A refusal that says when to come back has done nothing; another one is
/// tried again where that is `safe`.
pub(crate) fn delay(error: &Error, attempt: u32, safe: bool) -> Option<Duration> {
    match (error.code(), error.retry_after()) {
        (Code::ResourceExhausted | Code::Unavailable, Some(delay)) => Some(delay),
        (Code::Unavailable, None) if safe => {
            let longest = LONGEST_DELAY.min(FIRST_DELAY * 2_u32.saturating_pow(attempt - 1));
            Some(longest.mul_f64(fastrand::f64()))
        }
        _ => None,
    }
}

/// A request that has an identity: its own, or else a new one.
///
/// None if it cannot be read, such as where it is compressed.
pub(crate) fn identified(request: &Bytes, field: u32) -> Option<Bytes> {
    let message = request.get(PREFIX_BYTES..)?;
    if request[0] != 0 {
        return None;
    }
    if has_text(message, field)? {
        return Some(request.clone());
    }
    // What follows a message and has the shape of one is merged into it.
    let mut whole = message.to_vec();
    prost::encoding::string::encode(field, &uuid::Uuid::new_v4().to_string(), &mut whole);
    let mut framed = vec![0];
    framed.extend(u32::try_from(whole.len()).ok()?.to_be_bytes());
    framed.append(&mut whole);
    Some(framed.into())
}

/// Whether a text that is not empty is in a message.
fn has_text(mut message: &[u8], field: u32) -> Option<bool> {
    use prost::encoding::{DecodeContext, WireType, decode_key, skip_field, string};
    let mut text = String::new();
    while !message.is_empty() {
        let (tag, wire_type) = decode_key(&mut message).ok()?;
        if tag == field && wire_type == WireType::LengthDelimited {
            string::merge(wire_type, &mut text, &mut message, DecodeContext::default()).ok()?;
        } else {
            skip_field(wire_type, tag, &mut message, DecodeContext::default()).ok()?;
        }
    }
    Some(!text.is_empty())
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tonic::Status;

    use super::*;
    use crate::proto::google::rpc;
    use crate::proto::steward::budget::v1::HandshakeRequest;

    fn error(code: Code) -> Error {
        Status::new(code, "no").into()
    }

    fn error_with_delay(code: Code, delay: Duration) -> Error {
        let info = rpc::RetryInfo { retry_delay: Some(delay.try_into().unwrap()) };
        let type_url = "type.googleapis.com/google.rpc.RetryInfo".into();
        let details = vec![prost_types::Any { type_url, value: info.encode_to_vec() }];
        rpc::Status { code: code as i32, message: "later".into(), details }.into()
    }

    fn framed(message: &HandshakeRequest) -> Bytes {
        let encoded = message.encode_to_vec();
        let mut framed = vec![0];
        framed.extend(u32::try_from(encoded.len()).unwrap().to_be_bytes());
        framed.extend(encoded);
        framed.into()
    }

    fn unframed(request: &Bytes) -> HandshakeRequest {
        let length = u32::from_be_bytes(request[1..5].try_into().unwrap());
        assert_eq!(length as usize, request.len() - 5);
        HandshakeRequest::decode(&request[5..]).unwrap()
    }

    #[test]
    fn the_contracts_say_what_is_safe_to_repeat() {
        let me = Method::at("/steward.auth.v1.AuthService/GetMe").unwrap();
        assert!(me.reads && !me.public && me.request_id.is_none());
        let handshake = Method::at("/steward.budget.v1.BudgetService/Handshake").unwrap();
        assert_eq!((handshake.reads, handshake.request_id), (false, Some(8)));
        let session = Method::at("/steward.budget.v1.BudgetService/Session").unwrap();
        assert!(session.streams_requests && session.streams_answers);
        assert!(Method::at("/steward.auth.v1.AuthService/Login").unwrap().public);
        assert!(Method::at("/steward.auth.v1.AuthService/Dance").is_none());
    }

    #[test]
    fn a_wish_to_wait_is_kept_whatever_the_call_does() {
        let wish = Duration::from_millis(300);
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            assert_eq!(delay(&error_with_delay(code, wish), 1, false), Some(wish));
        }
        assert_eq!(delay(&error_with_delay(Code::Aborted, wish), 1, true), None);
    }

    #[test]
    fn a_server_that_is_away_is_tried_again_where_that_is_safe() {
        assert_eq!(delay(&error(Code::Unavailable), 1, false), None);
        assert!(delay(&error(Code::Unavailable), 1, true).unwrap() <= FIRST_DELAY);
        assert!(delay(&error(Code::Unavailable), 40, true).unwrap() <= LONGEST_DELAY);
    }

    #[test]
    fn nothing_else_is_tried_again() {
        for code in [Code::ResourceExhausted, Code::Internal, Code::Aborted, Code::NotFound] {
            assert_eq!(delay(&error(code), 1, true), None);
        }
    }

    #[test]
    fn a_request_without_an_identity_gets_one_and_keeps_the_rest() {
        let request = HandshakeRequest { provider: "openai".into(), ..Default::default() };
        let first = unframed(&identified(&framed(&request), 8).unwrap());
        let second = unframed(&identified(&framed(&request), 8).unwrap());
        assert_eq!(first.provider, "openai");
        assert_eq!(first.request_id.len(), 36);
        assert_ne!(first.request_id, second.request_id);
    }

    #[test]
    fn a_request_with_an_identity_keeps_it() {
        let request = HandshakeRequest { request_id: "lease-1".into(), ..Default::default() };
        assert_eq!(unframed(&identified(&framed(&request), 8).unwrap()), request);
    }

    #[test]
    fn a_request_that_is_compressed_is_left_alone() {
        assert_eq!(identified(&Bytes::from_static(&[1, 0, 0, 0, 1, 7]), 8), None);
    }
}
