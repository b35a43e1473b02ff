package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	steward "steward/clients/go"
)

// expected is what must come of a call or a message.
type expected struct {
	Answer  any
	Refusal map[string]any
	Keep    map[string]string
}

// check holds what came against it.
func (e expected) check(answer any, err error) error {
	var refusal *steward.Error
	if errors.As(err, &refusal) {
		return e.checkRefusal(refusal)
	}
	if err != nil {
		return err
	}
	if e.Refusal != nil {
		return unexpected([]string{"expected a refusal: " + show(e.Refusal)}, answer)
	}
	if e.Answer == nil {
		return nil
	}
	return unexpected(faults("", e.Answer, answer), answer)
}

func (e expected) checkRefusal(refusal *steward.Error) error {
	came := shown(refusal)
	if e.Refusal == nil {
		return unexpected([]string{"expected an answer"}, came)
	}
	pattern := maps.Clone(e.Refusal)
	if fields, is := pattern["fields"].([]any); is {
		// They are a set.
		slices.SortFunc(fields, func(one, other any) int { return strings.Compare(one.(string), other.(string)) })
	}
	return unexpected(faults("", pattern, came), came)
}

// shown is a refusal as the script has them.
func shown(refusal *steward.Error) any {
	_, isTold := refusal.RetryAfter()
	texts := []any{}
	for _, each := range refusal.Texts {
		texts = append(texts, map[string]any{
			"line": each.Line, "column": each.Column, "path": each.Path, "message": each.Message,
		})
	}
	return parsed(show(map[string]any{
		"kind":        refusal.Kind.Name(),
		"code":        code.Code(refusal.Code).String(),
		"reason":      refusal.Reason,
		"message":     refusal.Message,
		"facts":       refusal.Facts,
		"fields":      slices.Sorted(maps.Keys(refusal.Fields)),
		"errors":      texts,
		"retry_after": isTold,
	}))
}

// unexpected is an error of what is wrong, if anything is.
func unexpected(faults []string, came any) error {
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%s\ncame %s", strings.Join(faults, "\n"), show(came))
}

// told is a message as its JSON has it.
func told(message proto.Message) any {
	text, err := protojson.Marshal(message)
	if err != nil {
		panic(err) // it came over the wire
	}
	return parsed(string(text))
}

func parsed(text string) any {
	var value any
	decode([]byte(text), &value)
	return value
}

func decode(raw []byte, into any) {
	if err := json.Unmarshal(raw, into); err != nil {
		panic(err) // the script is not what its README says
	}
}
