package steward

import (
	"context"
	"io"
	"sync"
	"time"

	rpcpb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// hangUp is how long the server may take to end a stream; it takes milliseconds.
const hangUp = time.Second

// protocol is how the messages of a stream are numbered, and how answers refer to them.
type protocol[Request, Response any] struct {
	// numbered gives the same message with this number.
	numbered func(*Request, int64) *Request
	// numberOf the message that this answers; 0 for what the server says by itself.
	numberOf  func(*Response) int64
	refusalOf func(*Response) *rpcpb.Status
	// covers says whether this answers that earlier message, too.
	covers func(*Response, *Request) bool
	// cut makes of why the stream ended what whoever waits is told.
	cut func(why *Error, hasAnswered bool) *Error
}

// exchange is messages over one stream in both directions, each with the answer that belongs to it.
type exchange[Request, Response any] struct {
	protocol[Request, Response]
	stream  grpc.BidiStreamingClient[Request, Response]
	timeout time.Duration
	outbox  chan *question[Request, Response]
	// take gets what the server says by itself.
	take func(*Response)

	// closing is done when nobody wants anything of the stream any more, ended when it is over.
	closing context.Context
	close   context.CancelFunc
	ended   chan struct{}
	cancel  context.CancelFunc

	hasAnswered bool // for whoever reads the stream alone

	mutex sync.Mutex
	last  int64
	asked map[int64]*question[Request, Response]
	end   *Error
}

type question[Request, Response any] struct {
	message *Request
	number  int64
	coming  chan outcome[Response] // has room for the one there will be, waited for or not
}

type outcome[Response any] struct {
	answer *Response
	err    error
}

// Pending is an answer to come.
type Pending[Response any] struct {
	coming  <-chan outcome[Response]
	forget  func() bool
	timeout time.Duration
}

// Wait gives the answer, or its refusal. It is called once.
func (p *Pending[Response]) Wait(ctx context.Context) (*Response, error) {
	ctx, cancel := withTimeout(ctx, p.timeout)
	defer cancel()
	select {
	case outcome := <-p.coming:
		return outcome.answer, outcome.err
	case <-ctx.Done():
		p.forget()
		return nil, errorOfContext(ctx)
	}
}

// begin opens a stream, which lasts until the context ends or it is closed.
func begin[Request, Response any](
	ctx context.Context, timeout time.Duration, protocol protocol[Request, Response],
	open func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[Request, Response], error),
) (*exchange[Request, Response], error) {
	closing, closeIt := context.WithCancel(ctx)
	ctx, cancel := context.WithCancel(ctx)
	stream, err := open(ctx)
	if err != nil {
		cancel()
		closeIt()
		return nil, err
	}
	return &exchange[Request, Response]{
		protocol: protocol, stream: stream, timeout: timeout,
		outbox: make(chan *question[Request, Response]), asked: make(map[int64]*question[Request, Response]),
		closing: closing, close: closeIt, ended: make(chan struct{}), cancel: cancel,
	}, nil
}

// start lets messages go out and come in; what the server says by itself is for `take`.
func (x *exchange[Request, Response]) start(take func(*Response)) {
	x.take = take
	go x.write()
	go x.read()
}

// Send sends a message, under a number of its own, and gives the answer to come. Messages go out in
// the order in which this returns.
func (x *exchange[Request, Response]) Send(ctx context.Context, message *Request) (*Pending[Response], error) {
	question := &question[Request, Response]{message: message, coming: make(chan outcome[Response], 1)}
	select {
	case x.outbox <- question:
		forget := func() bool { return x.forget(question) }
		return &Pending[Response]{coming: question.coming, forget: forget, timeout: x.timeout}, nil
	case <-x.ended:
		return nil, x.Err()
	case <-ctx.Done():
		return nil, errorOfContext(ctx)
	}
}

// Ask sends a message and waits for its answer.
func (x *exchange[Request, Response]) Ask(ctx context.Context, message *Request) (*Response, error) {
	ctx, cancel := withTimeout(ctx, x.timeout)
	defer cancel()
	pending, err := x.Send(ctx, message)
	if err != nil {
		return nil, err
	}
	return pending.Wait(ctx)
}

// answered asks, and gives the part of the answer that belongs to what was asked.
func answered[Request, Response, Part any](
	ctx context.Context, ask func(context.Context, *Request) (*Response, error), message *Request,
	part func(*Response) *Part,
) (*Part, error) {
	answer, err := ask(ctx, message)
	if err != nil {
		return nil, err
	}
	given := part(answer)
	if given == nil {
		return nil, serverFault("the answer belongs to something else than was asked")
	}
	return given, nil
}

// Err is why the stream is over; nil while it lasts.
func (x *exchange[Request, Response]) Err() error {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if x.end == nil {
		return nil
	}
	return x.end
}

// Close ends the stream, and returns when the server has let go of it. It may be called twice.
func (x *exchange[Request, Response]) Close() {
	x.finish(unavailable("the stream is closed; open another"))
	x.close()
	select {
	case <-x.ended:
	case <-time.After(hangUp):
	}
	x.cancel()
}

func (x *exchange[Request, Response]) write() {
	for {
		select {
		case question := <-x.outbox:
			message, err := x.number(question)
			if err != nil {
				question.coming <- outcome[Response]{err: err}
				continue
			}
			err = x.say(message)
			if err != nil && err != io.EOF && x.forget(question) { // at the end whoever reads is told why
				question.coming <- outcome[Response]{err: err}
			}
		case <-x.closing.Done():
			x.stream.CloseSend()
			return
		case <-x.ended:
			return
		}
	}
}

// say encodes the message by itself: grpc ends a stream over which it is to send what it cannot encode.
func (x *exchange[Request, Response]) say(message *Request) error {
	var encoded grpc.PreparedMsg
	if err := encoded.Encode(x.stream, message); err != nil {
		return invalid(status.Convert(err).Message())
	}
	return x.stream.SendMsg(&encoded)
}

func (x *exchange[Request, Response]) number(question *question[Request, Response]) (*Request, error) {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if x.end != nil {
		return nil, x.end
	}
	x.last++
	question.number = x.last
	x.asked[question.number] = question
	return x.numbered(question.message, question.number), nil
}

// forget says whether the question was open: who takes it out of those that are tells its outcome.
func (x *exchange[Request, Response]) forget(question *question[Request, Response]) bool {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	_, isOpen := x.asked[question.number]
	delete(x.asked, question.number)
	return isOpen
}

func (x *exchange[Request, Response]) read() {
	defer x.cancel()
	defer close(x.ended)
	for {
		message, err := x.stream.Recv()
		if err == io.EOF {
			x.finish(x.cut(unavailable("the server ended the stream"), x.hasAnswered))
			return
		}
		if err != nil {
			x.finish(x.cut(errorOf(err), x.hasAnswered))
			return
		}
		if x.numberOf(message) == 0 {
			x.take(message)
			continue
		}
		x.tell(message)
	}
}

func (x *exchange[Request, Response]) tell(answer *Response) {
	told := outcome[Response]{answer: answer}
	if refusal := x.refusalOf(answer); refusal != nil {
		told = outcome[Response]{err: errorOfStatus(status.FromProto(refusal))}
	}
	x.hasAnswered = true
	answered := x.numberOf(answer)
	x.mutex.Lock()
	defer x.mutex.Unlock()
	for number, question := range x.asked {
		if number == answered || number < answered && x.covers(answer, question.message) {
			question.coming <- told
			delete(x.asked, number)
		}
	}
}

// finish tells whoever waits that there will be no answer. The first reason stands.
func (x *exchange[Request, Response]) finish(why *Error) {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if x.end != nil {
		return
	}
	x.end = why
	for _, question := range x.asked {
		question.coming <- outcome[Response]{err: why}
	}
	clear(x.asked)
}
