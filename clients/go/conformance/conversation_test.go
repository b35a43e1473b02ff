package main

import (
	"encoding/json"
	"slices"
	"testing"
)

func TestOnlyWhatIsTogetherIsSaidBeforeAnAnswerIsAwaited(t *testing.T) {
	together, alone := json.RawMessage(`{"together": true}`), json.RawMessage(`{}`)
	var sizes []int
	for _, round := range roundsOf([]json.RawMessage{alone, together, together, alone, alone, together}) {
		sizes = append(sizes, len(round))
	}
	if want := []int{1, 2, 1, 1, 1}; !slices.Equal(sizes, want) {
		t.Errorf("the rounds are %v", sizes)
	}
}
