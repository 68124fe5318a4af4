package authn

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// Limits bound wrong tokens. A field that is 0 means its default.
type Limits struct {
	// Failures is how many wrong tokens one address may present at once, 20.
	Failures int
	// FailuresPerSecond is how many it may go on with, 1.
	FailuresPerSecond float64
	// Addresses is how many addresses, and how many right tokens, are
	// remembered, 10,000; the memory is about 200 bytes for each.
	Addresses int
}

// Config is what an Authenticator needs.
type Config struct {
	// Lookup returns the principal that a secret belongs to, or an error that
	// wraps core.ErrUnauthenticated. Required.
	Lookup func(ctx context.Context, secret string) (*core.Principal, error)
	// Forwarded returns the network address of the caller behind a hop inside
	// this process, as the REST gateway, and false when the call did not come
	// over one. Nil means that there is none.
	Forwarded func(from net.Addr, md metadata.MD) (remote string, ok bool)
	Limits    Limits
}

// Authenticator finds out who is calling. It is safe for concurrent use.
type Authenticator struct {
	lookup    func(context.Context, string) (*core.Principal, error)
	forwarded func(net.Addr, metadata.MD) (string, bool)
	guesses   *guesses
}

// New returns an Authenticator.
func New(c Config) *Authenticator {
	l := c.Limits
	if l.Failures <= 0 {
		l.Failures = 20
	}
	if l.FailuresPerSecond <= 0 {
		l.FailuresPerSecond = 1
	}
	if l.Addresses <= 0 {
		l.Addresses = 10_000
	}
	return &Authenticator{lookup: c.Lookup, forwarded: c.Forwarded, guesses: newGuesses(l)}
}

// Call authenticates an incoming gRPC call, unary or stream, by its metadata and
// returns its context with the principal. Its errors are those of Header.
func (a *Authenticator) Call(ctx context.Context) (context.Context, error) {
	p, err := a.Header(ctx, a.Remote(ctx), metadata.ValueFromIncomingContext(ctx, "authorization"))
	if err != nil {
		return nil, err
	}
	return core.WithPrincipal(ctx, p), nil
}

// Header authenticates a caller by the values of its authorization header.
// remote is its network address, with or without port. Errors wrap
// core.ErrUnauthenticated, are a *ThrottledError, or are the domain's own; none
// repeats what was sent.
func (a *Authenticator) Header(ctx context.Context, remote string, authorization []string) (*core.Principal, error) {
	secret, err := bearer(authorization)
	if err != nil {
		return nil, err
	}
	hash, now := sha256.Sum256([]byte(secret)), time.Now()
	if err := a.guesses.allow(remote, hash, now); err != nil {
		return nil, err
	}
	p, err := a.lookup(ctx, secret)
	if err != nil {
		if errors.Is(err, core.ErrUnauthenticated) {
			a.guesses.wrong(remote, hash, now)
		}
		return nil, err
	}
	a.guesses.right(hash)
	caller := *p // the domain shares it between calls
	caller.Remote = remote
	return &caller, nil
}

// Remote returns the network address of an incoming gRPC call: that of the
// peer, or of the caller behind a trusted hop. "" means unknown.
func (a *Authenticator) Remote(ctx context.Context) string {
	from, ok := peer.FromContext(ctx)
	if !ok || from.Addr == nil {
		return ""
	}
	if a.forwarded != nil {
		md, _ := metadata.FromIncomingContext(ctx)
		if remote, ok := a.forwarded(from.Addr, md); ok {
			return remote
		}
	}
	return from.Addr.String()
}
