package steward

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
)

const (
	defaultAttempts = 4
	firstDelay      = 100 * time.Millisecond
	longestDelay    = 5 * time.Second
)

// patience is how long and how often a call is tried.
type patience struct {
	attempts int
	// until is when an answer comes too late; zero: never.
	until time.Time
}

// wait is how long to wait before a refused call is made again; false: it is not. `made` attempts
// were refused, and `spread` in [0, 1) keeps many clients from coming back at once.
//
// A refusal that says when to try again has done nothing, whatever the call does. Without such a
// word the call may have been done, and only what is repeatable is made again.
func (p patience) wait(refusal *Error, repeatable bool, made int, now time.Time, spread float64) (time.Duration, bool) {
	if made >= p.attempts {
		return 0, false
	}
	delay, told := refusal.RetryAfter()
	switch refusal.Code {
	case codes.ResourceExhausted:
		if !told {
			return 0, false // a quota, which waiting does not change
		}
	case codes.Unavailable:
		if !told {
			if !repeatable {
				return 0, false
			}
			delay = time.Duration(spread * float64(backoff(made)))
		}
	default:
		return 0, false
	}
	if !p.until.IsZero() && !now.Add(delay).Before(p.until) {
		return 0, false
	}
	return delay, true
}

// backoff is the longest wait after so many attempts.
func backoff(made int) time.Duration {
	delay := firstDelay
	for range made - 1 {
		delay = min(delay*2, longestDelay)
	}
	return delay
}

// pause lets time pass, unless the caller waits no longer.
func pause(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errorOfContext(ctx)
	}
}
