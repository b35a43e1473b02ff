package steward

import (
	"context"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// call is one call, however often it is made: with one request id, and one deadline over all attempts.
type call struct {
	credentials *credentials
	request     any
	repeatable  bool
	patience    patience
	isStream    bool
	// isShowing the client's credential.
	isShowing bool
	// made attempts, without the one whose token had ended.
	made       int
	token      string
	hasRenewed bool
}

func (c *Client) call(ctx context.Context, method string, request any) *call {
	rules := rulesOf(method)
	request, repeatable := rules.identified(request)
	patience := patience{attempts: c.attempts}
	patience.until, _ = ctx.Deadline()
	return &call{
		credentials: c.credentials, isShowing: rules.isShowing(ctx),
		request: request, repeatable: repeatable, patience: patience,
	}
}

// attempt gives what the next attempt is made with.
func (c *call) attempt(ctx context.Context) context.Context {
	c.made++
	if !c.isShowing {
		return ctx
	}
	c.token = c.credentials.token(ctx, c.isStream)
	return showing(ctx, c.token)
}

// again returns when another attempt is to be made; else it gives what the call ends with.
func (c *call) again(ctx context.Context, err error) error {
	refusal := errorOf(err)
	if refusal.Kind == ErrUnauthorized && c.isShowing && !c.hasRenewed {
		if c.hasRenewed = c.credentials.renew(ctx, c.token); c.hasRenewed {
			c.made--
			return nil
		}
	}
	delay, isWanted := c.patience.wait(refusal, c.repeatable, c.made, time.Now(), rand.Float64())
	if !isWanted {
		return refusal
	}
	return pause(ctx, delay)
}

// isShowing says whether calls show the client's credential: not where the caller shows another.
func (r rules) isShowing(ctx context.Context) bool {
	shown, _ := metadata.FromOutgoingContext(ctx)
	return !r.public && len(shown.Get("authorization")) == 0
}

// showing puts a token into the metadata, where there is one.
func showing(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// NewStream begins a call that streams; generated clients use it. Where only the answers are a
// stream, it is made again as other calls are until the first of them has come.
func (c *Client) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	begin := func(ctx context.Context) (grpc.ClientStream, error) {
		return c.line.NewStream(ctx, desc, method, options...)
	}
	if !desc.ClientStreams {
		return &answers{client: c, context: ctx, method: method, begin: begin}, nil
	}
	if rulesOf(method).isShowing(ctx) {
		ctx = showing(ctx, c.credentials.token(ctx, true))
	}
	stream, err := begin(ctx)
	if err != nil {
		return nil, errorOf(err)
	}
	return refusing{stream}, nil
}

// refusing is a stream whose errors are refusals.
type refusing struct{ grpc.ClientStream }

func (s refusing) SendMsg(message any) error { return refusalOrEnd(s.ClientStream.SendMsg(message)) }
func (s refusing) RecvMsg(message any) error { return refusalOrEnd(s.ClientStream.RecvMsg(message)) }

func refusalOrEnd(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return errorOf(err)
}

// answers is a call whose answers are a stream.
type answers struct {
	grpc.ClientStream // of the attempt that is under way

	client  *Client
	context context.Context
	method  string
	begin   func(context.Context) (grpc.ClientStream, error)
	call    *call
	// hasBegun: the first answer has come, or the end.
	hasBegun bool
}

func (a *answers) SendMsg(request any) error {
	a.call = a.client.call(a.context, a.method, request)
	a.call.isStream = true
	return a.attempt()
}

// CloseSend has nothing to do: there is one request, and each attempt is closed after it.
func (a *answers) CloseSend() error { return nil }

func (a *answers) RecvMsg(answer any) error {
	for {
		err := a.ClientStream.RecvMsg(answer)
		a.hasBegun = a.hasBegun || err == nil || err == io.EOF
		if a.hasBegun {
			return refusalOrEnd(err)
		}
		if refusal := a.call.again(a.context, err); refusal != nil {
			return refusal
		}
		if refusal := a.attempt(); refusal != nil {
			return refusal
		}
	}
}

func (a *answers) attempt() error {
	for {
		stream, err := a.begin(a.call.attempt(a.context))
		if err == nil {
			a.ClientStream = stream
			err = sendOnly(stream, a.call.request)
		}
		if err == nil {
			return nil
		}
		if refusal := a.call.again(a.context, err); refusal != nil {
			return refusal
		}
	}
}

func sendOnly(stream grpc.ClientStream, request any) error {
	if err := stream.SendMsg(request); err != nil && err != io.EOF { // then the answer tells why
		return err
	}
	return stream.CloseSend()
}
