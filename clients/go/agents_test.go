package steward

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	rpcpb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	inferencev1 "steward/clients/go/gen/steward/inference/v1"
)

// policies numbers the agents of a stream, and answers each step with its agent's number.
type policies struct {
	inferencev1.UnimplementedInferenceServiceServer

	heard []*inferencev1.StreamRequest
	// instead of the answer to the first message, the second and so on.
	instead map[int]*inferencev1.StreamResponse
	// cutAfter so many messages, with this error.
	cutAfter int
	why      error
}

func (p *policies) Stream(stream grpc.BidiStreamingServer[inferencev1.StreamRequest, inferencev1.StreamResponse]) error {
	var brought uint32
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil
		}
		if p.heard = append(p.heard, request); len(p.heard) == p.cutAfter {
			return p.why
		}
		answer := &inferencev1.StreamResponse{Sequence: request.GetSequence()}
		switch message := request.GetMessage().(type) {
		case *inferencev1.StreamRequest_Open:
			opened := &inferencev1.StreamOpened{First: brought}
			for _, agent := range message.Open.GetAgents() {
				opened.Policies = append(opened.Policies, agent.GetPolicy()+"@1")
				opened.Begun = append(opened.Begun, true)
				brought++
			}
			answer.Message = &inferencev1.StreamResponse_Opened{Opened: opened}
		case *inferencev1.StreamRequest_Step:
			answer.Message = &inferencev1.StreamResponse_Step{Step: &inferencev1.StepResponse{Value: float32(message.Step.GetAgent())}}
		case *inferencev1.StreamRequest_Packed:
			actions, _ := binary.Append(nil, binary.LittleEndian, message.Packed.GetAgents())
			rows := message.Packed.GetObservations()
			answer.Message = &inferencev1.StreamResponse_Packed{
				Packed: &inferencev1.PackedResults{Actions: actions, Values: rows, LogProbs: rows, Pressures: rows},
			}
		case *inferencev1.StreamRequest_Close:
			answer.Message = &inferencev1.StreamResponse_Closed{Closed: &inferencev1.StreamClosed{}}
		}
		if other, found := p.instead[len(p.heard)]; found {
			answer.Message = other.GetMessage()
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

func bring(t *testing.T, service *policies, count int) (*AgentStream, []*Agent, error) {
	t.Helper()
	client := serve(t, func(s grpc.ServiceRegistrar) { inferencev1.RegisterInferenceServiceServer(s, service) }, WithTimeout(10*time.Second))
	stream, err := client.Agents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stream.Close)
	asked := slices.Repeat([]*inferencev1.StreamAgent{{Policy: "cartpole"}}, count)
	agents, err := stream.Bring(t.Context(), asked...)
	return stream, agents, err
}

func TestEachAgentHasItsOwnAnswers(t *testing.T) {
	_, agents, err := bring(t, &policies{}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for number, agent := range agents {
		decided, err := agent.Step(t.Context(), []float32{1}, Drawn)
		if err != nil || decided.GetValue() != float32(number) || agent.Policy != "cartpole@1" || !agent.Begun {
			t.Errorf("agent %d of %s has the answer %v: %v", number, agent.Policy, decided, err)
		}
	}
}

func TestAnAgentThatBeginsAnewHasAnotherNumber(t *testing.T) {
	service := &policies{}
	_, agents, err := bring(t, service, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := agents[0].Reset(t.Context(), proto.Int64(7)); err != nil {
		t.Fatal(err)
	}
	if decided, err := agents[0].Step(t.Context(), []float32{1}, Drawn); decided.GetValue() != 2 || err != nil {
		t.Errorf("it has the answer %v: %v", decided, err)
	}
	fresh := service.heard[2].GetOpen().GetAgents()[0]
	if fresh.GetSeed() != 7 || !fresh.GetReset_() || fresh.GetPolicy() != "cartpole" {
		t.Errorf("it begins as %v", fresh)
	}
}

func TestAResetWhoseSecondHalfIsRefusedCanBeAskedForAgain(t *testing.T) {
	refusal := &rpcpb.Status{Code: int32(codes.ResourceExhausted), Message: "too many agents"}
	service := &policies{instead: map[int]*inferencev1.StreamResponse{
		3: {Message: &inferencev1.StreamResponse_Refusal{Refusal: refusal}},
	}}
	_, agents, err := bring(t, service, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := agents[0].Reset(t.Context(), nil); !errors.Is(err, ErrRateLimited) {
		t.Fatalf("it is %v", err)
	}
	for range 2 {
		if err := agents[0].Reset(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	var closed []uint32
	for _, request := range service.heard {
		closed = append(closed, request.GetClose().GetAgents()...)
	}
	if !slices.Equal(closed, []uint32{0, 2}) {
		t.Errorf("it was taken out as %v", closed)
	}
}

func TestStepsThatDoNotFitTheirAgentsAreRefusedByTheClient(t *testing.T) {
	service := &policies{}
	stream, agents, err := bring(t, service, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, each := range []struct {
		agents []*Agent
		rows   [][]float32
	}{
		{agents: nil, rows: nil},
		{agents: nil, rows: [][]float32{{1}, {2}}},
		{agents: agents, rows: [][]float32{{1, 2}}},
		{agents: agents, rows: [][]float32{{1}, {2}, {3}}},
		{agents: agents, rows: [][]float32{{1}, {2, 3, 4}}},
	} {
		if _, err := stream.Step(t.Context(), each.agents, each.rows, Drawn); !errors.Is(err, ErrInvalidRequest) {
			t.Errorf("of %v for %d agents it is %v", each.rows, len(each.agents), err)
		}
	}
	if _, err := stream.Step(t.Context(), agents, [][]float32{{1}, {2}}, Drawn); err != nil {
		t.Error(err)
	}
	if len(service.heard) != 2 {
		t.Errorf("the server heard %v", service.heard)
	}
}

func TestAnAnswerWithTooFewRowsIsAFaultOfTheServers(t *testing.T) {
	one := make([]byte, 4)
	two := make([]byte, 8)
	for _, each := range []*inferencev1.PackedResults{
		{},
		{Actions: one, Values: two, LogProbs: two, Pressures: two},
		{Actions: two, Values: one, LogProbs: two, Pressures: two},
		{Actions: two, Values: two, LogProbs: one, Pressures: two},
		{Actions: two, Values: two, LogProbs: two, Pressures: one},
	} {
		service := &policies{instead: map[int]*inferencev1.StreamResponse{
			2: {Message: &inferencev1.StreamResponse_Packed{Packed: each}},
		}}
		stream, agents, err := bring(t, service, 2)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Step(t.Context(), agents, [][]float32{{1}, {2}}, Drawn); !errors.Is(err, ErrServerFault) {
			t.Errorf("of %v it is %v", each, err)
		}
	}
	service := &policies{instead: map[int]*inferencev1.StreamResponse{
		1: {Message: &inferencev1.StreamResponse_Opened{Opened: &inferencev1.StreamOpened{Policies: []string{"cartpole@1"}}}},
	}}
	if _, agents, err := bring(t, service, 2); !errors.Is(err, ErrServerFault) {
		t.Errorf("it brings %v: %v", agents, err)
	}
}

func TestAnAnswerOfAnotherKindIsAFaultOfTheServers(t *testing.T) {
	nothing := &inferencev1.StreamResponse{}
	service := &policies{instead: map[int]*inferencev1.StreamResponse{2: nothing, 3: nothing, 4: nothing}}
	stream, agents, err := bring(t, service, 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func() error{
		"step":  func() error { _, err := agents[0].Step(t.Context(), []float32{1}, Drawn); return err },
		"steps": func() error { _, err := stream.Step(t.Context(), agents, [][]float32{{1}}, Drawn); return err },
		"end":   func() error { return agents[0].End(t.Context()) },
	} {
		if err := ask(); !errors.Is(err, ErrServerFault) {
			t.Errorf("the %s: it is %v", name, err)
		}
	}
}

func TestStepsOfManyArePackedAndUnpacked(t *testing.T) {
	service := &policies{}
	stream, agents, err := bring(t, service, 3)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(agents)
	steps, err := stream.Step(t.Context(), agents, [][]float32{{0.5}, {-1}, {2}}, Likeliest)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(steps.Choices(), []int32{2, 1, 0}) || !slices.Equal(steps.Values(), []float32{0.5, -1, 2}) {
		t.Errorf("the choices are %v, the values %v", steps.Choices(), steps.Values())
	}
	if !service.heard[1].GetPacked().GetDeterministic() {
		t.Error("they are drawn")
	}
}

func TestTheServerIsToldHowLongAStepMayTake(t *testing.T) {
	service := &policies{}
	if _, _, err := bring(t, service, 1); err != nil {
		t.Fatal(err)
	}
	if got := service.heard[0].GetTimeoutMs(); got < 5_000 || got > 10_000 {
		t.Errorf("it is %d ms", got)
	}
}

func TestWithoutATimeoutAStepMayTakeAsLongAsItTakes(t *testing.T) {
	service := &policies{}
	client := serve(t, func(s grpc.ServiceRegistrar) { inferencev1.RegisterInferenceServiceServer(s, service) }, WithTimeout(0))
	stream, err := client.Agents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stream.Close)
	if _, err := stream.Bring(t.Context(), &inferencev1.StreamAgent{}); err != nil {
		t.Fatal(err)
	}
	if got := service.heard[0].GetTimeoutMs(); got != 0 {
		t.Errorf("it is %d ms", got)
	}
}

func TestAStreamThatIsCutSaysThatWhatWasKeptMayBeLost(t *testing.T) {
	service := &policies{cutAfter: 2, why: status.Error(codes.Unavailable, "the server goes down")}
	_, agents, err := bring(t, service, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = agents[0].Step(t.Context(), []float32{1}, Drawn)
	if !errors.Is(err, ErrStreamBroken) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("it is %v", err)
	}
}

func TestAStreamThatIsRefusedSaysWhy(t *testing.T) {
	service := &policies{cutAfter: 1, why: status.Error(codes.PermissionDenied, "no scope")}
	if _, _, err := bring(t, service, 1); !errors.Is(err, ErrForbidden) {
		t.Errorf("it is %v", err)
	}
}
