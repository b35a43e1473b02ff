//! Where everything begins: how the server is reached, and who calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
#[cfg(feature = "tls")]
use tonic::transport::ClientTlsConfig;
use tonic::transport::Endpoint;

use crate::agent_stream::AgentStream;
use crate::channel::Channel;
use crate::credential::{Credential, Pair};
use crate::proto::steward;
use crate::proto::steward::auth::v1::{LoginRequest, LoginResponse, LogoutRequest};
use crate::session::{Pushes, Session};
use crate::{Error, Result};

/// As much as anything takes that answers with one message.
const TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 4;

/// A quiet stream is asked so often whether its line is still there.
const PING: Duration = Duration::from_secs(30);
/// A line that hangs says nothing.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to a server, by somebody. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

/// How a client is to be. See [`Client::builder`].
#[must_use]
pub struct Builder {
    address: String,
    credential: Credential,
    timeout: Duration,
    attempts: u32,
    #[cfg(feature = "tls")]
    tls: Option<ClientTlsConfig>,
}

impl Client {
    /// Begins with an address: `host:port` in plaintext (in TLS with [`Builder::tls`]), or
    /// `https://host:port`.
    pub fn builder(address: impl Into<String>) -> Builder {
        Builder {
            address: address.into(),
            credential: Credential::Nobody,
            timeout: TIMEOUT,
            attempts: ATTEMPTS,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// The same connection for whoever has this access token, API key or IC token.
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        self.with(Credential::Token(token.into()))
    }

    /// The same connection for somebody who signs in, by user name or e-mail address, and what the
    /// server answered, such as that the password must be changed. The sign-in renews itself.
    pub async fn sign_in(&self, user: &str, password: &str) -> Result<(Self, LoginResponse)> {
        let asked = Instant::now();
        let answer = self.auth().login(login(user, password)).await?.into_inner();
        let pair = Mutex::new(Pair::of_login(&answer, asked));
        Ok((self.with(Credential::SignIn(Arc::new(pair))), answer))
    }

    /// Ends the sign-in, here and at the server, on open streams too.
    pub async fn sign_out(&self) -> Result<()> {
        self.auth().logout(LogoutRequest {}).await?;
        if let Credential::SignIn(pair) = &*self.channel.credential {
            pair.lock().await.forget();
        }
        Ok(())
    }

    /// The connection for generated clients that no method of this one makes.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Opens an agent's session, and what the server says over it by itself.
    pub async fn session(&self) -> Result<(Session, Pushes)> {
        Session::open(self.channel()).await
    }

    /// Opens a stream for agents of inference.
    pub async fn agent_stream(&self) -> Result<AgentStream> {
        AgentStream::begin(self.channel()).await
    }

    fn with(&self, credential: Credential) -> Self {
        Self { channel: Channel { credential: Arc::new(credential), ..self.channel() } }
    }
}

fn login(user: &str, password: &str) -> LoginRequest {
    let (user, password) = (user.to_string(), password.to_string());
    if user.contains('@') {
        LoginRequest { email: user, password, ..Default::default() }
    } else {
        LoginRequest { username: user, password, ..Default::default() }
    }
}

/// Generated clients over the client's connection.
macro_rules! services {
    ($($name:ident: $package:ident::$module:ident::$client:ident;)*) => {
        impl Client {
            $(
                pub fn $name(&self) -> steward::$package::v1::$module::$client<Channel> {
                    steward::$package::v1::$module::$client::new(self.channel())
                }
            )*
        }
    };
}

services! {
    agents: agents::agent_service_client::AgentServiceClient;
    alerts: alerts::alert_service_client::AlertServiceClient;
    analytics: analytics::analytics_service_client::AnalyticsServiceClient;
    api_keys: api_keys::api_key_service_client::ApiKeyServiceClient;
    audit: audit::audit_service_client::AuditServiceClient;
    auth: auth::auth_service_client::AuthServiceClient;
    budget: budget::budget_service_client::BudgetServiceClient;
    budget_requests: requests::budget_request_service_client::BudgetRequestServiceClient;
    credentials: credentials::credential_service_client::CredentialServiceClient;
    environments: environments::environment_service_client::EnvironmentServiceClient;
    events: events::event_service_client::EventServiceClient;
    executions: executions::execution_service_client::ExecutionServiceClient;
    files: environments::file_service_client::FileServiceClient;
    images: environments::image_service_client::ImageServiceClient;
    inference: inference::inference_service_client::InferenceServiceClient;
    inference_tokens: inference::client_token_service_client::ClientTokenServiceClient;
    limits: limits::limit_service_client::LimitServiceClient;
    playbooks: playbooks::playbook_service_client::PlaybookServiceClient;
    policies: inference::policy_service_client::PolicyServiceClient;
    ports: environments::port_service_client::PortServiceClient;
    prices: budget::price_service_client::PriceServiceClient;
    projects: projects::project_service_client::ProjectServiceClient;
    provider_keys: budget::provider_key_service_client::ProviderKeyServiceClient;
    providers: providers::provider_service_client::ProviderServiceClient;
    snapshots: environments::snapshot_service_client::SnapshotServiceClient;
    system: system::system_service_client::SystemServiceClient;
    tokens: tokens::token_service_client::TokenServiceClient;
    traces: analytics::trace_service_client::TraceServiceClient;
    usage: analytics::usage_service_client::UsageServiceClient;
    users: users::user_service_client::UserServiceClient;
}

impl Builder {
    /// What is shown: a person's access token, an API key, or an agent's IC token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.credential = Credential::Token(token.into());
        self
    }

    /// How long a call may take that has no deadline of its own; 30 s. Streams may last.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often a call is made at most where it may be tried again; 4.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Connects in TLS, and says how the server proves itself, such as by a root of one's own.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: ClientTlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Connects.
    pub async fn connect(self) -> Result<Client> {
        let endpoint = self.endpoint()?;
        let transport = endpoint.connect().await.map_err(crate::channel::unreached)?;
        Ok(self.client(transport))
    }

    /// Connects with the first call. To be called within a runtime of tokio.
    pub fn connect_lazy(self) -> Result<Client> {
        let transport = self.endpoint()?.connect_lazy();
        Ok(self.client(transport))
    }

    fn client(self, transport: tonic::transport::Channel) -> Client {
        let (timeout, attempts) = (self.timeout, self.attempts);
        Client {
            channel: Channel {
                transport,
                credential: Arc::new(self.credential),
                timeout,
                attempts,
            },
        }
    }

    fn endpoint(&self) -> Result<Endpoint> {
        let presumed = if self.wants_tls() { "https" } else { "http" };
        let (scheme, authority) =
            self.address.split_once("://").unwrap_or((presumed, &self.address));
        let secure = match scheme {
            "https" => true,
            "http" if self.wants_tls() => {
                let message = format!("{:?} is in plaintext, and TLS is set", self.address);
                return Err(Error::invalid(message));
            }
            "http" => false,
            _ => {
                let message = format!(
                    "{:?} is no address; write host:port (plaintext) or https://host:port",
                    self.address
                );
                return Err(Error::invalid(message));
            }
        };
        let wrong = |error| Error::invalid(format!("{:?} is no address: {error}", self.address));
        let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}"))
            .and_then(|endpoint| {
                endpoint.user_agent(concat!("steward-client-rust/", env!("CARGO_PKG_VERSION")))
            })
            .map_err(wrong)?
            .connect_timeout(self.timeout)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING_TIMEOUT);
        if secure { self.secured(endpoint) } else { Ok(endpoint) }
    }

    #[cfg(feature = "tls")]
    fn wants_tls(&self) -> bool {
        self.tls.is_some()
    }

    #[cfg(not(feature = "tls"))]
    fn wants_tls(&self) -> bool {
        false
    }

    #[cfg(feature = "tls")]
    fn secured(&self, endpoint: Endpoint) -> Result<Endpoint> {
        let tls = self.tls.clone();
        let tls = tls.unwrap_or_else(|| ClientTlsConfig::new().with_enabled_roots());
        let wrong = |error| Error::invalid(format!("TLS cannot be had so: {error}"));
        endpoint.tls_config(tls).map_err(wrong)
    }

    #[cfg(not(feature = "tls"))]
    fn secured(&self, _: Endpoint) -> Result<Endpoint> {
        Err(Error::invalid("this client is built without TLS; its feature is `tls`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::proto::steward::auth::v1::GetMeRequest;

    #[tokio::test]
    async fn an_address_is_a_host_and_a_port_or_begins_with_http() {
        for good in ["127.0.0.1:50051", "http://127.0.0.1:50051"] {
            Client::builder(good).connect_lazy().unwrap();
        }
        for bad in ["ftp://127.0.0.1:50051", "", "127.0.0.1:no port"] {
            let error = Client::builder(bad).connect_lazy().unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidRequest, "{bad:?}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn with_tls_set_nothing_is_sent_in_plaintext() {
        let builder = |address| Client::builder(address).tls(ClientTlsConfig::new());
        for address in ["127.0.0.1:50051", "https://127.0.0.1:50051"] {
            let endpoint = builder(address).endpoint().unwrap();
            assert_eq!(endpoint.uri().scheme_str(), Some("https"), "{address}");
        }
        let error = builder("http://127.0.0.1:50051").endpoint().unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidRequest);
    }

    #[test]
    fn an_address_of_mail_signs_in_as_one() {
        let by_mail = login("ada@example.org", "secret");
        assert_eq!((&*by_mail.email, &*by_mail.username), ("ada@example.org", ""));
        let by_name = login("ada", "secret");
        assert_eq!((&*by_name.email, &*by_name.username), ("", "ada"));
    }

    /// Nothing listens at the port of another that was closed.
    async fn nowhere() -> Builder {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Client::builder(listener.local_addr().unwrap().to_string())
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable() {
        let error = nowhere().await.connect().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.message().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_call_may_take_for_ever() {
        let client = nowhere().await.timeout(Duration::MAX).attempts(1).connect_lazy().unwrap();
        let error = Error::from(client.auth().get_me(GetMeRequest {}).await.unwrap_err());
        assert_eq!(error.kind(), Kind::Unavailable);
    }

    #[tokio::test]
    async fn a_client_does_not_print_its_credential() {
        let client = Client::builder("127.0.0.1:1").token("ic_secret").connect_lazy();
        assert!(!format!("{:?}", client.unwrap()).contains("ic_secret"));
    }
}
