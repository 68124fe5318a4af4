//go:build !linux && !darwin

package heldport

import (
	"net"
	"net/netip"
)

// bind finds a free port. Here nothing keeps it from being given to another
// process.
func bind() (port int, release func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, nil, err
	}
	port = int(netip.MustParseAddrPort(l.Addr().String()).Port())
	return port, func() {}, l.Close()
}
