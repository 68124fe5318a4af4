//go:build conformance

package app_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/setsource"
	"github.com/credstore/credstore/pkg/inject"
	"github.com/credstore/credstore/pkg/inject/fileset"
	"github.com/credstore/credstore/services/credstore/internal/app"
)

const (
	defaultParent = "projects/default"
	// soon is the limit for what takes no poll: a push, a call, a first read.
	soon = 15 * time.Second
	// recovery is the limit for what comes back by itself after a few pauses.
	recovery = time.Minute
)

// vaultSite is a credstore in this process, on a folder that outlives it, and
// its operator, who speaks gRPC as an administrator.
type vaultSite struct {
	cfg app.ServerConfig
	api *client.Client
	log *vaultLog
	end func()
}

// newVaultSite starts a credstore that may reach this machine. It ends with the
// test, and must not leave a goroutine behind.
func newVaultSite(t *testing.T) *vaultSite {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	s := &vaultSite{log: &vaultLog{}}
	dir := app.Dir(filepath.Join(t.TempDir(), "credstore"))
	host := ownHost()
	if err := app.Init(t.Context(), app.InitConfig{Dir: dir, Hosts: []string{host}}); err != nil {
		t.Fatal(err)
	}
	s.cfg = app.ServerConfig{
		Dir: dir, GRPCListen: host + ":0", RESTListen: host + ":0", MetricsListen: freeAddress(t),
		AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Logger: s.logger(),
	}
	s.start(t)
	t.Cleanup(func() { s.stop() })
	return s
}

// ownHost returns an address of this machine that nobody else uses: at 127.0.0.1
// the kernel may give the port of a server that is being restarted to a client.
func ownHost() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(255), 1+rand.IntN(253))
}

// freeAddress returns an address of this machine that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ownHost()+":0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// logger writes everything there is to log.
func (s *vaultSite) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start starts the server on its folder, at the address that it had before.
func (s *vaultSite) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	server, err := app.OpenServer(ctx, s.cfg)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	s.cfg.GRPCListen = server.GRPCAddr()
	ran := make(chan error, 1)
	go func() { ran <- server.Run(ctx) }()
	s.api, err = client.Dial(s.options(nil))
	if err != nil {
		t.Error(err)
	}
	s.end = sync.OnceFunc(func() {
		if s.api != nil {
			if err := s.api.Close(); err != nil {
				t.Error(err)
			}
		}
		cancel()
		select {
		case err := <-ran:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(recovery):
			t.Error("the server did not stop")
		}
	})
}

// stop ends the server as SIGTERM does.
func (s *vaultSite) stop() { s.end() }

// options are those of a client with a token, the administrator's when nil.
func (s *vaultSite) options(token func(context.Context) (string, error)) client.Options {
	o := client.Options{Address: s.cfg.GRPCListen, CAFile: s.cfg.Dir.CA(), Token: token}
	if token == nil {
		o.TokenFile = s.cfg.Dir.AdminToken()
	}
	return o
}

// metrics returns the page that a collector of metrics reads.
func (s *vaultSite) metrics(t *testing.T) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.cfg.MetricsListen+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: soon}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func appRolePayload(roleID, secretID string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{
		Method: &credentialv1.Vault_AppRole_{AppRole: &credentialv1.Vault_AppRole{RoleId: roleID, SecretId: secretID}},
	}}}
}

func vaultTokenPayload(token string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: &credentialv1.Vault{
		Method: &credentialv1.Vault_Token{Token: token},
	}}}
}

// addLogin makes a credential.
func (s *vaultSite) addLogin(t *testing.T, id string, p *credentialv1.Payload) {
	t.Helper()
	_, err := s.api.Credentials.CreateCredential(t.Context(), &credstorev1.CreateCredentialRequest{
		Parent: defaultParent, CredentialId: id, Credential: &credstorev1.Credential{Payload: p},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// changeLogin makes a new version of a credential.
func (s *vaultSite) changeLogin(t *testing.T, id string, p *credentialv1.Payload) {
	t.Helper()
	_, err := s.api.Credentials.UpdateCredential(t.Context(), &credstorev1.UpdateCredentialRequest{
		Credential: &credstorev1.Credential{Name: defaultParent + "/credentials/" + id, Payload: p},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"payload"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func storeOf(id string) string { return defaultParent + "/secretStores/" + id }

// addStore makes a secret store that logs in with a credential.
func (s *vaultSite) addStore(t *testing.T, id, login string, at *credstorev1.VaultProvider, interval time.Duration) {
	t.Helper()
	_, err := s.api.Stores.CreateSecretStore(t.Context(), &credstorev1.CreateSecretStoreRequest{
		Parent: defaultParent, SecretStoreId: id, SecretStore: &credstorev1.SecretStore{
			Credential:   defaultParent + "/credentials/" + login,
			Provider:     &credstorev1.SecretStore_Vault{Vault: at},
			PollInterval: durationpb.New(interval),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// secretItem delivers a key of a secret as the file.
func secretItem(file, store, path, key string) *credstorev1.Item {
	return &credstorev1.Item{
		Source: &credstorev1.Item_Secret{Secret: &credstorev1.SecretSource{Store: storeOf(store), Path: path, Key: key}},
		Target: &credstorev1.Item_File{File: &credstorev1.FileTarget{Path: file}},
	}
}

func pinned(it *credstorev1.Item, version uint32) *credstorev1.Item {
	it.GetSecret().Version = version
	return it
}

func grouped(it *credstorev1.Item, group string) *credstorev1.Item {
	it.Group = group
	return it
}

func (s *vaultSite) addInjection(t *testing.T, id string, selector map[string]string, items ...*credstorev1.Item) {
	t.Helper()
	_, err := s.api.Injections.CreateInjection(t.Context(), &credstorev1.CreateInjectionRequest{
		Parent: defaultParent, InjectionId: id, Injection: &credstorev1.Injection{Selector: selector, Items: items},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// changeInjection replaces the items.
func (s *vaultSite) changeInjection(t *testing.T, id string, items ...*credstorev1.Item) {
	t.Helper()
	_, err := s.api.Injections.UpdateInjection(t.Context(), &credstorev1.UpdateInjectionRequest{
		Injection:  &credstorev1.Injection{Name: defaultParent + "/injections/" + id, Items: items},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"items"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addToken makes a workload's token and returns its secret.
func (s *vaultSite) addToken(t *testing.T, id string, attributes map[string]string) string {
	t.Helper()
	resp, err := s.api.Tokens.CreateToken(t.Context(), &credstorev1.CreateTokenRequest{
		Parent: defaultParent, TokenId: id,
		Token: &credstorev1.Token{Role: credstorev1.Token_WORKLOAD, Attributes: attributes},
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetSecret()
}

// addWorkload makes an injection, a token that it selects, and an injector that
// has them, all of the same name.
func (s *vaultSite) addWorkload(t *testing.T, id string, items ...*credstorev1.Item) *vaultInjector {
	t.Helper()
	attributes := map[string]string{"app": id}
	s.addInjection(t, id, attributes, items...)
	return s.inject(t, id, s.addToken(t, id, attributes))
}

// itemIs says what is wrong when an item of an injection is not in the state,
// with a message that contains the text.
func (s *vaultSite) itemIs(t *testing.T, injection, file string, state credstorev1.SetItem_State, text string) func() string {
	return func() string {
		status, err := s.api.Injections.GetInjectionStatus(t.Context(), &credstorev1.GetInjectionStatusRequest{Name: defaultParent + "/injections/" + injection})
		if err != nil {
			return err.Error()
		}
		for _, it := range status.GetItems() {
			if it.GetPath() != file {
				continue
			}
			if it.GetState() != state || !strings.Contains(it.GetMessage(), text) || (text == "") != (it.GetMessage() == "") {
				return fmt.Sprintf("%s of %s is %s, %q; want %s, %q", file, injection, it.GetState(), it.GetMessage(), state, text)
			}
			return ""
		}
		return fmt.Sprintf("%s has no item %s", injection, file)
	}
}

// item waits for itemIs.
func (s *vaultSite) item(t *testing.T, limit time.Duration, injection, file string, state credstorev1.SetItem_State, text string) time.Duration {
	t.Helper()
	return await(t, limit, s.itemIs(t, injection, file, state, text))
}

// reported waits until a workload has reported that it did not apply an item,
// for a reason that contains the text; for "", that it applied all.
func (s *vaultSite) reported(t *testing.T, injection, workload, file, text string) {
	t.Helper()
	await(t, soon, func() string {
		status, err := s.api.Injections.GetInjectionStatus(t.Context(), &credstorev1.GetInjectionStatusRequest{Name: defaultParent + "/injections/" + injection})
		if err != nil {
			return err.Error()
		}
		for _, w := range status.GetWorkloads() {
			if w.GetWorkload() != workload {
				continue
			}
			found := ""
			for _, f := range w.GetFailures() {
				if f.GetId() == injection+"/"+file {
					found = f.GetMessage()
				}
			}
			if !strings.Contains(found, text) || (text == "") != (found == "") {
				return fmt.Sprintf("%s reports %q about %s; want %q", workload, found, file, text)
			}
			return ""
		}
		return fmt.Sprintf("%s has no workload %s", injection, workload)
	})
}

// vaultInjector is an injector in this process with a folder of its own.
type vaultInjector struct {
	dir    string
	engine *inject.Engine
	stop   func()
}

// inject starts an injector; it ends with the test.
func (s *vaultSite) inject(t *testing.T, workload, token string) *vaultInjector {
	t.Helper()
	i := &vaultInjector{dir: filepath.Join(t.TempDir(), "files")}
	files, err := fileset.Open(i.dir, fileset.Options{Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	source, err := setsource.New(
		s.options(func(context.Context) (string, error) { return token, nil }),
		setsource.Options{Parent: defaultParent, Workload: workload},
	)
	if err != nil {
		t.Fatal(err)
	}
	if i.engine, err = inject.New(inject.Options{Source: source, Files: files, Log: s.logger()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- i.engine.Run(ctx) }()
	i.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ran:
			if err != nil {
				t.Errorf("injector %s: %v", workload, err)
			}
		case <-time.After(recovery):
			t.Errorf("injector %s did not stop", workload)
		}
		if err := files.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { i.stop() })
	return i
}

// stopAll stops injectors side by side: each takes its time to say goodbye.
func stopAll(all []*vaultInjector) {
	var wg sync.WaitGroup
	for _, i := range all {
		wg.Go(i.stop)
	}
	wg.Wait()
}

// complete waits for the first complete set.
func (i *vaultInjector) complete(t *testing.T) {
	t.Helper()
	select {
	case <-i.engine.Completed():
	case <-time.After(recovery):
		t.Fatalf("no complete set: %q", i.engine.Status().Reasons)
	}
}

// fileIs says what is wrong when a file has not the content.
func (i *vaultInjector) fileIs(name, content string) func() string {
	return func() string {
		b, err := os.ReadFile(filepath.Join(i.dir, name))
		switch {
		case err != nil:
			return err.Error()
		case string(b) != content:
			return fmt.Sprintf("%s is %q; want %q", name, b, content)
		}
		return ""
	}
}

// file waits for fileIs, and returns how long that took.
func (i *vaultInjector) file(t *testing.T, limit time.Duration, name, content string) time.Duration {
	t.Helper()
	return await(t, limit, i.fileIs(name, content))
}

// published names the set that is published: it changes with every one, also
// with one that has the same contents.
func (i *vaultInjector) published(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink(filepath.Join(i.dir, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// has checks that the injector's files are these and no others.
func (i *vaultInjector) has(t *testing.T, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	root := filepath.Join(i.dir, "..data")
	resolved, err := filepath.EvalSymlinks(root)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(resolved, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(resolved, path)
		got[filepath.ToSlash(name)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// await looks until problem returns "", and returns how long that took. The
// counterparts are processes with clocks of their own, so there is nothing to
// wait on but what they do.
func await(t *testing.T, limit time.Duration, problem func() string) time.Duration {
	t.Helper()
	start := time.Now()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		what := problem()
		took := time.Since(start)
		if what == "" {
			return took
		}
		if took > limit {
			t.Fatalf("after %s: %s", limit, what)
		}
		<-ticker.C
	}
}

// pass lets time go by.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// vaultLog is a bytes.Buffer for several goroutines.
type vaultLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *vaultLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// Bytes returns a copy of what was written.
func (l *vaultLog) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}
