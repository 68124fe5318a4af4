package heldport_test

import (
	"errors"
	"net"
	"runtime"
	"syscall"
	"testing"

	"github.com/credstore/credstore/test/heldport"
)

func wantRefused(t *testing.T, address string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting to %s: %v, want it refused", address, err)
	}
}

func TestRefusing(t *testing.T) {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skip("ports are held on Linux and macOS only: elsewhere the kernel may give one to somebody else")
	}
	address := heldport.Refusing(t)
	wantRefused(t, address)
	for range 200 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if l.Addr().String() == address {
			t.Errorf("the kernel gave %s to somebody else", address)
		}
		defer l.Close()
	}
	wantRefused(t, address)
}

// A server comes and goes as if the port were nobody's.
func TestReserve(t *testing.T) {
	address := heldport.Reserve(t)
	for range 3 {
		if runtime.GOOS == "linux" {
			wantRefused(t, address)
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := net.Listen("tcp", address); err == nil {
			t.Error("a second server listens beside the first")
		}
		if err := errors.Join(c.Close(), l.Close()); err != nil {
			t.Error(err)
		}
	}
}
