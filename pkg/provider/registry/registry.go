package registry

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// dockerHub is the name that docker knows its own registry by, and hub where its
// API is.
const (
	dockerHub = "docker.io"
	hub       = "https://registry-1.docker.io"
)

// Config says what registries may be reached, and where. Its zero value is for
// public ones.
type Config struct {
	Egress provider.Egress
	// Hub is the https URL at which Docker Hub is asked, without a slash at its
	// end: its public one when empty, or that of a mirror.
	Hub string
	// TokenHosts allows further token servers, as "auth.example.net:5001", by the
	// registry that may name them, as "registry.example.com:5000". A port is left
	// out where it is 443.
	TokenHosts map[string][]string
}

// Registry verifies and hands out logins of the kind dockerRegistry. It is safe
// for concurrent use and keeps nothing.
type Registry struct{ cfg Config }

// New returns a Registry.
func New(cfg Config) *Registry {
	if cfg.Hub == "" {
		cfg.Hub = hub
	}
	return &Registry{cfg: cfg}
}

var (
	_ provider.Verifier = (*Registry)(nil)
	_ provider.Minter   = (*Registry)(nil)
)

// Verify logs in as "docker login" does: GET /v2/ for the challenge, a token from
// the token server where it says Bearer, and GET /v2/ again. A registry that lets
// anybody in proves nothing, and one that takes any login neither: unless it is
// known to refuse wrong ones, it is asked once more with a name and a password
// made up at random. Both are ErrUnsupported.
// (https://distribution.github.io/distribution/spec/auth/token/)
func (r *Registry) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	m, err := messageOf(login, "verify")
	if err != nil {
		return credential.Identity{}, err
	}
	s, err := r.open(m)
	if err != nil {
		return credential.Identity{}, err
	}
	defer s.client.CloseIdleConnections()
	if err := s.verify(ctx); err != nil {
		return credential.Identity{}, err
	}
	return credential.Identity{Name: m.GetUsername()}, nil
}

func messageOf(login credential.Login, op string) (*credentialv1.DockerRegistry, error) {
	m := login.Payload.Message().GetDockerRegistry()
	if m == nil {
		return nil, &provider.Error{Kind: provider.ErrUnsupported, Op: op, Text: "the credential is no login to a container registry"}
	}
	return m, nil
}

// account is who logs in: by name and password, or by a refresh token.
type account struct {
	username, password, identity string
}

// session is one conversation with a registry.
type session struct {
	client *http.Client
	server string
	// base is the https URL of the registry, host what the rule about token
	// servers compares.
	base, host string
	tokenHosts []string
	account    account
}

func (r *Registry) open(m *credentialv1.DockerRegistry) (*session, error) {
	client, err := r.cfg.Egress.Client(m.GetCaPem())
	if err != nil {
		return nil, &provider.Error{Kind: provider.ErrRefused, Op: "verify", Text: provider.Clean(err.Error())}
	}
	base := "https://" + m.GetServer()
	if m.GetServer() == dockerHub {
		base = r.cfg.Hub
	}
	return &session{
		client: client, server: m.GetServer(), base: base, host: strings.TrimPrefix(base, "https://"),
		tokenHosts: r.cfg.TokenHosts[m.GetServer()],
		account:    account{m.GetUsername(), m.GetPassword(), m.GetIdentityToken()},
	}, nil
}

// strict are registries that are known to refuse a wrong password wherever they
// ask for one, and that count failed logins.
func strict(server string) bool {
	return slices.Contains([]string{dockerHub, "ghcr.io", "quay.io", "registry.gitlab.com"}, server)
}

func (s *session) verify(ctx context.Context) error {
	challenges, err := s.challenges(ctx)
	if err != nil {
		return err
	}
	way, err := s.choose(challenges)
	if err != nil {
		return err
	}
	if err := s.login(ctx, way, s.account); err != nil {
		return err
	}
	if strict(s.server) {
		return nil
	}
	return s.refusesOthers(ctx, way)
}

// refusesOthers says whether a login that nobody has is refused. No account can
// be locked by it.
func (s *session) refusesOthers(ctx context.Context, way challenge) error {
	nobody := account{username: "credstore-probe-" + strings.ToLower(rand.Text())[:16], password: rand.Text()}
	if s.account.identity != "" {
		nobody.identity = rand.Text()
	}
	switch err := s.login(ctx, way, nobody); {
	case err == nil:
		return &provider.Error{
			Kind: provider.ErrUnsupported, Op: "verify",
			Text: "the registry accepts a login that was made up at random too: that it accepts this one proves nothing",
		}
	case isRefused(err):
		return nil
	default:
		return err
	}
}
