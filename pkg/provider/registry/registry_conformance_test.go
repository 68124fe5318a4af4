//go:build conformance

package registry

import (
	"errors"
	"strings"
	"testing"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
	"github.com/credstore/credstore/pkg/provider/registry/registrytest"
)

func realLogin(t *testing.T, s *registrytest.Server, username, password string) credential.Login {
	t.Helper()
	return loginOf(t, &credentialv1.DockerRegistry{Server: s.Host, Username: username, Password: password, CaPem: s.CAPEM})
}

func realRegistry(s *registrytest.Server) *Registry {
	cfg := Config{Egress: loopback}
	if s.TokenHost != "" {
		cfg.TokenHosts = map[string][]string{s.Host: {s.TokenHost}}
	}
	return New(cfg)
}

// The suite that the fake passes, against a real registry with both of its ways
// to log in.
func TestConformanceSuite(t *testing.T) {
	users := map[string]string{user: password, "other": "other-canary"}
	for name, auth := range map[string]registrytest.Auth{"Basic": registrytest.AuthBasic, "Bearer": registrytest.AuthToken} {
		t.Run(name, func(t *testing.T) {
			s := registrytest.New(t, auth, users)
			r := realRegistry(s)
			providertest.RunVendor(t, providertest.VendorHarness{
				Verifier: r, Minter: r,
				Good: realLogin(t, s, user, password), Identity: user,
				Wrong: realLogin(t, s, user, "wr0ng-canary"),
				Calls: s.Calls, Stop: s.Stop,
				Secrets: []string{password, "wr0ng-canary"},
			})
		})
	}
}

// The words that the registry, or its token server, finds for each answer.
func TestConformanceAnswers(t *testing.T) {
	users := map[string]string{user: password}
	basic := registrytest.New(t, registrytest.AuthBasic, users)
	tokens := registrytest.New(t, registrytest.AuthToken, users)
	forged := registrytest.New(t, registrytest.AuthToken, users)
	forged.Tokens.Forge()
	open := registrytest.New(t, registrytest.AuthNone, users)
	silly := registrytest.New(t, registrytest.AuthSilly, users)
	byToken := func(s *registrytest.Server, token string) credential.Login {
		return loginOf(t, &credentialv1.DockerRegistry{Server: s.Host, IdentityToken: token, CaPem: s.CAPEM})
	}
	for _, test := range []struct {
		name   string
		server *registrytest.Server
		login  credential.Login
		kind   error
		text   string // a prefix; empty for no error
	}{
		{"Basic", basic, realLogin(t, basic, user, password), nil, ""},
		{"Basic, wrong password", basic, realLogin(t, basic, user, "n0t-it"), provider.ErrRefused, "verify: refused: 401 unauthorized: authentication required"},
		{"Basic, unknown user", basic, realLogin(t, basic, "nobody", password), provider.ErrRefused, "verify: refused: 401 unauthorized: authentication required"},
		{"Basic, identity token", basic, byToken(basic, "x"), provider.ErrUnsupported, "verify: not supported: the registry asks for a password"},
		{"Bearer", tokens, realLogin(t, tokens, user, password), nil, ""},
		{"Bearer, wrong password", tokens, realLogin(t, tokens, user, "n0t-it"), provider.ErrRefused, "token: refused: 401 unauthorized: wrong user name or password"},
		{"Bearer, unknown user", tokens, realLogin(t, tokens, "nobody", password), provider.ErrRefused, "token: refused: 401 unauthorized: wrong user name or password"},
		{"Bearer, identity token", tokens, byToken(tokens, tokens.Tokens.Refresh), nil, ""},
		{"Bearer, wrong identity token", tokens, byToken(tokens, "n0t-it"), provider.ErrRefused, "token: refused: 401 unauthorized: wrong user name or password"},
		{"Bearer, signed by another", forged, realLogin(t, forged, user, password), provider.ErrRefused, "verify: refused: 401 unauthorized: authentication required"},
		{"no login asked for", open, realLogin(t, open, user, password), provider.ErrUnsupported, "verify: not supported: 200 the registry lets anybody in"},
		{"any login accepted", silly, realLogin(t, silly, user, "n0t-it"), provider.ErrUnsupported, "verify: not supported: the registry accepts a login that was made up at random too"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := realRegistry(test.server).Verify(t.Context(), test.login)
			if test.kind == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, test.kind) || !strings.HasPrefix(err.Error(), test.text) {
				t.Errorf("error is %v; want %q", err, test.text)
			}
		})
	}
	t.Run("token server that is not configured", func(t *testing.T) {
		before := tokens.Tokens.Calls()
		_, err := New(Config{Egress: loopback}).Verify(t.Context(), realLogin(t, tokens, user, password))
		if !errors.Is(err, provider.ErrRefused) || tokens.Tokens.Calls() != before {
			t.Errorf("error is %v, %d calls", err, tokens.Tokens.Calls()-before)
		}
	})
}
