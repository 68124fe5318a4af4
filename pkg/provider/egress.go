package provider

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// Egress says which addresses may be connected to. The zero value allows public
// addresses only. Link-local addresses, those of the clouds' metadata services
// and what is no address of one host are refused whatever Allow says: whoever may
// name a store must not reach the machine's own identity through it.
type Egress struct {
	// Allow lists the loopback, private and reserved networks that may be
	// reached as well.
	Allow []netip.Prefix
}

// EgressError says that an address may not be connected to.
type EgressError struct {
	Addr netip.Addr
	Why  string
}

// Error names the address and the remedy, if there is one.
func (e *EgressError) Error() string {
	return fmt.Sprintf("this server does not connect to %s: %s", e.Addr, e.Why)
}

// metadata are the metadata services outside the link-local networks.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
	netip.MustParseAddr("168.63.129.16"),   // Azure's host
	netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
	netip.MustParseAddr("fd00:c1::a9fe:a9fe"),
	netip.MustParseAddr("fd00:ec2::254"), // AWS
	netip.MustParseAddr("fd00:ec2::23"),  // AWS, pod identity
	netip.MustParseAddr("fd20:ce::254"),  // Google Cloud
	netip.MustParseAddr("fd00:42::42"),   // Scaleway
}

// closed are networks that are reached only when allowed, beside those that
// netip knows as loopback and private.
var closed = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"),   // carriers' translation
	netip.MustParsePrefix("192.0.0.0/24"),    // protocol assignments
	netip.MustParsePrefix("192.0.2.0/24"),    // documentation
	netip.MustParsePrefix("192.88.99.0/24"),  // 6to4 relays
	netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks
	netip.MustParsePrefix("198.51.100.0/24"), // documentation
	netip.MustParsePrefix("203.0.113.0/24"),  // documentation
	netip.MustParsePrefix("240.0.0.0/4"),     // reserved, with broadcast
	netip.MustParsePrefix("fec0::/10"),       // site-local
	netip.MustParsePrefix("2001:db8::/32"),   // documentation
	netip.MustParsePrefix("100::/64"),        // discard
	netip.MustParsePrefix("64:ff9b:1::/48"),  // NAT64 of a local network (RFC 8215)
}

// embedded are networks whose addresses lead to an IPv4 address that stands at
// the given byte.
var embedded = []struct {
	network netip.Prefix
	at      int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4
	{netip.MustParsePrefix("::/96"), 12},           // IPv4-compatible, obsolete
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // IPv4-translated (RFC 7915)
}

// Check returns an *[EgressError] when the address may not be connected to.
func (e Egress) Check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if why := never(addr); why != "" {
		return &EgressError{Addr: addr, Why: why}
	}
	if addr != netip.IPv6Loopback() {
		for _, in := range embedded {
			if !in.network.Contains(addr) {
				continue
			}
			b := addr.As16()
			if err := e.Check(netip.AddrFrom4([4]byte(b[in.at : in.at+4]))); err != nil {
				return err
			}
		}
	}
	for _, p := range e.Allow {
		if p.Contains(addr) {
			return nil
		}
	}
	why := ""
	switch {
	case addr.IsLoopback():
		why = "it is a loopback address"
	case addr.IsPrivate():
		why = "it is a private address"
	}
	for _, p := range closed {
		if p.Contains(addr) {
			why = "it is in the reserved network " + p.String()
		}
	}
	if why == "" {
		return nil
	}
	return &EgressError{Addr: addr, Why: why + "; the server's configuration can allow it"}
}

// never says why an address is refused whatever the configuration says, or "".
func never(addr netip.Addr) string {
	switch {
	case !addr.IsValid():
		return "it is not an IP address"
	case addr.IsLinkLocalUnicast():
		return "it is a link-local address, where clouds keep their metadata services"
	case addr.IsMulticast():
		return "it is a multicast address"
	case addr.IsUnspecified(), addr.Is4() && addr.As4()[0] == 0:
		return "it is not the address of a host"
	case slices.Contains(metadata, addr):
		return "it is the address of a cloud's metadata service"
	}
	return ""
}

// Control is for net.Dialer: it checks each address after the name was resolved
// and before the connection is made, so that no answer of a name server gets
// around it.
func (e Egress) Control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("this server does not connect over %s", network)
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &EgressError{Why: "it is not an IP address"}
	}
	return e.Check(ap.Addr())
}

// Transport returns a transport whose connections are guarded. It uses no proxy,
// whatever the environment says, and trusts the certificates in caPEM only, or
// the system's when it is empty. The caller closes its idle connections.
func (e Egress) Transport(caPEM string) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caPEM != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(caPEM)) {
			return nil, errors.New("the certificate authority is not a certificate in PEM form")
		}
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second, Control: e.Control}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        config,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    5 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    16,
		MaxResponseHeaderBytes: 64 << 10,
	}, nil
}
