//! What a client shows to say who calls, and how it is renewed before it ends.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::proto::steward::auth::v1::{LoginResponse, RefreshResponse};

/// An access token with less than this left may have ended when a call arrives.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// Who calls.
pub(crate) enum Credential {
    Nobody,
    /// An access token, an API key, or an agent's IC token.
    Token(String),
    /// Locked while it is renewed.
    SignIn(Arc<Mutex<Pair>>),
}

/// A sign-in's tokens: one to show, one to get the next pair with.
pub(crate) struct Pair {
    pub access_token: String,
    pub refresh_token: String,
    /// By this machine's steady clock: before the tokens were asked for.
    asked: Instant,
    lasts: Duration,
    /// When a renewal failed last.
    failed: Option<Instant>,
}

impl Pair {
    pub fn of_login(answer: &LoginResponse, asked: Instant) -> Self {
        let (access, refresh) = (&answer.access_token, &answer.refresh_token);
        Self::new(access.clone(), refresh.clone(), answer.expires_in, asked)
    }

    pub fn of_refresh(answer: RefreshResponse, asked: Instant) -> Self {
        Self::new(answer.access_token, answer.refresh_token, answer.expires_in, asked)
    }

    fn new(access_token: String, refresh_token: String, lasts_s: i32, asked: Instant) -> Self {
        let lasts = Duration::from_secs(u64::try_from(lasts_s).unwrap_or_default());
        Self { access_token, refresh_token, asked, lasts, failed: None }
    }

    /// Whether it is to be renewed first. Never before half of its time, or one that lasts shortly
    /// would be renewed by every call. A stream ends with the token that it began with, so it begins
    /// with a young one.
    pub fn is_ending(&self, now: Instant, for_stream: bool) -> bool {
        let half = self.lasts / 2;
        let left = if for_stream { half } else { half.min(RENEW_BEFORE) };
        now.saturating_duration_since(self.asked) >= self.lasts - left
    }

    pub fn note_failure(&mut self) {
        self.failed = Some(Instant::now());
    }

    /// Whether a renewal failed since then.
    pub fn failed_since(&self, then: Instant) -> bool {
        self.failed.is_some_and(|failed| failed > then)
    }

    /// Shows nothing any more.
    pub fn forget(&mut self) {
        self.access_token.clear();
        self.refresh_token.clear();
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

    /// After how many seconds a sign-in that lasts so many is renewed.
    fn renewed_after(lasts_s: i32, for_stream: bool) -> Option<u64> {
        let asked = Instant::now();
        let answer = LoginResponse { expires_in: lasts_s, ..Default::default() };
        let pair = Pair::of_login(&answer, asked);
        (0..=1000).find(|after| pair.is_ending(asked + Duration::from_secs(*after), for_stream))
    }

    #[test]
    fn a_sign_in_is_renewed_a_moment_before_it_ends() {
        assert_eq!(renewed_after(900, false), Some(870));
    }

    #[test]
    fn a_sign_in_that_lasts_shortly_is_renewed_after_half_its_time() {
        assert_eq!(renewed_after(20, false), Some(10));
    }

    #[test]
    fn a_stream_begins_with_a_sign_in_that_has_half_its_time_left() {
        assert_eq!(renewed_after(900, true), Some(450));
    }

    #[test]
    fn whoever_came_before_a_renewal_failed_knows_of_it() {
        let came = Instant::now() - Duration::from_millis(1);
        let mut pair = Pair::of_login(&LoginResponse::default(), came);
        assert!(!pair.failed_since(came));
        pair.note_failure();
        assert!(pair.failed_since(came));
        assert!(!pair.failed_since(Instant::now() + Duration::from_millis(1)));
    }

    #[test]
    fn a_sign_in_that_is_forgotten_shows_nothing() {
        let answer = LoginResponse {
            access_token: "access".into(),
            refresh_token: "refresh".into(),
            ..Default::default()
        };
        let mut pair = Pair::of_login(&answer, Instant::now());
        pair.forget();
        assert_eq!((pair.access_token, pair.refresh_token), (String::new(), String::new()));
    }

    #[test]
    fn a_credential_is_not_printed() {
        let token = Credential::Token("ic_secret".into());
        assert_eq!(format!("{token:?}"), "Token");
    }
}
