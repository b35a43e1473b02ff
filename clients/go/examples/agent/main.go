// Agent takes a lease, pays for one call, reports it and returns the rest; then it steps the policy
// "cartpole" a few times.
//
//	STEWARD_SERVER=127.0.0.1:50051 STEWARD_IC_TOKEN=… go run ./examples/agent
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"os"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	steward "steward/clients/go"
	budgetv1 "steward/clients/go/gen/steward/budget/v1"
	inferencev1 "steward/clients/go/gen/steward/inference/v1"
)

const (
	trancheNanousd = 100_000 // $0.0001
	model          = "gpt-4o-mini"
)

func main() {
	server := cmp.Or(os.Getenv("STEWARD_SERVER"), "127.0.0.1:50051")
	if err := run(context.Background(), server, os.Getenv("STEWARD_IC_TOKEN")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, server, token string) error {
	client, err := steward.New(server, steward.WithToken(token))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := spend(ctx, client, token); err != nil {
		return err
	}
	return balance(ctx, client)
}

func spend(ctx context.Context, client *steward.Client, token string) error {
	session, err := client.Session(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	go obey(session.Controls())

	lease, err := session.Handshake(ctx, &budgetv1.HandshakeRequest{RequestedBudgetNanousd: proto.Int64(trancheNanousd)})
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s lent\n", lease.LeaseId, dollars(lease.BudgetGrantedNanousd))

	usage, err := ask(ctx, lease, token)
	if err != nil {
		return err
	}
	booked, err := session.Report(ctx, lease.LeaseId, usage)
	if err != nil {
		return err
	}
	fmt.Printf("one call: %s spent\n", dollars(booked.LeaseSpentNanousd))

	rest, err := session.Return(ctx, &budgetv1.ReturnRequest{LeaseId: lease.LeaseId})
	if err != nil {
		return err
	}
	fmt.Printf("%s returned\n", dollars(rest.ReturnedNanousd))
	return nil
}

func obey(controls <-chan *budgetv1.Control) {
	for control := range controls {
		if control.DesiredState == budgetv1.DesiredState_DESIRED_STATE_STOPPED {
			fmt.Println("told to stop:", control.Reason)
		}
	}
}

// ask asks the provider something, and says what that used; the ledger knows the price.
func ask(ctx context.Context, lease *budgetv1.HandshakeResponse, token string) (*budgetv1.Usage, error) {
	key, err := steward.ProviderKey(lease, token)
	if err != nil {
		return nil, err
	}
	question := `{"model": "` + model + `", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}`
	url := lease.BaseUrl + "/chat/completions"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewBufferString(question))
	if err != nil {
		return nil, err
	}
	request.Header.Set("authorization", "Bearer "+key)
	request.Header.Set("content-type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the provider said %s: %s", response.Status, text)
	}
	var answer struct {
		Usage struct {
			PromptTokens     int64 `json:"prompt_tokens"`
			CompletionTokens int64 `json:"completion_tokens"`
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, err
	}
	return &budgetv1.Usage{
		RequestId:    uuid.NewString(),
		Sequence:     1,
		Model:        model,
		InputTokens:  answer.Usage.PromptTokens,
		OutputTokens: answer.Usage.CompletionTokens,
	}, nil
}

func balance(ctx context.Context, client *steward.Client) error {
	stream, err := client.Agents(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	agents, err := stream.Bring(ctx, &inferencev1.StreamAgent{Policy: "cartpole"})
	if err != nil {
		return err
	}
	pole, state := agents[0], []float32{0, 0, 0.05, 0}
	for step := 1; step <= 5; step++ {
		decided, err := pole.Step(ctx, state, steward.Likeliest)
		if err != nil {
			return err
		}
		force := -10.0
		if decided.GetAction().GetChoice() == 1 {
			force = 10
		}
		state = moved(state, force)
		fmt.Printf("%s, step %d: the pole leans %.4f\n", pole.Policy, step, state[2])
	}
	return nil
}

// moved is the cart and its pole 20 ms later; the equations are those of Barto, Sutton and Anderson.
func moved(state []float32, force float64) []float32 {
	sin, cos := math.Sincos(float64(state[2]))
	spin := float64(state[3])
	push := (force + 0.05*spin*spin*sin) / 1.1
	turn := (9.8*sin - cos*push) / (0.5 * (4.0/3 - 0.1*cos*cos/1.1))
	rates := []float32{state[1], float32(push - 0.05*turn*cos/1.1), state[3], float32(turn)}
	next := make([]float32, len(state))
	for at := range state {
		next[at] = state[at] + 0.02*rates[at]
	}
	return next
}

func dollars(nanousd int64) string {
	text := fmt.Sprintf("%d.%09d", nanousd/1e9, nanousd%1e9)
	return "$" + strings.TrimRight(strings.TrimRight(text, "0"), ".")
}
