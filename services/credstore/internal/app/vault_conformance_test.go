//go:build conformance

package app_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

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
		if n := perSecret[path]; n == 0 {
			t.Errorf("%s was not read in %s", path, all)
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
	for _, i := range fleet {
		i.complete(t)
	}

	t.Run("TenReadsPerInterval", func(t *testing.T) { checkReads(t, v, interval, paths) })

	t.Run("ChangeWithinOnePoll", func(t *testing.T) {
		const longest = interval + time.Duration(jitter*float64(interval))
		var latencies []time.Duration
		for n := range 5 {
			content := fmt.Sprintf("changed-%d", n)
			start := time.Now()
			v.Put(t, secretPath(n), map[string]string{"k": content})
			v.Reads(t) // from here on reads are counted
			for _, i := range fleet {
				i.file(t, soon, fmt.Sprintf("s%d", n), content)
			}
			latency := time.Since(start)
			// None, if the read that saw it came before the counting began.
			reads := v.Reads(t)[secretPath(n)]
			if reads > 1+int(latency/interval) { // as many as there were polls
				t.Errorf("the change was in the files of %d injectors after %s and %d reads", injectors, latency, reads)
			}
			t.Logf("a change was in the files of %d injectors after %s and %d read", injectors, latency.Round(time.Millisecond), reads)
			latencies = append(latencies, latency)
		}
		// All but the first come just after a read, so they wait for the longest
		// time that there is; what is more is the machine's.
		t.Logf("half of the changes took more than %s to %d injectors; an interval has at most %s", percentileOf(latencies, 50), injectors, longest)
	})
}

// percentileOf returns the least latency that p per cent do not exceed.
func percentileOf(latencies []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(latencies))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
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
			maps.Copy(want, m)
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
