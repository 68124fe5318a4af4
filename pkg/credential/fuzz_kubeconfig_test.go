package credential_test

import (
	"errors"
	"testing"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/credential/kubeconfig"
)

func kubeconfigPayload(document, context, source string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Kubeconfig{
		Kubeconfig: &credentialv1.Kubeconfig{Document: document, Context: context, TokenSource: source},
	}}
}

// Whatever is pasted: no crash, no hang, no document that expands itself, every
// refusal by field, and what is accepted once is accepted as it was normalised.
func FuzzKubeconfig(f *testing.F) {
	e := load(f, "kubeconfig")
	for _, good := range e.Good {
		m := message(f, good.Payload).GetKubeconfig()
		f.Add(m.GetDocument(), m.GetContext(), m.GetTokenSource())
	}
	for _, bad := range e.Bad {
		m := message(f, bad.Payload).GetKubeconfig()
		f.Add(m.GetDocument(), m.GetContext(), m.GetTokenSource())
	}
	f.Fuzz(func(t *testing.T, document, context, source string) {
		if len(document) > credential.MaxPayloadSize {
			return
		}
		var p credential.Payload
		var err error
		bounded(t, len(document)+len(context), func() {
			p, err = credential.NewPayload(kubeconfigPayload(document, context, source))
		})
		if err != nil {
			if typed, ok := errors.AsType[*credential.ValidationError](err); !ok || len(typed.Violations) == 0 {
				t.Fatalf("error is %v, want a *ValidationError with violations", err)
			}
			return
		}
		again, err := credential.NewPayload(p.Message())
		if err != nil || !again.Equal(p) {
			t.Errorf("its own normalised form: %v, equal: %t", err, again.Equal(p))
		}
		m := p.Message().GetKubeconfig()
		login, problems := kubeconfig.Parse(m.GetDocument(), m.GetContext())
		if login == nil {
			t.Fatalf("an accepted document is not read again: %v", problems)
		}
		if (login.Plugin != nil) != (m.GetTokenSource() != "") {
			t.Error("a program without a token source, or the other way round")
		}
		if facts := p.Facts(); facts["server"] == "" || facts["context"] == "" {
			t.Errorf("facts are %v", facts)
		}
	})
}
