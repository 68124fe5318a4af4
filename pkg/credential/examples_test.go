package credential_test

import (
	"bytes"
	"encoding/base64"
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
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// examples is what testdata/kinds/KIND.json holds once its templates are
// executed: {{repeat "x" 3}} is xxx, {{entries 2 "k" "v"}} {"k0":"v","k1":"v"},
// {{file "rsa.pem" | crlf | json}} the text of testdata/files/rsa.pem with the
// line ends of Windows, quoted and escaped for JSON; there are bom, base64,
// base64lines (of 64 characters), indent and trim too.
type examples struct {
	Good []goodExample
	Bad  []badExample
	// Requests are requests for tokens, of kinds that mint.
	Requests []requestExample
	// Sources says of kinds that refer to others which kinds these may be.
	Sources []sourceExample
}

type requestExample struct {
	Name    string
	Request json.RawMessage
	// Normalised is what the request becomes; absent when it stays as it is.
	Normalised json.RawMessage
	Violations []credential.Violation
}

type sourceExample struct {
	Name    string
	Payload json.RawMessage
	// Source is the kind of the credential that the payload refers to.
	Source     credential.Kind
	Violations []credential.Violation
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
	// Ambient and Ageless are what Ambient and the opposite of LongLived return.
	Ambient, Ageless bool
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
		"file": func(name string) (string, error) {
			text, err := os.ReadFile(filepath.Join("testdata", "files", name))
			return string(text), err
		},
		"json": func(text string) (string, error) {
			var out strings.Builder
			encoder := json.NewEncoder(&out)
			encoder.SetEscapeHTML(false)
			err := encoder.Encode(text)
			return strings.TrimSpace(out.String()), err
		},
		"crlf":   func(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") },
		"bom":    func(text string) string { return "\ufeff" + text },
		"base64": func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) },
		"base64lines": func(text string) string {
			encoded := []byte(base64.StdEncoding.EncodeToString([]byte(text)))
			var lines []string
			for line := range slices.Chunk(encoded, 64) {
				lines = append(lines, string(line))
			}
			return strings.Join(lines, "\n")
		},
		"indent": func(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") },
		"trim":   strings.TrimSpace,
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
	if len(p.References()) > 1 {
		t.Error("more than one reference: a login has one source")
	}
	if at, ok := p.ExpireTime(); !at.Equal(example.ExpireTime) || ok == at.IsZero() {
		t.Errorf("ExpireTime() = %v, %t; want %v", at, ok, example.ExpireTime)
	}
	if p.Ambient() != example.Ambient || p.LongLived() == example.Ageless {
		t.Errorf("Ambient() = %t, LongLived() = %t", p.Ambient(), p.LongLived())
	}
	testFields(t, p, example.Fields)
	testEncoding(t, p)
	testAgain(t, p)
}

// What was normalised once is accepted as it is: people read a payload, change a
// field and write it back.
func testAgain(t *testing.T, p credential.Payload) {
	again, err := credential.NewPayload(p.Message())
	if err != nil {
		t.Fatalf("its own normalised form is refused: %v", err)
	}
	if !again.Equal(p) {
		t.Error("normalising twice changes the payload again")
	}
}

func TestTokenRequests(t *testing.T) {
	for _, kind := range credential.Kinds() {
		for _, example := range load(t, kind).Requests {
			t.Run(string(kind)+"/"+example.Name, func(t *testing.T) {
				given := &credentialv1.TokenRequest{}
				if err := protojson.Unmarshal(example.Request, given); err != nil {
					t.Fatal(err)
				}
				want := proto.CloneOf(given)
				if example.Normalised != nil {
					want = &credentialv1.TokenRequest{}
					if err := protojson.Unmarshal(example.Normalised, want); err != nil {
						t.Fatal(err)
					}
				}
				got, err := credential.NewTokenRequest(kind, given)
				var typed *credential.ValidationError
				if err != nil && !errors.As(err, &typed) {
					t.Fatalf("error is %v, want a *ValidationError", err)
				}
				if err != nil || example.Violations != nil {
					if typed == nil {
						typed = &credential.ValidationError{}
					}
					if diff := cmp.Diff(example.Violations, typed.Violations); diff != "" {
						t.Errorf("violations (-want +got)\n%s", diff)
					}
					return
				}
				if diff := cmp.Diff(want, got.Message(), protocmp.Transform()); diff != "" {
					t.Errorf("Message() (-want +got)\n%s", diff)
				}
			})
		}
	}
}

func TestSources(t *testing.T) {
	for _, kind := range credential.Kinds() {
		for _, example := range load(t, kind).Sources {
			t.Run(string(kind)+"/"+example.Name, func(t *testing.T) {
				p, err := credential.NewPayload(message(t, example.Payload))
				if err != nil {
					t.Fatal(err)
				}
				var typed *credential.ValidationError
				if err := p.CheckSource(example.Source); err != nil && !errors.As(err, &typed) {
					t.Fatalf("error is %v, want a *ValidationError", err)
				}
				if typed == nil {
					typed = &credential.ValidationError{}
				}
				if diff := cmp.Diff(example.Violations, typed.Violations); diff != "" {
					t.Errorf("violations (-want +got)\n%s", diff)
				}
			})
		}
	}
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
