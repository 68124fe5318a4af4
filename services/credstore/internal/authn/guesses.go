package authn

import (
	"container/list"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// ReasonTooManyGuesses is the reason of a *ThrottledError.
const ReasonTooManyGuesses = "TOO_MANY_FAILED_LOGINS"

// ThrottledError says that too many wrong tokens came from the caller's address.
type ThrottledError struct {
	after time.Duration
}

// Error says what happened and what to do.
func (e *ThrottledError) Error() string {
	return fmt.Sprintf("too many wrong tokens came from this address: check the token and try again in %s", e.after)
}

// RetryAfter returns when the next attempt is looked at.
func (e *ThrottledError) RetryAfter() time.Duration { return e.after }

// Reason returns ReasonTooManyGuesses.
func (e *ThrottledError) Reason() string { return ReasonTooManyGuesses }

// guesses bounds wrong tokens per address, and how much it remembers. A token
// that was right before is always looked at, so that somebody who guesses does
// not lock out the others behind the same address.
type guesses struct {
	limits Limits

	mu        sync.Mutex
	addresses map[string]*list.Element // of *address
	order     *list.List               // the one that failed last first
	// known and older hold hashes of secrets that were right. When known is
	// full it becomes older, so that the one in use is forgotten last.
	known, older map[[sha256.Size]byte]struct{}
}

type address struct {
	key      string
	failures *rate.Limiter
}

func newGuesses(l Limits) *guesses {
	return &guesses{
		limits: l, addresses: make(map[string]*list.Element), order: list.New(),
		known: make(map[[sha256.Size]byte]struct{}),
	}
}

// allow says whether a secret from the address may be looked at.
func (g *guesses) allow(remote string, secret [sha256.Size]byte, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.addresses) == 0 {
		return nil // the usual case, for which the address need not be parsed
	}
	e, ok := g.addresses[addressKey(remote)]
	if !ok {
		return nil
	}
	a, _ := e.Value.(*address)
	tokens := a.failures.TokensAt(now)
	if tokens >= 1 || g.isKnown(secret) {
		return nil
	}
	wait := time.Duration((1 - tokens) / float64(g.limits.FailuresPerSecond) * float64(time.Second))
	return &ThrottledError{after: max(wait.Round(time.Millisecond), time.Millisecond)}
}

// right remembers a secret.
func (g *guesses) right(secret [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.known[secret]; ok {
		return
	}
	if len(g.known) >= g.limits.Addresses {
		g.known, g.older = make(map[[sha256.Size]byte]struct{}), g.known
	}
	g.known[secret] = struct{}{}
}

// wrong counts a failure, and forgets the secret in case it was right before.
func (g *guesses) wrong(remote string, secret [sha256.Size]byte, now time.Time) {
	key := addressKey(remote)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.known, secret)
	delete(g.older, secret)
	e, ok := g.addresses[key]
	if !ok {
		if g.order.Len() >= g.limits.Addresses {
			oldest := g.order.Back()
			if a, ok := g.order.Remove(oldest).(*address); ok {
				delete(g.addresses, a.key)
			}
		}
		e = g.order.PushFront(&address{key: key, failures: rate.NewLimiter(rate.Limit(g.limits.FailuresPerSecond), g.limits.Failures)})
		g.addresses[key] = e
	}
	g.order.MoveToFront(e)
	if a, ok := e.Value.(*address); ok {
		a.failures.AllowN(now, 1)
	}
}

// isKnown says whether the secret was right before; the caller holds the lock.
func (g *guesses) isKnown(secret [sha256.Size]byte) bool {
	_, known := g.known[secret]
	_, older := g.older[secret]
	return known || older
}

// addressKey returns what failures are counted by: an IPv4 address, an IPv6
// network of 64 bits, as one customer has, or what is no IP address as it is.
func addressKey(remote string) string {
	ip, err := netip.ParseAddr(remote)
	if ap, apErr := netip.ParseAddrPort(remote); apErr == nil {
		ip, err = ap.Addr(), nil
	}
	if err != nil {
		return remote
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	network, err := ip.Prefix(64)
	if err != nil {
		return remote
	}
	return network.String()
}
