package gateway

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/credstore/credstore/gen/openapi"
)

// TestDescription holds that the description says what it is of, and that clients
// made from it send a token.
func TestDescription(t *testing.T) {
	type scheme struct{ Type, In, Name string }
	type description struct {
		Info                struct{ Title, Version string }
		SecurityDefinitions map[string]scheme
		Security            []map[string][]string
	}
	var got description
	if err := json.Unmarshal(openapi.JSON, &got); err != nil {
		t.Fatal(err)
	}
	want := description{
		SecurityDefinitions: map[string]scheme{"bearer": {"apiKey", "header", "Authorization"}},
		Security:            []map[string][]string{{"bearer": {}}},
	}
	want.Info.Title, want.Info.Version = "credstore", "v1"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s\nthe file in tools/proto/openapi.yaml is to be the first that is generated", diff)
	}
}
