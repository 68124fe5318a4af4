package client_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/clienttest"
)

// TestTokenInPlaceOfItsFile holds that a token given for the name of its file
// ends in no error.
func TestTokenInPlaceOfItsFile(t *testing.T) {
	_, options := clienttest.StartTLS(t)
	for _, name := range []string{
		"credstore_abc_hunter2", " credstore_abc_hunter2", `{"token": "hunter2"}`, `["hunter2"]`, "-----BEGIN hunter2", "hunter2\nmore", strings.Repeat("hunter2", 50), strings.Repeat("hunter2", 1000),
	} {
		o := options
		o.Token, o.TokenFile = nil, name
		err := get(t, dial(t, o))
		if !errors.Is(err, client.ErrUnauthenticated) || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "in the place of the file's name") {
			t.Errorf("%.30q: %v", name, err)
		}
	}
	o := options
	o.Token, o.TokenFile = nil, filepath.Join(t.TempDir(), "missing.token")
	if err := get(t, dial(t, o)); !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), o.TokenFile) {
		t.Errorf("a file that is missing: %v", err)
	}
}
