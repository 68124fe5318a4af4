package core

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/credstore/credstore/gen/go/record/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// Brokerage reaches external stores for operators.
type Brokerage interface {
	// Test logs in to the store. What the store answers is in
	// the result; an error means that the test could not be made.
	Test(ctx context.Context, store *SecretStore, login credential.Login) (TestResult, error)
	// Refresh polls the store's secrets that are in use and returns when done.
	Refresh(ctx context.Context, store resourcename.SecretStore) (RefreshResult, error)
}

// TestResult says whether a store lets the credential in. Message holds no
// secret material.
type TestResult struct {
	OK       bool
	Identity string
	Message  string
	Latency  time.Duration
}

// RefreshResult counts secrets.
type RefreshResult struct {
	Polled, Changed, Failed int
}

// Locator names one secret of one external store, for the whole fleet.
type Locator struct {
	Project  string
	StoreUID string
	Path     string
	Version  uint32 // 0 is the newest
}

// ValueState is what the external store answered last. The numbers are stored.
type ValueState uint32

// The states of a value.
const (
	ValueOK ValueState = iota + 1
	// ValueUnavailable: the store cannot be reached or is not in order.
	ValueUnavailable
	// ValueRefused: the store refuses the login or the path.
	ValueRefused
	// ValueMissing: there is no such secret.
	ValueMissing
	// ValueDeleted: the version was deleted and could be undeleted.
	ValueDeleted
	// ValueDestroyed: the version is gone for good.
	ValueDestroyed
)

// gone says whether the store answered that there is nothing to deliver.
func (s ValueState) gone() bool {
	return s == ValueMissing || s == ValueDeleted || s == ValueDestroyed
}

// Value is what an external store last delivered, without the content.
type Value struct {
	Version   string // as the store counts; "" when there was never one
	State     ValueState
	Message   string
	FetchTime time.Time // when the content was last fetched anew
	StateTime time.Time // when state or message last changed
	hasData   bool
}

// Wanted is a secret that at least one injection needs.
type Wanted struct {
	Locator Locator
	Store   *SecretStore
	// Login is that of the store's credential (credential.Login.Key): it changes
	// when the payload does, or one that it refers to.
	Login string
	// Have is what is stored of it, nil when nothing is.
	Have *Value
}

// ValueUpdate is what a poll brought.
type ValueUpdate struct {
	// Data is the secret's content, key to value; nil keeps the last good one.
	Data    map[string][]byte
	Version string
	State   ValueState
	Message string // why the state is not ValueOK; no secret material
}

// wantedIn lists the secrets that the injections of a state need, each once, and
// the keys of the stores and credentials that the list depends on.
func wantedIn(v view) ([]Wanted, map[string]bool) {
	byLocator := make(map[Locator]Wanted)
	inputs := make(map[string]bool)
	v.scan(prefixIn, func(_ string, e entry) bool {
		inj, ok := e.value.(*Injection)
		if !ok {
			return true
		}
		for _, it := range inj.Items {
			if it.Secret == nil {
				continue
			}
			inputs[keyStore(it.Secret.Store)] = true
			st, _, ok := lookup[*SecretStore](v, keyStore(it.Secret.Store))
			if !ok {
				continue
			}
			l := locator(st, it.Secret)
			if _, ok := byLocator[l]; ok {
				continue
			}
			w := Wanted{Locator: l, Store: st}
			inputs[keyCredential(st.Credential)] = true
			if c, _, ok := lookup[*Credential](v, keyCredential(st.Credential)); ok {
				w.Login = loginKeyIn(v, c, inputs)
			}
			w.Have, _, _ = lookup[*Value](v, keyValue(l))
			byLocator[l] = w
		}
		return true
	})
	return slices.SortedFunc(maps.Values(byLocator), func(a, b Wanted) int {
		return cmp.Or(strings.Compare(a.Locator.StoreUID, b.Locator.StoreUID), strings.Compare(a.Locator.Path, b.Locator.Path), cmp.Compare(a.Locator.Version, b.Locator.Version))
	}), inputs
}

func locator(st *SecretStore, src *SecretSource) Locator {
	return Locator{Project: st.Name.Project, StoreUID: st.UID, Path: src.Path, Version: src.Version}
}

// Wanted lists the secrets that injections need, each once, and a channel that
// is closed when the list may have changed. It is for the broker.
func (s *Store) Wanted() ([]Wanted, <-chan struct{}) {
	return s.wanted.current()
}

// StoreLogin returns a secret store with the login for it. That its payloads
// leave for the store is on record.
func (s *Store) StoreLogin(ctx context.Context, name resourcename.SecretStore) (*SecretStore, credential.Login, error) {
	st, _, ok := lookup[*SecretStore](s.model, keyStore(name))
	if !ok {
		return nil, credential.Login{}, notFound(name)
	}
	_, login, err := s.login(st.Credential, 0)
	if err != nil {
		return nil, credential.Login{}, err
	}
	if !mayLogIn(login.Payload.Facts(), st.Vault) {
		return nil, credential.Login{}, precondition(ReasonAddressMismatch, name, "has another address, or another namespace, than the one that its credential %s is for: change one of the two", st.Credential)
	}
	if err := s.release(AsSystem(ctx), CredentialsUse, name.String(), versionsOf(login), "", 0); err != nil {
		return nil, credential.Login{}, err
	}
	return st, login, nil
}

// PutValue commits what a poll brought, if it differs from what is stored, and
// says whether it did. A value that no longer has a store is dropped.
func (s *Store) PutValue(ctx context.Context, l Locator, u ValueUpdate) (changed bool, err error) {
	size := 0
	for k, b := range u.Data {
		size += len(k) + len(b)
	}
	if size > MaxSecretValue {
		u = ValueUpdate{State: ValueRefused, Version: u.Version, Message: fmt.Sprintf("the secret has %d bytes; at most %d can be delivered", size, MaxSecretValue)}
	}
	errSame := errors.New("unchanged")
	_, err = s.mutate(ctx, false, func(v view) (*plan, error) {
		st := storeByUID(v, l)
		if st == nil {
			return nil, errSame
		}
		key := keyValue(l)
		rec := &recordv1.Value{StoreUid: l.StoreUID, Path: l.Path, PinnedVersion: l.Version}
		p := &plan{}
		p.require(Present, keyStore(st.Name), 0)
		if e, ok := v.get(key); ok {
			if rec, err = s.openValue(key, e.sealed); err != nil {
				return nil, err
			}
			p.require(AtRevision, key, e.rev)
		} else {
			p.require(Absent, key, 0)
		}
		now := stamp(time.Now())
		same := true
		if u.Data != nil && (rec.FetchTime == nil || rec.GetVersion() != u.Version || !maps.EqualFunc(rec.GetData(), u.Data, bytes.Equal)) {
			rec.Data, rec.Version, rec.FetchTime, same = u.Data, u.Version, now, false
		}
		state := u.State
		if was := ValueState(rec.GetState()); was.gone() && (state == ValueUnavailable || state == ValueRefused) {
			state = was // what is gone does not come back because the store cannot be asked
		}
		if ValueState(rec.GetState()) != state || rec.GetMessage() != u.Message {
			rec.State, rec.Message, rec.StateTime, same = uint32(state), u.Message, now, false
		}
		if same {
			return nil, errSame
		}
		return p, s.put(p, key, rec)
	})
	if errors.Is(err, errSame) {
		return false, nil
	}
	return err == nil, err
}

func storeByUID(v view, l Locator) *SecretStore {
	var found *SecretStore
	v.scan(keyIn(l.Project)+kindStore, func(_ string, e entry) bool {
		if st, ok := e.value.(*SecretStore); ok && st.UID == l.StoreUID {
			found = st
		}
		return found == nil
	})
	return found
}

func (s *Store) openValue(key string, sealed []byte) (*recordv1.Value, error) {
	plain, err := s.cfg.Sealer.Open(Place{Key: key}, sealed)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	rec := &recordv1.Value{}
	return rec, proto.Unmarshal(plain, rec)
}

// decodeValue keeps what is not secret.
func decodeValue(plain []byte) (*Value, error) {
	var m recordv1.Value
	if err := proto.Unmarshal(plain, &m); err != nil {
		return nil, err
	}
	return &Value{
		Version: m.GetVersion(), State: ValueState(m.GetState()), Message: m.GetMessage(),
		FetchTime: unstamp(m.GetFetchTime()), StateTime: unstamp(m.GetStateTime()), hasData: m.FetchTime != nil,
	}, nil
}
