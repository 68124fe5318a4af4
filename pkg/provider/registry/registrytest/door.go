package registrytest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/credstore/credstore/test/heldport"
)

// door stands before a server, counts who comes in, and can be shut.
type door struct {
	address, backend string
	calls            atomic.Int32

	listener net.Listener
	wg       sync.WaitGroup
}

func newDoor(t testing.TB, backend string) *door {
	t.Helper()
	d := &door{address: heldport.Reserve(t), backend: backend}
	d.open(t)
	t.Cleanup(d.shut)
	return d
}

// open lets connections in, at the same address as before.
func (d *door) open(t testing.TB) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	d.listener = listener
	d.wg.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return // it was shut
			}
			d.calls.Add(1)
			d.wg.Go(func() { d.pass(in) })
		}
	})
}

// pass copies between a connection and the server until both are done.
func (d *door) pass(in net.Conn) {
	defer func() { _ = in.Close() }()
	out, err := net.Dial("tcp", d.backend)
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	var both sync.WaitGroup
	both.Go(func() { transfer(out, in) })
	both.Go(func() { transfer(in, out) })
	both.Wait()
}

// transfer copies one way, and tells the other side when there is no more.
func transfer(to, from net.Conn) {
	_, _ = io.Copy(to, from) // ends with either connection
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

// shut refuses connections and waits for those that are open to end.
func (d *door) shut() {
	_ = d.listener.Close() // a second time does nothing
	d.wg.Wait()
}
