package credential_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// examples is what testdata/kinds/KIND.json holds once its templates are
// executed: {{repeat "x" 3}} is xxx, {{entries 2 "k" "v"}} {"k0":"v","k1":"v"}.
type examples struct {
	Good []goodExample
	Bad  []badExample
}

type goodExample struct {
	Name    string
	Payload json.RawMessage
	// Normalised is what the payload becomes; absent when it stays as it is.
	Normalised json.RawMessage
	Facts      map[string]string
	References []string
	ExpireTime time.Time
	// Fields holds what Field returns; all of the payload's fields are there,
	// except for the entries of maps and the whole.
	Fields map[string]string
}

type badExample struct {
	Name       string
	Payload    json.RawMessage
	Violations []credential.Violation
}

func load(t testing.TB, kind credential.Kind) examples {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "kinds", string(kind)+".json"))
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := template.New(string(kind)).Funcs(template.FuncMap{
		"repeat": strings.Repeat,
		"entries": func(n int, key, value string) (string, error) {
			m := make(map[string]string, n)
			for i := range n {
				m[key+strconv.Itoa(i)] = value
			}
			encoded, err := json.Marshal(m)
			return string(encoded), err
		},
	}).Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := tmpl.Execute(&out, nil); err != nil {
		t.Fatal(err)
	}
	var e examples
	decoder := json.NewDecoder(&out)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return e
}

func message(t testing.TB, encoded json.RawMessage) *credentialv1.Payload {
	t.Helper()
	m := &credentialv1.Payload{}
	if err := protojson.Unmarshal(encoded, m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestGoodExamples(t *testing.T) {
	for _, kind := range credential.Kinds() {
		e := load(t, kind)
		if len(e.Good) == 0 {
			t.Errorf("%s: no good example", kind)
		}
		for _, example := range e.Good {
			t.Run(string(kind)+"/"+example.Name, func(t *testing.T) { testGood(t, kind, example) })
		}
	}
}

func testGood(t *testing.T, kind credential.Kind, example goodExample) {
	given := message(t, example.Payload)
	before := message(t, example.Payload)
	p, err := credential.NewPayload(given)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, given, protocmp.Transform()); diff != "" {
		t.Errorf("NewPayload changed its argument (-before +after)\n%s", diff)
	}
	want := before
	if example.Normalised != nil {
		want = message(t, example.Normalised)
	}
	if diff := cmp.Diff(want, p.Message(), protocmp.Transform()); diff != "" {
		t.Errorf("Message() (-want +got)\n%s", diff)
	}
	if p.Kind() != kind || p.IsZero() {
		t.Errorf("Kind() = %q, IsZero() = %t", p.Kind(), p.IsZero())
	}
	if diff := cmp.Diff(example.Facts, p.Facts()); diff != "" {
		t.Errorf("Facts() (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(example.References, p.References(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("References() (-want +got)\n%s", diff)
	}
	if at, ok := p.ExpireTime(); !at.Equal(example.ExpireTime) || ok == at.IsZero() {
		t.Errorf("ExpireTime() = %v, %t; want %v", at, ok, example.ExpireTime)
	}
	testFields(t, p, example.Fields)
	testEncoding(t, p)
}

func testFields(t *testing.T, p credential.Payload, want map[string]string) {
	for field, content := range want {
		got, err := p.Field(field)
		if err != nil {
			t.Errorf("Field(%q): %v", field, err)
			continue
		}
		if string(got) != content {
			t.Errorf("Field(%q) = %q, want %q", field, got, content)
		}
		if err := credential.ValidateField(p.Kind(), field); err != nil {
			t.Errorf("ValidateField(%q): %v", field, err)
		}
	}
	_, err := p.Field("nosuchfield")
	var typed *credential.FieldError
	if !errors.As(err, &typed) {
		t.Fatalf("Field(nosuchfield): %v, want a *FieldError", err)
	}
	for _, field := range typed.Fields {
		if _, ok := want[field]; !ok && !strings.HasSuffix(field, ".KEY") {
			t.Errorf("the example misses field %q", field)
		}
	}
	if len(typed.Fields) == 0 {
		t.Error("the error lists no fields")
	}
}

func testEncoding(t *testing.T, p credential.Payload) {
	encoded, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	read, err := credential.Unmarshal(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if !read.Equal(p) || read.Kind() != p.Kind() {
		t.Error("Unmarshal(Marshal()) is another payload")
	}
	// Maps are encoded in random order unless asked otherwise.
	for range 10 {
		again, err := read.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(encoded, again) {
			t.Fatal("Marshal differs from one call to the next")
		}
	}
}

func TestBadExamples(t *testing.T) {
	for _, kind := range credential.Kinds() {
		e := load(t, kind)
		if len(e.Bad) == 0 {
			t.Errorf("%s: no bad example", kind)
		}
		for _, example := range e.Bad {
			t.Run(string(kind)+"/"+example.Name, func(t *testing.T) {
				p, err := credential.NewPayload(message(t, example.Payload))
				var typed *credential.ValidationError
				if !errors.As(err, &typed) {
					t.Fatalf("got %v, %v; want a *ValidationError", p, err)
				}
				if !p.IsZero() {
					t.Errorf("a payload beside the error: %v", p)
				}
				if diff := cmp.Diff(example.Violations, typed.Violations); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			})
		}
	}
}

func TestExamplesAreOfKinds(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "kinds", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, file := range files {
		got = append(got, filepath.Base(file))
	}
	want := map[string]bool{}
	for _, kind := range credential.Kinds() {
		want[string(kind)+".json"] = true
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(slices.Values(got))); diff != "" {
		t.Errorf("testdata/kinds (-kinds +files)\n%s", diff)
	}
}
