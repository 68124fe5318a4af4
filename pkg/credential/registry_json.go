package credential

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// registryMember is one member of an object, as it stands in a document.
type registryMember struct {
	key   string
	value json.RawMessage
}

// registryObject is the members of an object in their order.
type registryObject []registryMember

// readRegistryObject reads a document that is one object, and says what is wrong
// with it otherwise, without a part of it. Unlike encoding/json it refuses a key
// that stands there twice.
func readRegistryObject(text []byte) (registryObject, string) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	open, err := decoder.Token()
	if err != nil {
		return nil, registryJSONProblem(err)
	}
	if open != json.Delim('{') {
		return nil, "is no JSON object"
	}
	var out registryObject
	seen := map[string]bool{}
	twice := false
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, registryJSONProblem(err)
		}
		name, _ := key.(string) // the decoder accepts nothing else here
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, registryJSONProblem(err)
		}
		twice = twice || seen[name]
		seen[name] = true
		out = append(out, registryMember{name, value})
	}
	if _, err := decoder.Token(); err != nil {
		return nil, registryJSONProblem(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, "goes on after the end of its JSON"
	}
	if twice {
		return nil, "has the same key twice, and programs differ in which one they take"
	}
	return out, ""
}

// registryJSONProblem says where JSON breaks off; the words of encoding/json repeat the
// character that they stumble on.
func registryJSONProblem(err error) string {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("is no valid JSON: it breaks off at byte %d", syntax.Offset)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "is no valid JSON: its end is missing"
	}
	return "is no valid JSON"
}

func (o registryObject) find(key string) (json.RawMessage, bool) {
	for _, m := range o {
		if m.key == key {
			return m.value, true
		}
	}
	return nil, false
}

// text returns a member that is a string; "" when there is none, or it is null.
func (o registryObject) text(key string) (value, problem string) {
	raw, found := o.find(key)
	if !found || string(raw) == "null" {
		return "", ""
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return "", "must be a string; it is not"
	}
	return value, ""
}
