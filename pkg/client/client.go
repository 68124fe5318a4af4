package client

import (
	"fmt"

	"google.golang.org/grpc"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// Client is a connection to credstore, for any number of goroutines. Its fields
// are the services of the contract; their errors are those of this package.
type Client struct {
	Credentials credstorev1.CredentialServiceClient
	Injections  credstorev1.InjectionServiceClient
	Projects    credstorev1.ProjectServiceClient
	Stores      credstorev1.SecretStoreServiceClient
	Tokens      credstorev1.TokenServiceClient

	options Options
	conn    *grpc.ClientConn
}

// Dial returns a client. It checks the options and reads the certificate
// authority, and connects with the first call: a server that is away is the
// calls' error.
func Dial(o Options) (*Client, error) {
	conn, err := o.dial()
	if err != nil {
		return nil, fmt.Errorf("credstore client: %w", err)
	}
	return &Client{
		Credentials: credstorev1.NewCredentialServiceClient(conn),
		Injections:  credstorev1.NewInjectionServiceClient(conn),
		Projects:    credstorev1.NewProjectServiceClient(conn),
		Stores:      credstorev1.NewSecretStoreServiceClient(conn),
		Tokens:      credstorev1.NewTokenServiceClient(conn),
		options:     o,
		conn:        conn,
	}, nil
}

// Conn returns the connection, for services that are not among the fields, as
// health.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Close ends the connection. Calls that run fail; watchers, which have
// connections of their own, go on.
func (c *Client) Close() error {
	if err := c.conn.Close(); err != nil {
		return fmt.Errorf("credstore client: close: %w", err)
	}
	return nil
}
