//go:build conformance

package app_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/provider/vault/vaulttest"
)

// The states of an item, in short.
const (
	itemOK     = credstorev1.SetItem_OK
	itemStale  = credstorev1.SetItem_STALE
	itemFailed = credstorev1.SetItem_FAILED
)

// jitter is how much longer than the store's interval the broker may leave
// between two reads of a secret, as a part of the interval.
const jitter = 0.02

// newVault starts a Vault with a policy "app" for what is below app/.
func newVault(t *testing.T) *vaulttest.Server {
	t.Helper()
	v := vaulttest.New(t)
	v.Policy(t, "app", "app/")
	return v
}

func at(v *vaulttest.Server) *credstorev1.VaultProvider {
	return &credstorev1.VaultProvider{Address: v.Address}
}

// addVault makes a store "vault" that logs in by AppRole.
func (s *vaultSite) addVault(t *testing.T, v *vaulttest.Server, interval time.Duration) {
	t.Helper()
	roleID, secretID := v.AppRole(t, "credstore", map[string]any{"token_policies": "app", "token_ttl": "1h"})
	s.addLogin(t, "vault-login", appRolePayload(roleID, secretID))
	s.addStore(t, "vault", "vault-login", at(v), interval)
}

// countReads counts the reads at Vault for about as long as told, and returns
// them by path with how long that was at most.
func countReads(t *testing.T, v *vaulttest.Server, d time.Duration) (map[string]int, time.Duration) {
	t.Helper()
	start := time.Now()
	v.Reads(t)
	pass(t, d)
	reads := v.Reads(t)
	return reads, time.Since(start)
}

// checkReads counts over several intervals: no secret may be read twice within
// one, and each must be read.
func checkReads(t *testing.T, v *vaulttest.Server, interval time.Duration, secrets []string) {
	t.Helper()
	const windows = 6
	var figures []int
	var all time.Duration
	total, perSecret := 0, map[string]int{}
	// most is how often one secret may be read in a time.
	most := func(d time.Duration) int { return 1 + int(d/interval) }
	for range windows {
		// A little less than the interval, so that a busy machine does not make it
		// more; if it does, one read more is allowed for.
		reads, took := countReads(t, v, interval-200*time.Millisecond)
		sum := 0
		for path, n := range reads {
			sum += n
			perSecret[path] += n
			if n > most(took) {
				t.Errorf("%s was read %d times in %s", path, n, took)
			}
		}
		if sum > most(took)*len(secrets) {
			t.Errorf("%d reads of %d secrets in %s", sum, len(secrets), took)
		}
		figures, total, all = append(figures, sum), total+sum, all+took
	}
	if total > most(all)*len(secrets) {
		t.Errorf("%d reads of %d secrets in %s", total, len(secrets), all)
	}
	for _, path := range secrets {
		if n := perSecret[path]; n < windows/2 {
			t.Errorf("%s was read only %d times in %s", path, n, all)
		}
		delete(perSecret, path)
	}
	if len(perSecret) > 0 {
		t.Errorf("read, too, were %v", perSecret)
	}
	t.Logf("%v reads of %d distinct secrets in windows of %s, %d in all in %.1f intervals of %s",
		figures, len(secrets), interval-200*time.Millisecond, total, float64(all)/float64(interval), interval)
}

func secretPath(i int) string { return fmt.Sprintf("app/secret-%d", i) }

// 50 injectors with the same 10 secrets cause one read of each per interval, and
// all have a new value after the first read that sees it.
func TestConformanceVaultFleet(t *testing.T) {
	const injectors, secrets, interval = 50, 10, 2 * time.Second
	v := newVault(t)
	s := newVaultSite(t)
	s.addVault(t, v, interval)
	var items []*credstorev1.Item
	var paths []string
	for i := range secrets {
		v.Put(t, secretPath(i), map[string]string{"k": "first"})
		paths = append(paths, secretPath(i))
		items = append(items, secretItem(fmt.Sprintf("s%d", i), "vault", secretPath(i), "k"))
	}
	s.addInjection(t, "fleet", map[string]string{"app": "fleet"}, items...)
	token := s.addToken(t, "fleet", map[string]string{"app": "fleet"})
	var fleet []*vaultInjector
	for i := range injectors {
		fleet = append(fleet, s.inject(t, fmt.Sprintf("pod-%d", i), token))
	}
	t.Cleanup(func() { stopAll(fleet) })
	t.Logf("DBG %s all started", time.Now())
	for n, i := range fleet {
		i.complete(t)
		t.Logf("DBG %s complete %d", time.Now(), n)
	}
	t.Cleanup(func() { t.Logf("DBG %s cleaning", time.Now()) })

	t.Run("TenReadsPerInterval", func(t *testing.T) { checkReads(t, v, interval, paths) })

	t.Run("ChangeWithinOnePoll", func(t *testing.T) {
		for n := range 4 {
			content := fmt.Sprintf("changed-%d", n)
			start := time.Now()
			v.Put(t, secretPath(n), map[string]string{"k": content})
			v.Reads(t) // from here on reads are counted
			for _, i := range fleet {
				i.file(t, soon, fmt.Sprintf("s%d", n), content)
			}
			reads, took := v.Reads(t)[secretPath(n)], time.Since(start)
			// None, if the read that saw it came before the counting began.
			if reads > 1 {
				t.Errorf("the change was in the files of %d injectors after %d reads", injectors, reads)
			}
			if most := interval + time.Duration(jitter*float64(interval)) + 2*time.Second; took > most {
				t.Errorf("the change was in the files of %d injectors after %s, more than %s", injectors, took, most)
			}
			t.Logf("a change was in the files of %d injectors after %s and %d read", injectors, took.Round(time.Millisecond), reads)
		}
	})
}

// 50 injectors with five different tokens, whose injections overlap in what they
// deliver, cause one read per distinct secret and interval, and each has only
// what its token gives it.
func TestConformanceVaultOverlap(t *testing.T) {
	const secrets, interval = 8, 2 * time.Second
	v := newVault(t)
	s := newVaultSite(t)
	s.addVault(t, v, interval)
	var paths []string
	for i := range secrets {
		v.Put(t, secretPath(i), map[string]string{"k": fmt.Sprintf("k-%d", i), "gold": fmt.Sprintf("gold-%d", i)})
		paths = append(paths, secretPath(i))
	}
	for _, inj := range []struct {
		id       string
		selector map[string]string
		key      string
		of       []int
	}{
		{"team-a", map[string]string{"team": "a"}, "k", []int{0, 1, 2, 3}},
		{"team-b", map[string]string{"team": "b"}, "k", []int{2, 3, 4, 5}},
		{"team-c", map[string]string{"team": "c"}, "k", []int{4, 5, 6, 7}},
		{"gold", map[string]string{"tier": "gold"}, "gold", []int{0, 3, 7}},
		{"gold-b", map[string]string{"tier": "gold", "team": "b"}, "gold", []int{1, 2}},
	} {
		var items []*credstorev1.Item
		for _, n := range inj.of {
			items = append(items, secretItem(fmt.Sprintf("%s/s%d", inj.id, n), "vault", secretPath(n), inj.key))
		}
		s.addInjection(t, inj.id, inj.selector, items...)
	}
	gold := map[string]string{"gold/s0": "gold-0", "gold/s3": "gold-3", "gold/s7": "gold-7"}
	teamA := map[string]string{"team-a/s0": "k-0", "team-a/s1": "k-1", "team-a/s2": "k-2", "team-a/s3": "k-3"}
	teamB := map[string]string{"team-b/s2": "k-2", "team-b/s3": "k-3", "team-b/s4": "k-4", "team-b/s5": "k-5"}
	teamC := map[string]string{"team-c/s4": "k-4", "team-c/s5": "k-5", "team-c/s6": "k-6", "team-c/s7": "k-7"}
	goldB := map[string]string{"gold-b/s1": "gold-1", "gold-b/s2": "gold-2"}
	type member struct {
		*vaultInjector
		want map[string]string
	}
	var fleet []member
	for _, token := range []struct {
		id         string
		attributes map[string]string
		want       []map[string]string
	}{
		{"a", map[string]string{"team": "a"}, []map[string]string{teamA}},
		{"a-gold", map[string]string{"team": "a", "tier": "gold"}, []map[string]string{teamA, gold}},
		{"b", map[string]string{"team": "b", "zone": "1"}, []map[string]string{teamB}},
		{"b-gold", map[string]string{"team": "b", "tier": "gold"}, []map[string]string{teamB, gold, goldB}},
		{"c", map[string]string{"team": "c"}, []map[string]string{teamC}},
	} {
		want := map[string]string{}
		for _, m := range token.want {
			for file, content := range m {
				want[file] = content
			}
		}
		secret := s.addToken(t, token.id, token.attributes)
		for n := range 10 {
			fleet = append(fleet, member{s.inject(t, fmt.Sprintf("%s-%d", token.id, n), secret), want})
		}
	}
	t.Cleanup(func() {
		var all []*vaultInjector
		for _, m := range fleet {
			all = append(all, m.vaultInjector)
		}
		stopAll(all)
	})
	for _, m := range fleet {
		m.complete(t)
		m.has(t, m.want)
	}
	checkReads(t, v, interval, paths)
}

// Vault away: what there is stays, a newcomer gets it, also from a credstore that
// was started meanwhile; when Vault is back, so is everything, by itself.
func TestConformanceVaultAway(t *testing.T) {
	v := newVault(t)
	s := newVaultSite(t)
	s.addVault(t, v, time.Second)
	v.Put(t, "app/db", map[string]string{"k": "first"})
	first := s.addWorkload(t, "web", secretItem("db", "vault", "app/db", "k"))
	first.complete(t)
	set := first.published(t)
	token := s.addToken(t, "web-2", map[string]string{"app": "web"})

	v.Stop(t)
	s.item(t, soon, "web", "db", itemStale, "connection refused")
	newcomer := s.inject(t, "while-away", token)
	newcomer.complete(t)
	newcomer.has(t, map[string]string{"db": "first"})
	newcomer.stop()

	s.stop()
	if problem := first.fileIs("db", "first")(); problem != "" {
		t.Errorf("without a credstore: %s", problem)
	}
	s.start(t)
	later := s.inject(t, "after-restart", token)
	later.complete(t)
	later.has(t, map[string]string{"db": "first"})
	s.item(t, soon, "web", "db", itemStale, "connection refused")
	await(t, recovery, func() string {
		if st := first.engine.Status(); st.Connections < 2 || !st.Connected {
			return fmt.Sprintf("the first injector is not connected again: %v", st.LastError)
		}
		return ""
	})
	if got := first.published(t); got != set {
		t.Error("the set of the first injector was written again")
	}

	v.Start(t)
	took := s.item(t, recovery, "web", "db", itemOK, "")
	t.Logf("OK again %s after Vault was", took.Round(time.Millisecond))
	v.Put(t, "app/db", map[string]string{"k": "second"})
	for _, i := range []*vaultInjector{first, later} {
		i.file(t, soon, "db", "second")
	}

	v.Seal(t)
	s.item(t, soon, "web", "db", itemStale, "503 Vault is sealed")
	v.Unseal(t)
	s.item(t, recovery, "web", "db", itemOK, "")
	first.has(t, map[string]string{"db": "second"})
}

// The login's token ends: one that can be replaced is, and nobody notices; one
// that cannot leaves the last good set, says so, and is used as soon as it is
// replaced in credstore.
func TestConformanceVaultLoginEnds(t *testing.T) {
	v := newVault(t)
	s := newVaultSite(t)

	t.Run("AppRole", func(t *testing.T) {
		roleID, secretID := v.AppRole(t, "short", map[string]any{"token_policies": "app", "token_ttl": "2s", "token_max_ttl": "3s"})
		s.addLogin(t, "role", appRolePayload(roleID, secretID))
		s.addStore(t, "role", "role", at(v), time.Second)
		v.Put(t, "app/role", map[string]string{"k": "0"})
		i := s.addWorkload(t, "role", secretItem("f", "role", "app/role", "k"))
		i.complete(t)
		ok := s.itemIs(t, "role", "f", itemOK, "")
		begin := logins(t, v)
		for n := range 8 {
			if n == 5 {
				v.EndLogins(t) // revoked, not expired
			}
			content := fmt.Sprint(n + 1)
			v.Put(t, "app/role", map[string]string{"k": content})
			i.file(t, soon, "f", content)
			if problem := ok(); problem != "" {
				t.Error(problem)
			}
		}
		if n := logins(t, v) - begin; n < 2 {
			t.Errorf("%d logins while several tokens ended", n)
		} else {
			t.Logf("%d logins in 8 changes", n)
		}
	})

	t.Run("StaticToken", func(t *testing.T) {
		s.addLogin(t, "static", vaultTokenPayload(v.Token(t, map[string]any{"policies": []string{"app"}, "ttl": "3s", "renewable": false})))
		s.addStore(t, "static", "static", at(v), time.Second)
		v.Put(t, "app/static", map[string]string{"k": "first"})
		i := s.addWorkload(t, "static", secretItem("f", "static", "app/static", "k"))
		i.complete(t)
		set := i.published(t)
		s.item(t, soon, "static", "f", itemStale, "login: refused: 403")
		s.item(t, soon, "static", "f", itemStale, "invalid token")
		v.Put(t, "app/static", map[string]string{"k": "second"})
		if got := i.published(t); got != set {
			t.Error("the set was written again when the token had ended")
		}
		i.has(t, map[string]string{"f": "first"})
		// A refused login is left alone for half a minute at least, so what comes
		// now is not a poll's.
		s.changeLogin(t, "static", vaultTokenPayload(v.Token(t, map[string]any{"policies": []string{"app"}, "ttl": "1h"})))
		took := i.file(t, soon, "f", "second")
		s.item(t, soon, "static", "f", itemOK, "")
		t.Logf("the new token's first value was in the file after %s", took.Round(time.Millisecond))
	})

	t.Run("SecretID", func(t *testing.T) {
		roleID, secretID := v.AppRole(t, "rotated", map[string]any{"token_policies": "app", "token_ttl": "1h"})
		s.addLogin(t, "rotated", appRolePayload(roleID, secretID))
		s.addStore(t, "rotated", "rotated", at(v), time.Hour)
		v.Put(t, "app/rotated", map[string]string{"k": "first"})
		i := s.addWorkload(t, "rotated", secretItem("f", "rotated", "app/rotated", "k"))
		i.complete(t)
		s.changeLogin(t, "rotated", appRolePayload(roleID, "wrong"))
		s.item(t, soon, "rotated", "f", itemStale, "login: refused: 400 invalid role or secret ID")
		i.has(t, map[string]string{"f": "first"})
		v.Put(t, "app/rotated", map[string]string{"k": "second"})
		s.changeLogin(t, "rotated", appRolePayload(roleID, secretID))
		// The interval is an hour: nothing but the new version makes this happen.
		i.file(t, soon, "f", "second")
		s.item(t, soon, "rotated", "f", itemOK, "")
	})
}

// logins counts the AppRole logins that Vault has seen.
func logins(t *testing.T, v *vaulttest.Server) int {
	t.Helper()
	_, counts := v.Call(t, "", http.MethodGet, "/test/requests", nil)
	n, _ := counts["PUT /v1/auth/approle/login"].(float64)
	return int(n)
}

// Deleted, undeleted, destroyed, written anew, pinned: the status says which, the
// last good set stays, and what is repaired in Vault is repaired here.
func TestConformanceVaultVersions(t *testing.T) {
	v := newVault(t)
	s := newVaultSite(t)
	s.addVault(t, v, time.Second)

	t.Run("Deleted", func(t *testing.T) {
		n := v.Put(t, "app/db", map[string]string{"k": "first"})
		i := s.addWorkload(t, "deleted", secretItem("f", "vault", "app/db", "k"))
		i.complete(t)
		set := i.published(t)
		stays := func() {
			t.Helper()
			s.reported(t, "deleted", "deleted", "f", "version 1 was")
			if got := i.published(t); got != set {
				t.Error("the set was written again")
			}
			i.has(t, map[string]string{"f": "first"})
		}
		v.Delete(t, "app/db", n)
		s.item(t, soon, "deleted", "f", itemFailed, "version 1 was deleted at ")
		stays()
		v.Undelete(t, "app/db", n)
		s.item(t, soon, "deleted", "f", itemOK, "")
		s.reported(t, "deleted", "deleted", "f", "")
		v.Destroy(t, "app/db", n)
		s.item(t, soon, "deleted", "f", itemFailed, "404 version 1 was destroyed")
		stays()
		v.Put(t, "app/db", map[string]string{"k": "second"})
		i.file(t, soon, "f", "second")
		s.item(t, soon, "deleted", "f", itemOK, "")
		s.reported(t, "deleted", "deleted", "f", "")
	})

	t.Run("Pinned", func(t *testing.T) {
		v.Put(t, "app/pin", map[string]string{"k": "first"})
		i := s.addWorkload(t, "pinned",
			pinned(secretItem("one", "vault", "app/pin", "k"), 1), secretItem("newest", "vault", "app/pin", "k"))
		i.complete(t)
		v.Put(t, "app/pin", map[string]string{"k": "second"})
		i.file(t, soon, "newest", "second")
		i.has(t, map[string]string{"one": "first", "newest": "second"})

		v.Delete(t, "app/pin", 1)
		s.item(t, soon, "pinned", "one", itemFailed, "version 1 was deleted")
		s.item(t, soon, "pinned", "newest", itemOK, "")
		i.has(t, map[string]string{"one": "first", "newest": "second"})
		v.Undelete(t, "app/pin", 1)
		s.item(t, soon, "pinned", "one", itemOK, "")
		v.Destroy(t, "app/pin", 1)
		s.item(t, soon, "pinned", "one", itemFailed, "version 1 was destroyed")

		s.changeInjection(t, "pinned", pinned(secretItem("one", "vault", "app/pin", "k"), 9), secretItem("newest", "vault", "app/pin", "k"))
		s.item(t, soon, "pinned", "one", itemFailed, "404 there is no version 9 at this path")
		i.has(t, map[string]string{"one": "first", "newest": "second"})
		s.changeInjection(t, "pinned", pinned(secretItem("one", "vault", "app/pin", "k"), 2), secretItem("newest", "vault", "app/pin", "k"))
		i.file(t, soon, "one", "second")
		s.item(t, soon, "pinned", "one", itemOK, "")
	})
}

// What an operator gets wrong fails alone, with Vault's answer; the rest of the
// injection goes on, and a group stays together.
func TestConformanceVaultMistakes(t *testing.T) {
	v := newVault(t)
	s := newVaultSite(t)
	s.addVault(t, v, time.Second)
	s.addStore(t, "forbidden-mount", "vault-login", &credstorev1.VaultProvider{Address: v.Address, Mount: "nosuch"}, time.Second)
	s.addLogin(t, "broad", vaultTokenPayload(v.RootToken))
	s.addStore(t, "wrong-mount", "broad", &credstorev1.VaultProvider{Address: v.Address, Mount: "nosuch"}, time.Second)
	v.Put(t, "app/db", map[string]string{"k": "first", "user": "me"})
	v.Put(t, "other/db", map[string]string{"k": "not for the policy"})

	mistakes := []struct {
		name string
		item *credstorev1.Item
		text string
	}{
		{"WrongPath", secretItem("bad", "vault", "app/nosuch", "k"), "read: no such secret: 404 there is nothing at this path"},
		{"MissingKey", secretItem("bad", "vault", "app/db", "nosuch"), `the secret has no key "nosuch"`},
		{"WrongMount", secretItem("bad", "wrong-mount", "app/db", "k"), "read: no such secret: 404 no handler for route"},
		{"ForbiddenMount", secretItem("bad", "forbidden-mount", "app/db", "k"), "read: refused: 403 permission denied"},
		{"ForbiddenPath", secretItem("bad", "vault", "other/db", "k"), "read: refused: 403 permission denied"},
	}
	for n, mistake := range mistakes {
		t.Run(mistake.name, func(t *testing.T) {
			id := fmt.Sprintf("mistake-%d", n)
			good := secretItem("good", "vault", "app/db", "k")
			i := s.addWorkload(t, id, good)
			i.complete(t)
			s.changeInjection(t, id, good, mistake.item, secretItem("added", "vault", "app/db", "user"))
			s.item(t, soon, id, "bad", itemFailed, mistake.text)
			s.item(t, soon, id, "good", itemOK, "")
			i.file(t, soon, "added", "me")
			s.reported(t, id, id, "bad", mistake.text)
			i.has(t, map[string]string{"good": "first", "added": "me"})

			// A first start waits for all, and says for what.
			newcomer := s.inject(t, "newcomer", s.addToken(t, id+"-2", map[string]string{"app": id}))
			await(t, soon, func() string {
				reasons := strings.Join(newcomer.engine.Status().Reasons, "; ")
				if !strings.Contains(reasons, mistake.text) {
					return fmt.Sprintf("the newcomer is not ready because of %q; want %q", reasons, mistake.text)
				}
				return ""
			})
			if _, err := os.Lstat(filepath.Join(newcomer.dir, "good")); !os.IsNotExist(err) {
				t.Errorf("a first start did not wait: %v", err)
			}
			content := fmt.Sprintf("fixed-%d", n)
			right := proto.Clone(good).(*credstorev1.Item)
			right.GetFile().Path = "bad"
			s.changeInjection(t, id, good, right)
			newcomer.complete(t)
			v.Put(t, "app/db", map[string]string{"k": content, "user": "me"})
			for _, i := range []*vaultInjector{i, newcomer} {
				i.file(t, soon, "bad", content)
				i.has(t, map[string]string{"good": content, "bad": content})
			}
			v.Put(t, "app/db", map[string]string{"k": "first", "user": "me"})
			i.file(t, soon, "good", "first")
		})
	}

	t.Run("Group", func(t *testing.T) {
		v.Put(t, "app/user", map[string]string{"k": "user-1"})
		v.Put(t, "app/password", map[string]string{"k": "password-1"})
		v.Put(t, "app/alone", map[string]string{"k": "alone-1"})
		i := s.addWorkload(t, "group",
			grouped(secretItem("user", "vault", "app/user", "k"), "login"),
			grouped(secretItem("password", "vault", "app/password", "k"), "login"),
			secretItem("alone", "vault", "app/alone", "k"))
		i.complete(t)
		v.Delete(t, "app/password", 1)
		s.item(t, soon, "group", "password", itemFailed, "version 1 was deleted")
		v.Put(t, "app/user", map[string]string{"k": "user-2"})
		v.Put(t, "app/alone", map[string]string{"k": "alone-2"})
		i.file(t, soon, "alone", "alone-2")
		// The server has the new user, and the injector knows.
		s.reported(t, "group", "group", "user", "login")
		await(t, soon, func() string {
			status, err := s.api.Injections.GetInjectionStatus(t.Context(), &credstorev1.GetInjectionStatusRequest{Name: defaultParent + "/injections/group"})
			if err != nil {
				return err.Error()
			}
			for _, it := range status.GetItems() {
				if it.GetPath() == "user" && it.GetVersion() == "2" && status.GetWorkloads()[0].GetAppliedRevision() == status.GetWorkloads()[0].GetSentRevision() {
					return ""
				}
			}
			return "the second user was not sent to the injector, or is not processed"
		})
		i.has(t, map[string]string{"user": "user-1", "password": "password-1", "alone": "alone-2"})
		v.Put(t, "app/password", map[string]string{"k": "password-2"})
		i.file(t, soon, "password", "password-2")
		i.has(t, map[string]string{"user": "user-2", "password": "password-2", "alone": "alone-2"})
	})
}

// TestSecretStore says whose login it is or what is wrong, over TLS as well;
// RefreshSecretStore reads what is in use, now.
func TestConformanceVaultTestAndRefresh(t *testing.T) {
	v := newVault(t)
	s := newVaultSite(t)
	s.addVault(t, v, time.Hour)
	roleID, _ := v.AppRole(t, "other", map[string]any{"token_policies": "app"})
	s.addLogin(t, "wrong", appRolePayload(roleID, "wrong"))
	front := tlsFront(t, v)
	trusted := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}))
	foreign, err := os.ReadFile(s.cfg.Dir.CA())
	if err != nil {
		t.Fatal(err)
	}
	s.addStore(t, "wrong-login", "wrong", at(v), time.Hour)
	s.addStore(t, "over-tls", "vault-login", &credstorev1.VaultProvider{Address: front.URL, CaPem: trusted}, time.Hour)
	s.addStore(t, "untrusted", "vault-login", &credstorev1.VaultProvider{Address: front.URL, CaPem: string(foreign)}, time.Hour)
	s.addStore(t, "nobody-there", "vault-login", &credstorev1.VaultProvider{Address: "http://127.0.0.1:1"}, time.Hour)
	s.addStore(t, "not-allowed", "vault-login", &credstorev1.VaultProvider{Address: "http://[::1]:8200"}, time.Hour)

	for _, c := range []struct {
		store, identity, message string
	}{
		{store: "vault", identity: "approle role credstore (entity "},
		{store: "over-tls", identity: "approle role credstore (entity "},
		{store: "wrong-login", message: "login: refused: 400 invalid role or secret ID"},
		{store: "untrusted", message: "the certificate is signed by an unknown authority"},
		{store: "nobody-there", message: "connection refused"},
		{store: "not-allowed", message: "this server does not connect to ::1: it is a loopback address"},
	} {
		t.Run("Test/"+c.store, func(t *testing.T) {
			got, err := s.api.Stores.TestSecretStore(t.Context(), &credstorev1.TestSecretStoreRequest{Name: storeOf(c.store)})
			if err != nil {
				t.Fatal(err)
			}
			if got.GetOk() != (c.message == "") || !strings.HasPrefix(got.GetIdentity(), c.identity) || !strings.Contains(got.GetMessage(), c.message) ||
				(got.GetMessage() == "") != (c.message == "") || (got.GetIdentity() == "") != (c.identity == "") || got.GetLatency().AsDuration() <= 0 {
				t.Errorf("the answer is %v; want identity %q, message %q", got, c.identity, c.message)
			}
		})
	}

	refresh := func(t *testing.T, store string, polled, changed, failed uint32) {
		t.Helper()
		got, err := s.api.Stores.RefreshSecretStore(t.Context(), &credstorev1.RefreshSecretStoreRequest{Name: storeOf(store)})
		want := &credstorev1.RefreshSecretStoreResponse{Polled: polled, Changed: changed, Failed: failed}
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("the answer is %v, %v; want %v", got, err, want)
		}
	}
	t.Run("Refresh", func(t *testing.T) {
		refresh(t, "vault", 0, 0, 0) // nothing is in use
		for _, path := range []string{"app/a", "app/b", "app/c"} {
			v.Put(t, path, map[string]string{"k": "first"})
		}
		i := s.addWorkload(t, "refresh",
			secretItem("a", "vault", "app/a", "k"), secretItem("b", "vault", "app/b", "k"), secretItem("c", "vault", "app/c", "k"))
		i.complete(t)
		refresh(t, "vault", 3, 0, 0)
		v.Put(t, "app/a", map[string]string{"k": "second"})
		v.Delete(t, "app/b", 1)
		refresh(t, "vault", 3, 2, 1)
		i.file(t, soon, "a", "second")
		s.item(t, soon, "refresh", "b", itemFailed, "version 1 was deleted")
		s.item(t, soon, "refresh", "c", itemOK, "")
		refresh(t, "over-tls", 0, 0, 0)
	})
	t.Run("OverTLS", func(t *testing.T) {
		v.Put(t, "app/tls", map[string]string{"k": "first"})
		i := s.addWorkload(t, "tls", secretItem("f", "over-tls", "app/tls", "k"))
		i.complete(t)
		v.Put(t, "app/tls", map[string]string{"k": "second"})
		refresh(t, "over-tls", 1, 1, 0)
		i.file(t, soon, "f", "second")
	})
}

// tlsFront serves Vault over TLS, as a load balancer does.
func tlsFront(t *testing.T, v *vaulttest.Server) *httptest.Server {
	t.Helper()
	u, err := url.Parse(v.Address)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u) },
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	front := httptest.NewTLSServer(proxy)
	t.Cleanup(front.Close)
	return front
}
