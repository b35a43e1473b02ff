package steward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	authv1 "steward/clients/go/gen/steward/auth/v1"
	budgetv1 "steward/clients/go/gen/steward/budget/v1"
	eventsv1 "steward/clients/go/gen/steward/events/v1"
)

// serve starts a server over the loopback, and gives a client of it.
func serve(t *testing.T, register func(grpc.ServiceRegistrar), options ...Option) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	client, err := New(listener.Addr().String(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// authorities signs people in, and takes the tokens it is told to.
type authorities struct {
	authv1.UnimplementedAuthServiceServer

	mutex  sync.Mutex
	takes  string
	shown  []string
	issued int
	// lost answers of renewals are those of the first so many.
	lost int
	// patience of the last renewal.
	patience time.Duration
	// noted is what calls bring in the header x-note.
	noted []string
}

func (a *authorities) show(ctx context.Context) {
	headers, _ := metadata.FromIncomingContext(ctx)
	a.noted = append(a.noted, strings.Join(headers.Get("x-note"), "+"))
	a.shown = append(a.shown, strings.Join(headers.Get("authorization"), "+"))
}

func (a *authorities) Login(ctx context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.show(ctx)
	a.issued++
	return &authv1.LoginResponse{
		AccessToken: fmt.Sprint("access-", a.issued), RefreshToken: "refresh", ExpiresIn: 3600,
		User: &authv1.User{Username: request.GetUsername(), Email: request.GetEmail()},
	}, nil
}

func (a *authorities) Refresh(ctx context.Context, _ *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.show(ctx)
	a.issued++
	until, _ := ctx.Deadline()
	a.patience = time.Until(until)
	if a.lost > 0 {
		a.lost--
		return nil, status.Error(codes.Unavailable, "the line broke")
	}
	return &authv1.RefreshResponse{AccessToken: fmt.Sprint("access-", a.issued), RefreshToken: "refresh", ExpiresIn: 3600}, nil
}

func (a *authorities) GetMe(ctx context.Context, _ *authv1.GetMeRequest) (*authv1.GetMeResponse, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.show(ctx)
	if a.shown[len(a.shown)-1] != "Bearer "+a.takes {
		return nil, status.Error(codes.Unauthenticated, "no")
	}
	return &authv1.GetMeResponse{}, nil
}

func TestATokenIsShown(t *testing.T) {
	service := &authorities{takes: "key"}
	client := serve(t, func(s grpc.ServiceRegistrar) { authv1.RegisterAuthServiceServer(s, service) }, WithToken("key"))
	if _, err := authv1.NewAuthServiceClient(client).GetMe(t.Context(), &authv1.GetMeRequest{}); err != nil {
		t.Error(err)
	}
}

func TestASignInThatTheServerNoLongerTakesIsRenewedAndTheCallMadeAgain(t *testing.T) {
	service := &authorities{takes: "access-2"}
	client := serve(t, func(s grpc.ServiceRegistrar) { authv1.RegisterAuthServiceServer(s, service) }, WithAttempts(1))
	if _, err := client.SignIn(t.Context(), "ada", "secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := authv1.NewAuthServiceClient(client).GetMe(t.Context(), &authv1.GetMeRequest{}); err != nil {
		t.Error(err)
	}
	if want := []string{"", "Bearer access-1", "", "Bearer access-2"}; !slices.Equal(service.shown, want) {
		t.Errorf("it showed %q", service.shown)
	}
}

func TestARenewalWhoseAnswerIsLostIsAskedForAgain(t *testing.T) {
	service := &authorities{takes: "access-3", lost: 1}
	client := serve(t, func(s grpc.ServiceRegistrar) { authv1.RegisterAuthServiceServer(s, service) })
	if _, err := client.SignIn(t.Context(), "ada", "secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := authv1.NewAuthServiceClient(client).GetMe(t.Context(), &authv1.GetMeRequest{}); err != nil {
		t.Error(err)
	}
	if service.patience > 10*time.Second {
		t.Errorf("it waits for %s, when the spent token is long worth nothing", service.patience)
	}
}

func TestARenewalDoesNotCarryWhatTheCallThatNeedsItDoes(t *testing.T) {
	service := &authorities{takes: "access-2"}
	client := serve(t, func(s grpc.ServiceRegistrar) { authv1.RegisterAuthServiceServer(s, service) })
	if _, err := client.SignIn(t.Context(), "ada", "secret"); err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-note", "mine")
	if _, err := authv1.NewAuthServiceClient(client).GetMe(ctx, &authv1.GetMeRequest{}); err != nil {
		t.Error(err)
	}
	if want := []string{"", "mine", "", "mine"}; !slices.Equal(service.noted, want) {
		t.Errorf("they carried %q", service.noted)
	}
}

func TestACredentialOfTheCallersOwnIsShownAloneAndNeverRenewed(t *testing.T) {
	service := &authorities{takes: "mine"}
	client := serve(t, func(s grpc.ServiceRegistrar) { authv1.RegisterAuthServiceServer(s, service) })
	if _, err := client.SignIn(t.Context(), "ada", "secret"); err != nil {
		t.Fatal(err)
	}
	me := authv1.NewAuthServiceClient(client)
	mine := metadata.AppendToOutgoingContext(t.Context(), "Authorization", "Bearer mine")
	if _, err := me.GetMe(mine, &authv1.GetMeRequest{}); err != nil {
		t.Error(err)
	}
	another := metadata.AppendToOutgoingContext(t.Context(), "Authorization", "Bearer another")
	if _, err := me.GetMe(another, &authv1.GetMeRequest{}); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("another is %v", err)
	}
	if want := []string{"", "Bearer mine", "Bearer another"}; !slices.Equal(service.shown, want) {
		t.Errorf("it showed %q", service.shown)
	}
}

func TestACallMayTakeAsLongAsItTakes(t *testing.T) {
	service := &ledger{refusals: []error{refused(t, codes.ResourceExhausted, retryIn(time.Millisecond))}}
	if err := handshake(t, service, WithTimeout(0)); err != nil {
		t.Error(err)
	}
}

func TestASignInIsRenewedOnceACall(t *testing.T) {
	service := &authorities{takes: "nothing"}
	client := serve(t, func(s grpc.ServiceRegistrar) { authv1.RegisterAuthServiceServer(s, service) })
	if _, err := client.SignIn(t.Context(), "ada@example.org", "secret"); err != nil {
		t.Fatal(err)
	}
	_, err := authv1.NewAuthServiceClient(client).GetMe(t.Context(), &authv1.GetMeRequest{})
	if !errors.Is(err, ErrUnauthorized) || service.issued != 2 {
		t.Errorf("after %d sign-ins it is %v", service.issued, err)
	}
}

func TestAClientDoesNotPrintItsCredential(t *testing.T) {
	client, err := New("127.0.0.1:1", WithToken("ic_secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if text := fmt.Sprintf("%v %+v %#v", client, client, client); strings.Contains(text, "ic_secret") {
		t.Errorf("it prints %s", text)
	}
}

func TestAServerThatIsNotThereIsUnavailable(t *testing.T) {
	client, err := New("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.SignIn(t.Context(), "ada", "secret"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("it is %v", err)
	}
}

func TestAnAddressSaysHowItIsSpokenTo(t *testing.T) {
	for address, want := range map[string]struct {
		target   string
		isSecure bool
	}{
		"127.0.0.1:50051":          {"127.0.0.1:50051", false},
		"http://127.0.0.1:50051":   {"127.0.0.1:50051", false},
		"https://steward.test:443": {"steward.test:443", true},
		"https://steward.test/":    {"steward.test", true},
	} {
		if target, isSecure, err := parseAddress(address); target != want.target || isSecure != want.isSecure || err != nil {
			t.Errorf("%s is %s, %t: %v", address, target, isSecure, err)
		}
	}
	for _, address := range []string{"", "ftp://host:1", "http://", "host:1/path"} {
		if _, err := New(address); err == nil {
			t.Errorf("%q is taken for an address", address)
		}
	}
}

// ledger refuses the first attempts of a handshake, and remembers all of them.
type ledger struct {
	budgetv1.UnimplementedBudgetServiceServer

	refusals []error
	asked    []string
}

func (l *ledger) Handshake(_ context.Context, request *budgetv1.HandshakeRequest) (*budgetv1.HandshakeResponse, error) {
	l.asked = append(l.asked, request.GetRequestId())
	if len(l.asked) <= len(l.refusals) {
		return nil, l.refusals[len(l.asked)-1]
	}
	return &budgetv1.HandshakeResponse{LeaseId: "lease_1"}, nil
}

func handshake(t *testing.T, service *ledger, options ...Option) error {
	t.Helper()
	client := serve(t, func(s grpc.ServiceRegistrar) { budgetv1.RegisterBudgetServiceServer(s, service) }, options...)
	_, err := budgetv1.NewBudgetServiceClient(client).Handshake(t.Context(), &budgetv1.HandshakeRequest{})
	return err
}

func TestAllAttemptsHaveOneRequestID(t *testing.T) {
	away := status.Error(codes.Unavailable, "no")
	service := &ledger{refusals: []error{away, refused(t, codes.ResourceExhausted, retryIn(time.Millisecond))}}
	if err := handshake(t, service); err != nil {
		t.Fatal(err)
	}
	if len(service.asked) != 3 || service.asked[0] == "" || len(slices.Compact(service.asked)) != 1 {
		t.Errorf("the attempts were %q", service.asked)
	}
}

func TestThereAreAsManyAttemptsAsAreSet(t *testing.T) {
	away := status.Error(codes.Unavailable, "no")
	service := &ledger{refusals: []error{away, away, away}}
	if err := handshake(t, service, WithAttempts(2)); !errors.Is(err, ErrUnavailable) || len(service.asked) != 2 {
		t.Errorf("after %d attempts it is %v", len(service.asked), err)
	}
}

func TestAWaitThatWouldPassTheClientsTimeoutIsNotBegun(t *testing.T) {
	service := &ledger{refusals: []error{refused(t, codes.ResourceExhausted, retryIn(time.Hour))}}
	begun := time.Now()
	if err := handshake(t, service, WithTimeout(time.Minute)); !errors.Is(err, ErrRateLimited) {
		t.Errorf("it is %v", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

// journal streams an event, or refuses to, and breaks off after it.
type journal struct {
	eventsv1.UnimplementedEventServiceServer

	refusals []error
	begun    chan struct{}
}

func (j *journal) Subscribe(_ *eventsv1.SubscribeRequest, events grpc.ServerStreamingServer[eventsv1.SubscribeResponse]) error {
	j.begun <- struct{}{}
	if len(j.refusals) > 1 {
		refusal := j.refusals[0]
		j.refusals = j.refusals[1:]
		return refusal
	}
	if err := events.Send(&eventsv1.SubscribeResponse{}); err != nil {
		return err
	}
	return j.refusals[0]
}

func TestAnswersAreAskedForAgainUntilTheFirstHasCome(t *testing.T) {
	again := refused(t, codes.Unavailable, retryIn(time.Millisecond))
	service := &journal{refusals: []error{again, again, again}, begun: make(chan struct{}, 9)}
	client := serve(t, func(s grpc.ServiceRegistrar) { eventsv1.RegisterEventServiceServer(s, service) })
	events, err := eventsv1.NewEventServiceClient(client).Subscribe(t.Context(), &eventsv1.SubscribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-service.begun // before anybody asks for an answer: what happens from now on is not missed
	if _, err := events.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := events.Recv(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("it is %v", err)
	}
	if left := len(service.begun); left != 2 {
		t.Errorf("it was begun %d times", left+1)
	}
}
