package provider

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/credstore/credstore/pkg/credential"
)

// ErrUnsupported: the vendor has no such call, or the credential lacks what it
// would need; Text says what. Another request may succeed.
var ErrUnsupported = errors.New("not supported")

// Verifier asks a vendor whether a credential works. It is safe for concurrent
// use and starts no goroutines that outlive a call.
type Verifier interface {
	// Verify makes the cheapest call that proves the login and says whose it is.
	// Its error is an *[Error] or the context's: ErrRefused when the vendor, or
	// the material itself (an end that has passed), says no; ErrUnavailable when
	// there was no usable answer; ErrUnsupported when nobody can be asked.
	// Checks of the identity that failed are no error.
	Verify(ctx context.Context, login credential.Login) (credential.Identity, error)
}

// Minter makes short-lived tokens. It caches nothing that it returns, is safe
// for concurrent use and starts no goroutines that outlive a call.
type Minter interface {
	// Mint makes a new token. The request is one that credential.NewTokenRequest
	// accepted for the login's kind. Its error is an *[Error] or the context's, as
	// for Verify; ErrUnsupported also for a request that this payload cannot
	// answer.
	Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error)
}

// Client returns a client with guarded connections, as Transport does, that
// follows no redirect: who answers with one would choose where a credential is
// sent next. Its whole answers take at most 30 seconds.
func (e Egress) Client(caPEM string) (*http.Client, error) {
	transport, err := e.Transport(caPEM)
	if err != nil {
		return nil, err
	}
	return guardedClient(transport), nil
}

// MetadataClient returns a client that connects to these addresses only, in
// place of Egress's rules: for the metadata services that a cloud offers to a
// machine of its own. Who uses it takes the addresses from the vendor's
// documentation or the server's configuration, never from a payload.
func MetadataClient(addresses ...netip.AddrPort) *http.Client {
	dialer := &net.Dialer{Timeout: 2 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !slices.Contains(addresses, ap) {
			return &EgressError{Addr: ap.Addr(), Why: "it is not the address of the metadata service"}
		}
		return nil
	}}
	return guardedClient(&http.Transport{
		DialContext: dialer.DialContext, ResponseHeaderTimeout: 5 * time.Second,
		IdleConnTimeout: 30 * time.Second, MaxIdleConns: 2, MaxResponseHeaderBytes: 64 << 10,
	})
}

func guardedClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     transport,
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
