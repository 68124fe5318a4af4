package issuer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// Vendor is the code for the credentials of one kind.
type Vendor struct {
	Verifier provider.Verifier
	// Minter is nil when no tokens can be minted from the kind.
	Minter provider.Minter
}

// Config is what New needs. All of it may be left at its zero value.
type Config struct {
	// Vendors has what is known of each kind. Those that are absent verify as
	// unsupported and mint nothing.
	Vendors map[credential.Kind]Vendor
	// Policy is that of the calls about each kind; its Kind, Metrics and Random
	// are set here.
	Policy provider.VendorPolicy
	// Logger gets no secret material; nothing is logged when it is nil.
	Logger *slog.Logger
	// Metrics is where metrics are registered; nowhere when nil.
	Metrics prometheus.Registerer
	// MaxTokens bounds the tokens that are kept for calls; 10,000. Those that were
	// not asked for the longest go first.
	MaxTokens int
	// MaxConcurrent bounds the tokens that are minted for injections at a time; 32.
	// One credential has an eighth of them and one project half, so that one whose
	// vendor hangs does not hold up the others.
	MaxConcurrent int
	// Random returns numbers in [0, 1), to several callers at a time; math/rand's
	// when nil.
	Random func() float64
}

// Issuer reaches the vendors of credentials. It implements core.Issuer.
type Issuer struct {
	clients       map[credential.Kind]*provider.VendorClient
	cache         *cache
	log           *slog.Logger
	metrics       *metrics
	random        func() float64
	maxConcurrent int
}

var _ core.Issuer = (*Issuer)(nil)

// New returns an Issuer. The caller closes it.
func New(cfg Config) (*Issuer, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxTokens <= 0 {
		cfg.MaxTokens = 10_000
	}
	if cfg.MaxConcurrent <= 0 {
		cfg.MaxConcurrent = 32
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	calls, err := provider.NewVendorMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register metrics of vendors: %w", err)
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register metrics of the issuer: %w", err)
	}
	i := &Issuer{
		clients: make(map[credential.Kind]*provider.VendorClient),
		log:     cfg.Logger, metrics: m, random: cfg.Random, maxConcurrent: cfg.MaxConcurrent,
	}
	for _, kind := range credential.Kinds() {
		policy := cfg.Policy
		policy.Kind, policy.Metrics, policy.Random = kind, calls, cfg.Random
		i.clients[kind] = provider.NewVendorClient(cfg.Vendors[kind].Verifier, cfg.Vendors[kind].Minter, policy)
	}
	for kind := range cfg.Vendors {
		if i.clients[kind] == nil {
			return nil, fmt.Errorf("a vendor is given for kind %q, which is none", kind)
		}
	}
	i.cache = newCache(i.mintNow, cfg.MaxTokens, cfg.Random, m)
	return i, nil
}

// Close ends the calls for tokens that are under way and lets go of all tokens.
// Mint answers that the server is stopping from then on. A second call does
// nothing. It does not end Run.
func (i *Issuer) Close() { i.cache.close() }

// Verify implements core.Issuer.
func (i *Issuer) Verify(ctx context.Context, login credential.Login) (core.Verification, error) {
	start := time.Now()
	client, err := i.client(login)
	if err != nil {
		return core.Verification{}, err
	}
	out := core.Verification{Time: start.UTC()}
	identity, err := client.Verify(ctx, login)
	out.Latency = time.Since(start)
	e, answered := errors.AsType[*provider.Error](err)
	switch {
	case err == nil:
		out.State, out.Identity = core.Verified, identity
		return out, nil
	case !answered:
		return core.Verification{}, err // the caller's context has ended
	case errors.Is(e, provider.ErrUnsupported):
		out.State = core.VerificationUnsupported
	case errors.Is(e, provider.ErrUnavailable), errors.Is(e, provider.ErrForbiddenAddress):
		// That this server may not connect says nothing about the credential.
		out.State = core.VerificationUnreachable
	default:
		out.State = core.VerificationRefused
	}
	out.Message = words(e)
	return out, nil
}

// Mint implements core.Issuer.
func (i *Issuer) Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	return i.cache.mint(ctx, login, request)
}

// Forget implements core.Issuer.
func (i *Issuer) Forget(uid string, except uint32) { i.cache.forget(uid, except) }

// mintNow asks the vendor. Its error is a *core.Error, a *core.InvalidError or
// the context's, and retryAfter how long the vendor wants to be left alone then.
func (i *Issuer) mintNow(ctx context.Context, login credential.Login, request credential.TokenRequest) (token credential.Token, retryAfter time.Duration, err error) {
	client, err := i.client(login)
	if err != nil {
		return credential.Token{}, 0, err
	}
	token, err = client.Mint(ctx, login, request)
	if err == nil {
		return token, 0, nil
	}
	if e, ok := errors.AsType[*provider.Error](err); ok {
		return credential.Token{}, e.RetryAfter, mintError(login.Name, e)
	}
	return credential.Token{}, 0, err
}

func (i *Issuer) client(login credential.Login) (*provider.VendorClient, error) {
	client := i.clients[login.Payload.Kind()]
	if client == nil { // a payload without a kind, which the domain never has
		return nil, fmt.Errorf("%s has no kind", login.Name)
	}
	return client, nil
}
