package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/app"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/grpcapi"
)

// payloadBytes is the size of the secret in every measurement.
const payloadBytes = 1024

// product is a server as it would run, in this process and a fresh folder.
type product struct {
	dir    string
	server *app.Server
	stop   context.CancelFunc
	done   chan error
}

func startProduct(ctx context.Context) (*product, error) {
	dir, err := os.MkdirTemp("", "credstore-bench-")
	if err != nil {
		return nil, err
	}
	server, err := app.OpenServer(ctx, app.ServerConfig{
		Dir: app.Dir(dir), Create: true, GRPCListen: "127.0.0.1:0", RESTListen: "127.0.0.1:0",
		// The bounds protect a server from its callers; here they would be
		// what is measured.
		Limits: grpcapi.Limits{PrincipalRate: -1},
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &product{dir: dir, server: server, stop: cancel, done: make(chan error, 1)}
	go func() { p.done <- server.Run(run) }()
	err = p.issue(ctx, "admin", core.CreateTokenRequest{Role: core.Admin, AllProjects: true})
	if err == nil {
		err = p.issue(ctx, "workload", core.CreateTokenRequest{Role: core.Workload, Attributes: map[string]string{"app": "bench"}})
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *product) issue(ctx context.Context, id string, r core.CreateTokenRequest) error {
	r.Name = resourcename.Token{Project: core.DefaultProject, ID: id}
	_, secret, err := p.server.Store().CreateToken(core.AsSystem(ctx), r)
	if err != nil {
		return err
	}
	return os.WriteFile(p.tokenFile(id), []byte(secret), 0o600)
}

func (p *product) tokenFile(id string) string { return filepath.Join(p.dir, id+".token") }

func (p *product) close() error {
	p.stop()
	return errors.Join(<-p.done, os.RemoveAll(p.dir))
}

func (p *product) options(token string) client.Options {
	return client.Options{Address: p.server.GRPCAddr(), CAFile: app.Dir(p.dir).CA(), TokenFile: p.tokenFile(token)}
}

func (p *product) dial() (*client.Client, error) { return client.Dial(p.options("admin")) }

func credentialName(i int) string { return fmt.Sprintf("projects/default/credentials/bench-%d", i) }

// payload is 1 KiB, and different for each n.
func payload(n int) *credentialv1.Payload {
	password := fmt.Sprintf("%012d%s", n, strings.Repeat("x", payloadBytes-12))
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: "bench", Password: password}}}
}

// create makes credentials bench-0 to bench-(n-1).
func (p *product) create(ctx context.Context, c *client.Client, n int) error {
	api := credstorev1.NewCredentialServiceClient(c.Conn())
	for i := range n {
		_, err := api.CreateCredential(ctx, &credstorev1.CreateCredentialRequest{
			Parent: "projects/default", CredentialId: fmt.Sprintf("bench-%d", i), Credential: &credstorev1.Credential{Payload: payload(0)},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func update(ctx context.Context, api credstorev1.CredentialServiceClient, i, n int) error {
	_, err := api.UpdateCredential(ctx, &credstorev1.UpdateCredentialRequest{
		Credential: &credstorev1.Credential{Name: credentialName(i), Payload: payload(n)},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"payload"}},
	})
	return err
}

// corePayload is payload for the domain.
func corePayload(n int) (credential.Payload, error) { return credential.NewPayload(payload(n)) }
