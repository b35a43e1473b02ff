package steward

import (
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func refused(t *testing.T, code codes.Code, details ...protoadapt.MessageV1) error {
	t.Helper()
	with, err := status.New(code, "no").WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return with.Err()
}

func retryIn(delay time.Duration) protoadapt.MessageV1 {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)}
}

func TestWhatIsTriedAgain(t *testing.T) {
	const second = time.Second
	for _, each := range []struct {
		says       string
		refusal    error
		repeatable bool
		made       int
		until      time.Time
		want       time.Duration
		again      bool
	}{
		{says: "the server's wish to wait is kept, whatever the call does",
			refusal: refused(t, codes.ResourceExhausted, retryIn(second)), made: 1, want: second, again: true},
		{says: "also of a server that is away",
			refusal: refused(t, codes.Unavailable, retryIn(second)), made: 1, want: second, again: true},
		{says: "a quota without a time is not tried again",
			refusal: refused(t, codes.ResourceExhausted), repeatable: true, made: 1},
		{says: "a server that is away is tried again where that is safe",
			refusal: refused(t, codes.Unavailable), repeatable: true, made: 1, want: 50 * time.Millisecond, again: true},
		{says: "and nowhere else", refusal: refused(t, codes.Unavailable), made: 1},
		{says: "waits grow twofold",
			refusal: refused(t, codes.Unavailable), repeatable: true, made: 3, want: 200 * time.Millisecond, again: true},
		{says: "there are so many attempts and no more",
			refusal: refused(t, codes.Unavailable), repeatable: true, made: 4},
		{says: "a wait that would pass the deadline is not begun",
			refusal: refused(t, codes.Unavailable, retryIn(second)), made: 1, until: now.Add(second)},
		{says: "one that ends before it is",
			refusal: refused(t, codes.Unavailable, retryIn(second)), made: 1, until: now.Add(2 * second), want: second, again: true},
		{says: "nothing else is tried again",
			refusal: refused(t, codes.Internal, retryIn(second)), repeatable: true, made: 1},
	} {
		patience := patience{attempts: 4, until: each.until}
		delay, again := patience.wait(errorOf(each.refusal), each.repeatable, each.made, now, 0.5)
		if delay != each.want || again != each.again {
			t.Errorf("%s: it waits %s, %t", each.says, delay, again)
		}
	}
}

func TestNoWaitIsLongerThanTheLongest(t *testing.T) {
	if got := backoff(40); got != longestDelay {
		t.Errorf("it is %s", got)
	}
}
