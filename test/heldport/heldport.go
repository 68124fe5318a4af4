// Package heldport owns ports of 127.0.0.1 that a test keeps while nobody listens
// at them: a port that is given back may belong to another process, or to the
// client that asks whether anybody is there, a moment later. It starts no server.
// It is for tests, and no part of what is shipped.
package heldport

import (
	"net"
	"runtime"
	"testing"
)

// Refusing returns an address that refuses connections until the test ends.
func Refusing(t testing.TB) string {
	t.Helper()
	address, release := hold(t)
	t.Cleanup(release)
	return address
}

// Reserve returns an address that a server of the test may listen at, as often as
// it likes, until the test ends. It refuses connections before, between and
// afterwards, and is given to nobody else. Only Linux lets one socket listen where
// another one holds the port: elsewhere the port is given back at once, and only
// not likely to be given to somebody else.
func Reserve(t testing.TB) string {
	t.Helper()
	address, release := hold(t)
	if runtime.GOOS == "linux" {
		t.Cleanup(release)
	} else {
		release()
	}
	return address
}

// hold takes a port that the kernel chooses, until release is called.
func hold(t testing.TB) (address string, release func()) {
	t.Helper()
	port, release, err := bind()
	if err != nil {
		t.Fatalf("hold a port: %v", err)
	}
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String(), release
}
