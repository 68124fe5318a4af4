package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/setsource"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/inject"
	"github.com/credstore/credstore/pkg/inject/fileset"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// DevConfig is what Dev needs.
type DevConfig struct {
	// Dir is the folder for everything; empty means a fresh one. One that was
	// used before goes on with its data.
	Dir string
	// GRPCListen and RESTListen are host:port; port 0 lets the kernel choose.
	GRPCListen, RESTListen string
	// Once runs the demonstration and ends.
	Once bool
	// Changes is how many changes the demonstration measures; 0 means 200.
	Changes int
	Out     io.Writer
	Logger  *slog.Logger
}

// The resources of the demonstration.
var (
	demoCredential = resourcename.Credential{Project: core.DefaultProject, ID: "demo"}
	demoInjection  = resourcename.Injection{Project: core.DefaultProject, ID: "demo"}
	demoToken      = resourcename.Token{Project: core.DefaultProject, ID: "demo-injector"}
)

// demoAttributes are those that the demonstration's injector attests.
func demoAttributes() map[string]string { return map[string]string{"app": "demo"} }

// dev is a server and an injector in one process and one folder.
type dev struct {
	cfg    DevConfig
	dir    Dir
	server *Server
	engine *inject.Engine
	files  *fileset.Dir
}

func (d *dev) filesDir() string      { return d.dir.join("files") }
func (d *dev) envFile() string       { return d.dir.join("env") }
func (d *dev) injectorToken() string { return d.dir.join("injector.token") }

// Dev runs the whole product for one developer, until ctx ends. Its env file is
// written when everything works.
func Dev(ctx context.Context, cfg DevConfig) error {
	d := &dev{cfg: cfg, dir: Dir(cfg.Dir)}
	if cfg.Dir == "" {
		fresh, err := os.MkdirTemp("", "credstore-dev-")
		if err != nil {
			return err
		}
		d.dir = Dir(fresh)
		if cfg.Once {
			defer func() { _ = os.RemoveAll(fresh) }()
		}
	}
	var err error
	if d.dir, err = absolute(d.dir); err != nil {
		return err
	}
	if err := d.dir.make(); err != nil {
		return err
	}
	if cfg.Once {
		return d.once(ctx)
	}
	return d.run(ctx, func(ctx context.Context) error {
		if err := d.explain(); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
}

func absolute(d Dir) (Dir, error) {
	p, err := filepath.Abs(string(d))
	return Dir(p), err
}

// run starts server and injector, calls f when the first set is on disk, and
// stops both when f returns.
func (d *dev) run(ctx context.Context, f func(context.Context) error) (err error) {
	d.server, err = OpenServer(ctx, ServerConfig{
		Dir: d.dir, Create: true, GRPCListen: d.cfg.GRPCListen, RESTListen: d.cfg.RESTListen, Logger: d.cfg.Logger,
		// A developer's Vault is on the same machine.
		AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	})
	if err != nil {
		return err
	}
	// A script waits for the env file: one of an earlier run, or one that outlives
	// this, would mislead it. The folder is ours by now, and no other run's.
	if err := os.Remove(d.envFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Join(err, d.server.close())
	}
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- d.server.Run(serverCtx) }()
	defer func() {
		_ = os.Remove(d.envFile())
		stopServer()
		err = errors.Join(err, <-served)
	}()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	return d.inject(ctx, f)
}

// prepare makes the tokens and the demonstration's resources where they are
// missing.
func (d *dev) prepare(ctx context.Context) error {
	store := d.server.Store()
	if err := issueToken(ctx, store, d.dir.AdminToken(), adminToken()); err != nil {
		return fmt.Errorf("administrator's token: %w", err)
	}
	err := issueToken(ctx, store, d.injectorToken(), core.CreateTokenRequest{
		Name: demoToken, Description: "the injector of credstore dev", Role: core.Workload, Attributes: demoAttributes(),
	})
	if err != nil {
		return fmt.Errorf("injector's token: %w", err)
	}
	payload, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Basic{
		Basic: &credentialv1.Basic{Username: "demo", Password: "change-me"},
	}})
	if err != nil {
		return err
	}
	system := core.AsSystem(ctx)
	_, err = store.CreateCredential(system, core.CreateCredentialRequest{
		Name: demoCredential, Description: "made by credstore dev", Payload: payload,
	})
	if err != nil && !errors.Is(err, core.ErrAlreadyExists) {
		return err
	}
	items := make([]core.Item, 0, 2)
	for _, field := range []string{"username", "password"} {
		items = append(items, core.Item{
			Credential: &core.CredentialSource{Name: demoCredential, Field: field},
			File:       core.FileTarget{Path: field, Mode: 0o400},
		})
	}
	_, err = store.CreateInjection(system, core.CreateInjectionRequest{
		Name: demoInjection, Description: "made by credstore dev", Selector: demoAttributes(), Items: items,
	})
	if err != nil && !errors.Is(err, core.ErrAlreadyExists) {
		return err
	}
	return nil
}

// inject runs the engine, and f beside it once the first set is on disk.
func (d *dev) inject(ctx context.Context, f func(context.Context) error) (err error) {
	if d.files, err = fileset.Open(d.filesDir(), fileset.Options{}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.files.Close()) }()
	source, err := setsource.New(d.clientOptions(d.injectorToken()), setsource.Options{
		Parent: resourcename.Project{ID: core.DefaultProject}.String(), Workload: "dev", Injections: []string{demoInjection.String()},
	})
	if err != nil {
		return err
	}
	if d.engine, err = inject.New(inject.Options{Source: source, Files: d.files, Log: d.cfg.Logger}); err != nil {
		return err
	}
	engineCtx, stopEngine := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- d.engine.Run(engineCtx) }()
	ended := false
	defer func() {
		stopEngine()
		if !ended {
			err = errors.Join(err, <-ran)
		}
	}()
	select {
	case <-d.engine.Completed():
	case err := <-ran:
		ended = true
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("injector: %w", err)
	case <-ctx.Done():
		return nil
	}
	return f(ctx)
}

func (d *dev) clientOptions(tokenFile string) client.Options {
	return client.Options{Address: d.server.GRPCAddr(), CAFile: d.dir.CA(), TokenFile: tokenFile, UserAgent: "credstore-dev"}
}

// explain writes the env file and says what to do with it.
func (d *dev) explain() error {
	token, err := os.ReadFile(d.dir.AdminToken())
	if err != nil {
		return err
	}
	env := [][2]string{
		{"CREDSTORE_ADDR", d.server.GRPCAddr()},
		{"CREDSTORE_URL", d.server.URL()},
		{"CREDSTORE_CA", d.dir.CA()},
		{"CREDSTORE_TOKEN", strings.TrimSpace(string(token))},
		{"CREDSTORE_FILES", d.filesDir()},
	}
	var b strings.Builder
	for _, kv := range env {
		fmt.Fprintf(&b, "export %s=%s\n", kv[0], shellQuote(kv[1]))
	}
	if err := writeFile(d.envFile(), []byte(b.String()), 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.cfg.Out, `credstore is running; interrupt it to stop it. Everything is in %[1]s

  files    %[2]s (username and password of %[3]s)
  gRPC     %[4]s
  REST     %[5]s, described at %[5]s/openapi.json

In another terminal, in bash (for <<< and <(…)):

  . %[6]s
  cat "$CREDSTORE_FILES/username"
  credstore credential update demo --kind basic --set username=demo --secret password=- <<< 'a new one'
  cat "$CREDSTORE_FILES/password"
  credstore credential delete demo            # refused: it lists who uses it
  credstore usage list demo
  credstore watch
  bearer() { printf 'Authorization: Bearer %%s\n' "$CREDSTORE_TOKEN"; }    # no argument holds the token
  curl --cacert "$CREDSTORE_CA" -H @<(bearer) "$CREDSTORE_URL/v1/projects/default/credentials"
  buf curl --protocol grpc --cacert "$CREDSTORE_CA" --reflect-header '*' -H @<(bearer) \
    -d '{"name": "%[3]s"}' "https://$CREDSTORE_ADDR/credstore.v1.CredentialService/GetCredential"

(In a checkout, credstore stands for "go run ./services/credstore", and buf for
"go tool -modfile=tools/proto/go.mod buf".)
`, d.dir, d.filesDir(), demoCredential, d.server.GRPCAddr(), d.server.URL(), shellQuote(d.envFile()))
	return err
}

// shellQuote makes one word of a POSIX shell.
func shellQuote(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,[]", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
