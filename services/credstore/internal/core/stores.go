package core

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

const (
	defaultVaultMount = "secret"
	kindVault         = credential.Kind("vault")
)

// validCertificates accepts one or more PEM certificates and nothing else.
func validCertificates(text string) error {
	rest := []byte(text)
	n := 0
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return errors.New("must hold certificates only, no keys")
		}
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			return errors.New("holds a certificate that cannot be parsed")
		}
		n++
	}
	if n == 0 {
		return errors.New("must hold at least one certificate in PEM form")
	}
	return nil
}

// CreateSecretStore makes a secret store. The caller needs to be allowed to use
// the credential: otherwise it could have it sent to an address of its own.
func (s *Store) CreateSecretStore(ctx context.Context, r CreateSecretStoreRequest) (*SecretStore, error) {
	if err := s.permit(ctx, SecretStoresCreate, r.Name.Parent(), r.Name); err != nil {
		return nil, err
	}
	if r.PollInterval == 0 {
		r.PollInterval = DefaultPollInterval
	}
	st := &SecretStore{
		Name: r.Name, Description: r.Description, Labels: r.Labels, Credential: r.Credential,
		Vault: normalVault(r.Vault), PollInterval: r.PollInterval,
	}
	var v invalid
	v.checkID("secretStoreId", r.Name.ID)
	v.checkSecretStore(st)
	if err := v.err(); err != nil {
		return nil, err
	}
	if err := s.permit(ctx, CredentialsUse, r.Name.Parent(), r.Credential); err != nil {
		return nil, err
	}
	uid, err := newUID(s.cfg.Random)
	if err != nil {
		return nil, err
	}
	st.UID = uid
	return s.changeStore(ctx, r.Mutation, "CreateSecretStore", r.Name, func(v view, p *plan) (*SecretStore, error) {
		if _, err := project(v, r.Name.Parent()); err != nil {
			return nil, err
		}
		key := keyStore(r.Name)
		if _, ok := v.get(key); ok {
			return nil, alreadyExists(r.Name)
		}
		now := time.Now()
		st.CreateTime, st.UpdateTime = now, now
		p.require(Present, keyProject(r.Name.Parent()), 0)
		p.require(Absent, key, 0)
		if err := s.useCredential(v, p, st, now); err != nil {
			return nil, err
		}
		return st, checkAddress(v, st)
	})
}

// UpdateSecretStore changes the fields of the request that are not nil.
func (s *Store) UpdateSecretStore(ctx context.Context, r UpdateSecretStoreRequest) (*SecretStore, error) {
	if err := s.permit(ctx, SecretStoresUpdate, r.Name.Parent(), r.Name); err != nil {
		return nil, err
	}
	return s.changeStore(ctx, r.Mutation, "UpdateSecretStore", r.Name, func(v view, p *plan) (*SecretStore, error) {
		old, rev, ok := lookup[*SecretStore](v, keyStore(r.Name))
		switch {
		case !ok:
			return nil, notFound(r.Name)
		case r.Etag != "" && r.Etag != old.Etag:
			return nil, etagMismatch(r.Name)
		}
		st := *old
		st.UpdateTime = time.Now()
		if r.Description != nil {
			st.Description = *r.Description
		}
		if r.Labels != nil {
			st.Labels = *r.Labels
		}
		if r.Credential != nil {
			st.Credential = *r.Credential
		}
		if r.Vault != nil {
			st.Vault = normalVault(r.Vault)
		}
		if r.PollInterval != nil {
			st.PollInterval = *r.PollInterval
		}
		var bad invalid
		bad.checkSecretStore(&st)
		if err := bad.err(); err != nil {
			return nil, err
		}
		p.require(AtRevision, keyStore(r.Name), rev)
		if r.Credential != nil || r.Vault != nil {
			// A new address for the old credential sends it somewhere new as well. It is
			// asked here, about the one that is stored with the address: somebody else may
			// be changing it.
			if err := s.permit(ctx, CredentialsUse, r.Name.Parent(), st.Credential); err != nil {
				return nil, err
			}
		}
		if old.Credential != st.Credential {
			u := usageTarget(old.Credential)
			u.ID = derivedID(resourcename.SecretStores, r.Name.ID)
			p.remove(keyUsage(u))
			if err := s.useCredential(v, p, &st, st.UpdateTime); err != nil {
				return nil, err
			}
		}
		if r.Credential != nil || r.Vault != nil {
			return &st, checkAddress(v, &st)
		}
		return &st, nil
	})
}

// checkAddress refuses to save a store whose credential is for another address.
// A credential can change afterwards, so a login is checked as well: see
// StoreLogin.
func checkAddress(v view, st *SecretStore) error {
	c, _, ok := lookup[*Credential](v, keyCredential(st.Credential))
	switch {
	case !ok:
	case !sameAddress(c.Facts[factAddress], st.Vault.Address):
		return invalidField("secretStore.vault.address", "is not the address that %s is for: change one of the two", st.Credential)
	case !mayLogIn(c.Facts, st.Vault):
		return invalidField("secretStore.vault.namespace", "is not the namespace that %s is for: change one of the two", st.Credential)
	}
	return nil
}

// mayLogIn says whether a login to Vault may be made where a store is. One by
// kubernetes, aws or azure shows what another identity makes, and whoever has a
// namespace of that server may configure who gets to see it: so it says where it
// may be made, and is made nowhere else.
func mayLogIn(facts map[string]string, v *VaultProvider) bool {
	if !sameAddress(facts[factAddress], v.Address) {
		return false
	}
	switch facts["method"] {
	case "kubernetes", "aws", "azure":
		return facts[factAddress] != "" && strings.Trim(facts["namespace"], "/") == strings.Trim(v.Namespace, "/")
	}
	return true
}

// factAddress is the fact that names the only server that a credential may be
// sent to.
const factAddress = "address"

// sameAddress says whether a credential that is for an address may be sent to
// another: it may when both mean the same, and anywhere when it names none.
func sameAddress(bound, address string) bool {
	return bound == "" || normalAddress(bound) == normalAddress(address)
}

// normalAddress writes a server's address in one way.
func normalAddress(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(host, port)
}

func normalVault(v *VaultProvider) *VaultProvider {
	if v == nil {
		return nil
	}
	n := *v
	if n.Mount == "" {
		n.Mount = defaultVaultMount
	}
	return &n
}

func (v *invalid) checkSecretStore(st *SecretStore) {
	v.checkDescription("secretStore.description", st.Description)
	v.checkLabels("secretStore.labels", st.Labels)
	switch {
	case st.Credential == resourcename.Credential{}:
		v.add("secretStore.credential", "is required: the credential to log in with, as projects/%s/credentials/ID", st.Name.Project)
	case st.Credential.Project != st.Name.Project:
		v.add("secretStore.credential", "must be in the same project, projects/%s", st.Name.Project)
	}
	if st.Vault == nil {
		v.add("secretStore.vault", "is required: where the store is")
	} else {
		v.checkVault("secretStore.vault", st.Vault)
	}
	v.checkDuration("secretStore.pollInterval", st.PollInterval, MinPollInterval, MaxPollInterval)
}

// useCredential asserts the store's credential in the plan and makes the usage.
func (s *Store) useCredential(v view, p *plan, st *SecretStore, now time.Time) error {
	c, _, ok := lookup[*Credential](v, keyCredential(st.Credential))
	switch {
	case !ok:
		return notFound(st.Credential)
	case c.Kind != kindVault:
		return invalidField("secretStore.credential", "is of kind %s; a Vault store logs in with kind %s", c.Kind, kindVault)
	}
	return s.putDerived(p, usageTarget(st.Credential), keyCredential(st.Credential),
		derivedID(resourcename.SecretStores, st.Name.ID), st.Name.String(), now)
}

func (s *Store) changeStore(ctx context.Context, m Mutation, method string, name resourcename.SecretStore, edit func(view, *plan) (*SecretStore, error)) (*SecretStore, error) {
	var st *SecretStore
	res, err := s.change(ctx, m, method, name.Project, func(v view) (*plan, error) {
		p := &plan{name: name.String()}
		var err error
		if st, err = edit(v, p); err != nil {
			return nil, err
		}
		p.response = encodeStore(st)
		return p, s.put(p, keyStore(name), encodeStore(st))
	})
	if err != nil {
		return nil, err
	}
	if res.replayed != nil {
		return decodeStore(name, res.replayed.response, res.rev)
	}
	st.Etag = etagOf(st.UID, res.rev)
	return st, nil
}

// GetSecretStore returns one secret store.
func (s *Store) GetSecretStore(ctx context.Context, name resourcename.SecretStore) (*SecretStore, error) {
	if err := s.permit(ctx, SecretStoresGet, name.Parent(), name); err != nil {
		return nil, err
	}
	st, _, ok := lookup[*SecretStore](s.model, keyStore(name))
	if !ok {
		return nil, notFound(name)
	}
	return st, nil
}

// ListSecretStores returns a project's secret stores, by name.
func (s *Store) ListSecretStores(ctx context.Context, name resourcename.Project, page Page) ([]*SecretStore, string, error) {
	if err := s.permit(ctx, SecretStoresList, name, name); err != nil {
		return nil, "", err
	}
	v := s.model.view()
	if _, err := project(v, name); err != nil {
		return nil, "", err
	}
	return listPage(v, keyIn(name.ID)+kindStore, page, "stores", func(*SecretStore) bool { return true })
}

// DeleteSecretStore removes a secret store that no injection uses, with the
// values that came from it.
func (s *Store) DeleteSecretStore(ctx context.Context, r DeleteRequest[resourcename.SecretStore]) error {
	if err := s.permit(ctx, SecretStoresDelete, r.Name.Parent(), r.Name); err != nil {
		return err
	}
	_, err := s.change(ctx, r.Mutation, "DeleteSecretStore", r.Name.Project, func(v view) (*plan, error) {
		st, rev, ok := lookup[*SecretStore](v, keyStore(r.Name))
		switch {
		case !ok:
			return nil, notFound(r.Name)
		case r.Etag != "" && r.Etag != st.Etag:
			return nil, etagMismatch(r.Name)
		}
		if err := refuseInUse(ReasonSecretStoreInUse, r.Name, usages(v, storeUsageTarget(r.Name), time.Now()), nil, false); err != nil {
			return nil, err
		}
		u := usageTarget(st.Credential)
		u.ID = derivedID(resourcename.SecretStores, r.Name.ID)
		p := &plan{name: r.Name.String()}
		p.require(AtRevision, keyStore(r.Name), rev)
		p.require(PrefixEmpty, prefixUsages(storeUsageTarget(r.Name)), 0)
		p.remove(keyStore(r.Name))
		p.remove(keyUsage(u))
		v.scan(prefixValue+r.Name.Project+"/"+st.UID+"/", func(key string, _ entry) bool {
			p.remove(key)
			return true
		})
		return p, nil
	})
	return err
}

// TestSecretStore logs in to the store and says what came of it.
func (s *Store) TestSecretStore(ctx context.Context, name resourcename.SecretStore) (TestResult, error) {
	if err := s.permit(ctx, SecretStoresUpdate, name.Parent(), name); err != nil {
		return TestResult{}, err
	}
	if _, _, ok := lookup[*SecretStore](s.model, keyStore(name)); !ok {
		return TestResult{}, notFound(name)
	}
	if s.cfg.Brokerage == nil {
		return TestResult{}, errNoBrokerage
	}
	st, login, err := s.StoreLogin(ctx, name)
	if err != nil {
		return TestResult{}, err
	}
	return s.cfg.Brokerage.Test(ctx, st, login)
}

// RefreshSecretStore polls every secret of the store that is in use, now.
func (s *Store) RefreshSecretStore(ctx context.Context, name resourcename.SecretStore) (RefreshResult, error) {
	if err := s.permit(ctx, SecretStoresUpdate, name.Parent(), name); err != nil {
		return RefreshResult{}, err
	}
	if _, _, ok := lookup[*SecretStore](s.model, keyStore(name)); !ok {
		return RefreshResult{}, notFound(name)
	}
	if s.cfg.Brokerage == nil {
		return RefreshResult{}, errNoBrokerage
	}
	return s.cfg.Brokerage.Refresh(ctx, name)
}

var errNoBrokerage = &Error{Kind: ErrUnavailable, Reason: "NO_BROKER", Message: "this server does not reach external stores"}
