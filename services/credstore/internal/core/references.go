package core

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// This file holds what credentials refer to by their active payload, as an
// assumed role to its source: that it is there, that it fits, that the caller
// may use it, and that nobody comes to refer to itself.

// checkReferences is what can be said of a payload's references without the
// state.
func (v *invalid) checkReferences(name resourcename.Credential, payload credential.Payload, at func(string) string) {
	for _, ref := range payload.References() {
		source, err := resourcename.ParseCredential(ref)
		switch {
		case err != nil:
			v.add(at(referenceField(payload, ref)), "must be the full name of a credential, as projects/%s/credentials/ID", name.Project)
		case source.Project != name.Project:
			v.add(at(referenceField(payload, ref)), "must be in the same project, projects/%s", name.Project)
		}
	}
}

// permitReferences asks whether the caller may use the credentials that a
// payload refers to: otherwise whoever may create a credential could act as any
// other. It is asked for every payload that is written or becomes active, even
// if it refers to what the one before did: another role of the same source is
// another use of it. Where tokens of the source go to an address that the payload
// names, as that of a cluster, who writes it has these tokens, and needs to be
// allowed to mint them.
func (s *Store) permitReferences(ctx context.Context, k credential.Kind, refs []string) error {
	needs := []Permission{CredentialsUse}
	if k.ForwardsTokens() {
		needs = append(needs, CredentialsMint)
	}
	for _, source := range sourcesIn(refs) {
		for _, p := range needs {
			if err := s.permit(ctx, p, source.Parent(), source); err != nil {
				return err
			}
		}
	}
	return nil
}

// sourcesIn parses references that were checked when they were written.
func sourcesIn(refs []string) []resourcename.Credential {
	var out []resourcename.Credential
	for _, ref := range refs {
		if name, err := resourcename.ParseCredential(ref); err == nil {
			out = append(out, name)
		}
	}
	return out
}

// referenceField finds the field of a payload that holds a reference, by its
// JSON path, as "payload.awsAssumeRole.source".
func referenceField(payload credential.Payload, ref string) string {
	found := "payload"
	m := payload.Message()
	if m == nil {
		return found
	}
	// The walk never fails: the function returns no error but the end of it.
	_ = protorange.Range(m.ProtoReflect(), func(p protopath.Values) error {
		last := p.Index(-1)
		if last.Step.Kind() != protopath.FieldAccessStep || last.Step.FieldDescriptor().Kind() != protoreflect.StringKind ||
			last.Step.FieldDescriptor().Cardinality() == protoreflect.Repeated || last.Value.String() != ref {
			return nil
		}
		var path strings.Builder
		path.WriteString("payload")
		for _, step := range p.Path[1:] {
			if step.Kind() == protopath.FieldAccessStep {
				path.WriteString("." + step.FieldDescriptor().JSONName())
			}
		}
		found = path.String()
		return protorange.Terminate
	})
	return found
}

// written is what a batch makes of one credential's references.
type written struct {
	name resourcename.Credential
	kind credential.Kind
	// before and now are what it refers to.
	before, now []resourcename.Credential
	// payload is the one that refers to now; zero for a delete.
	payload credential.Payload
	// created and deleted say that it is not there before or after.
	created, deleted bool
	force            bool // of a delete
	// field turns a path in the payload into the one of the request.
	field func(string) string
}

// graph is which credentials refer to which once a batch is done, whatever the
// order of its operations.
type graph struct {
	view    view
	batch   []*written
	written map[resourcename.Credential]*written
}

func newGraph(v view) *graph {
	return &graph{view: v, written: make(map[resourcename.Credential]*written)}
}

func (g *graph) add(w *written) {
	g.batch = append(g.batch, w)
	g.written[w.name] = w
}

// kind returns what a credential is, if there is one.
func (g *graph) kind(name resourcename.Credential) (credential.Kind, bool) {
	if w, ok := g.written[name]; ok {
		return w.kind, !w.deleted
	}
	c, _, ok := lookup[*Credential](g.view, keyCredential(name))
	if !ok {
		return "", false
	}
	return c.Kind, true
}

// sources returns what a credential refers to.
func (g *graph) sources(name resourcename.Credential) []resourcename.Credential {
	if w, ok := g.written[name]; ok {
		return w.now
	}
	c, _, ok := lookup[*Credential](g.view, keyCredential(name))
	if !ok {
		return nil
	}
	return sourcesIn(c.References)
}

// users returns the credentials that refer to one.
func (g *graph) users(name resourcename.Credential) []resourcename.Credential {
	var out []resourcename.Credential
	for _, u := range referrers(g.view, name) {
		if w, ok := g.written[u]; !ok || slices.Contains(w.now, name) {
			out = append(out, u)
		}
	}
	for _, w := range g.batch {
		if slices.Contains(w.now, name) && !slices.Contains(w.before, name) {
			out = append(out, w.name)
		}
	}
	return out
}

// referrers lists the credentials that refer to one in a state.
func referrers(v view, name resourcename.Credential) []resourcename.Credential {
	var out []resourcename.Credential
	v.scan(prefixReferrers(usageTarget(name)), func(key string, _ entry) bool {
		if u, ok := splitUsage(key); ok {
			_, id, _ := strings.Cut(u.ID, ".")
			out = append(out, resourcename.Credential{Project: u.Project, ID: id})
		}
		return true
	})
	return out
}

// ring returns a way from a credential back to itself, with its name at both
// ends, or nil.
func (g *graph) ring(name resourcename.Credential) []resourcename.Credential {
	seen := make(map[resourcename.Credential]bool)
	var walk func(resourcename.Credential) []resourcename.Credential
	walk = func(at resourcename.Credential) []resourcename.Credential {
		for _, next := range g.sources(at) {
			if next == name {
				return []resourcename.Credential{at, next}
			}
			if seen[next] {
				continue
			}
			seen[next] = true
			if way := walk(next); way != nil {
				return append([]resourcename.Credential{at}, way...)
			}
		}
		return nil
	}
	return walk(name)
}

// row returns how many credentials refer to one another in the longest row
// through this one, at most limit+1 in each direction.
func (g *graph) row(name resourcename.Credential, limit int) int {
	return g.reach(name, g.users, limit) + g.reach(name, g.sources, limit) - 1
}

// reach counts the steps, the first one included, that can be gone from a
// credential. There must be no ring.
func (g *graph) reach(name resourcename.Credential, next func(resourcename.Credential) []resourcename.Credential, limit int) int {
	level := []resourcename.Credential{name}
	n := 0
	for len(level) > 0 && n <= limit {
		n++
		further := make(map[resourcename.Credential]bool)
		for _, at := range level {
			for _, c := range next(at) {
				further[c] = true
			}
		}
		level = level[:0]
		for c := range further {
			level = append(level, c)
		}
	}
	return n
}

// check refuses references that cannot be.
func (g *graph) check() error {
	var v invalid
	for _, w := range g.batch {
		for _, source := range w.now {
			kind, ok := g.kind(source)
			if !ok {
				v.add(w.field(referenceField(w.payload, source.String())), "refers to %s, which does not exist", source)
				continue
			}
			if err := w.payload.CheckSource(kind); err != nil {
				v.addViolations(err, w.field)
			}
		}
	}
	if err := v.err(); err != nil {
		return err
	}
	for _, w := range g.batch {
		if way := g.ring(w.name); w.refersAnew() && way != nil {
			ids := make([]string, len(way))
			for i, c := range way {
				ids[i] = c.ID
			}
			return precondition(ReasonReferenceCycle, w.name, "would refer to itself: %s", strings.Join(ids, " → "))
		}
	}
	for _, w := range g.batch {
		if n := g.row(w.name, MaxSources); w.refersAnew() && n > MaxSources {
			v.add(w.field(referenceField(w.payload, w.now[0].String())), "makes more than %d credentials refer to one another in a row", MaxSources)
		}
	}
	return v.err()
}

// refersAnew says whether it comes to refer to something.
func (w *written) refersAnew() bool {
	return slices.ContainsFunc(w.now, func(c resourcename.Credential) bool { return !slices.Contains(w.before, c) })
}

// planReferences checks the references that the batch leaves behind and adds
// their usages to the plan. What it says holds on every server: who comes to
// refer to a credential asserts that one unchanged, and changes the project's
// guard, so that of two writes that would make a ring or too long a row
// together, one fails.
func (s *Store) planReferences(p *plan, g *graph, now time.Time) error {
	if err := g.check(); err != nil {
		return err
	}
	guarded := make(map[string]bool) // projects whose guard the plan changes
	for _, w := range g.batch {
		id := derivedID(resourcename.Credentials, w.name.ID)
		for _, source := range w.before {
			if !slices.Contains(w.now, source) {
				u := usageTarget(source)
				u.ID = id
				p.remove(keyUsage(u))
			}
		}
		for _, source := range w.now {
			if slices.Contains(w.before, source) {
				continue
			}
			if err := s.putReference(p, g, source, id, w.name.String(), now); err != nil {
				return err
			}
			if key := keyReferenceGuard(w.name.Project); !guarded[key] {
				guarded[key] = true
				if err := s.putGuard(g.view, p, key); err != nil {
					return err
				}
			}
		}
	}
	for _, w := range g.batch {
		if !w.deleted {
			continue
		}
		if err := s.planRemoval(p, g, w, guarded[keyReferenceGuard(w.name.Project)], now); err != nil {
			return err
		}
	}
	return nil
}

// putReference adds the usage of a source. One that is there before the batch
// has to be the same then: another of its name may be of another kind.
func (s *Store) putReference(p *plan, g *graph, source resourcename.Credential, id, user string, now time.Time) error {
	if w, ok := g.written[source]; !ok || !w.created {
		p.requireSame(g.view, keyCredential(source))
	}
	u := usageTarget(source)
	u.ID = id
	return s.put(p, keyUsage(u), encodeUsage(&Usage{Name: u, Source: Derived, Type: UsageCredential, User: user, CreateTime: now}))
}

// requireSame asserts that a record is as in the view, or absent as there.
func (p *plan) requireSame(v view, key string) {
	if e, ok := v.get(key); ok {
		p.require(AtRevision, key, e.rev)
		return
	}
	p.require(Absent, key, 0)
}

// putGuard changes a guard, which is a record with nothing in it.
func (s *Store) putGuard(v view, p *plan, key string) error {
	p.requireSame(v, key)
	sealed, err := s.cfg.Sealer.Seal(Place{Key: key}, nil)
	if err != nil {
		return err
	}
	p.batch.Changes = append(p.batch.Changes, Change{Key: key, Value: sealed})
	return nil
}

// planRemoval refuses to delete what is in use by more than what goes, or comes
// to refer to something else, in the same batch.
func (s *Store) planRemoval(p *plan, g *graph, w *written, guarded bool, now time.Time) error {
	target := usageTarget(w.name)
	all := usages(g.view, target, now)
	users := g.users(w.name)
	left := slices.DeleteFunc(slices.Clone(all), func(u *Usage) bool {
		return u.Type == UsageCredential && !slices.ContainsFunc(users, func(c resourcename.Credential) bool { return c.String() == u.User })
	})
	if err := refuseInUse(ReasonCredentialInUse, w.name, left, s.consumers.named(w.name), w.force); err != nil {
		return err
	}
	p.require(PrefixEmpty, prefixUsages(target), 0)
	switch {
	case len(all) == 0:
		p.require(PrefixEmpty, prefixReferrers(target), 0)
	case !guarded:
		// Those that refer to it are still there when the batch is checked. That
		// there are no others is what the guard says.
		p.requireSame(g.view, keyReferenceGuard(w.name.Project))
	}
	return nil
}

// inTurn runs the writes of this server that may add references one after the
// other: all change the same guard, and would otherwise take it from each other
// again and again.
func (s *Store) inTurn(ctx context.Context, write func() error) error {
	select {
	case s.referenceTurn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.referenceTurn }()
	return write()
}
