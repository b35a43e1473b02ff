// Package steward is the client of a Steward server.
//
// A [Client] is a connection for generated clients, such as those of
// steward/clients/go/gen/steward/budget/v1: their calls show its credential, carry a request id
// where the method takes one, and are tried again where that is safe. What is refused is an [*Error].
package steward

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	reconnecting "google.golang.org/grpc/backoff"
	transport "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	authv1 "steward/clients/go/gen/steward/auth/v1"
)

const (
	maxMessageBytes = 16 << 20 // more than the 4 MiB that servers send, so that they may come to send more
	defaultTimeout  = 60 * time.Second
	refreshTimeout  = 5 * time.Second  // leaves time to ask again while the spent token still gives its successor
	pingEvery       = 30 * time.Second // a line that hangs says nothing
	pingTimeout     = 20 * time.Second
)

// Client is a server as one caller sees it. Many goroutines may share it.
type Client struct {
	line        *grpc.ClientConn
	credentials *credentials
	timeout     time.Duration
	attempts    int
}

var _ grpc.ClientConnInterface = (*Client)(nil)

type settings struct {
	token    string
	tls      *tls.Config
	timeout  time.Duration
	attempts int
}

// Option is a setting of a client.
type Option func(*settings)

// WithToken says who calls: a person's access token, an API key, or an agent's IC token.
func WithToken(token string) Option { return func(s *settings) { s.token = token } }

// WithTLS speaks TLS, by roots or a certificate of one's own.
func WithTLS(config *tls.Config) Option { return func(s *settings) { s.tls = config } }

// WithTimeout is how long a call without a deadline may take, and an answer over a stream; 60 s. With
// 0 or less it is as long as it takes.
func WithTimeout(timeout time.Duration) Option { return func(s *settings) { s.timeout = timeout } }

// WithAttempts is how often a call is made at most where it may be tried again; 4.
func WithAttempts(attempts int) Option { return func(s *settings) { s.attempts = attempts } }

// New makes a client, which connects with its first call. The address is host:port in plain text, or
// https://host:port in TLS.
func New(address string, options ...Option) (*Client, error) {
	s := settings{timeout: defaultTimeout, attempts: defaultAttempts}
	for _, option := range options {
		option(&s)
	}
	target, isSecure, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	security := insecure.NewCredentials()
	if isSecure || s.tls != nil {
		security = transport.NewTLS(s.tls)
	}
	line, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(security),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           reconnecting.Config{BaseDelay: firstDelay, Multiplier: 2, Jitter: 0.2, MaxDelay: longestDelay},
			MinConnectTimeout: pingTimeout,
		}),
		// Calls are tried again here, where it is known which may be, and within one count.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, fmt.Errorf("steward: %w", err)
	}
	client := &Client{line: line, timeout: s.timeout, attempts: s.attempts}
	client.credentials = &credentials{exchange: client.refresh, shown: shown{access: s.token}}
	return client, nil
}

// Close ends the connection, and the calls under way.
func (c *Client) Close() error { return c.line.Close() }

// SignIn signs a person in, by user name or e-mail address. From now on the client calls as that
// person, and renews the sign-in by itself.
func (c *Client) SignIn(ctx context.Context, user, password string) (*authv1.LoginResponse, error) {
	request := &authv1.LoginRequest{Password: password}
	if strings.Contains(user, "@") {
		request.Email = user
	} else {
		request.Username = user
	}
	asked := time.Now()
	pair, err := authv1.NewAuthServiceClient(c).Login(ctx, request)
	if err != nil {
		return nil, err
	}
	c.credentials.keep(pair, asked)
	return pair, nil
}

// SignOut ends the sign-in, here and at the server, on open streams too.
func (c *Client) SignOut(ctx context.Context) error {
	if _, err := authv1.NewAuthServiceClient(c).Logout(ctx, &authv1.LogoutRequest{}); err != nil {
		return err
	}
	c.credentials.forget()
	return nil
}

func (c *Client) refresh(ctx context.Context, refreshToken string) (tokenPair, error) {
	// The metadata is that of the call that happened to need the token.
	ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(ctx, nil), refreshTimeout)
	defer cancel()
	request := &authv1.RefreshRequest{RefreshToken: refreshToken}
	return authv1.NewAuthServiceClient(c).Refresh(ctx, request)
}

// Invoke makes a call with one answer; generated clients use it.
func (c *Client) Invoke(ctx context.Context, method string, request, answer any, options ...grpc.CallOption) error {
	ctx, cancel := withTimeout(ctx, c.timeout)
	defer cancel()
	call := c.call(ctx, method, request)
	for {
		err := c.line.Invoke(call.attempt(ctx), method, call.request, answer, options...)
		if err == nil {
			return nil
		}
		if refusal := call.again(ctx, err); refusal != nil {
			return refusal
		}
	}
}

func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has || timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// parseAddress gives host:port, and whether it is spoken to in TLS.
func parseAddress(address string) (target string, isSecure bool, err error) {
	scheme, target, hasScheme := strings.Cut(address, "://")
	if !hasScheme {
		scheme, target = "http", address
	}
	target = strings.TrimSuffix(target, "/")
	if scheme != "http" && scheme != "https" || target == "" || strings.Contains(target, "/") {
		return "", false, fmt.Errorf("steward: %q is no server's address; write host:port or https://host:port", address)
	}
	return target, scheme == "https", nil
}
