package core

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/credstore/credstore/pkg/resourcename"
)

// maxListedUses is how many usages and consumers a refusal lists.
const maxListedUses = 100

// usages returns the durable usages of a target that hold now.
func usages(v view, target resourcename.Usage, now time.Time) []*Usage {
	var out []*Usage
	for _, prefix := range usagePrefixes(target) {
		v.scan(prefix, func(_ string, e entry) bool {
			if u, ok := e.value.(*Usage); ok && !u.lapsed(now) {
				out = append(out, u)
			}
			return true
		})
	}
	return out
}

// declarable says whether a program can declare a usage of the type for itself.
func (t UsageType) declarable() bool { return t >= UsageOther && t <= UsageDeployment }

// usagePrefixes lists where the usages of a target lie.
func usagePrefixes(target resourcename.Usage) []string {
	if target.Collection == resourcename.SecretStores {
		return []string{prefixUsages(target)}
	}
	return []string{prefixUsages(target), prefixReferrers(target)}
}

func (u *Usage) lapsed(now time.Time) bool {
	return !u.ExpireTime.IsZero() && !now.Before(u.ExpireTime)
}

// refuseInUse returns an error that lists every use of a resource, unless there
// is none. force overrides the consumers and never the usages.
func refuseInUse(reason string, name fmt.Stringer, found []*Usage, consumers []Consumer, force bool) error {
	if force {
		consumers = nil
	}
	if len(found) == 0 && len(consumers) == 0 {
		return nil
	}
	use := &InUse{TotalUsages: len(found), TotalConsumers: len(consumers)}
	var by []string
	for _, u := range found[:min(len(found), maxListedUses)] {
		use.Usages = append(use.Usages, *u)
		by = append(by, u.User)
	}
	for _, c := range consumers[:min(len(consumers), maxListedUses)] {
		use.Consumers = append(use.Consumers, c)
		by = append(by, "live consumer "+cmp.Or(c.Workload, c.Principal))
	}
	more := ""
	if len(by) > 5 {
		by, more = by[:5], fmt.Sprintf(" and %d more", len(found)+len(consumers)-5)
	}
	hint := "remove them first"
	if len(found) == 0 {
		hint = "set force to delete it all the same"
	}
	return &Error{
		Kind: ErrPrecondition, Reason: reason, Resource: name.String(), InUse: use,
		Message: fmt.Sprintf("%s is in use by %s%s: %s", name, strings.Join(by, ", "), more, hint),
	}
}

// dropLapsedUsages removes declared usages whose time is over, so that they do
// not stand in the way of a delete. One that is renewed meanwhile stays.
func (s *Store) dropLapsedUsages(ctx context.Context, target resourcename.Usage) error {
	v := s.model.view()
	now := time.Now()
	p := &plan{}
	v.scan(prefixUsages(target), func(key string, e entry) bool {
		if u, ok := e.value.(*Usage); ok && u.lapsed(now) {
			p.require(AtRevision, key, e.rev)
			p.remove(key)
		}
		return true
	})
	return s.commitCleanup(ctx, p)
}

// putDerived adds to a plan that user uses the target, and asserts that the
// target exists.
func (s *Store) putDerived(p *plan, target resourcename.Usage, targetKey, id, user string, now time.Time) error {
	target.ID = id
	p.require(Present, targetKey, 0)
	return s.put(p, keyUsage(target), encodeUsage(&Usage{Name: target, Source: Derived, Type: usageType(0, id), User: user, CreateTime: now}))
}

// ListUsages tells who uses a credential or secret store: a page of the durable
// usages, and with the first page the live consumers. target has no ID.
func (s *Store) ListUsages(ctx context.Context, target resourcename.Usage, page Page) ([]Usage, []Consumer, string, error) {
	var name fmt.Stringer = resourcename.Credential{Project: target.Project, ID: target.Resource}
	key := keyCredential(resourcename.Credential{Project: target.Project, ID: target.Resource})
	if target.Collection == resourcename.SecretStores {
		store := resourcename.SecretStore{Project: target.Project, ID: target.Resource}
		name, key = store, keyStore(store)
	}
	if err := s.permit(ctx, UsagesList, resourcename.Project{ID: target.Project}, name); err != nil {
		return nil, nil, "", err
	}
	v := s.model.view()
	if _, ok := v.get(key); !ok {
		return nil, nil, "", notFound(name)
	}
	now := time.Now()
	found, next, err := listPages(v, usagePrefixes(target), page, "usages", func(u *Usage) bool { return !u.lapsed(now) })
	if err != nil {
		return nil, nil, "", err
	}
	out := make([]Usage, len(found))
	for i, u := range found {
		out[i] = *u
	}
	var live []Consumer
	if c, ok := name.(resourcename.Credential); ok && page.Token == "" {
		live = s.consumers.of(c)
	}
	return out, live, next, nil
}

// ListConsumers tells which live workloads were sent which version.
func (s *Store) ListConsumers(ctx context.Context, name resourcename.Credential) ([]Consumer, error) {
	if err := s.permit(ctx, UsagesList, name.Parent(), name); err != nil {
		return nil, err
	}
	if _, _, ok := lookup[*Credential](s.model, keyCredential(name)); !ok {
		return nil, notFound(name)
	}
	return s.consumers.of(name), nil
}

// DeclareUsage records, or renews, that the caller uses a credential.
func (s *Store) DeclareUsage(ctx context.Context, r DeclareUsageRequest) (*Usage, error) {
	name := resourcename.Credential{Project: r.Name.Project, ID: r.Name.Resource}
	if err := s.permit(ctx, UsagesDeclare, name.Parent(), r.Name); err != nil {
		return nil, err
	}
	var v invalid
	if r.Name.Collection != resourcename.Credentials {
		v.add("parent", "must be a credential: what uses a secret store is known from the injections")
	}
	v.checkID("usageId", r.Name.ID)
	if n := utf8.RuneCountInString(r.User); n == 0 || n > 256 {
		v.add("usage.user", "must have 1 to 256 characters: who uses the credential")
	}
	v.checkLine("usage.user", r.User)
	if r.Type == 0 {
		r.Type = UsageOther
	}
	if !r.Type.declarable() {
		v.add("usage.type", "must be one of OTHER, REGISTRY_SCAN, SERVERLESS_SCAN, CLOUD_SCAN, ALERT_CHANNEL and DEPLOYMENT: the others are derived from what the resources name")
	}
	if r.Link != "" {
		if u, err := url.Parse(r.Link); err != nil || len(r.Link) > 2048 || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			v.add("usage.link", "must be an http or https URL of at most 2,048 characters")
		}
	}
	if r.TTL == 0 {
		r.TTL = DefaultUsageTTL
	}
	v.checkDuration("usage.ttl", r.TTL, MinUsageTTL, MaxUsageTTL)
	if err := v.err(); err != nil {
		return nil, err
	}
	var u *Usage
	res, err := s.change(ctx, r.Mutation, "DeclareUsage", r.Name.Project, func(v view) (*plan, error) {
		if _, _, ok := lookup[*Credential](v, keyCredential(name)); !ok {
			return nil, notFound(name)
		}
		now := time.Now()
		u = &Usage{
			Name: r.Name, Source: Declared, Type: r.Type, User: r.User, Link: r.Link,
			ExpireTime: now.Add(r.TTL), CreateTime: now, Principal: PrincipalFrom(ctx).Name,
		}
		p := &plan{name: r.Name.String()}
		p.require(Present, keyCredential(name), 0)
		if old, rev, ok := lookup[*Usage](v, keyUsage(r.Name)); ok {
			u.CreateTime = old.CreateTime
			p.require(AtRevision, keyUsage(r.Name), rev)
		} else {
			p.require(Absent, keyUsage(r.Name), 0)
		}
		p.response = encodeUsage(u)
		return p, s.put(p, keyUsage(r.Name), encodeUsage(u))
	})
	if err != nil {
		return nil, err
	}
	if res.replayed != nil {
		return decodeUsage(r.Name, res.replayed.response)
	}
	return u, nil
}

// DeleteUsage withdraws a declared usage.
func (s *Store) DeleteUsage(ctx context.Context, r DeleteRequest[resourcename.Usage]) error {
	if err := s.permit(ctx, UsagesDeclare, resourcename.Project{ID: r.Name.Project}, r.Name); err != nil {
		return err
	}
	_, err := s.change(ctx, r.Mutation, "DeleteUsage", r.Name.Project, func(v view) (*plan, error) {
		u, rev, ok := lookup[*Usage](v, keyUsage(r.Name))
		switch {
		case !ok:
			return nil, notFound(r.Name)
		case u.Source != Declared:
			return nil, precondition(ReasonUsageDerived, r.Name, "is derived from %s and goes with it", u.User)
		}
		p := &plan{name: r.Name.String()}
		p.require(AtRevision, keyUsage(r.Name), rev)
		p.remove(keyUsage(r.Name))
		return p, nil
	})
	return err
}
