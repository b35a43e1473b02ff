package steward

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "steward/clients/go/gen/steward/gateway/v1"
)

func TestACodeAndAReasonMakeAKind(t *testing.T) {
	for _, each := range []struct {
		code   codes.Code
		reason string
		want   *Kind
	}{
		{codes.Unauthenticated, "TOKEN_REVOKED", ErrUnauthorized},
		{codes.PermissionDenied, "", ErrForbidden},
		{codes.NotFound, "AGENT_NOT_FOUND", ErrNotFound},
		{codes.InvalidArgument, "VALIDATION_ERROR", ErrInvalidRequest},
		{codes.OutOfRange, "SEQUENCE_GAP", ErrInvalidRequest},
		{codes.AlreadyExists, "", ErrConflict},
		{codes.Aborted, "", ErrConflict},
		{codes.FailedPrecondition, "LEASE_CLOSED", ErrConflict},
		{codes.FailedPrecondition, "AGENT_STOPPED", ErrAgentStopped},
		{codes.ResourceExhausted, "RATE_LIMITED", ErrRateLimited},
		{codes.ResourceExhausted, "BUDGET_EXCEEDED", ErrBudgetExceeded},
		{codes.FailedPrecondition, "BUDGET_EXCEEDED", ErrBudgetExceeded},
		{codes.ResourceExhausted, "LIMIT_COST_PER_MONTH", ErrBudgetExceeded},
		{codes.Unavailable, "CIRCUIT_OPEN", ErrCircuitOpen},
		{codes.Unavailable, "", ErrUnavailable},
		{codes.Canceled, "", ErrUnavailable},
		{codes.DeadlineExceeded, "", ErrDeadlineExceeded},
		{codes.Internal, "", ErrServerFault},
		{codes.Unknown, "", ErrServerFault},
	} {
		got := errorOf(refused(t, each.code, &errdetails.ErrorInfo{Reason: each.reason}))
		if got.Kind != each.want || got.Code != each.code {
			t.Errorf("%s with %q is %s", each.code, each.reason, got.Kind.Name())
		}
	}
}

func TestWhatAServerTellsOfARefusalIsToldOn(t *testing.T) {
	err := refused(t, codes.InvalidArgument,
		&errdetails.ErrorInfo{Reason: "WRONG_LENGTH", Metadata: map[string]string{"got": "3"}},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "observation", Description: "has 3 numbers, not 4"},
		}},
		retryIn(2*time.Second),
		&gatewayv1.TextErrors{Errors: []*gatewayv1.TextError{{Line: 4, Column: 32, Path: "nap.yaml", Message: "what is it?"}}},
	)
	got := errorOf(err)
	if got.Reason != "WRONG_LENGTH" || got.Message != "no" {
		t.Errorf("it is %v", got)
	}
	if !maps.Equal(got.Facts, map[string]string{"got": "3"}) {
		t.Errorf("the facts are %v", got.Facts)
	}
	if !maps.Equal(got.Fields, map[string]string{"observation": "has 3 numbers, not 4"}) {
		t.Errorf("the fields are %v", got.Fields)
	}
	if !slices.Equal(got.Texts, []TextError{{Line: 4, Column: 32, Path: "nap.yaml", Message: "what is it?"}}) {
		t.Errorf("the texts are %v", got.Texts)
	}
	if delay, told := got.RetryAfter(); delay != 2*time.Second || !told {
		t.Errorf("it is to be tried again in %s, %t", delay, told)
	}
	if details := status.Convert(got).Details(); len(details) != 4 {
		t.Errorf("the status has %v", details)
	}
}

func TestARefusalWithoutAReasonHasThatOfItsKind(t *testing.T) {
	if got := errorOf(refused(t, codes.NotFound)); got.Reason != "NOT_FOUND" {
		t.Errorf("it is %q", got.Reason)
	}
}

func TestAKindIsAlsoTheOneAboveIt(t *testing.T) {
	stopped := refused(t, codes.FailedPrecondition, &errdetails.ErrorInfo{Reason: "AGENT_STOPPED"})
	err := fmt.Errorf("wrapped: %w", errorOf(stopped))
	if !errors.Is(err, ErrAgentStopped) || !errors.Is(err, ErrConflict) {
		t.Errorf("%v is no agent that was stopped, or no conflict", err)
	}
	if errors.Is(err, ErrUnavailable) {
		t.Errorf("%v is said to be unavailable", err)
	}
}

func TestACallThatIsGivenUpIsWhatTheContextSays(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := error(errorOfContext(ctx)); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("it is %v", err)
	}
}
