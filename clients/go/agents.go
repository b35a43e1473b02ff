package steward

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	inferencev1 "steward/clients/go/gen/steward/inference/v1"
)

// Choice is how an action is chosen.
type Choice bool

const (
	// Drawn at random, as likely as the policy has it.
	Drawn Choice = false
	// Likeliest of all.
	Likeliest Choice = true
)

// AgentStream is agents that a policy decides for, one or thousands over one stream, several steps
// under way. A refused message leaves it open.
//
// Many goroutines may share it. Steps are made in the order in which they are asked for. A stream that
// breaks is never mended in silence: what the policy kept of its agents may be lost, and only the
// caller knows what that means.
type AgentStream struct {
	*exchange[inferencev1.StreamRequest, inferencev1.StreamResponse]
}

// Agents opens a stream for agents. It lasts until the context ends or it is closed.
func (c *Client) Agents(ctx context.Context) (*AgentStream, error) {
	exchange, err := begin(ctx, c.timeout, agentProtocol, inferencev1.NewInferenceServiceClient(c).Stream)
	if err != nil {
		return nil, err
	}
	exchange.start(func(*inferencev1.StreamResponse) {}) // the server says nothing by itself here
	return &AgentStream{exchange}, nil
}

// Agent is one agent of a stream, for one goroutine at a time.
type Agent struct {
	// Policy that decides for it, with the version.
	Policy string
	// Begun says whether its sequence began when the stream brought it; else it went on.
	Begun bool

	stream *AgentStream
	asked  *inferencev1.StreamAgent
	number uint32
}

// Bring brings agents into the stream, in their order. One without an id ends with the stream; one
// with an id that is there already goes on, unless it is to be reset.
func (s *AgentStream) Bring(ctx context.Context, asked ...*inferencev1.StreamAgent) ([]*Agent, error) {
	opened, err := s.open(ctx, asked...)
	if err != nil {
		return nil, err
	}
	agents := make([]*Agent, len(asked))
	for at, each := range asked {
		agents[at] = &Agent{stream: s, asked: each}
		agents[at].take(opened, at)
	}
	return agents, nil
}

// Step lets agents of one policy, each named once, make a step: a row of numbers for each.
func (s *AgentStream) Step(ctx context.Context, agents []*Agent, observations [][]float32, choice Choice) (*Steps, error) {
	packed := &inferencev1.PackedSteps{Deterministic: bool(choice)}
	for _, agent := range agents {
		packed.Agents = append(packed.Agents, agent.number)
	}
	for _, row := range observations {
		packed.Observations, _ = binary.Append(packed.Observations, binary.LittleEndian, row)
	}
	message := &inferencev1.StreamRequest_Packed{Packed: packed}
	answer, err := s.Ask(ctx, &inferencev1.StreamRequest{Message: message})
	if err != nil {
		return nil, err
	}
	return &Steps{answer.GetPacked()}, nil
}

// Ask sends a message and waits for its answer; the server, too, lets go of it at the deadline.
func (s *AgentStream) Ask(ctx context.Context, message *inferencev1.StreamRequest) (*inferencev1.StreamResponse, error) {
	ctx, cancel := withTimeout(ctx, s.timeout)
	defer cancel()
	until, _ := ctx.Deadline()
	left := min(max(1, time.Until(until).Milliseconds()), math.MaxUint32)
	return s.exchange.Ask(ctx, &inferencev1.StreamRequest{Message: message.GetMessage(), TimeoutMs: uint32(left)})
}

func (s *AgentStream) open(ctx context.Context, agents ...*inferencev1.StreamAgent) (*inferencev1.StreamOpened, error) {
	message := &inferencev1.StreamRequest_Open{Open: &inferencev1.StreamOpen{Agents: agents}}
	answer, err := s.Ask(ctx, &inferencev1.StreamRequest{Message: message})
	return answer.GetOpened(), err
}

// Step lets the agent make a step.
func (a *Agent) Step(ctx context.Context, observation []float32, choice Choice) (*inferencev1.StepResponse, error) {
	step := &inferencev1.StreamStep{Agent: a.number, Observation: observation, Deterministic: bool(choice)}
	message := &inferencev1.StreamRequest_Step{Step: step}
	answer, err := a.stream.Ask(ctx, &inferencev1.StreamRequest{Message: message})
	return answer.GetStep(), err
}

// Reset begins its sequence anew. With a seed its draws can be repeated; nil: by nobody.
func (a *Agent) Reset(ctx context.Context, seed *int64) error {
	if err := a.End(ctx); err != nil {
		return err
	}
	fresh := proto.CloneOf(a.asked)
	fresh.Seed, fresh.Reset_ = seed, true
	opened, err := a.stream.open(ctx, fresh)
	if err != nil {
		return err
	}
	a.take(opened, 0)
	return nil
}

// End takes it out of the stream; one without an id ends. It is not to be used again.
func (a *Agent) End(ctx context.Context) error {
	message := &inferencev1.StreamRequest_Close{Close: &inferencev1.StreamClose{Agents: []uint32{a.number}}}
	_, err := a.stream.Ask(ctx, &inferencev1.StreamRequest{Message: message})
	return err
}

func (a *Agent) take(opened *inferencev1.StreamOpened, at int) {
	a.number = opened.GetFirst() + uint32(at)
	a.Policy = opened.GetPolicies()[at]
	a.Begun = opened.GetBegun()[at]
}

// Steps is a step of many agents of one policy; everything has a row for each of them.
type Steps struct{ results *inferencev1.PackedResults }

// Choices of a discrete policy, from 0 on.
func (s *Steps) Choices() []int32 { return unpacked[int32](s.results.GetActions()) }

// Numbers of a continuous policy, one row after the other.
func (s *Steps) Numbers() []float32 { return unpacked[float32](s.results.GetActions()) }

// Values are what the policy expects to come from there on.
func (s *Steps) Values() []float32 { return unpacked[float32](s.results.GetValues()) }

// LogProbs are the natural logarithms of the likelihoods of the actions.
func (s *Steps) LogProbs() []float32 { return unpacked[float32](s.results.GetLogProbs()) }

// Pressures are those of the agents' memory.
func (s *Steps) Pressures() []float32 { return unpacked[float32](s.results.GetPressures()) }

// Failed rows are those for which the policy gave no finite numbers: their agents begin anew, and what
// else is told of these rows means nothing.
func (s *Steps) Failed() []uint32 { return s.results.GetFailed() }

func unpacked[T int32 | float32](packed []byte) []T {
	numbers := make([]T, len(packed)/4)
	binary.Decode(packed, binary.LittleEndian, numbers)
	return numbers
}

var agentProtocol = protocol[inferencev1.StreamRequest, inferencev1.StreamResponse]{
	numbered: func(request *inferencev1.StreamRequest, number int64) *inferencev1.StreamRequest {
		return &inferencev1.StreamRequest{
			Sequence: uint64(number), Message: request.GetMessage(), TimeoutMs: request.GetTimeoutMs(),
		}
	},
	numberOf:  func(answer *inferencev1.StreamResponse) int64 { return int64(answer.GetSequence()) },
	refusalOf: (*inferencev1.StreamResponse).GetRefusal,
	covers:    func(*inferencev1.StreamResponse, *inferencev1.StreamRequest) bool { return false },
	cut: func(why *Error, hasAnswered bool) *Error {
		if !hasAnswered {
			return why // it was refused as a whole
		}
		return streamBroken(why)
	},
}
