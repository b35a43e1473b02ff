package steward

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

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
			answer.Message = &inferencev1.StreamResponse_Packed{
				Packed: &inferencev1.PackedResults{Actions: actions, Values: message.Packed.GetObservations()},
			}
		case *inferencev1.StreamRequest_Close:
			answer.Message = &inferencev1.StreamResponse_Closed{Closed: &inferencev1.StreamClosed{}}
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
