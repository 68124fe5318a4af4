package client

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// localOnly is no transport security, for connections that do not leave the
// machine. It looks at the connection itself: what a name resolves to is for
// others to say.
type localOnly struct {
	credentials.TransportCredentials
}

func newLocalOnly() credentials.TransportCredentials {
	return localOnly{insecure.NewCredentials()}
}

func (l localOnly) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		return nil, nil, fmt.Errorf("%s is not on this machine: use TLS", tcp)
	}
	return l.TransportCredentials.ClientHandshake(ctx, authority, conn)
}

func (l localOnly) Clone() credentials.TransportCredentials {
	return localOnly{l.TransportCredentials.Clone()}
}
