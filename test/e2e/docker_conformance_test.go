//go:build conformance

package e2e_test

import (
	"archive/tar"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/provider/registry/registrytest"
)

const (
	dockerHelper   = "docker-credential-credstore"
	dockerNotFound = "credentials not found in native keychain\n"
	// crane is the variable that names a client of registries which is built on
	// docker's own code for credential helpers.
	crane = "CREDSTORE_CRANE"

	botPassword  = "b0t-canary"
	nextPassword = "n3xt-canary"
)

// dockerLogin is what a helper answers
// (https://github.com/docker/docker-credential-helpers).
type dockerLogin struct{ ServerURL, Username, Secret string }

// dockerSite is a site with a real registry and the helper, as docker finds it.
type dockerSite struct {
	*site
	registry *registrytest.Server
	path     string // the folder with the helper in it
	ca       string // the file with the registry's authority
}

func newDockerSite(t *testing.T, auth registrytest.Auth) *dockerSite {
	t.Helper()
	d := &dockerSite{site: newSite(t), registry: registrytest.New(t, auth, map[string]string{"bot": botPassword, "next": nextPassword})}
	d.path = mkdir(t, d.dir, "bin")
	if err := os.Symlink(d.bin.credstore, filepath.Join(d.path, dockerHelper)); err != nil {
		t.Fatal(err)
	}
	d.ca = d.file(t, "registry.pem", d.registry.CAPEM)
	return d
}

// stored are the arguments that make a credential for the registry.
func (d *dockerSite) stored(t *testing.T, verb, name, username, password string) []string {
	t.Helper()
	return []string{
		"credential", verb, name, "--kind", "dockerRegistry", "--set", "server=" + d.registry.Host, "--set", "username=" + username,
		"--secret", "password=@" + d.file(t, "password", password+"\n"), "--set", "caPem=" + d.registry.CAPEM,
	}
}

// helper runs the helper as docker does, by its name.
func (d *dockerSite) helper(t *testing.T, env []string, verb, stdin string) answered {
	t.Helper()
	return d.call(t, env, stdin, filepath.Join(d.path, dockerHelper), verb)
}

// get asks the helper for the login to a registry.
func (d *dockerSite) get(t *testing.T, env []string, asked string) dockerLogin {
	t.Helper()
	a := d.helper(t, env, "get", asked)
	if a.code != 0 {
		t.Fatalf("get ended with %d: %s%s", a.code, a.out, a.err)
	}
	got := read[dockerLogin](t, a.out)
	if got.ServerURL != asked {
		t.Errorf("asked for %s, it answers for %s", asked, got.ServerURL)
	}
	return got
}

// admin is what the administrator's programs have in their environment.
func (d *dockerSite) admin() []string { return d.reach(d.adminToken()) }

// challengeParams are those of a Bearer challenge.
var challengeParams = regexp.MustCompile(`(\w+)="([^"]*)"`)

// enter logs in to the registry as docker does, with exactly what the helper
// answered, and returns the status of GET /v2/: the password itself where the
// registry wants it, otherwise what the token server gives for it.
// (https://distribution.github.io/distribution/spec/auth/token/)
func (d *dockerSite) enter(t *testing.T, login dockerLogin) int {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(d.registry.CAPEM))
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
	}}
	ask := func(address string, authorize func(*http.Request)) (int, string, []byte) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		authorize(r)
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, answer.Header.Get("WWW-Authenticate"), body
	}
	byPassword := func(r *http.Request) { r.SetBasicAuth(login.Username, login.Secret) }
	door := "https://" + d.registry.Host + "/v2/"
	status, challenge, _ := ask(door, func(*http.Request) {})
	if status != http.StatusUnauthorized {
		t.Fatalf("the registry lets anybody in: %d", status)
	}
	if strings.HasPrefix(challenge, "Basic ") {
		status, _, _ = ask(door, byPassword)
		return status
	}
	query := url.Values{"account": {login.Username}}
	realm := ""
	for _, p := range challengeParams.FindAllStringSubmatch(challenge, -1) {
		switch p[1] {
		case "realm":
			realm = p[2]
		case "service", "scope":
			query.Set(p[1], p[2])
		}
	}
	status, _, body := ask(realm+"?"+query.Encode(), byPassword)
	if status != http.StatusOK {
		return status
	}
	token := read[struct{ Token string }](t, string(body)).Token
	status, _, _ = ask(door, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
	return status
}

// The whole way of a password: stored, verified, asked for by docker's protocol,
// and accepted by a real registry.
func TestConformanceDockerHelper(t *testing.T) {
	d := newDockerSite(t, registrytest.AuthBasic)
	host := d.registry.Host
	d.do(t, append(d.stored(t, "create", "bot", "bot", botPassword), "--verify")...)
	if got, code := d.verify(t, "bot"); got.GetState() != credstorev1.Verification_VERIFIED || got.GetIdentity() != "bot" || code != 0 {
		t.Fatalf("verify ended with %d: %v", code, got)
	}
	t.Run("get", func(t *testing.T) {
		for _, asked := range []string{host, "https://" + host, "https://" + host + "/v2/"} {
			got := d.get(t, d.admin(), asked)
			if got.Username != "bot" || got.Secret != botPassword {
				t.Errorf("%s: it answers the login of %q", asked, got.Username)
			}
			if status := d.enter(t, got); status != http.StatusOK {
				t.Errorf("%s: the registry answers %d", asked, status)
			}
		}
	})
	t.Run("list", func(t *testing.T) {
		a := d.helper(t, d.admin(), "list", "")
		if diff := cmp.Diff(map[string]string{host: "bot"}, read[map[string]string](t, a.out)); diff != "" || a.code != 0 {
			t.Errorf("ended with %d (-want +got)\n%s", a.code, diff)
		}
	})
	t.Run("not found", func(t *testing.T) {
		for _, asked := range []string{"registry.example.com", "https://index.docker.io/v1/", "127.0.0.1"} {
			if a := d.helper(t, d.admin(), "get", asked); a.code != 1 || a.out != dockerNotFound {
				t.Errorf("%s: ended with %d: %q", asked, a.code, a.out)
			}
		}
	})
	t.Run("read only", func(t *testing.T) {
		for verb, stdin := range map[string]string{"store": `{"ServerURL":"x","Username":"y","Secret":"z"}`, "erase": host} {
			if a := d.helper(t, d.admin(), verb, stdin); a.code != 1 || !strings.Contains(a.out, "credstore credential") {
				t.Errorf("%s ended with %d: %q", verb, a.code, a.out)
			}
		}
		if status := d.enter(t, d.get(t, d.admin(), host)); status != http.StatusOK {
			t.Errorf("afterwards the registry answers %d", status)
		}
	})
	t.Run("a token for this credential only", func(t *testing.T) {
		env := d.workload(t, "builder", "bot")
		if a := d.helper(t, env, "get", host); a.code != 1 || strings.Contains(a.out, botPassword) {
			t.Errorf("without being told which credential it ended with %d: %q", a.code, a.out)
		}
		env = append(env, "CREDSTORE_DOCKER_CREDENTIALS=127.0.0.*=bot")
		if status := d.enter(t, d.get(t, env, host)); status != http.StatusOK {
			t.Errorf("the registry answers %d", status)
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		const wrong = "wr0ng-canary"
		rotten := d.stored(t, "create", "rotten", "bot", wrong)
		if a := d.try(t, append(rotten, "--verify")...); a.code != 1 || !strings.Contains(a.err, "nothing was stored") || !strings.Contains(a.err, "authentication required") {
			t.Errorf("with --verify it ended with %d: %s", a.code, a.err)
		}
		if a := d.try(t, "credential", "get", "rotten"); a.code != 1 {
			t.Errorf("it was stored all the same:\n%s", a.out)
		}
		d.do(t, rotten...)
		got, code := d.verify(t, "rotten")
		if got.GetState() != credstorev1.Verification_REFUSED || !strings.Contains(got.GetMessage(), "authentication required") || code != 1 {
			t.Errorf("verify ended with %d: %v", code, got)
		}
		// Two for one registry: nobody guesses, and who chooses gets what was chosen.
		if a := d.helper(t, d.admin(), "get", host); a.code != 1 || !strings.Contains(a.out, "are both for "+host) {
			t.Errorf("get ended with %d: %q", a.code, a.out)
		}
		choose := func(name string) []string {
			return append(d.admin(), "CREDSTORE_DOCKER_CREDENTIALS="+host+"="+name)
		}
		if status := d.enter(t, d.get(t, choose("rotten"), host)); status != http.StatusUnauthorized {
			t.Errorf("the registry answers %d to the wrong password", status)
		}
		if status := d.enter(t, d.get(t, choose("bot"), host)); status != http.StatusOK {
			t.Errorf("the registry answers %d to the right one", status)
		}
		// Who got it a moment ago is a consumer of it.
		if a := d.try(t, "credential", "delete", "rotten"); a.code != 1 || !strings.Contains(a.err, "CREDENTIAL_IN_USE") {
			t.Errorf("delete ended with %d: %s", a.code, a.err)
		}
		d.do(t, "credential", "delete", "rotten", "--force")
	})
	t.Run("after a change", func(t *testing.T) {
		d.do(t, d.stored(t, "update", "bot", "next", nextPassword)...)
		got := d.get(t, d.admin(), host)
		if status := d.enter(t, got); got.Username != "next" || status != http.StatusOK {
			t.Errorf("it answers the login of %q, to which the registry answers %d", got.Username, status)
		}
	})
}

// A registry with a token server: the helper answers the same, and docker takes
// it there. The server itself does not, unless the token server is known to
// belong to the registry.
func TestConformanceDockerHelperWithTokenServer(t *testing.T) {
	d := newDockerSite(t, registrytest.AuthToken)
	d.do(t, d.stored(t, "create", "bot", "bot", botPassword)...)
	got, code := d.verify(t, "bot")
	if got.GetState() != credstorev1.Verification_REFUSED || !strings.Contains(got.GetMessage(), "not known to belong to it") || code != 1 {
		t.Errorf("verify ended with %d: %v", code, got)
	}
	if n := d.registry.Tokens.Calls(); n != 0 {
		t.Errorf("the password was shown to the token server %d times", n)
	}
	login := d.get(t, d.admin(), d.registry.Host)
	if status := d.enter(t, login); status != http.StatusOK {
		t.Errorf("with a token for the login the registry answers %d", status)
	}
	login.Secret += "x"
	if status := d.enter(t, login); status != http.StatusUnauthorized {
		t.Errorf("for a wrong password the token server answers %d", status)
	}
}

// crane pushes and pulls with docker's configuration, in which there is no
// password, only the helper's name.
func TestConformanceDockerClient(t *testing.T) {
	program := counterpart(t, crane)
	d := newDockerSite(t, registrytest.AuthBasic)
	image := d.registry.Host + "/team/app:1"
	config := mkdir(t, d.dir, "docker")
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"credsStore": "credstore"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) answered {
		return d.call(t, slices.Concat(d.admin(), []string{
			"DOCKER_CONFIG=" + config, "SSL_CERT_FILE=" + d.ca, "PATH=" + d.path + string(os.PathListSeparator) + os.Getenv("PATH"),
		}), "", program, args...)
	}
	refused := func(a answered) bool {
		return a.code != 0 && strings.Contains(strings.ToLower(a.err), "unauthorized")
	}
	push := []string{"append", "--new_layer", d.file(t, "layer.tar", layer(t)), "--new_tag", image}
	// Without a credential the helper says so, and the client goes on as nobody.
	if a := run(push...); !refused(a) {
		t.Fatalf("without a credential it ended with %d: %s", a.code, a.err)
	}
	d.do(t, d.stored(t, "create", "team-registry", "bot", botPassword)...)
	for _, args := range [][]string{push, {"manifest", image}, {"catalog", d.registry.Host}} {
		a := run(args...)
		if a.code != 0 {
			t.Fatalf("crane %s ended with %d: %s", args[0], a.code, a.err)
		}
		if args[0] == "catalog" && a.out != "team/app\n" {
			t.Errorf("the catalog is %q", a.out)
		}
	}
	// The client notices nothing of a change but that it goes on.
	d.do(t, d.stored(t, "update", "team-registry", "next", nextPassword)...)
	if a := run("manifest", image); a.code != 0 {
		t.Errorf("after a change it ended with %d: %s", a.code, a.err)
	}
	d.do(t, d.stored(t, "update", "team-registry", "bot", "wr0ng-canary")...)
	if a := run("manifest", image); !refused(a) {
		t.Errorf("with a wrong password it ended with %d: %s", a.code, a.err)
	}
	if got := read[map[string]json.RawMessage](t, d.content(t, filepath.Join(config, "config.json"))); len(got) != 1 || got["credsStore"] == nil {
		t.Errorf("the configuration became %v", got)
	}
}

func (d *dockerSite) content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// layer is a layer of an image, with one file.
func layer(t *testing.T) string {
	t.Helper()
	const content = "hello\n"
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
