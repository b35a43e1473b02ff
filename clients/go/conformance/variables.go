package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

var variable = regexp.MustCompile(`\$\{(\w+)\}`)

// variables are the values of what is written ${NAME} in the script.
type variables map[string]string

func variablesOfEnvironment() variables {
	found := variables{}
	for _, each := range os.Environ() {
		if named, is := strings.CutPrefix(each, "STEWARD_VAR_"); is {
			name, value, _ := strings.Cut(named, "=")
			found[name] = value
		}
	}
	return found
}

// fill puts values in the place of names, in every text of some JSON.
func (v variables) fill(raw json.RawMessage) json.RawMessage {
	return variable.ReplaceAllFunc(raw, func(reference []byte) []byte {
		name := string(variable.FindSubmatch(reference)[1])
		value, found := v[name]
		if !found {
			panic("the script has a variable that nobody has set: " + name)
		}
		text := show(value)
		return []byte(text[1 : len(text)-1]) // the quotes are there
	})
}

// keep takes values out of an answer, by paths such as "path.to.0.field".
func (v variables) keep(paths map[string]string, answer any) error {
	for name, path := range paths {
		value := answer
		for part := range strings.SplitSeq(path, ".") {
			value = member(value, part)
		}
		if value == nil {
			return fmt.Errorf("expected something to keep at %s\ncame %s", path, show(answer))
		}
		v[name] = fmt.Sprint(value)
	}
	return nil
}

func member(value any, part string) any {
	if list, isList := value.([]any); isList {
		at, err := strconv.Atoi(part)
		if err != nil || at >= len(list) {
			return nil
		}
		return list[at]
	}
	object, _ := value.(map[string]any)
	return object[part]
}
