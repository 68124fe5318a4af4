//go:build conformance

package app_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// vaultTokens finds Vault's tokens, which credstore gets by logins and nobody
// here knows.
var vaultTokens = regexp.MustCompile(`hv[sbr]\.[A-Za-z0-9_-]{20,}`)

// leaks says in which forms a secret is in a text, and whether a token of Vault
// is.
func leaks(secrets map[string]string, text []byte) []string {
	var found []string
	for name, secret := range secrets {
		b := []byte(secret)
		sum := sha256.Sum256(b)
		for form, needle := range map[string]string{
			"itself":                 secret,
			"its middle":             secret[len(secret)/4 : len(secret)*3/4],
			"its hexadecimal":        hex.EncodeToString(b),
			"its base64":             base64.RawStdEncoding.EncodeToString(b[:len(b)/3*3]),
			"its base64 for URLs":    base64.RawURLEncoding.EncodeToString(b[:len(b)/3*3]),
			"its hash":               string(sum[:]),
			"its hash's hexadecimal": hex.EncodeToString(sum[:]),
			"its hash's base64":      base64.RawStdEncoding.EncodeToString(sum[:30]),
		} {
			if bytes.Contains(text, []byte(needle)) {
				found = append(found, name+": "+form)
			}
		}
	}
	if vaultTokens.Match(text) {
		found = append(found, "a token of Vault")
	}
	return found
}

// folder returns the content of every file of a folder.
func folder(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		all[entry.Name()], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What comes from Vault and what is sent to it in a login is in the injectors'
// files and in no place of credstore's: not in its folder, logs, audit log,
// metrics and answers, whatever Vault says.
func TestConformanceVaultCanary(t *testing.T) {
	v := newVault(t)
	s := newVaultSite(t)
	roleID, secretID := v.AppRole(t, "credstore", map[string]any{"token_policies": "app", "token_ttl": "2s", "token_max_ttl": "3s"})
	secrets := map[string]string{
		"secret id":       secretID,
		"wrong secret id": "wrong-" + uuid.NewString(),
		"token":           v.Token(t, map[string]any{"policies": []string{"app"}, "ttl": "10s", "renewable": false}),
		"malformed token": "malformed " + uuid.NewString(),
		"value":           "first-" + uuid.NewString(),
		"second value":    "second-" + uuid.NewString(),
		"undelivered":     "undelivered-" + uuid.NewString(),
		"value's key":     "third-" + uuid.NewString(),
		"root token":      v.RootToken,
	}
	var said []string // by credstore, to its callers
	say := func(m any, err error) {
		text, jsonErr := json.Marshal(m)
		if jsonErr != nil {
			t.Fatal(jsonErr)
		}
		said = append(said, fmt.Sprintf("%s %v %v %+v", text, m, err, err))
	}
	status := func(injection string) {
		say(s.api.Injections.GetInjectionStatus(t.Context(), &credstorev1.GetInjectionStatusRequest{Name: defaultParent + "/injections/" + injection}))
	}
	test := func(store string) {
		say(s.api.Stores.TestSecretStore(t.Context(), &credstorev1.TestSecretStoreRequest{Name: storeOf(store)}))
	}

	s.addLogin(t, "role", appRolePayload(roleID, secretID))
	s.addLogin(t, "static", vaultTokenPayload(secrets["token"]))
	say(s.api.Credentials.CreateCredential(t.Context(), &credstorev1.CreateCredentialRequest{
		Parent: defaultParent, CredentialId: "malformed", Credential: &credstorev1.Credential{Payload: vaultTokenPayload(secrets["malformed token"])},
	}))
	s.addStore(t, "vault", "role", at(v), time.Second)
	s.addStore(t, "by-token", "static", at(v), time.Second)
	echo := echoServer(t)
	s.addStore(t, "echo", "role", &credstorev1.VaultProvider{Address: echo}, time.Second)
	s.addStore(t, "echo-token", "static", &credstorev1.VaultProvider{Address: echo}, time.Second)

	v.Put(t, "app/db", map[string]string{"k": secrets["value"], "other": secrets["undelivered"]})
	v.Put(t, "app/whole", map[string]string{"k": secrets["value's key"]})
	good := []*credstorev1.Item{
		secretItem("db", "vault", "app/db", "k"), secretItem("whole", "vault", "app/whole", ""),
		secretItem("by-token", "by-token", "app/db", "k"),
	}
	i := s.addWorkload(t, "web", good...)
	i.complete(t)
	i.file(t, soon, "db", secrets["value"])
	v.Put(t, "app/db", map[string]string{"k": secrets["second value"], "other": secrets["undelivered"]})
	i.file(t, soon, "db", secrets["second value"])
	s.changeInjection(t, "web", append(good,
		secretItem("echo", "echo", "app/db", "k"), secretItem("echo-token", "echo-token", "app/db", "k"),
		secretItem("none", "vault", "app/none", "k"), secretItem("nokey", "vault", "app/db", "nokey"))...)
	for file, text := range map[string]string{"echo": "login: refused: 400", "echo-token": "403", "none": "404", "nokey": "no key"} {
		s.item(t, soon, "web", file, itemFailed, text)
	}
	s.item(t, soon, "web", "by-token", itemStale, "invalid token")
	for _, store := range []string{"vault", "by-token", "echo", "echo-token"} {
		test(store)
	}
	status("web")
	v.Destroy(t, "app/whole", 1)
	s.item(t, soon, "web", "whole", itemFailed, "destroyed")
	s.changeLogin(t, "role", appRolePayload(roleID, secrets["wrong secret id"]))
	s.item(t, soon, "web", "db", itemStale, "login: refused: 400")
	test("vault")
	status("web")
	v.Stop(t)
	test("vault")
	running, metrics := folder(t, string(s.cfg.Dir)), s.metrics(t)
	s.stop()
	ended := folder(t, string(s.cfg.Dir))
	s.start(t)
	v.Start(t)
	s.changeLogin(t, "role", appRolePayload(roleID, secretID))
	s.item(t, recovery, "web", "db", itemOK, "")
	status("web")
	metrics += s.metrics(t)
	s.stop()

	places := map[string][]byte{"log": s.log.Bytes(), "metrics": []byte(metrics), "answers": []byte(strings.Join(said, "\n"))}
	for when, files := range map[string]map[string][]byte{"running": running, "ended": ended, "ended again": folder(t, string(s.cfg.Dir))} {
		for name, b := range files {
			places[name+", "+when] = b
		}
	}
	size := 0
	for place, text := range places {
		size += len(text)
		for _, found := range leaks(secrets, text) {
			t.Errorf("%s is in %s", found, place)
		}
	}
	t.Logf("%d places, %d bytes, %d secrets", len(places), size, len(secrets))

	// The places are the right ones: each has what is not secret, and a secret
	// that is put there is found.
	for place, text := range map[string]string{
		"log": "a secret has changed", "metrics": "credstore_broker_polls_total", "answers": "login: refused: 400",
		"store.db, running": "SQLite format 3", "audit.jsonl, running": storeOf("vault"), "audit.jsonl, ended again": defaultParent + "/credentials/role",
	} {
		if !bytes.Contains(places[place], []byte(text)) {
			t.Errorf("%s has no %q", place, text)
		}
	}
	for name, secret := range secrets {
		for _, planted := range []string{
			secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)), "…" + secret[:len(secret)-2],
		} {
			if len(leaks(map[string]string{name: secret}, []byte("before "+planted+" after"))) == 0 {
				t.Errorf("%s is not found as %q", name, planted)
			}
		}
	}
}

// echoServer is a store that repeats what it is sent in its complaints.
func echoServer(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		code := http.StatusForbidden
		if len(body) > 0 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
		complaint := map[string][]string{"errors": {"you sent " + r.Header.Get("X-Vault-Token") + " and " + string(body), "invalid token"}}
		if err := json.NewEncoder(w).Encode(complaint); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}
