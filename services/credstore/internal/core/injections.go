package core

import (
	"context"
	"fmt"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/pkg/targetpath"
)

// defaultMode is that of a file whose target names none.
const defaultMode = 0o400

func validateFilePath(p string) error { return targetpath.Validate(p) }

// CreateInjection makes an injection. The caller needs to be allowed to use
// every credential and store that it names.
func (s *Store) CreateInjection(ctx context.Context, r CreateInjectionRequest) (*Injection, error) {
	if err := s.permit(ctx, InjectionsCreate, r.Name.Parent(), r.Name); err != nil {
		return nil, err
	}
	inj := &Injection{
		Name: r.Name, Description: r.Description, Labels: r.Labels, Selector: r.Selector, Items: normalItems(r.Items),
	}
	var v invalid
	v.checkID("injectionId", r.Name.ID)
	v.checkInjection(inj)
	if err := v.err(); err != nil {
		return nil, err
	}
	if err := s.permitSources(ctx, inj.Items); err != nil {
		return nil, err
	}
	uid, err := newUID(s.cfg.Random)
	if err != nil {
		return nil, err
	}
	inj.UID = uid
	return s.changeInjection(ctx, r.Mutation, "CreateInjection", r.Name, func(v view, p *plan) (*Injection, error) {
		if _, err := project(v, r.Name.Parent()); err != nil {
			return nil, err
		}
		key := keyInjection(r.Name)
		if _, ok := v.get(key); ok {
			return nil, alreadyExists(r.Name)
		}
		inj.CreateTime = time.Now()
		inj.UpdateTime = inj.CreateTime
		p.require(Present, keyProject(r.Name.Parent()), 0)
		p.require(Absent, key, 0)
		return inj, s.useSources(v, p, nil, inj)
	})
}

// UpdateInjection changes the fields of the request that are not nil.
func (s *Store) UpdateInjection(ctx context.Context, r UpdateInjectionRequest) (*Injection, error) {
	if err := s.permit(ctx, InjectionsUpdate, r.Name.Parent(), r.Name); err != nil {
		return nil, err
	}
	return s.changeInjection(ctx, r.Mutation, "UpdateInjection", r.Name, func(v view, p *plan) (*Injection, error) {
		old, rev, ok := lookup[*Injection](v, keyInjection(r.Name))
		switch {
		case !ok:
			return nil, notFound(r.Name)
		case r.Etag != "" && r.Etag != old.Etag:
			return nil, etagMismatch(r.Name)
		}
		inj := *old
		inj.UpdateTime = time.Now()
		if r.Description != nil {
			inj.Description = *r.Description
		}
		if r.Labels != nil {
			inj.Labels = *r.Labels
		}
		if r.Selector != nil {
			inj.Selector = *r.Selector
		}
		if r.Items != nil {
			inj.Items = normalItems(*r.Items)
		}
		var bad invalid
		bad.checkInjection(&inj)
		if err := bad.err(); err != nil {
			return nil, err
		}
		p.require(AtRevision, keyInjection(r.Name), rev)
		if r.Items != nil || r.Selector != nil {
			// Other workloads that get the same sources use them anew. It is asked here,
			// about the items that are stored with the selector: somebody else may be
			// changing them.
			if err := s.permitSources(ctx, inj.Items); err != nil {
				return nil, err
			}
		}
		return &inj, s.useSources(v, p, old, &inj)
	})
}

func normalItems(items []Item) []Item {
	out := make([]Item, len(items))
	for i, it := range items {
		if it.File.Mode == 0 {
			it.File.Mode = defaultMode
		}
		out[i] = it
	}
	return out
}

func (v *invalid) checkInjection(i *Injection) {
	v.checkDescription("injection.description", i.Description)
	v.checkLabels("injection.labels", i.Labels)
	v.checkLabels("injection.selector", i.Selector)
	if len(i.Selector) == 0 {
		v.add("injection.selector", "is required: an empty one would match every workload of the project")
	}
	v.checkItems("injection.items", i.Name.Project, i.Items)
}

// permitSources asks whether the caller may use what the items name. Sources
// outside of the project are refused later, as bad input.
func (s *Store) permitSources(ctx context.Context, items []Item) error {
	asked := make(map[fmt.Stringer]bool)
	for _, it := range items {
		var err error
		switch {
		case it.Credential != nil && !asked[it.Credential.Name]:
			asked[it.Credential.Name] = true
			err = s.permit(ctx, CredentialsUse, it.Credential.Name.Parent(), it.Credential.Name)
		case it.Secret != nil && !asked[it.Secret.Store]:
			asked[it.Secret.Store] = true
			err = s.permit(ctx, SecretStoresUse, it.Secret.Store.Parent(), it.Secret.Store)
		case it.Mint != nil && !asked[it.Mint.Credential]:
			asked[it.Mint.Credential] = true
			err = s.permit(ctx, CredentialsUse, it.Mint.Credential.Parent(), it.Mint.Credential)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// useSources checks what the items name, puts what they want minted into the
// form in which it is stored, makes a usage for each, takes back
// those of sources that the injection no longer names, and refuses paths that
// overlap with another injection's.
func (s *Store) useSources(v view, p *plan, old, inj *Injection) error {
	id := derivedID(resourcename.Injections, inj.Name.ID)
	var bad invalid
	now := sourcesOf(inj)
	for target := range now {
		if _, ok := v.get(targetKey(target)); !ok {
			if target.Collection == resourcename.SecretStores {
				return notFound(resourcename.SecretStore{Project: target.Project, ID: target.Resource})
			}
			return notFound(resourcename.Credential{Project: target.Project, ID: target.Resource})
		}
	}
	for i, it := range inj.Items {
		if it.Credential == nil || it.Credential.Field == "" {
			continue
		}
		c, _, _ := lookup[*Credential](v, keyCredential(it.Credential.Name))
		if c == nil {
			continue
		}
		if err := credential.ValidateField(c.Kind, it.Credential.Field); err != nil {
			bad.add(fmt.Sprintf("injection.items[%d].credential.field", i), "%s", err)
		}
	}
	if err := settleMints(v, inj, &bad); err != nil {
		return err
	}
	if err := bad.err(); err != nil {
		return err
	}
	if err := refuseOverlap(v, inj); err != nil {
		return err
	}
	before := map[resourcename.Usage]bool{}
	if old != nil {
		before = sourcesOf(old)
	}
	for target := range now {
		if before[target] {
			p.require(Present, targetKey(target), 0)
			continue
		}
		if err := s.putDerived(p, target, targetKey(target), id, inj.Name.String(), inj.UpdateTime); err != nil {
			return err
		}
	}
	for target := range before {
		if !now[target] {
			target.ID = id
			p.remove(keyUsage(target))
		}
	}
	return nil
}

func sourcesOf(i *Injection) map[resourcename.Usage]bool {
	out := make(map[resourcename.Usage]bool)
	for _, it := range i.Items {
		switch {
		case it.Credential != nil:
			out[usageTarget(it.Credential.Name)] = true
		case it.Secret != nil:
			out[storeUsageTarget(it.Secret.Store)] = true
		case it.Mint != nil:
			out[usageTarget(it.Mint.Credential)] = true
		}
	}
	return out
}

func targetKey(u resourcename.Usage) string {
	if u.Collection == resourcename.SecretStores {
		return keyStore(resourcename.SecretStore{Project: u.Project, ID: u.Resource})
	}
	return keyCredential(resourcename.Credential{Project: u.Project, ID: u.Resource})
}

// refuseOverlap looks for another injection that some workload could match
// together with this one, and that wants the same place on disk.
func refuseOverlap(v view, inj *Injection) error {
	var clash error
	v.scan(keyIn(inj.Name.Project)+kindInjection, func(_ string, e entry) bool {
		other, ok := e.value.(*Injection)
		if !ok || other.Name == inj.Name || !compatible(inj.Selector, other.Selector) {
			return true
		}
		taken := newPathSet()
		for _, it := range other.Items {
			taken.add(it.File.Path, "")
		}
		for i, it := range inj.Items {
			if _, ok := taken.clash(it.File.Path); ok {
				clash = precondition(ReasonPathConflict, inj.Name,
					"has items[%d].file.path %q, which overlaps with a path of %s, and a workload could match both selectors", i, it.File.Path, other.Name)
				return false
			}
		}
		return true
	})
	return clash
}

// compatible says whether one workload could match both selectors.
func compatible(a, b map[string]string) bool {
	for k, v := range a {
		if w, ok := b[k]; ok && v != w {
			return false
		}
	}
	return true
}

// pathSet finds paths that cannot exist together.
type pathSet struct {
	files map[string]string
	dirs  map[string]string
}

func newPathSet() pathSet {
	return pathSet{files: make(map[string]string), dirs: make(map[string]string)}
}

func (s pathSet) add(path, owner string) {
	s.files[path] = owner
	for d, ok := parentDir(path); ok; d, ok = parentDir(d) {
		s.dirs[d] = owner
	}
}

func (s pathSet) clash(path string) (owner string, ok bool) {
	if o, ok := s.files[path]; ok {
		return o, true
	}
	if o, ok := s.dirs[path]; ok {
		return o, true
	}
	for d, more := parentDir(path); more; d, more = parentDir(d) {
		if o, ok := s.files[d]; ok {
			return o, true
		}
	}
	return "", false
}

// changeInjection serializes the changes of a project's injections by a guard
// record, so that two that overlap cannot be saved side by side.
func (s *Store) changeInjection(ctx context.Context, m Mutation, method string, name resourcename.Injection, edit func(view, *plan) (*Injection, error)) (*Injection, error) {
	var inj *Injection
	res, err := s.change(ctx, m, method, name.Project, func(v view) (*plan, error) {
		p := &plan{name: name.String()}
		var err error
		if inj, err = edit(v, p); err != nil {
			return nil, err
		}
		if err := s.putGuard(v, p, keyGuard(name.Project)); err != nil {
			return nil, err
		}
		p.response = encodeInjection(inj)
		return p, s.put(p, keyInjection(name), encodeInjection(inj))
	})
	if err != nil {
		return nil, err
	}
	if res.replayed != nil {
		return decodeInjection(name, res.replayed.response, res.rev)
	}
	inj.Etag = etagOf(inj.UID, res.rev)
	return inj, nil
}

// GetInjection returns one injection.
func (s *Store) GetInjection(ctx context.Context, name resourcename.Injection) (*Injection, error) {
	if err := s.permit(ctx, InjectionsGet, name.Parent(), name); err != nil {
		return nil, err
	}
	i, _, ok := lookup[*Injection](s.model, keyInjection(name))
	if !ok {
		return nil, notFound(name)
	}
	return i, nil
}

// ListInjections returns a project's injections, by name.
func (s *Store) ListInjections(ctx context.Context, name resourcename.Project, page Page) ([]*Injection, string, error) {
	if err := s.permit(ctx, InjectionsList, name, name); err != nil {
		return nil, "", err
	}
	v := s.model.view()
	if _, err := project(v, name); err != nil {
		return nil, "", err
	}
	return listPage(v, keyIn(name.ID)+kindInjection, page, "injections", func(*Injection) bool { return true })
}

// DeleteInjection removes an injection; the injectors remove its files.
func (s *Store) DeleteInjection(ctx context.Context, r DeleteRequest[resourcename.Injection]) error {
	if err := s.permit(ctx, InjectionsDelete, r.Name.Parent(), r.Name); err != nil {
		return err
	}
	_, err := s.change(ctx, r.Mutation, "DeleteInjection", r.Name.Project, func(v view) (*plan, error) {
		inj, rev, ok := lookup[*Injection](v, keyInjection(r.Name))
		switch {
		case !ok:
			return nil, notFound(r.Name)
		case r.Etag != "" && r.Etag != inj.Etag:
			return nil, etagMismatch(r.Name)
		}
		p := &plan{name: r.Name.String()}
		p.require(AtRevision, keyInjection(r.Name), rev)
		p.remove(keyInjection(r.Name))
		for target := range sourcesOf(inj) {
			target.ID = derivedID(resourcename.Injections, r.Name.ID)
			p.remove(keyUsage(target))
		}
		return p, s.putGuard(v, p, keyGuard(r.Name.Project))
	})
	return err
}
