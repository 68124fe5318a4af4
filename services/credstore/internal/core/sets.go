package core

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"weak"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/fanout"
)

// A set is computed once for all workloads with the same injections: a
// sharedSet follows the fan-out, rebuilds its manifest when an input changes,
// and wakes the streams that hang on it. Streams are level-triggered: each gets
// the difference between what it was sent and what there is now.

// valueSource is where an item's content comes from, as of one build.
type valueSource struct {
	credential resourcename.Credential // zero for a secret
	uid        string
	version    uint32
	field      string // of a payload or token

	mintedKey string    // of a minted token
	end       time.Time // of that; zero for never
	valueKey  string    // of a secret
	key       string

	sealed []byte
	size   int // of the content, in bytes
}

// builtSet is a manifest as of one revision. It does not change.
type builtSet struct {
	rev   Revision
	items []SetItem
	byID  map[string]*SetItem
	// end is that of the token that ends first; zero when none does.
	end time.Time
}

// ended says whether a token has ended that the manifest still delivers, since
// that has not been committed yet.
func (b *builtSet) ended(now time.Time) bool { return !b.end.IsZero() && !now.Before(b.end) }

// buildSet computes the manifest of some injections, in the order given, and
// the topics whose changes can change it. What was the same before is taken
// from there.
func (s *Store) buildSet(v view, injections []*Injection, before *builtSet) (*builtSet, []string) {
	b := &builtSet{byID: make(map[string]*SetItem)}
	paths := newPathSet()
	inputs := make(map[string]bool)
	total := 0
	for _, inj := range injections {
		inputs[topicKey(keyInjection(inj.Name))] = true
		if e, ok := v.get(keyInjection(inj.Name)); ok {
			b.rev = max(b.rev, e.rev)
		}
		for i := range inj.Items {
			it := &inj.Items[i]
			out := SetItem{ID: inj.Name.ID + "/" + it.File.Path, Injection: inj.Name, File: it.File, Group: it.Group}
			if owner, clash := paths.clash(it.File.Path); clash {
				out.fail("its path overlaps with %s, which came first", owner)
			} else {
				paths.add(it.File.Path, out.ID)
				var rev Revision
				switch {
				case it.Credential != nil:
					rev = s.buildFromCredential(v, &out, it.Credential, inputs)
				case it.Mint != nil:
					rev = s.buildFromMint(v, &out, it.Mint, inputs)
				default:
					rev = s.buildFromSecret(v, &out, it.Secret, inputs)
				}
				b.rev = max(b.rev, rev)
			}
			if out.State != ItemFailed {
				s.measure(&out, before)
				if total+out.source.size > MaxSetBytes {
					out.fail("the set's contents exceed %d bytes with this item", MaxSetBytes)
				} else {
					total += out.source.size
				}
			}
			b.items = append(b.items, out)
		}
	}
	for i := range b.items {
		b.byID[b.items[i].ID] = &b.items[i]
		if end := b.items[i].source.end; b.items[i].State != ItemFailed && !end.IsZero() && (b.end.IsZero() || end.Before(b.end)) {
			b.end = end
		}
	}
	return b, slices.Collect(maps.Keys(inputs))
}

func (i *SetItem) fail(format string, args ...any) {
	i.State, i.Message = ItemFailed, fmt.Sprintf(format, args...)
	i.source.sealed = nil
}

func (s *Store) buildFromCredential(v view, out *SetItem, src *CredentialSource, inputs map[string]bool) Revision {
	inputs[topicKey(keyCredential(src.Name))] = true
	c, rev, ok := lookup[*Credential](v, keyCredential(src.Name))
	if !ok {
		out.fail("%s does not exist", src.Name)
		return 0
	}
	e, _ := v.get(keyVersion(c.UID, c.ActiveVersion))
	out.State = ItemOK
	out.Version = src.Name.Version(c.ActiveVersion).String()
	out.RefreshTime = c.RotateTime
	out.source = valueSource{credential: src.Name, uid: c.UID, version: c.ActiveVersion, field: src.Field, sealed: e.sealed}
	out.Digest = s.digest(out.File, "credential", c.UID, fmt.Sprint(c.ActiveVersion), src.Field)
	return rev
}

func (s *Store) buildFromSecret(v view, out *SetItem, src *SecretSource, inputs map[string]bool) Revision {
	inputs[topicKey(keyStore(src.Store))] = true
	st, rev, ok := lookup[*SecretStore](v, keyStore(src.Store))
	if !ok {
		out.fail("%s does not exist", src.Store)
		return 0
	}
	key := keyValue(locator(st, src))
	inputs[topicKey(key)] = true
	e, ok := v.get(key)
	val, isValue := e.value.(*Value)
	if !ok || !isValue {
		out.fail("%s has not been fetched from %s yet", src.Path, src.Store)
		return rev
	}
	out.Version, out.RefreshTime = val.Version, val.FetchTime
	switch {
	case val.hasData && val.State == ValueOK:
		out.State = ItemOK
	case val.hasData && (val.State == ValueUnavailable || val.State == ValueRefused):
		out.State, out.Message = ItemStale, val.Message
	default:
		out.fail("%s", val.Message)
		return max(rev, e.rev)
	}
	out.source = valueSource{valueKey: key, key: src.Key, sealed: e.sealed}
	out.Digest = s.digest(out.File, "secret", st.UID, src.Path, fmt.Sprint(src.Version), src.Key, val.Version, fmt.Sprint(val.FetchTime.UnixNano()))
	return max(rev, e.rev)
}

// buildFromMint delivers the last token until it ends, whatever the vendor says
// meanwhile: only its end takes it away, and the Issuer makes that a commit.
func (s *Store) buildFromMint(v view, out *SetItem, src *MintSource, inputs map[string]bool) Revision {
	inputs[topicKey(keyCredential(src.Credential))] = true
	c, rev, ok := lookup[*Credential](v, keyCredential(src.Credential))
	if !ok {
		out.fail("%s does not exist", src.Credential)
		return 0
	}
	l, err := tokenLocator(c, src.Request)
	if err != nil {
		out.fail("%s", err)
		return rev
	}
	key := keyMinted(l)
	inputs[topicKey(key)] = true
	e, ok := v.get(key)
	m, isMinted := e.value.(*Minted)
	if !ok || !isMinted {
		out.fail("no token has been minted from %s yet", src.Credential)
		return rev
	}
	rev = max(rev, e.rev)
	switch {
	case !m.usable(time.Now()) && m.Message != "":
		out.fail("there is no token that has not ended: %s", m.Message)
		return rev
	case !m.usable(time.Now()):
		out.fail("the token has ended")
		return rev
	case m.State == ValueOK:
		out.State = ItemOK
	default:
		out.State, out.Message = ItemStale, m.Message
	}
	out.Version = src.Credential.Version(m.Version).String() + "@" + m.MintTime.UTC().Format(time.RFC3339)
	out.RefreshTime = m.MintTime
	out.source = valueSource{credential: src.Credential, uid: c.UID, version: m.Version, field: src.Field, mintedKey: key, end: m.ExpireTime, sealed: e.sealed}
	out.Digest = s.digest(out.File, "minted", c.UID, l.Request, src.Field, m.Login, fmt.Sprint(m.MintTime.UnixNano()))
	return rev
}

// digest identifies an item's inputs and target, and says nothing about its
// content.
func (s *Store) digest(f FileTarget, parts ...string) string {
	h := hmac.New(sha256.New, s.digestKey)
	for _, p := range append(parts, f.Path, fmt.Sprint(f.Mode), optional(f.UID), optional(f.GID)) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

func optional(n *uint32) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}

// measure learns the size of an item's content, opening it unless it is the one
// that was there before.
func (s *Store) measure(out *SetItem, before *builtSet) {
	if before != nil {
		if old := before.byID[out.ID]; old != nil && old.Digest == out.Digest && old.State != ItemFailed {
			out.source.size = old.source.size
			return
		}
	}
	content, err := s.content(out)
	if err != nil {
		out.fail("%s", err)
		return
	}
	out.source.size = len(content)
	clear(content)
}

// content opens what an item delivers. Its errors hold no secret material.
func (s *Store) content(i *SetItem) ([]byte, error) {
	src := &i.source
	switch {
	case src.mintedKey != "":
		rec, err := s.openMinted(src.mintedKey, src.sealed)
		if err != nil {
			return nil, err
		}
		t, err := credential.NewToken(rec.GetToken())
		if err != nil {
			return nil, err
		}
		return t.Field(src.field)
	case src.valueKey == "":
		p, err := s.open(src.uid, src.version, src.sealed)
		if err != nil {
			return nil, err
		}
		return p.Field(src.field)
	}
	rec, err := s.openValue(src.valueKey, src.sealed)
	if err != nil {
		return nil, err
	}
	if src.key == "" {
		texts := make(map[string]string, len(rec.GetData()))
		for k, b := range rec.GetData() {
			texts[k] = string(b)
		}
		return json.Marshal(texts)
	}
	b, ok := rec.GetData()[src.key]
	if !ok {
		return nil, fmt.Errorf("the secret has no key %q", src.key)
	}
	return b, nil
}

// SetUpdate is a whole set or what changed of it. It holds contents, and
// redacts itself.
type SetUpdate struct {
	// Revision is that of the last commit that changed the set.
	Revision Revision
	// Whole: Items is the whole manifest.
	Whole bool
	Items []SetItem
	// Contents are those that the injector lacks, by item id.
	Contents map[string][]byte
	// Removed are the ids of items that are gone, when not Whole.
	Removed []string

	once    sync.Once
	encoded []byte
	err     error
}

// Encoded returns what encode makes of the update, calling it once for all
// streams that share it. The bytes must not be changed.
func (u *SetUpdate) Encoded(encode func(*SetUpdate) ([]byte, error)) ([]byte, error) {
	u.once.Do(func() { u.encoded, u.err = encode(u) })
	return u.encoded, u.err
}

// update computes what takes a stream from one build, or from nothing, to
// another. has says which digests it has already.
func (s *Store) update(from, to *builtSet, has map[string]string) *SetUpdate {
	u := &SetUpdate{Revision: to.rev, Whole: from == nil, Contents: make(map[string][]byte)}
	for i := range to.items {
		it := to.items[i]
		if from != nil {
			if old := from.byID[it.ID]; old != nil && old.same(&it) {
				continue
			}
			if old := from.byID[it.ID]; old != nil && old.State != ItemFailed && old.Digest == it.Digest {
				u.Items = append(u.Items, it) // only its state changed
				continue
			}
		}
		if it.State != ItemFailed && (it.Digest == "" || has[it.ID] != it.Digest) {
			content, err := s.content(&it)
			if err != nil {
				it.fail("%s", err)
			} else {
				u.Contents[it.ID] = content
			}
		}
		u.Items = append(u.Items, it)
	}
	if from != nil {
		for i := range from.items {
			if to.byID[from.items[i].ID] == nil {
				u.Removed = append(u.Removed, from.items[i].ID)
			}
		}
	}
	return u
}

func (i *SetItem) same(j *SetItem) bool {
	return i.Digest == j.Digest && i.State == j.State && i.Message == j.Message && i.Group == j.Group && i.Version == j.Version && i.File.Mode == j.File.Mode
}

// payloads names what leaves with the update.
func (u *SetUpdate) payloads() []string {
	seen := make(map[string]bool)
	var out []string
	for i := range u.Items {
		it := &u.Items[i]
		if _, leaves := u.Contents[it.ID]; !leaves {
			continue
		}
		name := it.Version
		switch {
		case it.source.mintedKey != "":
			name = it.source.mintedKey + "@" + it.Version
		case it.source.valueKey != "":
			name = it.source.valueKey + "@" + it.Version
		}
		if !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out
}

func (u *SetUpdate) empty() bool { return len(u.Items) == 0 && len(u.Removed) == 0 }

// sets owns the shared sets and what is known of their streams.
type sets struct {
	store *Store
	ctx   context.Context //nolint:containedctx // ends the goroutines of shared sets, which outlive the call that starts one
	stop  context.CancelFunc
	wg    sync.WaitGroup

	mu        sync.Mutex
	shared    map[string]*sharedSet
	workloads map[string]*workload
}

func newSets(s *Store) *sets {
	ctx, cancel := context.WithCancel(context.Background())
	return &sets{store: s, ctx: ctx, stop: cancel, shared: make(map[string]*sharedSet), workloads: make(map[string]*workload)}
}

func (x *sets) close() {
	x.mu.Lock() // so that no goroutine starts behind the wait
	x.stop()
	x.mu.Unlock()
	x.wg.Wait()
}

// sharedSet is the set of everybody with the same injections.
type sharedSet struct {
	key     string
	members []member
	refs    int // under sets.mu
	cancel  context.CancelFunc

	mu      sync.Mutex
	now     *builtSet
	changed chan struct{} // closed when now is replaced, or the set is retired
	// retired: a member is gone or selects other workloads. What it delivers now
	// is not for these streams, which have to match anew.
	retired bool
	// last takes the build before to now; whole is now for a newcomer. They are
	// weak: contents are in memory in clear only while they are being sent.
	last, whole weak.Pointer[SetUpdate]
	before      *builtSet
	// told are the streams that the audit line of last names.
	told    map[string]bool
	streams map[string]bool
}

// member is an injection as the streams of a shared set matched it.
type member struct {
	name resourcename.Injection
	// match stands for all that decides which workloads it selects.
	match string
}

func membersOf(injections []*Injection) (members []member, key string) {
	members = make([]member, len(injections))
	for i, inj := range injections {
		members[i] = member{inj.Name, inj.matchKey()}
		key += members[i].match + "\n"
	}
	return members, key
}

// matchKey changes when the injection comes to select other workloads.
func (i *Injection) matchKey() string {
	var b strings.Builder
	b.WriteString(i.Name.String() + " " + i.UID)
	for _, k := range slices.Sorted(maps.Keys(i.Selector)) {
		fmt.Fprintf(&b, " %q=%q", k, i.Selector[k])
	}
	return b.String()
}

// acquire returns the shared set of some injections, starting it if it is the
// first to ask. Injections are sorted by name.
func (x *sets) acquire(injections []*Injection, v view, streamID string) *sharedSet {
	members, key := membersOf(injections)
	x.mu.Lock()
	defer x.mu.Unlock()
	sh := x.shared[key]
	if sh != nil && sh.hasEnded(time.Now()) {
		x.retireLocked(sh) // its streams come here, too
		sh = nil
	}
	if sh == nil {
		sh = &sharedSet{key: key, members: members, changed: make(chan struct{}), streams: make(map[string]bool)}
		var inputs []string
		sh.now, inputs = x.store.buildSet(v, injections, nil)
		ctx, cancel := context.WithCancel(x.ctx)
		sh.cancel = cancel
		x.shared[sh.key] = sh
		if x.ctx.Err() == nil { // else the server is stopping, and so is the stream
			sub := x.store.hub.Subscribe("", uint64(v.rev), inputs...)
			x.wg.Go(func() {
				defer sub.Close()
				x.follow(ctx, sh, sub)
			})
		}
	}
	sh.refs++
	sh.mu.Lock()
	sh.streams[streamID] = true
	sh.mu.Unlock()
	return sh
}

func (x *sets) release(sh *sharedSet, streamID string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	sh.mu.Lock()
	delete(sh.streams, streamID)
	sh.mu.Unlock()
	if sh.refs--; sh.refs == 0 {
		sh.cancel()
		if x.shared[sh.key] == sh {
			delete(x.shared, sh.key)
		}
	}
}

// retire ends a shared set: its streams match anew, and find or start another.
func (x *sets) retire(sh *sharedSet) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.retireLocked(sh)
}

// retireLocked is retire for who holds x.mu.
func (x *sets) retireLocked(sh *sharedSet) {
	if x.shared[sh.key] == sh {
		delete(x.shared, sh.key)
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !sh.retired {
		sh.retired = true
		close(sh.changed)
	}
}

// hasEnded says whether it delivers a token that has ended.
func (sh *sharedSet) hasEnded(now time.Time) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.now.ended(now)
}

func (sh *sharedSet) isRetired() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.retired
}

// follow rebuilds a shared set whenever one of its inputs changes, until it is
// retired.
func (x *sets) follow(ctx context.Context, sh *sharedSet, sub *fanout.Subscription[*update]) {
	for {
		_, err := sub.Next(ctx)
		if err != nil && !errors.Is(err, fanout.ErrLagged) {
			return
		}
		v := x.store.model.view()
		injections, ok := sh.current(v)
		if !ok {
			x.retire(sh)
			return
		}
		sub.SetTopics(uint64(v.rev), x.rebuild(ctx, sh, v, injections)...)
	}
}

// current returns the members as they are, or false when one is gone or selects
// other workloads than it did.
func (sh *sharedSet) current(v view) ([]*Injection, bool) {
	injections := make([]*Injection, len(sh.members))
	for i, m := range sh.members {
		inj, _, ok := lookup[*Injection](v, keyInjection(m.name))
		if !ok || inj.matchKey() != m.match {
			return nil, false
		}
		injections[i] = inj
	}
	return injections, true
}

// rebuild computes the set anew and, if it changed, puts the push on record and
// wakes the streams. It returns the inputs.
func (x *sets) rebuild(ctx context.Context, sh *sharedSet, v view, injections []*Injection) []string {
	sh.mu.Lock()
	old := sh.now
	streams := slices.Sorted(maps.Keys(sh.streams))
	sh.mu.Unlock()
	next, inputs := x.store.buildSet(v, injections, old)
	next.rev = max(next.rev, old.rev)
	u := x.store.update(old, next, nil)
	if u.empty() {
		return inputs
	}
	if payloads := u.payloads(); len(payloads) > 0 && len(streams) > 0 {
		err := x.store.parkUntil(ctx, func() error { return x.store.recordPush(ctx, payloads, streams, v.rev) })
		if err != nil {
			return inputs // the server is stopping
		}
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.retired {
		return inputs // its streams have been told, and are elsewhere
	}
	sh.before, sh.now, sh.last, sh.whole = old, next, weak.Make(u), weak.Pointer[SetUpdate]{}
	sh.told = make(map[string]bool, len(streams))
	for _, id := range streams {
		sh.told[id] = true
	}
	close(sh.changed)
	sh.changed = make(chan struct{})
	return inputs
}

// next returns what a stream that was sent a build needs now, nil when nothing,
// and the channel that tells of the next change. recorded says that the audit
// log has it already. since is when the stream came here from another set: what
// it has to let go of for that is told by none of this set's inputs.
func (sh *sharedSet) next(s *Store, sent *builtSet, have map[string]string, streamID string, since Revision) (u *SetUpdate, now *builtSet, recorded bool, changed <-chan struct{}) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now, changed = sh.now, sh.changed
	switch {
	case sent == now:
		return nil, now, false, changed
	case sent != nil && sent == sh.before:
		if u = sh.last.Value(); u == nil {
			u = s.update(sent, now, nil)
			sh.last = weak.Make(u)
		}
		return u, now, sh.told[streamID], changed
	case sent == nil && len(have) == 0:
		if u = sh.whole.Value(); u == nil {
			u = s.update(nil, now, nil)
			sh.whole = weak.Make(u)
		}
		return u, now, false, changed
	}
	u = s.update(sent, now, have)
	u.Revision = max(u.Revision, since)
	return u, now, false, changed
}

// matching lists the injections that a principal's workloads get, by name.
func matching(v view, p *Principal, project resourcename.Project, only []resourcename.Injection) []*Injection {
	var out []*Injection
	v.scan(keyIn(project.ID)+kindInjection, func(_ string, e entry) bool {
		inj, ok := e.value.(*Injection)
		if !ok || len(only) > 0 && !slices.Contains(only, inj.Name) {
			return true
		}
		for k, want := range inj.Selector {
			if got, ok := p.Attributes[k]; !ok || got != want {
				return true
			}
		}
		out = append(out, inj)
		return true
	})
	return out
}

// GetSet returns the caller's set as it is now, with contents.
func (s *Store) GetSet(ctx context.Context, name resourcename.Project, only []resourcename.Injection) (*SetUpdate, error) {
	if err := s.permit(ctx, SetsGet, name, name); err != nil {
		return nil, err
	}
	if err := checkOnly("injections", name, only); err != nil {
		return nil, err
	}
	v := s.model.view()
	if _, err := project(v, name); err != nil {
		return nil, err
	}
	built, _ := s.buildSet(v, matching(v, PrincipalFrom(ctx), name, only), nil)
	u := s.update(nil, built, nil)
	if payloads := u.payloads(); len(payloads) > 0 {
		if err := s.release(ctx, SetsGet, name.String(), payloads, "", u.Revision); err != nil {
			return nil, err
		}
	}
	return u, nil
}

func checkOnly(field string, name resourcename.Project, only []resourcename.Injection) error {
	var bad invalid
	if len(only) > MaxItems {
		bad.add(field, "has %d entries; at most %d", len(only), MaxItems)
	}
	for i, n := range only {
		if n.Project != name.ID && len(bad.violations) < 10 {
			bad.add(fmt.Sprintf("%s[%d]", field, i), "must be in %s", name)
		}
	}
	return bad.err()
}
