package steward

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "steward/clients/go/gen/steward/gateway/v1"
)

// Kind is a kind of refusal, to be asked for with [errors.Is].
type Kind struct {
	name   string
	reason string
	parent *Kind
}

// Name is what the kind is called in every client of Steward, such as "NotFound".
func (k *Kind) Name() string { return k.name }

func (k *Kind) Error() string { return "steward: " + k.name }

// What a server can refuse.
var (
	// ErrUnauthorized: no credential, or one that is unknown, expired or revoked.
	ErrUnauthorized = &Kind{name: "Unauthorized", reason: "UNAUTHENTICATED"}
	// ErrForbidden: the credential is good and may not do this.
	ErrForbidden = &Kind{name: "Forbidden", reason: "PERMISSION_DENIED"}
	// ErrNotFound: no such thing, or none the caller may see.
	ErrNotFound = &Kind{name: "NotFound", reason: "NOT_FOUND"}
	// ErrInvalidRequest: a value is wrong; [Error.Fields] says which and why.
	ErrInvalidRequest = &Kind{name: "InvalidRequest", reason: "VALIDATION_ERROR"}
	// ErrConflict: the thing exists already, or is in a state that does not allow this.
	ErrConflict = &Kind{name: "Conflict", reason: "CONFLICT"}
	// ErrAgentStopped: the agent was told to stop and is lent nothing until it is started. Also an
	// ErrConflict.
	ErrAgentStopped = &Kind{name: "AgentStopped", reason: "AGENT_STOPPED", parent: ErrConflict}
	// ErrBudgetExceeded: nothing is left to lend, or less than was needed.
	ErrBudgetExceeded = &Kind{name: "BudgetExceeded", reason: "BUDGET_EXCEEDED"}
	// ErrRateLimited: too many calls; [Error.RetryAfter] says when to try again.
	ErrRateLimited = &Kind{name: "RateLimited", reason: "RATE_LIMITED"}
	// ErrCircuitOpen: something behind the server keeps failing and is not asked now.
	ErrCircuitOpen = &Kind{name: "CircuitOpen", reason: "CIRCUIT_OPEN"}
	// ErrUnavailable: the server cannot be reached, does not serve now, or the call was cancelled.
	ErrUnavailable = &Kind{name: "Unavailable", reason: "UNAVAILABLE"}
	// ErrStreamBroken: a stream of agents is cut, and what the server kept of them may be lost. Also
	// an ErrUnavailable.
	ErrStreamBroken = &Kind{name: "StreamBroken", reason: "STREAM_BROKEN", parent: ErrUnavailable}
	// ErrDeadlineExceeded: no answer in time; what was asked may have been done all the same.
	ErrDeadlineExceeded = &Kind{name: "DeadlineExceeded", reason: "DEADLINE_EXCEEDED"}
	// ErrServerFault: a fault of the server's.
	ErrServerFault = &Kind{name: "ServerFault", reason: "INTERNAL_ERROR"}
)

var kindOfReason = map[string]*Kind{
	"BUDGET_EXCEEDED":      ErrBudgetExceeded,
	"LIMIT_COST_PER_MONTH": ErrBudgetExceeded,
	"RATE_LIMITED":         ErrRateLimited,
	"ACCOUNT_LOCKED":       ErrRateLimited,
	"CIRCUIT_OPEN":         ErrCircuitOpen,
	"AGENT_STOPPED":        ErrAgentStopped,
}

var kindOfCode = map[codes.Code]*Kind{
	codes.Unauthenticated:    ErrUnauthorized,
	codes.PermissionDenied:   ErrForbidden,
	codes.NotFound:           ErrNotFound,
	codes.InvalidArgument:    ErrInvalidRequest,
	codes.OutOfRange:         ErrInvalidRequest,
	codes.AlreadyExists:      ErrConflict,
	codes.FailedPrecondition: ErrConflict,
	codes.Aborted:            ErrConflict,
	codes.ResourceExhausted:  ErrRateLimited,
	codes.Unavailable:        ErrUnavailable,
	codes.Canceled:           ErrUnavailable,
	codes.DeadlineExceeded:   ErrDeadlineExceeded,
}

// TextError is something wrong in a text, such as a playbook's.
type TextError struct {
	// Line is counted from 1, as is the column; in characters.
	Line, Column int
	// Path of the text, where it has a place.
	Path    string
	Message string
}

// Error is a refusal. Its reason is stable and made for programs, the message for people.
type Error struct {
	Kind    *Kind
	Code    codes.Code
	Reason  string
	Message string
	// Facts are what the refusal is about, by name.
	Facts map[string]string
	// Fields of the request that are wrong, and why.
	Fields map[string]string
	// Texts is what is wrong with a text that was sent, or asked for.
	Texts []TextError

	retryAfter *time.Duration
	cause      error
	status     *status.Status
}

// RetryAfter is how long to wait before trying again; false if the server did not say.
func (e *Error) RetryAfter() (time.Duration, bool) {
	if e.retryAfter == nil {
		return 0, false
	}
	return *e.retryAfter, true
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s (%s): %s", e.Kind.name, e.Reason, e.Message)
}

// Is says whether the refusal is of a [Kind], or of one below it.
func (e *Error) Is(target error) bool {
	for kind := e.Kind; kind != nil; kind = kind.parent {
		if error(kind) == target {
			return true
		}
	}
	return false
}

// Unwrap gives the context's own error where that ended the call, and what cut a stream.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus lets [status.FromError] read it, as it came.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// errorOf is the refusal that a call of grpc ended with.
func errorOf(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	refusal := errorOfStatus(status.Convert(err))
	switch refusal.Code {
	case codes.Canceled:
		refusal.cause = context.Canceled
	case codes.DeadlineExceeded:
		refusal.cause = context.DeadlineExceeded
	}
	return refusal
}

// errorOfContext is the refusal of a call whose caller waits no longer.
func errorOfContext(ctx context.Context) *Error {
	return errorOf(status.FromContextError(ctx.Err()).Err())
}

func errorOfStatus(refused *status.Status) *Error {
	refusal := &Error{Code: refused.Code(), Message: refused.Message(), status: refused}
	for _, detail := range refused.Details() { // one that is not known here is an error among them
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			refusal.Reason, refusal.Facts = detail.GetReason(), maps.Clone(detail.GetMetadata())
		case *errdetails.BadRequest:
			refusal.Fields = make(map[string]string)
			for _, each := range detail.GetFieldViolations() {
				refusal.Fields[each.GetField()] = each.GetDescription()
			}
		case *errdetails.RetryInfo:
			delay := detail.GetRetryDelay().AsDuration()
			refusal.retryAfter = &delay
		case *gatewayv1.TextErrors:
			for _, each := range detail.GetErrors() {
				refusal.Texts = append(refusal.Texts, TextError{
					Line: int(each.GetLine()), Column: int(each.GetColumn()),
					Path: each.GetPath(), Message: each.GetMessage(),
				})
			}
		}
	}
	refusal.Kind = kindOf(refusal.Code, refusal.Reason)
	if refusal.Reason == "" {
		refusal.Reason = refusal.Kind.reason
	}
	return refusal
}

func kindOf(code codes.Code, reason string) *Kind {
	if kind, found := kindOfReason[reason]; found {
		return kind
	}
	if kind, found := kindOfCode[code]; found {
		return kind
	}
	return ErrServerFault
}

// Refusals by the client itself.

func unavailable(message string) *Error {
	return errorOfStatus(status.New(codes.Unavailable, message))
}

func invalid(message string) *Error {
	return errorOfStatus(status.New(codes.InvalidArgument, message))
}

func serverFault(message string) *Error {
	return errorOfStatus(status.New(codes.Internal, message))
}

// streamBroken is what whoever waits on a stream of agents is told when it is cut.
func streamBroken(why *Error) *Error {
	broken := unavailable("the stream broke: " + why.Message)
	broken.Kind, broken.Reason, broken.cause = ErrStreamBroken, ErrStreamBroken.reason, why
	return broken
}
