package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	steward "steward/clients/go"
	budgetv1 "steward/clients/go/gen/steward/budget/v1"
)

const pushTimeout = 5 * time.Second

type exchange struct {
	expected

	Send      json.RawMessage
	Push      any
	Meanwhile json.RawMessage
	Together  bool
}

// conversation is exchanges over a session or a stream of agents.
type conversation struct {
	// say gives what waits for the answer.
	say    func(send json.RawMessage) func() (any, error)
	pushed <-chan *budgetv1.Control
	close  func()
}

func (r *runner) converse(step *step) error {
	var credential string
	decode(r.variables.fill(json.RawMessage(show(step.As))), &credential)
	client, err := r.client(step.At, credential)
	if err != nil {
		return err
	}
	conversation, err := conversationOf(client, step.Session != nil)
	if err != nil {
		return err
	}
	defer conversation.close()
	for _, round := range roundsOf(append(step.Session, step.Stream...)) {
		var sent []func() error
		for _, raw := range round {
			var exchange exchange
			decode(r.variables.fill(raw), &exchange)
			if exchange.Meanwhile != nil {
				if err := r.make(exchange.Meanwhile); err != nil {
					return err
				}
			}
			wait := conversation.begin(&exchange)
			sent = append(sent, func() error { return r.await(&exchange, wait) })
		}
		if err := inOrder(sent); err != nil {
			return err
		}
	}
	return nil
}

// roundsOf gives what is said before any of its answers is waited for: exchanges that are together, or one.
func roundsOf(exchanges []json.RawMessage) [][]json.RawMessage {
	var rounds [][]json.RawMessage
	wasTogether := false
	for _, raw := range exchanges {
		var exchange exchange
		decode(raw, &exchange)
		if exchange.Together && wasTogether {
			last := len(rounds) - 1
			rounds[last] = append(rounds[last], raw)
		} else {
			rounds = append(rounds, []json.RawMessage{raw})
		}
		wasTogether = exchange.Together
	}
	return rounds
}

// begin says what is to be said, if anything; it gives what waits for what comes.
func (c *conversation) begin(exchange *exchange) func() (any, error) {
	switch {
	case exchange.Send != nil:
		return c.say(exchange.Send)
	case exchange.Push != nil:
		return c.push
	default:
		return func() (any, error) { return nil, nil }
	}
}

func (r *runner) await(exchange *exchange, wait func() (any, error)) error {
	came, err := wait()
	if err := exchange.check(came, err); err != nil {
		return err
	}
	if exchange.Push != nil {
		if err := unexpected(faults("", exchange.Push, came), came); err != nil {
			return err
		}
	}
	return r.variables.keep(exchange.Keep, came)
}

func inOrder(tasks []func() error) error {
	for _, task := range tasks {
		if err := task(); err != nil {
			return err
		}
	}
	return nil
}

// push is the next message that the server says by itself.
func (c *conversation) push() (any, error) {
	select {
	case control, more := <-c.pushed:
		if !more {
			return nil, fmt.Errorf("expected a push\ncame the end")
		}
		return told(&budgetv1.SessionResponse{Message: &budgetv1.SessionResponse_Control{Control: control}}), nil
	case <-time.After(pushTimeout):
		return nil, fmt.Errorf("expected a push\ncame none in %s", pushTimeout)
	}
}

func conversationOf(client *steward.Client, isSession bool) (*conversation, error) {
	if isSession {
		session, err := client.Session(context.Background())
		if err != nil {
			return nil, err
		}
		return &conversation{saying(session.Send), session.Controls(), session.Close}, nil
	}
	agents, err := client.Agents(context.Background())
	if err != nil {
		return nil, err
	}
	return &conversation{say: saying(agents.Send), close: agents.Close}, nil
}

func saying[Q, A any](send func(context.Context, *Q) (*steward.Pending[A], error)) func(json.RawMessage) func() (any, error) {
	return func(raw json.RawMessage) func() (any, error) {
		message := new(Q)
		read(raw, any(message).(proto.Message))
		pending, err := send(context.Background(), message)
		return func() (any, error) {
			if err != nil {
				return nil, err
			}
			answer, err := pending.Wait(context.Background())
			if err != nil {
				return nil, err
			}
			return told(any(answer).(proto.Message)), nil
		}
	}
}
