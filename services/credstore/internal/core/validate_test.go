package core_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/authz"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

// wantFields checks that an error names exactly these fields.
func wantFields(t *testing.T, what string, err error, fields ...string) {
	t.Helper()
	var i *core.InvalidError
	if !errors.As(err, &i) {
		t.Errorf("%s: %v; want violations of %v", what, err, fields)
		return
	}
	var got []string
	for _, v := range i.Violations {
		got = append(got, v.Field)
		if v.Description == "" {
			t.Errorf("%s: the violation of %s says nothing", what, v.Field)
		}
	}
	equal(t, what, got, fields)
}

func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// Where a login may be sent: https anywhere, http to this machine only, and no
// address that two parsers could read differently.
func TestVaultAddress(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	login := vaultStore(t, h, "first").Credential
	cert, key := certificate(t)
	try := func(v *core.VaultProvider) error {
		r := storeRequest("x", login)
		r.ValidateOnly, r.Vault = true, v
		_, err := h.Store.CreateSecretStore(ctx, r)
		return err
	}
	for _, address := range []string{
		"https://vault.example.com", "https://vault.example.com:8200", "https://vault.example.com/", "https://10.0.0.1:8200", "https://[2001:db8::1]:8200",
		"http://127.0.0.1:8200", "http://localhost:8200", "http://[::1]:8200", "http://127.9.9.9", "http://[::ffff:127.0.0.1]:1",
	} {
		if err := try(&core.VaultProvider{Address: address}); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{
		"", "vault.example.com:8200", "vault", "https://", "https:///path", "https://:8200", "ftp://vault.example.com", "unix:///var/run/vault",
		"http://vault.example.com", "http://10.0.0.1", "http://127.evil.example.com", "http://127.0.0.1.example.com", "http://localhost.example.com",
		"http://0.0.0.0:8200", "http://[::]:8200", "https://user@vault.example.com", "https://user:password@vault.example.com",
		"https://vault.example.com/v1", "https://vault.example.com?x=y", "https://vault.example.com#f", "https://vault.example.com\n", "https://va ult", "://",
		"HTTP://vault.example.com",
	} {
		wantFields(t, fmt.Sprintf("%q", address), try(&core.VaultProvider{Address: address}), "secretStore.vault.address")
	}
	const good = "https://vault.example.com"
	for _, path := range []string{"a//b", "/a", "a/", ".", "..", "a/../b", "a b", "a?b", "a#b", "a%2fb", `a\b`, "a\x00b", "\xff", strings.Repeat("x", 513)} {
		wantFields(t, fmt.Sprintf("mount %.20q", path), try(&core.VaultProvider{Address: good, Mount: path}), "secretStore.vault.mount")
		wantFields(t, fmt.Sprintf("namespace %.20q", path), try(&core.VaultProvider{Address: good, Namespace: path}), "secretStore.vault.namespace")
	}
	for what, ca := range map[string]string{
		"a word": "hello", "a key": key, "a key behind a certificate": cert + key, "a broken certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		err := try(&core.VaultProvider{Address: good, CAPEM: ca})
		wantFields(t, what, err, "secretStore.vault.caPem")
		if err != nil && strings.Contains(err.Error(), key[30:60]) {
			t.Errorf("%s: the error repeats the key", what)
		}
	}
	if err := try(&core.VaultProvider{Address: good, Namespace: "a/b", Mount: "kv/team", CAPEM: cert + cert}); err != nil {
		t.Error(err)
	}
	wantFields(t, "nothing", try(nil), "secretStore.vault")
	r := storeRequest("-", resourcename.Credential{Project: "other", ID: "x"})
	r.PollInterval, r.Description, r.Labels = time.Millisecond, "a\x00b", map[string]string{"K": "v"}
	_, err := h.Store.CreateSecretStore(ctx, r)
	wantFields(t, "all at once", err, "secretStoreId", "secretStore.description", "secretStore.labels", "secretStore.credential", "secretStore.pollInterval")
}

func TestInjectionIsChecked(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	create(t, h, demo, "one")
	vaultStore(t, h, "team")
	good := file("etc/password", demo)
	with := func(change func(*core.Item)) []core.Item {
		it := good
		change(&it)
		return []core.Item{it}
	}
	path := func(paths ...string) (out []core.Item) {
		for _, p := range paths {
			out = append(out, file(p, demo))
		}
		return out
	}
	tests := map[string]struct {
		items  []core.Item
		fields []string
	}{
		"none":      {nil, []string{"injection.items"}},
		"too many":  {slices.Repeat(path("x"), core.MaxItems+1), []string{"injection.items"}},
		"no source": {with(func(i *core.Item) { i.Credential = nil }), []string{"injection.items[0]"}},
		"another project's": {with(func(i *core.Item) {
			i.Credential = &core.CredentialSource{Name: resourcename.Credential{Project: "o", ID: "x"}}
		}), []string{"injection.items[0].credential.name"}},
		"a set-id bit":        {with(func(i *core.Item) { i.File.Mode = 0o4755 }), []string{"injection.items[0].file.mode"}},
		"a bad group":         {with(func(i *core.Item) { i.Group = "A b" }), []string{"injection.items[0].group"}},
		"the same path twice": {path("a", "a"), []string{"injection.items[1].file.path"}},
		"below a file":        {path("a", "b", "a/b/c"), []string{"injection.items[2].file.path"}},
		"above a file":        {path("a/b/c", "a"), []string{"injection.items[0].file.path"}},
		"a sibling between":   {path("a", "a.b", "a/c"), []string{"injection.items[2].file.path"}},
		"an absolute path":    {path("/etc/passwd"), []string{"injection.items[0].file.path"}},
		"an escape":           {path("../x"), []string{"injection.items[0].file.path"}},
		"an escape inside":    {path("a/../../x"), []string{"injection.items[0].file.path"}},
		"an empty element":    {path("a//b"), []string{"injection.items[0].file.path"}},
		"no path":             {path(""), []string{"injection.items[0].file.path"}},
		"a dot":               {path("."), []string{"injection.items[0].file.path"}},
		"the injector's own":  {path("..data/x"), []string{"injection.items[0].file.path"}},
		"a zero byte":         {path("a\x00b"), []string{"injection.items[0].file.path"}},
		"no path of a secret": {[]core.Item{secretFile("f", "team", "", "k")}, []string{"injection.items[0].secret.path"}},
		"a secret's escape":   {[]core.Item{secretFile("f", "team", "a/../../sys", "k")}, []string{"injection.items[0].secret.path"}},
		"a secret's query":    {[]core.Item{secretFile("f", "team", "a?version=1", "k")}, []string{"injection.items[0].secret.path"}},
		"a long key":          {[]core.Item{secretFile("f", "team", "a", strings.Repeat("k", 513))}, []string{"injection.items[0].secret.key"}},
		"no such field":       {with(func(i *core.Item) { i.Credential = &core.CredentialSource{Name: demo, Field: "nope"} }), []string{"injection.items[0].credential.field"}},
		"several":             {path("/a", "b", "b"), []string{"injection.items[0].file.path", "injection.items[2].file.path"}},
	}
	for what, tt := range tests {
		_, err := h.Store.CreateInjection(ctx, injectRequest("x", "web", tt.items...))
		wantFields(t, what, err, tt.fields...)
	}
	inject(t, h, "web", "web", good)
	for what, tt := range tests {
		_, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Items: &tt.items})
		wantFields(t, "update: "+what, err, tt.fields...)
	}
	_, err := h.Store.UpdateInjection(ctx, core.UpdateInjectionRequest{Name: injectionName("web"), Selector: &map[string]string{}})
	wantFields(t, "an empty selector", err, "injection.selector")
}

func TestMetadataIsChecked(t *testing.T) {
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	labels := make(map[string]string)
	for i := range core.MaxLabels {
		labels[fmt.Sprintf("l%d", i)] = strings.Repeat("ä", core.MaxLabelValue)
	}
	try := func(id, description string, labels map[string]string) error {
		_, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{
			Mutation: core.Mutation{ValidateOnly: true}, Name: cred(id), Description: description, Labels: labels, Payload: coretest.Basic(t, "a", "b"),
		})
		return err
	}
	for _, id := range []string{"a", "a-b", "a1", strings.Repeat("x", 63)} {
		if err := try(id, strings.Repeat("ä", core.MaxDescription), labels); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	for _, id := range []string{"", "A", "1a", "-a", "a-", "a_b", "a.b", "a/b", "a:b", "ä", strings.Repeat("x", 64), "a\n", ".."} {
		wantFields(t, fmt.Sprintf("id %q", id), try(id, "", nil), "credentialId")
	}
	for _, d := range []string{strings.Repeat("x", core.MaxDescription+1), "\x1b[31m", "\xff", "a\x00"} {
		wantFields(t, fmt.Sprintf("description %.10q", d), try("a", d, nil), "credential.description")
	}
	if err := try("a", "two\nlines\tand a tab", nil); err != nil {
		t.Error(err)
	}
	more := maps.Clone(labels)
	more["one-more"] = ""
	wantFields(t, "65 labels", try("a", "", more), "credential.labels")
	for _, key := range []string{"", "A", "a-", "-a", "1", "a b", "ä", "a=b", strings.Repeat("x", 64)} {
		wantFields(t, fmt.Sprintf("label %q", key), try("a", "", map[string]string{key: "v"}), "credential.labels")
	}
	for _, value := range []string{strings.Repeat("x", core.MaxLabelValue+1), "\x07", "\xff"} {
		wantFields(t, fmt.Sprintf("value %.10q", value), try("a", "", map[string]string{"k": value}), "credential.labels")
	}
	_, err := h.Store.CreateCredential(ctx, core.CreateCredentialRequest{Name: demo})
	wantFields(t, "no payload", err, "credential.payload")
	create(t, h, demo, "one")
	_, err = h.Store.UpdateCredential(ctx, core.UpdateCredentialRequest{Name: demo, Payload: &credential.Payload{}, Description: new("\x00"), Labels: &more})
	wantFields(t, "an update", err, "credential.description", "credential.labels", "credential.payload")
}

// broker is a Brokerage that answers what it is told.
type broker struct {
	tested    []string
	refreshed []resourcename.SecretStore
}

func (b *broker) Test(_ context.Context, st *core.SecretStore, login credential.Login) (core.TestResult, error) {
	b.tested = append(b.tested, st.Vault.Address+" with "+secretOf(login.Payload))
	return core.TestResult{OK: true, Identity: "team"}, nil
}

func (b *broker) Refresh(_ context.Context, st resourcename.SecretStore) (core.RefreshResult, error) {
	b.refreshed = append(b.refreshed, st)
	return core.RefreshResult{Polled: 3}, nil
}

// A test sends the login to the store, on record before; without a broker
// nothing leaves, and no line says that it did.
func TestTestAndRefresh(t *testing.T) {
	b := &broker{}
	h := coretest.New(t)
	ctx := coretest.AdminContext(t)
	name := vaultStore(t, h, "team").Name
	for _, call := range []func() error{
		func() error { _, err := h.Store.TestSecretStore(ctx, name); return err },
		func() error { _, err := h.Store.RefreshSecretStore(ctx, name); return err },
	} {
		wantReason(t, "without a broker", call(), core.ErrUnavailable, "NO_BROKER")
	}
	if got := lines(departures(h)); len(got) > 0 {
		t.Errorf("lines for what did not leave: %v", got)
	}
	h.Stop(t)
	h.Start(t, func(c *core.Config) { c.Brokerage = b })
	if r, err := h.Store.TestSecretStore(ctx, name); err != nil || !r.OK || r.Identity != "team" {
		t.Errorf("%+v, %v", r, err)
	}
	equal(t, "tested", b.tested, []string{"https://vault.example.com:8200 with hvs.login"})
	equal(t, "lines", lines(departures(h)), []string{"credentials.use team-login/versions/1 to 0"})
	if r, err := h.Store.RefreshSecretStore(ctx, name); err != nil || r.Polled != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	equal(t, "refreshed", b.refreshed, []resourcename.SecretStore{name})
	for what, call := range map[string]func() error{
		"test":    func() error { _, err := h.Store.TestSecretStore(ctx, storeName("none")); return err },
		"refresh": func() error { _, err := h.Store.RefreshSecretStore(ctx, storeName("none")); return err },
	} {
		wantReason(t, what+" of nothing", call(), core.ErrNotFound, core.ReasonNotFound)
	}
	h.Audit.Fail(errDisk)
	if _, err := h.Store.TestSecretStore(ctx, name); !errors.Is(err, core.ErrUnavailable) || len(b.tested) != 1 {
		t.Errorf("a test without an audit log: %v, %v", err, b.tested)
	}
}

// A credential that names a server is sent to no other: a store with another
// address is not saved, and when the credential changes afterwards, its login is
// refused until the two agree again.
func TestAddressOfCredential(t *testing.T) {
	b := &broker{}
	h := coretest.New(t, func(c *core.Config) { c.Brokerage = b })
	ctx := coretest.AdminContext(t)
	login := cred("login")
	mustPut(t, h, login, coretest.VaultAt(t, "hvs.x", "https://vault.example.com"))
	r := storeRequest("team", login)
	for _, address := range []string{"https://vault.example.com:8200", "https://other.example.com", "http://localhost", "https://vault.example.com.evil.example"} {
		r.Vault = &core.VaultProvider{Address: address}
		_, err := h.Store.CreateSecretStore(ctx, r)
		wantField(t, address, err, "secretStore.vault.address")
	}
	r.ValidateOnly = true
	for _, address := range []string{"https://vault.example.com", "https://vault.example.com:443", "https://VAULT.example.com/"} {
		r.Vault = &core.VaultProvider{Address: address}
		if _, err := h.Store.CreateSecretStore(ctx, r); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	r.ValidateOnly = false
	if _, err := h.Store.CreateSecretStore(ctx, r); err != nil {
		t.Fatal(err)
	}
	_, err := h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: r.Name, Vault: &core.VaultProvider{Address: "https://other.example.com"}})
	wantField(t, "another address", err, "secretStore.vault.address")
	mustPut(t, h, cred("second"), coretest.VaultAt(t, "hvs.y", "https://other.example.com"))
	_, err = h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: r.Name, Credential: new(cred("second"))})
	wantField(t, "a credential for another address", err, "secretStore.vault.address")

	mustPut(t, h, login, coretest.VaultAt(t, "hvs.z", "https://other.example.com"))
	_, err = h.Store.TestSecretStore(ctx, r.Name)
	wantReason(t, "a test after the credential has moved", err, core.ErrPrecondition, core.ReasonAddressMismatch)
	if len(b.tested) > 0 || len(departures(h)) > 0 {
		t.Errorf("the login left: %v, %v", b.tested, lines(departures(h)))
	}
	if _, err := h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: r.Name, Description: new("d")}); err != nil {
		t.Errorf("a description meanwhile: %v", err)
	}
	if _, err := h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: r.Name, Vault: &core.VaultProvider{Address: "https://other.example.com"}}); err != nil {
		t.Fatalf("the store follows: %v", err)
	}
	if _, err := h.Store.TestSecretStore(ctx, r.Name); err != nil {
		t.Error(err)
	}
	equal(t, "tested", b.tested, []string{"https://other.example.com with hvs.z"})
}

// The two places of the tests below that a login to Vault may be made at.
const (
	vaultHere = "https://vault.example.com:8200"
	vaultAway = "https://vault.example.net:8200"
)

// allBound binds everything that acts as the server, everywhere.
func allBound(c *core.Config) {
	c.Bound = func(credential.Payload, resourcename.Project) bool { return true }
}

// A login that shows what another identity makes, the server or the source of the
// login, is made at its address and in its namespace alone: no store elsewhere is
// saved with it, and none that was saved goes on when the credential has moved.
func TestLoginOfAnotherIdentityStaysInItsPlace(t *testing.T) {
	const addressField, namespaceField = "secretStore.vault.address", "secretStore.vault.namespace"
	for name, by := range map[string]*credentialv1.Vault{
		"kubernetes": {Method: &credentialv1.Vault_Kubernetes_{Kubernetes: &credentialv1.Vault_Kubernetes{Role: "r"}}},
		"aws":        {Method: &credentialv1.Vault_Aws_{Aws: &credentialv1.Vault_Aws{Role: "r", Source: cred("key").String()}}},
		"azure":      {Method: &credentialv1.Vault_Azure_{Azure: &credentialv1.Vault_Azure{Role: "r", Source: cred("machine").String(), Resource: "r"}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := &broker{}
			h := coretest.New(t, allBound, func(c *core.Config) { c.Brokerage = b })
			ctx := coretest.AdminContext(t)
			mustPut(t, h, cred("key"), coretest.AccessKey(t, "00000000"))
			mustPut(t, h, cred("machine"), coretest.ManagedIdentity(t))
			login, other := cred("login"), cred("other")
			move := func(address, namespace string) {
				t.Helper()
				m := proto.CloneOf(by)
				m.Address, m.Namespace = address, namespace
				mustPut(t, h, login, coretest.Vault(t, m))
			}
			mustPut(t, h, other, coretest.VaultToken(t, "hvs.x"))

			// Before a store is made, at its creation and afterwards.
			move(vaultHere, "team/a")
			name, second := storeName("team"), storeName("second")
			request := storeRequest(name.ID, login)
			type place struct{ what, address, namespace, field string }
			refused := []place{
				{"another address", vaultAway, "team/a", addressField},
				{"another address and namespace", vaultAway, "team/b", addressField},
				{"another namespace", vaultHere, "team/b", namespaceField},
				{"the root namespace", vaultHere, "", namespaceField},
				{"the namespace above", vaultHere, "team", namespaceField},
				{"a namespace below", vaultHere, "team/a/b", namespaceField},
			}
			for _, at := range refused {
				request.Vault = &core.VaultProvider{Address: at.address, Namespace: at.namespace}
				_, err := h.Store.CreateSecretStore(ctx, request)
				wantField(t, "a store at "+at.what, err, at.field)
			}
			request.Vault = &core.VaultProvider{Address: vaultHere, Namespace: "team/a"}
			if _, err := h.Store.CreateSecretStore(ctx, request); err != nil {
				t.Fatal(err)
			}
			for _, at := range refused {
				v := &core.VaultProvider{Address: at.address, Namespace: at.namespace}
				_, err := h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: name, Vault: v})
				wantField(t, "a store that moves to "+at.what, err, at.field)
				free := storeRequest(second.ID, other)
				free.Vault = v
				if _, err := h.Store.CreateSecretStore(ctx, free); err != nil {
					t.Fatal(err)
				}
				_, err = h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: second, Credential: &login})
				wantField(t, "a store that comes to log in so, at "+at.what, err, at.field)
				if err := h.Store.DeleteSecretStore(ctx, core.DeleteRequest[resourcename.SecretStore]{Name: second}); err != nil {
					t.Fatal(err)
				}
			}

			// When the credential has moved, until the store follows.
			use := func(what, reason string) {
				t.Helper()
				before, tested := len(departures(h)), len(b.tested)
				_, got, err := h.Store.StoreLogin(t.Context(), name)
				_, testErr := h.Store.TestSecretStore(ctx, name)
				if reason == "" {
					if err != nil || testErr != nil || got.Name != login.String() {
						t.Errorf("%s: %v, %v", what, err, testErr)
					}
					return
				}
				wantReason(t, what, err, core.ErrPrecondition, reason)
				wantReason(t, "a test with "+what, testErr, core.ErrPrecondition, reason)
				if !got.Payload.IsZero() || len(departures(h)) > before || len(b.tested) > tested {
					t.Errorf("%s: the login left", what)
				}
			}
			use("the login where the store is", "")
			for _, at := range refused {
				move(at.address, at.namespace)
				use("a login that has moved to "+at.what, core.ReasonAddressMismatch)
			}
			move(vaultHere, "")
			if _, err := h.Store.UpdateSecretStore(ctx, core.UpdateSecretStoreRequest{Name: name, Vault: &core.VaultProvider{Address: vaultHere}}); err != nil {
				t.Fatalf("the store follows: %v", err)
			}
			use("the login in the root namespace", "")

			// Without an address, as no payload is written any more, it is made nowhere.
			encoded, err := proto.Marshal(&credentialv1.Payload{Kind: &credentialv1.Payload_Vault{Vault: by}})
			if err != nil {
				t.Fatal(err)
			}
			p, err := credential.Unmarshal(encoded)
			if err != nil {
				t.Fatal(err)
			}
			mustPut(t, h, login, p)
			use("a login for no address", core.ReasonAddressMismatch)
			if _, err := h.Store.CreateSecretStore(ctx, storeRequest(second.ID, login)); !errors.Is(err, core.ErrInvalid) {
				t.Errorf("a store with a login for no address: %v", err)
			}
		})
	}
}

// A login that is a secret of its own goes to any store when it names no address,
// and to any namespace of its address when it names one: the namespace that it
// names is where it is verified.
func TestLoginOfItsOwnGoesToAnyNamespace(t *testing.T) {
	for name, by := range map[string]*credentialv1.Vault{
		"token":   {Method: &credentialv1.Vault_Token{Token: "hvs.x"}},
		"appRole": {Method: &credentialv1.Vault_AppRole_{AppRole: &credentialv1.Vault_AppRole{RoleId: "r", SecretId: "s"}}},
	} {
		for _, from := range []struct{ what, address, namespace string }{
			{"no address", "", ""},
			{"a namespace alone", "", "team/a"},
			{"an address", vaultHere, ""},
			{"an address and a namespace", vaultHere, "team/a"},
		} {
			t.Run(name+" with "+from.what, func(t *testing.T) {
				h := coretest.New(t)
				ctx := coretest.AdminContext(t)
				m := proto.CloneOf(by)
				m.Address, m.Namespace = from.address, from.namespace
				login := cred("login")
				mustPut(t, h, login, coretest.Vault(t, m))
				for i, at := range []core.VaultProvider{
					{Address: vaultHere},
					{Address: vaultHere, Namespace: "team/a"},
					{Address: vaultHere, Namespace: "team/b"},
					{Address: vaultAway},
					{Address: vaultAway, Namespace: "team/b"},
				} {
					r := storeRequest(fmt.Sprint("store-", i), login)
					r.Vault = &at
					_, err := h.Store.CreateSecretStore(ctx, r)
					if from.address != "" && at.Address != from.address {
						wantField(t, at.Address, err, "secretStore.vault.address")
						continue
					}
					if err != nil {
						t.Fatalf("a store at %s in %q: %v", at.Address, at.Namespace, err)
					}
					if _, l, err := h.Store.StoreLogin(t.Context(), r.Name); err != nil || l.Name != login.String() {
						t.Errorf("the login at %s in %q: %v", at.Address, at.Namespace, err)
					}
				}
			})
		}
	}
}

// An operator may use the login of Vault that shows a token of the machine's Azure
// identity, and may not mint from that identity. No way that is open to it has the
// token sent to a server of its own.
func TestOperatorCannotRedirectAnIdentity(t *testing.T) {
	b, issuer := &broker{}, coretest.NewIssuer(t)
	h := coretest.New(t, allBound, issuer.Use, func(c *core.Config) { c.Authorizer, c.Brokerage = authz.New(), b })
	ctx := coretest.AdminContext(t)
	project, err := h.Store.GetProject(ctx, demoProject)
	if err != nil {
		t.Fatal(err)
	}
	operator := core.WithPrincipal(t.Context(), &core.Principal{
		Name: "projects/default/tokens/operator", Role: core.Operator, Project: demoProject, ProjectUID: project.UID,
	})
	machine, login := cred("machine"), cred("login")
	at := func(address string) credential.Payload {
		return coretest.Vault(t, &credentialv1.Vault{
			Address: address, Method: &credentialv1.Vault_Azure_{Azure: &credentialv1.Vault_Azure{Role: "r", Source: machine.String(), Resource: "r"}},
		})
	}
	mustPut(t, h, machine, coretest.ManagedIdentity(t))
	// A store of the operator's own lies in wait: the login was anybody's then.
	mustPut(t, h, login, coretest.VaultToken(t, "hvs.x"))
	own := storeRequest("own", login)
	own.Vault = &core.VaultProvider{Address: vaultAway}
	if _, err := h.Store.CreateSecretStore(operator, own); err != nil {
		t.Fatal(err)
	}
	mustPut(t, h, login, at(vaultHere))

	before := revision(t, h)
	if _, _, err := h.Store.MintToken(operator, machine, nil); !errors.Is(err, core.ErrPermissionDenied) {
		t.Errorf("an operator mints from the identity: %v", err)
	}
	_, err = h.Store.TestSecretStore(operator, own.Name)
	wantReason(t, "a test of the store that lay in wait", err, core.ErrPrecondition, core.ReasonAddressMismatch)
	_, _, err = h.Store.StoreLogin(t.Context(), own.Name)
	wantReason(t, "its login", err, core.ErrPrecondition, core.ReasonAddressMismatch)
	if _, err := h.Store.UpdateSecretStore(operator, core.UpdateSecretStoreRequest{Name: own.Name, Vault: &core.VaultProvider{Address: vaultAway, Mount: "kv"}}); err == nil {
		t.Error("the store that lay in wait can be changed and stay where it is")
	}
	r := storeRequest("new", login)
	for field, v := range map[string]*core.VaultProvider{
		"secretStore.vault.address":   {Address: vaultAway},
		"secretStore.vault.namespace": {Address: vaultHere, Namespace: "mallory"},
	} {
		r.Vault = v
		_, err := h.Store.CreateSecretStore(operator, r)
		wantField(t, "a store of its own", err, field)
	}
	// A login of its own, and the one that is there, need the right to mint.
	for what, err := range map[string]error{
		"create": func() error {
			_, err := h.Store.CreateCredential(operator, core.CreateCredentialRequest{Name: cred("mine"), Payload: at(vaultAway)})
			return err
		}(),
		"update": func() error {
			_, err := h.Store.UpdateCredential(operator, core.UpdateCredentialRequest{Name: login, Payload: new(at(vaultAway))})
			return err
		}(),
	} {
		if !errors.Is(err, core.ErrPermissionDenied) {
			t.Errorf("%s of a login for its own server: %v", what, err)
		}
	}
	if now := revision(t, h); now != before {
		t.Errorf("refused writes made %d commits", now-before)
	}
	if len(b.tested) > 0 || len(issuer.Calls()) > 0 || len(departures(h)) > 0 {
		t.Errorf("something left: %v, %v, %v", b.tested, issuer.Calls(), lines(departures(h)))
	}

	// What it may do with the login is what the login is for.
	r.Vault = &core.VaultProvider{Address: vaultHere}
	if _, err := h.Store.CreateSecretStore(operator, r); err != nil {
		t.Fatal(err)
	}
	st, l, err := h.Store.StoreLogin(t.Context(), r.Name)
	if err != nil || st.Vault.Address != vaultHere || l.Source == nil || l.Source.Name != machine.String() {
		t.Errorf("the login where it is for: %+v, %v", st, err)
	}
}
