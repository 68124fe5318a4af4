package core_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

// store creates a credential, or updates the one that is there.
func store(t *testing.T, s *core.Store, name resourcename.Credential, p credential.Payload) error {
	t.Helper()
	ctx := coretest.AdminContext(t)
	_, err := s.CreateCredential(ctx, core.CreateCredentialRequest{Name: name, Payload: p})
	if errors.Is(err, core.ErrAlreadyExists) {
		_, err = s.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: name, Payload: &p})
	}
	return err
}

func mustPut(t *testing.T, h *coretest.Harness, name resourcename.Credential, p credential.Payload) {
	t.Helper()
	if err := store(t, h.Store, name, p); err != nil {
		t.Fatalf("write %s: %v", name.ID, err)
	}
}

// row makes a key and roles on top of it, each assumed with the one before, and
// returns their names, the key's first.
func row(t *testing.T, h *coretest.Harness, prefix string, roles int) []resourcename.Credential {
	t.Helper()
	names := []resourcename.Credential{cred(prefix + "-key")}
	mustPut(t, h, names[0], coretest.AccessKey(t, "00000000"))
	for i := range roles {
		names = append(names, cred(fmt.Sprintf("%s-%d", prefix, i+1)))
		mustPut(t, h, names[i+1], coretest.AssumeRole(t, names[i], "r"))
	}
	return names
}

// usersOf lists the durable usages of a credential.
func usersOf(t *testing.T, h *coretest.Harness, name resourcename.Credential) []string {
	t.Helper()
	var out []string
	page := core.Page{Size: 2}
	for {
		usages, _, more, err := h.Store.ListUsages(coretest.AdminContext(t), usageOf(name, ""), page)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range usages {
			out = append(out, fmt.Sprintf("%s %d", u.Name.ID, u.Type))
		}
		if page.Token = more; more == "" {
			return out
		}
	}
}

// What a credential refers to shows it as a user, of a type of its own, among
// all others, and cannot be deleted; the usage goes with the reference.
func TestReferencesAreUsages(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	key, other, role := cred("key"), cred("other"), cred("role")
	mustPut(t, h, key, coretest.AccessKey(t, "00000000"))
	mustPut(t, h, other, coretest.AccessKey(t, "11111111"))
	mustPut(t, h, role, coretest.AssumeRole(t, key, "r"))
	declare(t, h, key, "scan", 0)
	inject(t, h, "web", "web", core.Item{Credential: &core.CredentialSource{Name: key}, File: core.FileTarget{Path: "f"}})
	inject(t, h, "api", "api", core.Item{Credential: &core.CredentialSource{Name: key}, File: core.FileTarget{Path: "f"}})
	mustPut(t, h, cred("role-2"), coretest.AssumeRole(t, key, "r2"))
	equal(t, "users of the key", usersOf(t, h, key), []string{
		fmt.Sprint("injections.api ", core.UsageInjection), fmt.Sprint("injections.web ", core.UsageInjection), fmt.Sprint("scan ", core.UsageOther),
		fmt.Sprint("credentials.role ", core.UsageCredential), fmt.Sprint("credentials.role-2 ", core.UsageCredential),
	})
	c, err := h.Store.GetCredential(ctx, role)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "references", c.References, []string{key.String()})

	err = tryDelete(t, h, key, true)
	wantReason(t, "delete of a source", err, core.ErrPrecondition, core.ReasonCredentialInUse)
	equal(t, "refused for", users(t, err), []string{
		"projects/default/credentials/role", "projects/default/credentials/role-2", "projects/default/injections/api", "projects/default/injections/web", "service scan",
	})
	err = h.Store.DeleteUsage(ctx, core.DeleteRequest[resourcename.Usage]{Name: usageOf(key, "credentials.role")})
	wantReason(t, "delete of a derived usage", err, core.ErrPrecondition, core.ReasonUsageDerived)

	// Another source takes the usage over; the older version still names the
	// first one, and that does not hold it.
	mustPut(t, h, role, coretest.AssumeRole(t, other, "r"))
	equal(t, "users of the other", usersOf(t, h, other), []string{fmt.Sprint("credentials.role ", core.UsageCredential)})
	// The same one again leaves it.
	mustPut(t, h, role, coretest.AssumeRole(t, other, "another"))
	equal(t, "users of the other, still", usersOf(t, h, other), []string{fmt.Sprint("credentials.role ", core.UsageCredential)})
	if _, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: role.Version(1)}); err != nil {
		t.Fatal(err)
	}
	equal(t, "users of the other after the roll-back", usersOf(t, h, other), []string(nil))
	remove(t, h, other)
	_, err = h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: role.Version(2)})
	wantFields(t, "activation of a version whose source is gone", err, "name")
	remove(t, h, role)
	remove(t, h, cred("role-2"))
	equal(t, "users of the key at the end", usersOf(t, h, key), []string{
		fmt.Sprint("injections.api ", core.UsageInjection), fmt.Sprint("injections.web ", core.UsageInjection), fmt.Sprint("scan ", core.UsageOther),
	})
	consistent(t, h)
}

// A reference that cannot be is refused by the name of its field, whatever way
// it comes in.
func TestReferencesAreChecked(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	makeProject(t, h, "other")
	elsewhere := resourcename.Credential{Project: "other", ID: "key"}
	mustPut(t, h, elsewhere, coretest.AccessKey(t, "00000000"))
	create(t, h, cred("login"), "x")
	mustPut(t, h, cred("key"), coretest.AccessKey(t, "00000000"))
	mustPut(t, h, cred("role"), coretest.AssumeRole(t, cred("key"), "r"))
	before := revision(t, h)
	const field = "credential.payload.awsAssumeRole.source"
	for what, source := range map[string]resourcename.Credential{
		"what does not exist": cred("none"), "another project's": elsewhere, "another kind": cred("login"),
	} {
		p := coretest.AssumeRole(t, source, "r")
		for _, validate := range []bool{true, false} {
			m := core.Mutation{ValidateOnly: validate}
			_, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Mutation: m, Name: cred("new"), Payload: p})
			wantField(t, what+" in a create", err, field)
			_, err = h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Mutation: m, Name: cred("role"), Payload: &p})
			wantField(t, what+" in an update", err, field)
			_, err = h.Store.BatchWrite(ctx, core.BatchWriteRequest{Mutation: m, Project: demoProject, Operations: []core.BatchOperation{
				{Create: &core.CreateCredentialRequest{Name: cred("fine"), Payload: coretest.AssumeRole(t, cred("key"), "r")}},
				{Create: &core.CreateCredentialRequest{Name: cred("new"), Payload: p}},
				{Update: &core.UpdateCredentialRequest{Name: cred("role"), Payload: &p}},
			}})
			wantFields(t, what+" in a batch", err, "operations[1].create."+field, "operations[2].update."+field)
		}
	}
	if now := revision(t, h); now != before {
		t.Errorf("refused writes made %d commits", now-before)
	}
}

// Who comes to refer to a credential needs to be allowed to use it: when it is
// written, even with the source that it had, and when an older version becomes
// active.
// Who refers to a credential whose tokens then go to an address of their own
// choice has these tokens, and must be allowed to mint them.
func TestForwardedTokensNeedMint(t *testing.T) {
	asked := &recorder{}
	h := coretest.New(t, func(c *core.Config) { c.Authorizer = asked })
	key := cred("key")
	mustPut(t, h, key, coretest.AccessKey(t, "00000000"))
	asked.questions()
	mustPut(t, h, cred("role"), coretest.AssumeRole(t, key, "r"))
	mustPut(t, h, cred("login"), coretest.VaultByAWS(t, key))
	var got []string
	for _, q := range asked.questions() {
		if q.Credential == key {
			got = append(got, string(q.Permission))
		}
	}
	equal(t, "asked about the source, for a role and for a login of Vault", got, []string{"credentials.use", "credentials.use", "credentials.mint"})
}

func TestReferencesNeedUse(t *testing.T) {
	asked := &recorder{}
	h := coretest.New(t, func(c *core.Config) { c.Authorizer = asked })
	ctx := coretest.AdminContext(t)
	used := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, q := range asked.questions() {
			if q.Permission == core.CredentialsUse {
				got = append(got, q.Credential.ID)
			}
		}
		equal(t, what, got, want)
	}
	for _, id := range []string{"a", "b"} {
		mustPut(t, h, cred(id), coretest.AccessKey(t, "00000000"))
	}
	used("keys")
	role := cred("role")
	mustPut(t, h, role, coretest.AssumeRole(t, cred("a"), "r"))
	used("a role", "a")
	p := coretest.AssumeRole(t, cred("a"), "another")
	if _, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: role, Payload: &p}); err != nil {
		t.Fatal(err)
	}
	used("another role of the same source", "a")
	if _, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: role, Description: new("d")}); err != nil {
		t.Fatal(err)
	}
	used("a description")
	p = coretest.AssumeRole(t, cred("b"), "r")
	if _, err := h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: role, Payload: &p}); err != nil {
		t.Fatal(err)
	}
	used("another source", "b")
	for _, n := range []uint32{1, 1} {
		if _, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: role.Version(n)}); err != nil {
			t.Fatal(err)
		}
	}
	used("a roll-back, and one to what is active", "a")
	if _, err := h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: []core.BatchOperation{
		{Update: &core.UpdateCredentialRequest{Name: role, Payload: &p}},
		{Create: &core.CreateCredentialRequest{Name: cred("third"), Payload: coretest.AssumeRole(t, role, "r")}},
	}}); err != nil {
		t.Fatal(err)
	}
	used("a batch", "b", "role")

	// Without it nothing is written.
	only := func(denied core.Permission) {
		h.Stop(t)
		h.Start(t, func(c *core.Config) { c.Authorizer = denies{denied} })
	}
	only(core.CredentialsUse)
	before := revision(t, h)
	for what, err := range map[string]error{
		"create": store(t, h.Store, cred("new"), p),
		"update": store(t, h.Store, role, p),
		"activate": func() error {
			_, err := h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: role.Version(1)})
			return err
		}(),
	} {
		if !errors.Is(err, core.ErrPermissionDenied) {
			t.Errorf("%s without use: %v", what, err)
		}
	}
	if now := revision(t, h); now != before {
		t.Errorf("denied writes made %d commits", now-before)
	}
	mustPut(t, h, cred("key"), coretest.AccessKey(t, "00000000")) // what refers to nothing needs no use
}

// denies is an Authorizer that denies one permission.
type denies struct{ permission core.Permission }

func (d denies) Authorize(a core.Access) error {
	if a.Permission == d.permission {
		return core.ErrPermissionDenied
	}
	return nil
}

// deniesUseOf lets everybody do everything, but use one credential.
type deniesUseOf struct{ name resourcename.Credential }

func (d deniesUseOf) Authorize(a core.Access) error {
	if a.Permission == core.CredentialsUse && a.Resource == d.name.String() {
		return core.ErrPermissionDenied
	}
	return nil
}

// Who may not use a credential cannot send it somewhere by changing what refers to
// it while somebody else makes it refer to that.
func TestUseIsAskedAboutWhatIsCommitted(t *testing.T) {
	for _, test := range []struct {
		name string
		// admin makes it refer to the precious credential, and mallory changes the rest.
		admin   func(context.Context, *core.Store, resourcename.Credential) error
		mallory func(context.Context, *core.Store) error
	}{
		{
			"the address of a store",
			func(ctx context.Context, s *core.Store, precious resourcename.Credential) error {
				_, err := s.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: storeName("team"), Credential: &precious})
				return err
			},
			func(ctx context.Context, s *core.Store) error {
				_, err := s.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{
					Name: storeName("team"), Vault: &core.VaultProvider{Address: "https://vault.example.net:8200", Mount: "secret"},
				})
				return err
			},
		},
		{
			"the selector of an injection",
			func(ctx context.Context, s *core.Store, precious resourcename.Credential) error {
				items := []core.Item{{Credential: &core.CredentialSource{Name: precious}, File: core.FileTarget{Path: "a"}}}
				_, err := s.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Items: &items})
				return err
			},
			func(ctx context.Context, s *core.Store) error {
				_, err := s.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Selector: &map[string]string{"app": "mallory"}})
				return err
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := coretest.New(t)
			ctx := coretest.AdminContext(t)
			precious := cred("precious")
			vaultStore(t, h, "team")
			createPayload(t, h, precious, coretest.VaultToken(t, "hvs.precious"))
			inject(t, h, "web", "web", secretFile("a", "team", "app/a", "k"))
			late := &lateCommit{before: func() {}, commits: 1}
			replica := h.Replica(t, func(c *core.Config) {
				late.Storage, c.Storage, c.Authorizer = c.Storage, late, deniesUseOf{precious}
			})
			late.commits, late.before = 0, func() {
				if err := test.admin(ctx, h.Store, precious); err != nil {
					t.Error(err)
				}
			}
			if err := test.mallory(ctx, replica); !errors.Is(err, core.ErrPermissionDenied) {
				t.Errorf("got %v", err)
			}
			if late.commits != 1 {
				t.Errorf("%d commits were tried", late.commits)
			}
			consistent(t, h)
		})
	}
}

func TestReferenceCycles(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	names := row(t, h, "a", 3)
	key, one, two, three := names[0], names[1], names[2], names[3]
	refused := func(what string, err error, way string) {
		t.Helper()
		wantReason(t, what, err, core.ErrPrecondition, core.ReasonReferenceCycle)
		if err != nil && !strings.Contains(err.Error(), way) {
			t.Errorf("%s: %v; want %s", what, err, way)
		}
	}
	refused("itself", store(t, h.Store, one, coretest.AssumeRole(t, one, "r")), "a-1 → a-1")
	refused("a ring of two", store(t, h.Store, one, coretest.AssumeRole(t, two, "r")), "a-1 → a-2 → a-1")
	refused("a ring of three", store(t, h.Store, one, coretest.AssumeRole(t, three, "r")), "a-1 → a-3 → a-2 → a-1")
	refused("a new one to itself", store(t, h.Store, cred("self"), coretest.AssumeRole(t, cred("self"), "r")), "self → self")
	_, err := h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: []core.BatchOperation{
		{Create: &core.CreateCredentialRequest{Name: cred("x"), Payload: coretest.AssumeRole(t, cred("y"), "r")}},
		{Create: &core.CreateCredentialRequest{Name: cred("y"), Payload: coretest.AssumeRole(t, cred("x"), "r")}},
	}})
	refused("a ring in a batch", err, "x → y → x")

	// By a roll-back: version 1 of a-1 is on the key; then a-2 moves to the key
	// and a-1 on top of it, and a-2 back again would close the ring.
	mustPut(t, h, two, coretest.AssumeRole(t, key, "r"))
	mustPut(t, h, one, coretest.AssumeRole(t, two, "r"))
	_, err = h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: two.Version(1)})
	refused("a ring by a roll-back", err, "a-2 → a-1 → a-2")
	// Two that change places in one batch do not meet on the way.
	if _, err := h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: []core.BatchOperation{
		{Update: &core.UpdateCredentialRequest{Name: two, Payload: new(coretest.AssumeRole(t, one, "r"))}},
		{Update: &core.UpdateCredentialRequest{Name: one, Payload: new(coretest.AssumeRole(t, key, "r"))}},
	}}); err != nil {
		t.Errorf("two that change places: %v", err)
	}
	consistent(t, h)
}

// A row is counted over the whole graph, whichever end grows.
func TestReferenceRows(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	const field = "credential.payload.awsAssumeRole.source"
	long := row(t, h, "long", core.MaxSources-1)
	wantField(t, "on top of the longest", store(t, h.Store, cred("more"), coretest.AssumeRole(t, long[len(long)-1], "r")), field)
	mustPut(t, h, cred("beside"), coretest.AssumeRole(t, long[len(long)-2], "r"))
	// Below: a row of three whose lowest role moves onto the top of another one.
	low, high := row(t, h, "low", 2), row(t, h, "high", 3)
	wantField(t, "a lower end that would make six", store(t, h.Store, high[1], coretest.AssumeRole(t, low[2], "r")), field)
	mustPut(t, h, high[1], coretest.AssumeRole(t, low[1], "r")) // five
	wantField(t, "and no further", store(t, h.Store, low[1], coretest.AssumeRole(t, long[1], "r")), field)
	// In a batch it is the end that counts: the top goes as the bottom grows.
	if _, err := h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: []core.BatchOperation{
		{Update: &core.UpdateCredentialRequest{Name: low[1], Payload: new(coretest.AssumeRole(t, long[1], "r"))}},
		{Delete: &core.DeleteCredentialRequest{Name: high[3]}},
	}}); err != nil {
		t.Errorf("a row that grows below and shrinks above: %v", err)
	}
	var ops []core.BatchOperation
	for i := range core.MaxSources {
		ops = append(ops, core.BatchOperation{Create: &core.CreateCredentialRequest{
			Name: cred(fmt.Sprint("n-", i)), Payload: coretest.AssumeRole(t, cred(fmt.Sprint("n-", i+1)), "r"),
		}})
	}
	ops = append(ops, core.BatchOperation{Create: &core.CreateCredentialRequest{Name: cred(fmt.Sprint("n-", core.MaxSources)), Payload: coretest.AccessKey(t, "00000000")}})
	_, err := h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: ops})
	if !errors.Is(err, core.ErrInvalid) {
		t.Errorf("six in a batch: %v", err)
	}
	if _, err := h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: ops[1:]}); err != nil {
		t.Errorf("five in a batch, those that are referred to last: %v", err)
	}
	consistent(t, h)
}

// A batch is looked at as a whole, whatever the order of its operations.
func TestReferencesInBatches(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	key, role, spare := cred("key"), cred("role"), cred("spare")
	mustPut(t, h, spare, coretest.AccessKey(t, "22222222"))
	batch := func(ops ...core.BatchOperation) error {
		_, err := h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: ops})
		return err
	}
	makes := func(name resourcename.Credential, p credential.Payload) core.BatchOperation {
		return core.BatchOperation{Create: &core.CreateCredentialRequest{Name: name, Payload: p}}
	}
	changes := func(name resourcename.Credential, p credential.Payload) core.BatchOperation {
		return core.BatchOperation{Update: &core.UpdateCredentialRequest{Name: name, Payload: &p}}
	}
	removes := func(name resourcename.Credential) core.BatchOperation {
		return core.BatchOperation{Delete: &core.DeleteCredentialRequest{Name: name}}
	}
	for _, reversed := range []bool{false, true} {
		inOrder := func(ops ...core.BatchOperation) error {
			if reversed {
				slices.Reverse(ops)
			}
			return batch(ops...)
		}
		onKey := coretest.AssumeRole(t, key, "r")
		if err := inOrder(makes(key, coretest.AccessKey(t, "00000000")), makes(role, onKey)); err != nil {
			t.Fatalf("both at once: %v", err)
		}
		mustPut(t, h, cred("second"), onKey)
		wantReason(t, "the source with one of two", inOrder(removes(key), removes(role)), core.ErrPrecondition, core.ReasonCredentialInUse)
		remove(t, h, cred("second"))
		if err := inOrder(removes(key), changes(role, coretest.AssumeRole(t, spare, "r"))); err != nil {
			t.Fatalf("the source, and its user moves away: %v", err)
		}
		mustPut(t, h, key, coretest.AccessKey(t, "33333333"))
		mustPut(t, h, role, onKey)
		err := inOrder(removes(key), makes(cred("late"), onKey))
		wantFields(t, "the source goes, and a new user comes", err, map[bool]string{true: "operations[0]", false: "operations[1]"}[reversed]+".create.credential.payload.awsAssumeRole.source")
		err = inOrder(removes(key), changes(role, onKey))
		wantFields(t, "the source goes, and its user stays", err, map[bool]string{true: "operations[0]", false: "operations[1]"}[reversed]+".update.credential.payload.awsAssumeRole.source")
		if err := inOrder(removes(key), removes(role), makes(cred("beside"), coretest.AssumeRole(t, spare, "r"))); err != nil {
			t.Fatalf("both go, and another comes: %v", err)
		}
		if err := inOrder(removes(cred("beside"))); err != nil {
			t.Fatal(err)
		}
		equal(t, "users of the spare", usersOf(t, h, spare), []string(nil))
	}
	consistent(t, h)
}

// Sixty-four at once on one server do not take the project's guard from each
// other until they give up.
func TestManyReferencesAtOnce(t *testing.T) {
	h := coretest.New(t)
	mustPut(t, h, cred("key"), coretest.AccessKey(t, "00000000"))
	p := coretest.AssumeRole(t, cred("key"), "r")
	ctx := coretest.AdminContext(t)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if _, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: cred(fmt.Sprint("r-", i)), Payload: p}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(usersOf(t, h, cred("key"))); n != 64 {
		t.Errorf("%d users", n)
	}
	// Who gives up while waiting for its turn changes nothing.
	release := h.Store.HoldReferenceTurn()
	defer release()
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err := h.Store.CreateCredential(gone, core.CreateCredentialRequest{Name: cred("late"), Payload: p})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
}

// A reference against the deletion of its target, at two servers; every third
// time in a batch that deletes the target with the user that it has.
func TestRaceReferenceOfCredentialAndDelete(t *testing.T) {
	h := coretest.New(t)
	race(t, h, func(ctx context.Context, n int, a, b *core.Store) (error, error) {
		key, role := cred(fmt.Sprintf("k-%d", n)), cred(fmt.Sprintf("r-%d", n))
		old := cred(fmt.Sprintf("old-%d", n))
		makes := func(name resourcename.Credential, p credential.Payload) error {
			_, err := b.CreateCredential(ctx, core.CreateCredentialRequest{Name: name, Payload: p})
			return err
		}
		if err := makes(key, coretest.AccessKey(t, "00000000")); err != nil {
			return err, err
		}
		if n%3 == 0 {
			if err := makes(old, coretest.AssumeRole(t, key, "r")); err != nil {
				return err, err
			}
		}
		ref, rem := sometimesTogether(n, func() error {
			err := makes(role, coretest.AssumeRole(t, key, "r"))
			if _, ok := errors.AsType[*core.InvalidError](err); ok { // it names what is gone
				return core.ErrNotFound
			}
			return err
		}, func() error {
			for {
				var err error
				if n%3 == 0 {
					_, err = a.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: []core.BatchOperation{
						{Delete: &core.DeleteCredentialRequest{Name: key}}, {Delete: &core.DeleteCredentialRequest{Name: old}},
					}})
				} else {
					err = a.DeleteCredential(ctx, core.DeleteCredentialRequest{Name: key})
				}
				if !errors.Is(err, core.ErrNotFound) {
					return err
				}
			}
		})
		return ref, rem
	})
}

// Of two writes at two servers that would close a ring, or make too long a row,
// together, one loses.
func TestRaceOfReferences(t *testing.T) {
	h := coretest.New(t)
	replica := h.Replica(t)
	ctx := coretest.AdminContext(t)
	key := cred("key")
	mustPut(t, h, key, coretest.AccessKey(t, "00000000"))
	update := func(s *core.Store, name, source resourcename.Credential) func() error {
		p := coretest.AssumeRole(t, source, "r")
		return func() error {
			for {
				_, err := s.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: name, Payload: &p})
				var bad *core.InvalidError
				if errors.Is(err, core.ErrNotFound) || errors.As(err, &bad) && strings.Contains(err.Error(), "does not exist") {
					continue // this server has not heard of it yet
				}
				return err
			}
		}
	}
	for n := range 100 {
		at := func(id string) resourcename.Credential { return cred(fmt.Sprintf("%s-%d", id, n)) }
		for _, id := range []string{"a", "b"} {
			mustPut(t, h, at(id), coretest.AssumeRole(t, key, "r"))
		}
		var a, b error
		if n%2 == 0 {
			a, b = together(update(h.Store, at("a"), at("b")), update(replica, at("b"), at("a")))
		} else {
			// x is on a, and z on y. To put a onto b makes four in a row, to put y
			// onto x five, and both together six.
			mustPut(t, h, at("x"), coretest.AssumeRole(t, at("a"), "r"))
			mustPut(t, h, at("y"), coretest.AssumeRole(t, key, "r"))
			mustPut(t, h, at("z"), coretest.AssumeRole(t, at("y"), "r"))
			a, b = together(update(h.Store, at("a"), at("b")), update(replica, at("y"), at("x")))
		}
		if (a == nil) == (b == nil) {
			t.Errorf("round %d: %v and %v", n, a, b)
		}
		for _, err := range []error{a, b} {
			if err != nil && reasonOf(err) != core.ReasonReferenceCycle && reasonOf(err) != core.ReasonInvalidField {
				t.Errorf("round %d: %v", n, err)
			}
		}
	}
	checkGraph(t, h)
	consistent(t, h)
}

// checkGraph walks over all references as they are stored.
func checkGraph(t *testing.T, h *coretest.Harness) {
	t.Helper()
	sources := make(map[string]string)
	for _, c := range everything(t, func(ctx context.Context, p core.Page) ([]*core.Credential, string, error) {
		return h.Store.ListCredentials(ctx, demoProject, "", p)
	}) {
		for _, ref := range c.References {
			sources[c.Name.String()] = ref
		}
	}
	for name := range sources {
		n := 1
		for at := name; sources[at] != ""; at = sources[at] {
			if n++; n > core.MaxSources {
				t.Errorf("%s: more than %d in a row, or a ring", name, core.MaxSources)
				break
			}
		}
	}
}

// naive is what references mean, said as plainly as possible: what refers to
// what, version by version, and a check of all of it after every operation.
type naive struct {
	versions map[string][]string // of each credential, oldest first: what it refers to, "" for a key
	active   map[string]int
}

func (m naive) clone() naive {
	out := naive{versions: make(map[string][]string), active: make(map[string]int)}
	for k, v := range m.versions {
		out.versions[k] = slices.Clone(v)
		out.active[k] = m.active[k]
	}
	return out
}

func (m naive) source(id string) string { return m.versions[id][m.active[id]] }

// valid says whether a state may be: every source exists, nobody comes back to
// itself, no row is too long.
func (m naive) valid() bool {
	for id := range m.versions {
		n := 1
		for at := id; m.source(at) != ""; n++ {
			at = m.source(at)
			if _, ok := m.versions[at]; !ok || n == core.MaxSources {
				return false
			}
		}
	}
	return true
}

// Random writes, against the plainest model there is: what is refused, what is
// stored, and who is said to use what.
func TestReferencesAgainstModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runReferenceModel(t, rand.New(rand.NewPCG(seed, 3)), 400) })
	}
}

func runReferenceModel(t *testing.T, r *rand.Rand, steps int) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	m := naive{versions: make(map[string][]string), active: make(map[string]int)}
	ids := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	isKey := func(id string) bool { return id < "c" } // the kind of a name is fixed: a and b are keys
	payload := func(id, source string) credential.Payload {
		if isKey(id) {
			return coretest.AccessKey(t, fmt.Sprintf("%08d", r.IntN(1e8)))
		}
		return coretest.AssumeRole(t, cred(source), fmt.Sprint("r", r.IntN(1000)))
	}
	pick := func() string { return ids[r.IntN(len(ids))] }
	sourceFor := func(id string) string {
		if isKey(id) {
			return ""
		}
		return pick()
	}
	accepted, refused := 0, 0
	for step := range steps {
		next := m.clone()
		ok := true
		var err error
		var what string
		operation := func(used map[string]bool) core.BatchOperation {
			id := pick()
			for used[id] {
				id = pick()
			}
			used[id] = true
			source := sourceFor(id)
			_, exists := next.versions[id]
			switch {
			case exists && r.IntN(3) == 0:
				what += " delete " + id
				delete(next.versions, id)
				delete(next.active, id)
				return core.BatchOperation{Delete: &core.DeleteCredentialRequest{Name: cred(id)}}
			case exists:
				what += fmt.Sprintf(" %s → %s", id, source)
				next.versions[id] = append(next.versions[id], source)
				next.active[id] = len(next.versions[id]) - 1
				return core.BatchOperation{Update: &core.UpdateCredentialRequest{Name: cred(id), Payload: new(payload(id, source))}}
			default:
				what += fmt.Sprintf(" new %s → %s", id, source)
				next.versions[id], next.active[id] = []string{source}, 0
				return core.BatchOperation{Create: &core.CreateCredentialRequest{Name: cred(id), Payload: payload(id, source)}}
			}
		}
		switch r.IntN(5) {
		case 0: // an older version, or any that is there
			id := pick()
			n := r.IntN(len(next.versions[id]) + 1)
			what = fmt.Sprintf(" activate %s %d", id, n+1)
			if n < len(next.versions[id]) {
				next.active[id] = n
			} else {
				ok = false
			}
			_, err = h.Store.ActivateVersion(ctx, core.ChangeVersionRequest{Name: cred(id).Version(uint32(n + 1))})
		case 1, 2:
			used := make(map[string]bool)
			var ops []core.BatchOperation
			for range 2 + r.IntN(4) {
				ops = append(ops, operation(used))
			}
			_, err = h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: ops})
		default:
			_, err = h.Store.BatchWrite(ctx, core.BatchWriteRequest{Project: demoProject, Operations: []core.BatchOperation{operation(map[string]bool{})}})
		}
		if ok = ok && next.valid(); ok != (err == nil) {
			t.Fatalf("step %d,%s: %v; the model says %v of %v", step, what, err, ok, m.versions)
		}
		if ok {
			m, accepted = next, accepted+1
		} else {
			refused++
		}
		if step%20 != 0 {
			continue
		}
		for _, id := range ids {
			_, exists := m.versions[id]
			c, err := h.Store.GetCredential(ctx, cred(id))
			if exists != (err == nil) {
				t.Fatalf("step %d: %s: %v", step, id, err)
			}
			if !exists {
				continue
			}
			var wantRefs, wantUsers []string
			if s := m.source(id); s != "" {
				wantRefs = []string{cred(s).String()}
			}
			for _, other := range ids {
				if _, ok := m.versions[other]; ok && m.source(other) == id {
					wantUsers = append(wantUsers, fmt.Sprintf("credentials.%s %d", other, core.UsageCredential))
				}
			}
			equal(t, fmt.Sprintf("step %d: references of %s", step, id), c.References, wantRefs)
			equal(t, fmt.Sprintf("step %d: users of %s", step, id), usersOf(t, h, cred(id)), wantUsers)
		}
	}
	if accepted < steps/10 || refused < steps/10 {
		t.Errorf("%d accepted and %d refused: too few of one", accepted, refused)
	}
	checkGraph(t, h)
	consistent(t, h)
}
