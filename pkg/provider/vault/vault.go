package vault

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"unicode"

	"github.com/hashicorp/vault/api"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// DefaultMount is where the key-value engine is unless told otherwise.
const DefaultMount = "secret"

// DefaultTokenFile is where Kubernetes puts the token of a pod's service account.
const DefaultTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// Config says where a Vault is, and what logins need from this server. It holds
// no secret.
type Config struct {
	// Address is an https or http URL without path, query, fragment and user.
	Address string
	// Namespace is an Enterprise namespace; "" is the root. Logins are made in it.
	Namespace string
	// Mount is where the key-value engine is; DefaultMount when "".
	Mount string
	// CAPEM are the certificates to trust, the system's when "".
	CAPEM string
	// Egress guards the addresses that are connected to.
	Egress provider.Egress
	// TokenFile holds the token of this server's service account, for logins by
	// Kubernetes; DefaultTokenFile when "". It is read at each login.
	TokenFile string
	// SignAWS signs a GetCallerIdentity request with an AWS credential, for logins
	// by AWS; those are refused when it is nil. The headers include the signature
	// and, when serverID is not empty, X-Vault-AWS-IAM-Server-ID, which is signed
	// too. Its error is a *provider.Error or the context's.
	SignAWS func(ctx context.Context, source credential.Login, serverID string) (method, url, body string, headers http.Header, err error)
	// Minter makes access tokens from Azure credentials, for logins by Azure; those
	// are refused when it is nil.
	Minter provider.Minter
	// Random returns numbers in [0, 1), to several callers at a time; math/rand's
	// when nil.
	Random func() float64
}

// normal fills in the defaults.
func (c Config) normal() Config {
	if c.Mount == "" {
		c.Mount = DefaultMount
	}
	if c.TokenFile == "" {
		c.TokenFile = DefaultTokenFile
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	return c
}

// Session is a login to one Vault. It implements provider.Session, Identifier,
// Renewer and Closer, and prints as its address.
type Session struct {
	cfg       Config
	login     credential.Login
	transport *http.Transport
	base      *api.Client // without a token

	// turn is held while logging in, so that who finds the same token dead at
	// the same time logs in once. A channel, so that waiting can be given up.
	turn chan struct{}

	mu    sync.Mutex // guards lease and its renewTime
	lease *lease
}

// Open logs in. The payload must be of kind vault, and one that says where it may
// be sent goes nowhere else. Its error is a *provider.Error or the context's.
func Open(ctx context.Context, cfg Config, login credential.Login) (*Session, error) {
	cfg = cfg.normal()
	m := login.Payload.Message().GetVault()
	if m == nil {
		return nil, unusable(fmt.Errorf("a credential of kind %q is no login to Vault", login.Payload.Kind()))
	}
	if err := checkAddress(cfg.Address); err != nil {
		return nil, unusable(err)
	}
	if m.GetAddress() != "" && !sameServer(m.GetAddress(), cfg.Address) {
		return nil, unusable(fmt.Errorf("the login is for %s alone: change the store's address, or the credential's", m.GetAddress()))
	}
	transport, err := cfg.Egress.Transport(cfg.CAPEM)
	if err != nil {
		return nil, unusable(err)
	}
	if c := m.GetCertificate(); c != nil {
		if err := present(c.GetPem(), cfg.Address, transport.TLSClientConfig); err != nil {
			return nil, unusable(err)
		}
	}
	base, err := newClient(cfg, transport)
	if err != nil {
		return nil, unusable(err)
	}
	s := &Session{cfg: cfg, login: login, transport: transport, base: base, turn: make(chan struct{}, 1)}
	l, err := s.logIn(ctx)
	if err != nil {
		transport.CloseIdleConnections()
		return nil, err
	}
	s.lease = l
	return s, nil
}

// unusable is the error for settings that no attempt can work with.
func unusable(err error) error {
	return &provider.Error{Kind: provider.ErrRefused, Op: "login", Text: provider.Clean(err.Error())}
}

func checkAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("the address is no URL of the form https://vault.example.com:8200")
	}
	return nil
}

// sameServer says whether two addresses lead to the same server, as far as they
// are written: case and the port that the scheme has anyway do not matter.
func sameServer(a, b string) bool {
	x, errX := url.Parse(a)
	y, errY := url.Parse(b)
	return errX == nil && errY == nil && origin(x) == origin(y)
}

// origin returns scheme, host and port.
func origin(u *url.URL) string {
	scheme, port := strings.ToLower(u.Scheme), u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[scheme]
	}
	return scheme + "://" + strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")) + ":" + port
}

func newClient(cfg Config, transport *http.Transport) (*api.Client, error) {
	c, err := api.NewClient(&api.Config{
		Address: cfg.Address,
		HttpClient: &http.Client{
			Transport:     &answers{next: transport},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		DisableRedirects: true,
		// Retries and deadlines are the caller's.
		CheckRetry: func(context.Context, *http.Response, error) (bool, error) { return false, nil },
	})
	if err != nil {
		// The text may hold what is in the environment.
		return nil, fmt.Errorf("the VAULT_ variables in this server's environment are malformed; none is needed: unset them")
	}
	// NewClient takes these from the environment whatever its config says.
	c.ClearToken()
	c.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	c.SetWrappingLookupFunc(func(string, string) string { return "" })
	if cfg.Namespace != "" {
		c.SetNamespace(cfg.Namespace)
	}
	return c, nil
}

// with returns a client that sends the token.
func (s *Session) with(token string) *api.Client {
	c := s.base.WithNamespace(s.cfg.Namespace)
	c.SetToken(token)
	return c
}

// Fetch reads a secret of the key-value engine, all keys of it. Values that are
// no strings come as JSON in one line.
func (s *Session) Fetch(ctx context.Context, ref provider.Ref) (provider.Secret, error) {
	if err := checkPath(ref.Path); err != nil {
		return provider.Secret{}, err
	}
	l, err := s.current(ctx)
	if err != nil {
		return provider.Secret{}, err
	}
	secret, err := s.read(ctx, l, ref)
	if !forbidden(err) {
		return secret, err
	}
	// Either the token has ended, or its policies do not include the path.
	next, newErr := s.revalidate(ctx, l)
	switch {
	case newErr != nil:
		return provider.Secret{}, newErr
	case next == l:
		return provider.Secret{}, err
	}
	return s.read(ctx, next, ref)
}

// checkPath refuses what would lead to another endpoint of the server.
func checkPath(path string) error {
	for e := range strings.SplitSeq(path, "/") {
		if e == "" || e == "." || e == ".." || strings.ContainsFunc(e, unicode.IsControl) {
			return &provider.Error{Kind: provider.ErrRefused, Op: opRead, Text: "the path has an element that is empty, \".\", \"..\" or not printable"}
		}
	}
	return nil
}

// Close revokes a token that this session was given by a login; one that a
// person made is left alone.
func (s *Session) Close(ctx context.Context) error {
	defer s.transport.CloseIdleConnections()
	s.mu.Lock()
	l := s.lease
	s.lease = nil
	s.mu.Unlock()
	if l == nil || !l.own {
		return nil
	}
	_, err := s.ask(ctx, "close", l, func(ctx context.Context) (*api.Secret, error) {
		return l.client.Logical().WriteWithContext(ctx, "auth/token/revoke-self", nil)
	})
	return err
}

// String returns the address.
func (s *Session) String() string { return "vault.Session(" + s.cfg.Address + ")" }

// GoString returns what String does.
func (s *Session) GoString() string { return s.String() }

// Format writes what String returns, whatever the verb and its flags.
func (s *Session) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, s.String()) // a formatter cannot report an error
}

// LogValue returns what String does.
func (s *Session) LogValue() slog.Value { return slog.StringValue(s.String()) }
