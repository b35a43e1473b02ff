package steward

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	rpcpb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	budgetv1 "steward/clients/go/gen/steward/budget/v1"
)

// runtimes is the server's end of one session.
type runtimes struct {
	budgetv1.UnimplementedBudgetServiceServer

	heard chan *budgetv1.SessionRequest
	say   chan *budgetv1.SessionResponse
	cut   chan error
}

func (r *runtimes) Session(stream grpc.BidiStreamingServer[budgetv1.SessionRequest, budgetv1.SessionResponse]) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			request, err := stream.Recv()
			if err != nil {
				return
			}
			r.heard <- request
		}
	}()
	for {
		select {
		case answer := <-r.say:
			if err := stream.Send(answer); err != nil {
				return err
			}
		case err := <-r.cut:
			return err
		case <-ended:
			return nil
		}
	}
}

func openSession(t *testing.T) (*Session, *runtimes) {
	t.Helper()
	server := &runtimes{
		heard: make(chan *budgetv1.SessionRequest, 9), say: make(chan *budgetv1.SessionResponse), cut: make(chan error),
	}
	client := serve(t, func(s grpc.ServiceRegistrar) { budgetv1.RegisterBudgetServiceServer(s, server) }, WithTimeout(10*time.Second))
	session, err := client.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session, server
}

func control(reason string) *budgetv1.SessionResponse {
	return &budgetv1.SessionResponse{Message: &budgetv1.SessionResponse_Control{Control: &budgetv1.Control{Reason: reason}}}
}

func heartbeat(number int64) *budgetv1.SessionResponse {
	beat := &budgetv1.SessionResponse_Heartbeat{Heartbeat: &budgetv1.SessionHeartbeat{}}
	return &budgetv1.SessionResponse{InReplyTo: number, Message: beat}
}

func TestBatchesOfOneLeaseThatWereBookedTogetherAreAnsweredTogether(t *testing.T) {
	session, server := openSession(t)
	var pending []*Pending[budgetv1.SessionResponse]
	for _, lease := range []string{"lease_1", "lease_2", "lease_1"} {
		batch := &budgetv1.SessionRequest_ReportBatch{ReportBatch: &budgetv1.ReportBatch{LeaseId: lease}}
		each, err := session.Send(t.Context(), &budgetv1.SessionRequest{Message: batch})
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, each)
		if got := (<-server.heard).GetReportBatch().GetLeaseId(); got != lease {
			t.Fatalf("a batch of %s came before one of %s", got, lease)
		}
	}
	for number, lease := range map[int64]string{3: "lease_1", 2: "lease_2"} {
		ack := &budgetv1.SessionResponse_ReportAck{ReportAck: &budgetv1.ReportAck{LeaseId: lease}}
		server.say <- &budgetv1.SessionResponse{InReplyTo: number, Message: ack}
	}
	for at, want := range []int64{3, 2, 3} {
		answer, err := pending[at].Wait(t.Context())
		if err != nil || answer.GetInReplyTo() != want {
			t.Errorf("batch %d is answered with %v: %v", at, answer, err)
		}
	}
}

func TestControlsNobodyReadsHoldUpNoAnswer(t *testing.T) {
	session, server := openSession(t)
	go func() {
		for _, reason := range []string{"first", "second", "third"} {
			server.say <- control(reason)
		}
		server.say <- heartbeat((<-server.heard).GetMessageId())
	}()
	if err := session.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first", "second", "third"} {
		if got := (<-session.Controls()).GetReason(); got != want {
			t.Errorf("it is the %s, not the %s", got, want)
		}
	}
}

func TestWhatWasSaidBeforeTheEndIsStillRead(t *testing.T) {
	session, server := openSession(t)
	server.say <- control("stop")
	server.cut <- nil
	<-session.ended
	var reasons []string
	for control := range session.Controls() {
		reasons = append(reasons, control.GetReason())
	}
	if len(reasons) != 1 || !errors.Is(session.Err(), ErrUnavailable) {
		t.Errorf("it was told %q, and ended with %v", reasons, session.Err())
	}
}

func TestWhatIsRefusedLeavesTheSessionOpen(t *testing.T) {
	session, server := openSession(t)
	go func() {
		refusal := &rpcpb.Status{Code: int32(codes.NotFound), Message: "no such lease"}
		server.say <- &budgetv1.SessionResponse{
			InReplyTo: (<-server.heard).GetMessageId(), Message: &budgetv1.SessionResponse_Refusal{Refusal: refusal},
		}
		server.say <- heartbeat((<-server.heard).GetMessageId())
	}()
	if _, err := session.Resume(t.Context(), "lease_x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is %v", err)
	}
	if err := session.Beat(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhoeverWaitsWhenASessionIsCutIsToldWhy(t *testing.T) {
	session, server := openSession(t)
	go func() {
		<-server.heard
		server.cut <- status.Error(codes.Unauthenticated, "revoked")
	}()
	if err := session.Beat(t.Context()); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("it is %v", err)
	}
	if err := session.Beat(t.Context()); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("afterwards it is %v", err)
	}
}

func TestWhatCannotBeSentIsRefusedByTheClient(t *testing.T) {
	session, server := openSession(t)
	_, err := session.Resume(t.Context(), "lease_\xff")
	if !errors.Is(err, ErrInvalidRequest) || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("it is %v", err)
	}
	go func() { server.say <- heartbeat((<-server.heard).GetMessageId()) }()
	if err := session.Beat(t.Context()); err != nil {
		t.Errorf("afterwards it is %v", err)
	}
}

func TestAnAnswerToSomethingElseIsAFaultOfTheServers(t *testing.T) {
	session, server := openSession(t)
	for name, ask := range map[string]func() (any, error){
		"handshake": func() (any, error) { return session.Handshake(t.Context(), &budgetv1.HandshakeRequest{}) },
		"report":    func() (any, error) { return session.Report(t.Context(), "lease_1") },
		"refresh":   func() (any, error) { return session.Refresh(t.Context(), &budgetv1.RefreshRequest{}) },
		"return":    func() (any, error) { return session.Return(t.Context(), &budgetv1.ReturnRequest{}) },
		"resume":    func() (any, error) { return session.Resume(t.Context(), "lease_1") },
	} {
		go func() { server.say <- heartbeat((<-server.heard).GetMessageId()) }()
		if answer, err := ask(); !errors.Is(err, ErrServerFault) {
			t.Errorf("the %s is answered %v: %v", name, answer, err)
		}
	}
	go func() { server.say <- &budgetv1.SessionResponse{InReplyTo: (<-server.heard).GetMessageId()} }()
	if err := session.Beat(t.Context()); !errors.Is(err, ErrServerFault) {
		t.Errorf("the beat ends with %v", err)
	}
}

func TestWhoeverWaitsNoLongerIsTold(t *testing.T) {
	session, server := openSession(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-server.heard
		cancel()
	}()
	if err := session.Beat(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("it is %v", err)
	}
	go func() {
		server.say <- heartbeat(1) // nobody waits for it
		server.say <- heartbeat((<-server.heard).GetMessageId())
	}()
	if err := session.Beat(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestASessionThatIsClosedTakesNothingAndSaysNothing(t *testing.T) {
	session, _ := openSession(t)
	session.Close()
	if err := session.Beat(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("it is %v", err)
	}
	if _, more := <-session.Controls(); more {
		t.Error("it says something")
	}
	session.Close()
}
