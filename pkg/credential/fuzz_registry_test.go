package credential_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
)

// FuzzDockerRegistry reads documents as people paste them, with the server that
// they name beside them.
func FuzzDockerRegistry(f *testing.F) {
	e := load(f, "dockerRegistry")
	for _, example := range e.Good {
		m := message(f, example.Payload).GetDockerRegistry()
		f.Add(m.GetDocument(), m.GetServer(), m.GetUsername(), m.GetPassword(), m.GetCaPem())
	}
	for _, example := range e.Bad {
		m := message(f, example.Payload).GetDockerRegistry()
		f.Add(m.GetDocument(), m.GetServer(), m.GetUsername(), m.GetPassword(), m.GetCaPem())
	}
	f.Fuzz(func(t *testing.T, document, server, username, password, ca string) {
		fuzzPayload(t, &credentialv1.Payload{Kind: &credentialv1.Payload_DockerRegistry{DockerRegistry: &credentialv1.DockerRegistry{
			Document: document, Server: server, Username: username, Password: password, CaPem: ca,
		}}})
	})
}

// fuzzPayload makes a payload of what was pasted. What is accepted holds no
// document any more and is accepted again as it is.
func fuzzPayload(t *testing.T, m *credentialv1.Payload) {
	t.Helper()
	var p credential.Payload
	var err error
	bounded(t, proto.Size(m), func() { p, err = credential.NewPayload(m) })
	if err != nil {
		var typed *credential.ValidationError
		if !errors.As(err, &typed) || !p.IsZero() {
			t.Fatalf("got %v, %v; want a *ValidationError alone", p, err)
		}
		return
	}
	if p.Message().GetDockerRegistry().GetDocument() != "" {
		t.Error("the document was kept")
	}
	testAgain(t, p)
	for fact, value := range p.Facts() {
		if value == "" {
			t.Errorf("fact %s is empty", fact)
		}
	}
}
