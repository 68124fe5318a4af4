package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/client"
)

const project = "projects/default"

// server is a credstore on a data folder and on addresses that stay the same
// however often it is started.
type server struct {
	t                   *testing.T
	bin                 programs
	base, data, log     string
	temp                string
	host                string
	grpc, rest, metrics string
	insecure            bool
	args                []string // more of them, for serve

	process *process
}

// newServer makes a data folder in base, an empty directory. The server is not
// started.
func newServer(t *testing.T, base string) *server {
	t.Helper()
	s := &server{
		t: t, bin: mustBuild(t), base: base,
		data: filepath.Join(base, "data"), log: filepath.Join(base, "server.log"), temp: mkdir(t, base, "tmp-server"),
	}
	s.host = loopback()
	free := freeAddresses(t, s.host, 3)
	s.grpc, s.rest, s.metrics = free[0], free[1], free[2]
	if _, stderr, err := command(t, s.env(), "", s.bin.credstore, "init", "--data", s.data, "--host", s.host); err != nil {
		t.Fatalf("init: %v\n%s", err, stderr)
	}
	return s
}

// loopback returns an address of this machine that nobody else uses. A client
// that connects to a port of 127.0.0.1 while its server is down may be given
// that very port as its own, and then talks to itself; the kernel gives
// clients no other address than 127.0.0.1.
func loopback() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(255), 1+rand.IntN(253))
}

// freeAddresses has the kernel choose so many ports, each another one: a port
// that was given back may be chosen again.
func freeAddresses(t *testing.T, host string, n int) (addresses []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// env is the environment of the programs: nothing of that of the test, so that
// nothing of it is found afterwards.
func (s *server) env() []string {
	return []string{"TMPDIR=" + s.temp, "HOME=" + s.temp, "PATH=" + os.Getenv("PATH")}
}

func (s *server) serveArgs() []string {
	args := []string{
		"serve", "--data", s.data, "--grpc-listen", s.grpc, "--rest-listen", s.rest, "--metrics-listen", s.metrics,
		"--host", s.host, "--log-level", "debug", "--log-format", "json",
	}
	if s.insecure {
		args = append(args, "--insecure")
	}
	return append(args, s.args...)
}

// start starts the server and does not wait for it.
func (s *server) start() {
	s.t.Helper()
	s.process = start(s.t, s.log, s.env(), s.bin.credstore, s.serveArgs()...)
}

// ready waits until the server answers.
func (s *server) ready() {
	s.t.Helper()
	c := s.client()
	eventually(s.t, "server does not get ready", func() error {
		if s.process.ended() {
			s.t.Fatalf("server ended: %v\n%s", s.process.err, tail(s.log))
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		_, err := c.Projects.GetProject(ctx, &credstorev1.GetProjectRequest{Name: project})
		return err
	})
}

// options are those of a client with the administrator's token.
func (s *server) options() client.Options {
	o := client.Options{Address: s.grpc, TokenFile: s.adminToken(), Insecure: s.insecure}
	if !s.insecure {
		o.CAFile = s.ca()
	}
	return o
}

func (s *server) ca() string         { return filepath.Join(s.data, "ca.pem") }
func (s *server) adminToken() string { return filepath.Join(s.data, "admin.token") }

// client returns a connection of its own; it ends with the test.
func (s *server) client() *client.Client {
	s.t.Helper()
	return dial(s.t, s.options())
}

func dial(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// workloadToken issues a token for an injector and returns its file.
func (s *server) workloadToken(id string, attributes map[string]string) string {
	s.t.Helper()
	answer, err := s.client().Tokens.CreateToken(s.t.Context(), &credstorev1.CreateTokenRequest{
		Parent: project, TokenId: id,
		Token: &credstorev1.Token{Role: credstorev1.Token_WORKLOAD, Attributes: attributes},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	file := filepath.Join(s.base, id+".token")
	if err := os.WriteFile(file, []byte(answer.GetSecret()+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// injector is an injector of the server.
type injector struct {
	t         *testing.T
	s         *server
	root, log string
	web       string
	token     string
	temp      string

	process *process
}

// newInjector prepares an injector with a token of the attributes given. It is
// not started.
func newInjector(s *server, id string, attributes map[string]string) *injector {
	s.t.Helper()
	return &injector{
		t: s.t, s: s, root: filepath.Join(s.base, id+"-files"), log: filepath.Join(s.base, id+".log"),
		web: freeAddresses(s.t, loopback(), 1)[0], token: s.workloadToken(id, attributes), temp: mkdir(s.t, s.base, "tmp-"+id),
	}
}

func (i *injector) env() []string {
	return []string{"TMPDIR=" + i.temp, "HOME=" + i.temp, "PATH=" + os.Getenv("PATH")}
}

func (i *injector) args(command string) []string {
	return []string{
		command, "--address", i.s.grpc, "--ca", i.s.ca(), "--token-file", i.token,
		"--root", i.root, "--workload", "e2e",
	}
}

func (i *injector) start() {
	i.t.Helper()
	i.process = start(i.t, i.log, i.env(), i.s.bin.injector, append(i.args("run"), "--http-listen", i.web)...)
}

// ready returns when the injector says that it has applied its first whole set.
func (i *injector) ready() {
	i.t.Helper()
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	eventually(i.t, "a ready injector", func() error {
		resp, err := client.Get("http://" + i.web + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz answers with %s", resp.Status)
		}
		return nil
	})
}

func basic(username, password string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: username, Password: password}}}
}

func apiToken(token string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_ApiToken{ApiToken: &credentialv1.ApiToken{Token: token}}}
}

func opaque(key, value string) *credentialv1.Payload {
	return &credentialv1.Payload{Kind: &credentialv1.Payload_Opaque{Opaque: &credentialv1.Opaque{Data: map[string][]byte{key: []byte(value)}}}}
}

// secretOf returns what is secret in a payload of those three.
func secretOf(p *credentialv1.Payload) string {
	switch k := p.GetKind().(type) {
	case *credentialv1.Payload_Basic:
		return k.Basic.GetPassword()
	case *credentialv1.Payload_ApiToken:
		return k.ApiToken.GetToken()
	case *credentialv1.Payload_Opaque:
		for _, v := range k.Opaque.GetData() {
			return string(v)
		}
	}
	return ""
}

func credentialName(id string) string { return project + "/credentials/" + id }

func idOf(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }
