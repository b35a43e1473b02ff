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
type protocol[Q, A any] struct {
	// numbered gives the same message with this number.
	numbered func(*Q, int64) *Q
	// numberOf the message that this answers; 0 for what the server says by itself.
	numberOf  func(*A) int64
	refusalOf func(*A) *rpcpb.Status
	// covers says whether this answers that earlier message, too.
	covers func(*A, *Q) bool
	// cut makes of why the stream ended what whoever waits is told.
	cut func(why *Error, hasAnswered bool) *Error
}

// exchange is messages over one stream in both directions, each with the answer that belongs to it.
type exchange[Q, A any] struct {
	protocol[Q, A]
	stream  grpc.BidiStreamingClient[Q, A]
	timeout time.Duration
	outbox  chan *question[Q, A]
	// take gets what the server says by itself.
	take func(*A)

	// closing is done when nobody wants anything of the stream any more, ended when it is over.
	closing context.Context
	close   context.CancelFunc
	ended   chan struct{}
	cancel  context.CancelFunc

	hasAnswered bool // for whoever reads the stream alone

	mutex sync.Mutex
	last  int64
	asked map[int64]*question[Q, A]
	end   *Error
}

type question[Q, A any] struct {
	message *Q
	number  int64
	coming  chan outcome[A] // has room for the one there will be, waited for or not
}

type outcome[A any] struct {
	answer *A
	err    error
}

// Pending is an answer to come.
type Pending[A any] struct {
	coming  <-chan outcome[A]
	forget  func()
	timeout time.Duration
}

// Wait gives the answer, or its refusal. It is called once.
func (p *Pending[A]) Wait(ctx context.Context) (*A, error) {
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
func begin[Q, A any](
	ctx context.Context, timeout time.Duration, protocol protocol[Q, A],
	open func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[Q, A], error),
) (*exchange[Q, A], error) {
	closing, closeIt := context.WithCancel(ctx)
	ctx, cancel := context.WithCancel(ctx)
	stream, err := open(ctx)
	if err != nil {
		cancel()
		closeIt()
		return nil, err
	}
	return &exchange[Q, A]{
		protocol: protocol, stream: stream, timeout: timeout,
		outbox: make(chan *question[Q, A]), asked: make(map[int64]*question[Q, A]),
		closing: closing, close: closeIt, ended: make(chan struct{}), cancel: cancel,
	}, nil
}

// start lets messages go out and come in; what the server says by itself is for `take`.
func (x *exchange[Q, A]) start(take func(*A)) {
	x.take = take
	go x.write()
	go x.read()
}

// Send sends a message, under a number of its own, and gives the answer to come. Messages go out in
// the order in which this returns.
func (x *exchange[Q, A]) Send(ctx context.Context, message *Q) (*Pending[A], error) {
	question := &question[Q, A]{message: message, coming: make(chan outcome[A], 1)}
	select {
	case x.outbox <- question:
		forget := func() { x.forget(question) }
		return &Pending[A]{coming: question.coming, forget: forget, timeout: x.timeout}, nil
	case <-x.ended:
		return nil, x.Err()
	case <-ctx.Done():
		return nil, errorOfContext(ctx)
	}
}

// Ask sends a message and waits for its answer.
func (x *exchange[Q, A]) Ask(ctx context.Context, message *Q) (*A, error) {
	ctx, cancel := withTimeout(ctx, x.timeout)
	defer cancel()
	pending, err := x.Send(ctx, message)
	if err != nil {
		return nil, err
	}
	return pending.Wait(ctx)
}

// Err is why the stream is over; nil while it lasts.
func (x *exchange[Q, A]) Err() error {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if x.end == nil {
		return nil
	}
	return x.end
}

// Close ends the stream, and returns when the server has let go of it. It may be called twice.
func (x *exchange[Q, A]) Close() {
	x.finish(unavailable("the stream is closed; open another"))
	x.close()
	select {
	case <-x.ended:
	case <-time.After(hangUp):
	}
	x.cancel()
}

func (x *exchange[Q, A]) write() {
	for {
		select {
		case question := <-x.outbox:
			message, err := x.number(question)
			if err == nil {
				err = x.stream.Send(message)
			}
			if err != nil && err != io.EOF { // then whoever reads is told why
				question.coming <- outcome[A]{err: err}
				x.forget(question)
			}
		case <-x.closing.Done():
			x.stream.CloseSend()
			return
		case <-x.ended:
			return
		}
	}
}

func (x *exchange[Q, A]) number(question *question[Q, A]) (*Q, error) {
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

func (x *exchange[Q, A]) forget(question *question[Q, A]) {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	delete(x.asked, question.number)
}

func (x *exchange[Q, A]) read() {
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

func (x *exchange[Q, A]) tell(answer *A) {
	told := outcome[A]{answer: answer}
	if refusal := x.refusalOf(answer); refusal != nil {
		told = outcome[A]{err: errorOfStatus(status.FromProto(refusal))}
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
func (x *exchange[Q, A]) finish(why *Error) {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if x.end != nil {
		return
	}
	x.end = why
	for _, question := range x.asked {
		question.coming <- outcome[A]{err: why}
	}
	clear(x.asked)
}
