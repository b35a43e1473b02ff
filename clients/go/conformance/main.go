// Conformance makes the steps of clients/conformance/script.json through this client, and prints TAP.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	steward "steward/clients/go"
	_ "steward/clients/go/gen/steward/agents/v1"
	_ "steward/clients/go/gen/steward/alerts/v1"
	_ "steward/clients/go/gen/steward/analytics/v1"
	_ "steward/clients/go/gen/steward/api_keys/v1"
	_ "steward/clients/go/gen/steward/audit/v1"
	_ "steward/clients/go/gen/steward/credentials/v1"
	_ "steward/clients/go/gen/steward/environments/v1"
	_ "steward/clients/go/gen/steward/events/v1"
	_ "steward/clients/go/gen/steward/executions/v1"
	_ "steward/clients/go/gen/steward/limits/v1"
	_ "steward/clients/go/gen/steward/playbooks/v1"
	_ "steward/clients/go/gen/steward/projects/v1"
	_ "steward/clients/go/gen/steward/providers/v1"
	_ "steward/clients/go/gen/steward/requests/v1"
	_ "steward/clients/go/gen/steward/system/v1"
	_ "steward/clients/go/gen/steward/tokens/v1"
	_ "steward/clients/go/gen/steward/users/v1"
)

type step struct {
	expected

	Say      string
	As, At   string
	Call     string
	Send     json.RawMessage
	TimeoutS float64 `json:"timeout_s"`
	Answers  []any
	Ends     bool
	Session  []json.RawMessage
	Stream   []json.RawMessage
	AtLeastS float64 `json:"at_least_s"`
	AtMostS  float64 `json:"at_most_s"`
}

type runner struct {
	variables variables
	clients   map[[2]string]*steward.Client
}

func main() {
	text, err := os.ReadFile(os.Getenv("CONFORMANCE_SCRIPT"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	var script struct{ Steps []json.RawMessage }
	decode(text, &script)
	runner := &runner{variablesOfEnvironment(), make(map[[2]string]*steward.Client)}
	if !runner.run(script.Steps) {
		os.Exit(1)
	}
}

func (r *runner) run(steps []json.RawMessage) bool {
	fmt.Printf("1..%d\n", len(steps))
	for at, raw := range steps {
		var step step
		decode(raw, &step)
		begun := time.Now()
		err := r.make(raw)
		if err == nil {
			err = step.checkTime(time.Since(begun).Seconds())
		}
		if err != nil {
			fmt.Printf("not ok %d - %s\n# %s\n", at+1, step.Say, strings.ReplaceAll(err.Error(), "\n", "\n# "))
			return false
		}
		fmt.Printf("ok %d - %s\n", at+1, step.Say)
	}
	return true
}

func (s *step) checkTime(took float64) error {
	if took < s.AtLeastS || s.AtMostS != 0 && took > s.AtMostS {
		return fmt.Errorf("expected it to take from %g s to %g s\ncame %.3f s", s.AtLeastS, s.AtMostS, took)
	}
	return nil
}

func (r *runner) make(raw json.RawMessage) error {
	var unfilled, step step
	decode(raw, &unfilled)
	if unfilled.Session != nil || unfilled.Stream != nil {
		return r.converse(&unfilled)
	}
	decode(r.variables.fill(raw), &step)
	client, err := r.client(step.At, step.As)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	if step.TimeoutS != 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(step.TimeoutS*float64(time.Second)))
	}
	defer cancel()
	method, err := methodOf(step.Call)
	if err != nil {
		return err
	}
	var answer any
	if method.IsStreamingServer() {
		answer, err = step.stream(ctx, client, method)
	} else {
		answer, err = step.call(ctx, client, method)
	}
	if err := step.check(answer, err); err != nil {
		return err
	}
	return r.variables.keep(step.Keep, answer)
}

func (s *step) call(ctx context.Context, client *steward.Client, method protoreflect.MethodDescriptor) (any, error) {
	answer := messageOf(method.Output())
	if err := client.Invoke(ctx, "/"+s.Call, s.request(method), answer); err != nil {
		return nil, err
	}
	return told(answer), nil
}

// stream holds the first answers against what they must be; it gives the last.
func (s *step) stream(ctx context.Context, client *steward.Client, method protoreflect.MethodDescriptor) (any, error) {
	stream, err := client.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+s.Call)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(s.request(method)); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	next := func() (any, error) {
		answer := messageOf(method.Output())
		if err := stream.RecvMsg(answer); err != nil {
			return nil, err
		}
		return told(answer), nil
	}
	if s.Refusal != nil {
		return next()
	}
	var last any
	for _, pattern := range s.Answers {
		if last, err = next(); err != nil {
			return nil, err
		}
		if err := unexpected(faults("", pattern, last), last); err != nil {
			return nil, err
		}
	}
	if s.Ends {
		if answer, err := next(); err != io.EOF {
			return nil, errors.Join(unexpected([]string{"expected the end"}, answer), err)
		}
	}
	return last, nil
}

func (s *step) request(method protoreflect.MethodDescriptor) proto.Message {
	request := messageOf(method.Input())
	read(s.Send, request)
	return request
}

func (r *runner) client(at, credential string) (*steward.Client, error) {
	address := os.Getenv("STEWARD_SERVER")
	if at == "shaky" {
		address = os.Getenv("STEWARD_SHAKY")
	}
	caller := [2]string{address, credential}
	if known, found := r.clients[caller]; found {
		return known, nil
	}
	client, err := steward.New(address, steward.WithToken(credential))
	if err == nil {
		r.clients[caller] = client
	}
	return client, err
}

func methodOf(name string) (protoreflect.MethodDescriptor, error) {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(name, "/", ".")))
	if err != nil {
		return nil, err
	}
	return found.(protoreflect.MethodDescriptor), nil
}

func messageOf(descriptor protoreflect.MessageDescriptor) proto.Message {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
	if err != nil {
		panic(err) // whoever has the method has its messages
	}
	return kind.New().Interface()
}

func read(raw json.RawMessage, into proto.Message) {
	if err := protojson.Unmarshal(raw, into); err != nil {
		panic(err) // the script does not fit the contract
	}
}
