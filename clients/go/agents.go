package steward

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	inferencev1 "steward/clients/go/gen/steward/inference/v1"
)

const numberBytes = 4 // of a packed int32 or float32

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

	stream   *AgentStream
	asked    *inferencev1.StreamAgent
	number   uint32
	hasEnded bool
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
	if err := checkRows(agents, observations); err != nil {
		return nil, err
	}
	packed := &inferencev1.PackedSteps{Deterministic: bool(choice)}
	for at, agent := range agents {
		packed.Agents = append(packed.Agents, agent.number)
		packed.Observations, _ = binary.Append(packed.Observations, binary.LittleEndian, observations[at])
	}
	message := &inferencev1.StreamRequest_Packed{Packed: packed}
	results, err := answered(ctx, s.Ask, &inferencev1.StreamRequest{Message: message}, (*inferencev1.StreamResponse).GetPacked)
	if err != nil {
		return nil, err
	}
	if !hasRows(results, len(agents)) {
		return nil, serverFault(fmt.Sprintf("the answer has not a row for each of %d agents", len(agents)))
	}
	return &Steps{results}, nil
}

// checkRows refuses what the server would take for something else: no agents are all of the stream to
// it, and it tells rows apart by their number.
func checkRows(agents []*Agent, observations [][]float32) error {
	if len(agents) == 0 || len(observations) != len(agents) {
		return invalid(fmt.Sprintf("%d rows are given for %d agents; give a row for each, and an agent at least", len(observations), len(agents)))
	}
	for at, row := range observations {
		if len(row) != len(observations[0]) {
			return invalid(fmt.Sprintf("row %d has %d numbers, row 0 has %d; give all of them as many", at, len(row), len(observations[0])))
		}
	}
	return nil
}

func hasRows(results *inferencev1.PackedResults, count int) bool {
	for _, each := range [][]byte{results.GetValues(), results.GetLogProbs(), results.GetPressures()} {
		if len(each) != count*numberBytes {
			return false
		}
	}
	actions := len(results.GetActions())
	return actions > 0 && actions%(count*numberBytes) == 0
}

// Ask sends a message and waits for its answer; the server, too, lets go of it at the deadline.
func (s *AgentStream) Ask(ctx context.Context, message *inferencev1.StreamRequest) (*inferencev1.StreamResponse, error) {
	ctx, cancel := withTimeout(ctx, s.timeout)
	defer cancel()
	return s.exchange.Ask(ctx, &inferencev1.StreamRequest{Message: message.GetMessage(), TimeoutMs: leftMs(ctx)})
}

// leftMs until the deadline; 0, which the server takes for as long as it takes, without one.
func leftMs(ctx context.Context) uint32 {
	until, has := ctx.Deadline()
	if !has {
		return 0
	}
	return uint32(min(max(1, time.Until(until).Milliseconds()), math.MaxUint32))
}

func (s *AgentStream) open(ctx context.Context, agents ...*inferencev1.StreamAgent) (*inferencev1.StreamOpened, error) {
	message := &inferencev1.StreamRequest_Open{Open: &inferencev1.StreamOpen{Agents: agents}}
	opened, err := answered(ctx, s.Ask, &inferencev1.StreamRequest{Message: message}, (*inferencev1.StreamResponse).GetOpened)
	if err != nil {
		return nil, err
	}
	if len(opened.GetPolicies()) != len(agents) || len(opened.GetBegun()) != len(agents) {
		return nil, serverFault(fmt.Sprintf("the answer has not a row for each of %d agents", len(agents)))
	}
	return opened, nil
}

// Step lets the agent make a step.
func (a *Agent) Step(ctx context.Context, observation []float32, choice Choice) (*inferencev1.StepResponse, error) {
	step := &inferencev1.StreamStep{Agent: a.number, Observation: observation, Deterministic: bool(choice)}
	message := &inferencev1.StreamRequest_Step{Step: step}
	return answered(ctx, a.stream.Ask, &inferencev1.StreamRequest{Message: message}, (*inferencev1.StreamResponse).GetStep)
}

// Reset begins its sequence anew. With a seed its draws can be repeated; nil: by nobody. One that was
// refused can be asked for again.
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
	if a.hasEnded { // and a reset that was to begin it anew was refused
		return nil
	}
	message := &inferencev1.StreamRequest_Close{Close: &inferencev1.StreamClose{Agents: []uint32{a.number}}}
	_, err := answered(ctx, a.stream.Ask, &inferencev1.StreamRequest{Message: message}, (*inferencev1.StreamResponse).GetClosed)
	a.hasEnded = err == nil
	return err
}

func (a *Agent) take(opened *inferencev1.StreamOpened, at int) {
	a.hasEnded = false
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
	numbers := make([]T, len(packed)/numberBytes)
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
