//! What a client shows to say who calls, and how it is renewed before it ends.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::proto::steward::auth::v1::{LoginResponse, RefreshResponse};

/// An access token with less than this left is renewed before a call.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// Who calls.
pub(crate) enum Credential {
    Nobody,
    /// An access token, an API key, or an agent's IC token.
    Token(String),
    SignIn(Mutex<Pair>),
}

/// A sign-in's tokens: one to show, one to get the next pair with.
pub(crate) struct Pair {
    pub access_token: String,
    pub refresh_token: String,
    /// By this machine's steady clock, counted from before the tokens were asked for.
    ends: Instant,
}

impl Pair {
    pub fn of_login(answer: LoginResponse, asked: Instant) -> Self {
        Self::new(answer.access_token, answer.refresh_token, answer.expires_in, asked)
    }

    pub fn of_refresh(answer: RefreshResponse, asked: Instant) -> Self {
        Self::new(answer.access_token, answer.refresh_token, answer.expires_in, asked)
    }

    fn new(access_token: String, refresh_token: String, lasts_s: i32, asked: Instant) -> Self {
        let lasts = Duration::from_secs(u64::try_from(lasts_s).unwrap_or_default());
        Self { access_token, refresh_token, ends: asked + lasts }
    }

    pub fn is_ending(&self, now: Instant) -> bool {
        now + RENEW_BEFORE >= self.ends
    }
}

impl fmt::Debug for Credential {
    /// Says what it is, and nothing that it is made of.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Token(_) => "Token",
            Self::SignIn(_) => "SignIn",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_is_renewed_a_moment_before_it_ends() {
        let asked = Instant::now();
        let answer = LoginResponse { expires_in: 60, ..Default::default() };
        let pair = Pair::of_login(answer, asked);
        assert!(!pair.is_ending(asked + Duration::from_secs(29)));
        assert!(pair.is_ending(asked + Duration::from_secs(30)));
    }

    #[test]
    fn a_credential_is_not_printed() {
        let token = Credential::Token("ic_secret".into());
        assert_eq!(format!("{token:?}"), "Token");
    }
}
