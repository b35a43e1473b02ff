package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// faults are what is other than a pattern wants it, in sentences, as clients/conformance/README.md
// has patterns; none if the value matches.
func faults(path string, pattern, value any) []string {
	switch pattern := pattern.(type) {
	case nil:
		return unless(value == nil, path, "absent")
	case map[string]any:
		return faultsOfObject(path, pattern, value)
	case []any:
		list, isList := value.([]any)
		if !isList || len(list) != len(pattern) {
			return unless(false, path, show(pattern))
		}
		var found []string
		for at, each := range pattern {
			found = append(found, faults(fmt.Sprintf("%s.%d", path, at), each, list[at])...)
		}
		return found
	case float64:
		number, isNumber := value.(float64)
		return unless(isNumber && isNear(pattern, number), path, show(pattern))
	default:
		return unless(pattern == value, path, show(pattern))
	}
}

func faultsOfObject(path string, pattern map[string]any, value any) []string {
	if _, is := pattern["$any"]; is {
		return unless(value != nil, path, "there")
	}
	if regex, is := pattern["$match"].(string); is {
		text, isText := value.(string)
		isMatch := isText && regexp.MustCompile("^(?:"+regex+")$").MatchString(text)
		return unless(isMatch, path, show(pattern))
	}
	if wanted, is := pattern["$has"].([]any); is {
		list, _ := value.([]any)
		var found []string
		for _, each := range wanted {
			isThere := slices.ContainsFunc(list, func(element any) bool { return len(faults("", each, element)) == 0 })
			found = append(found, unless(isThere, path, "a list with "+show(each))...)
		}
		return found
	}
	object, isObject := value.(map[string]any)
	if !isObject {
		return unless(false, path, show(pattern))
	}
	var found []string
	for name, each := range pattern {
		found = append(found, faults(path+"."+name, each, object[name])...)
	}
	return found
}

func isNear(one, other float64) bool {
	scale := max(1, math.Abs(one), math.Abs(other))
	return math.Abs(one-other) <= 1e-6*scale
}

func unless(isGood bool, path, wanted string) []string {
	if isGood {
		return nil
	}
	return []string{fmt.Sprintf("expected %s to be %s", cmp.Or(strings.TrimPrefix(path, "."), "it"), wanted)}
}

func show(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // what was read from JSON can be written
	}
	return string(text)
}
