package core

import (
	"context"
	"errors"
	"time"
)

// cleanupInterval is how often what has lapsed is removed.
const cleanupInterval = time.Minute

func (s *Store) runJanitor(ctx context.Context) {
	t := time.NewTicker(cleanupInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		s.consumers.expire(time.Now())
		s.sets.expire(time.Now(), s.cfg.ConsumerMemory)
		if info, err := s.storage.Info(ctx); err == nil {
			s.model.forget(info.Compacted)
		}
		if err := s.cleanUp(ctx, time.Now()); err != nil && ctx.Err() == nil {
			s.log.Warn("cleaning up failed; it will be tried again", "error", err)
		}
	}
}

// cleanUp removes lapsed usages, old requests, what was kept of credentials for
// watchers that cannot resume any more, and values and tokens that no injection
// wants. Each removal holds only if nobody changed the record meanwhile.
func (s *Store) cleanUp(ctx context.Context, now time.Time) error {
	v := s.model.view()
	p := &plan{}
	drop := func(key string, e entry) bool {
		p.require(AtRevision, key, e.rev)
		p.remove(key)
		return len(p.batch.Changes) < 500
	}
	v.scan(prefixUsage, func(key string, e entry) bool {
		if u, ok := e.value.(*Usage); ok && u.lapsed(now) {
			return drop(key, e)
		}
		return true
	})
	v.scan(prefixRequest, func(key string, e entry) bool {
		if r, ok := e.value.(*request); ok && now.Sub(r.time) >= requestMemory {
			return drop(key, e)
		}
		return true
	})
	v.scan(prefixGone, func(key string, e entry) bool {
		if e.rev <= v.compacted {
			return drop(key, e)
		}
		return true
	})
	inUse := make(map[string]bool)
	wanted, _ := wantedIn(v)
	for _, w := range wanted {
		inUse[keyValue(w.Locator)] = true
	}
	tokens, _ := wantedTokensIn(v)
	for _, w := range tokens {
		inUse[keyMinted(w.Locator)] = true
	}
	for _, prefix := range []string{prefixValue, prefixMinted} {
		v.scan(prefix, func(key string, e entry) bool {
			if !inUse[key] {
				return drop(key, e)
			}
			return true
		})
	}
	return s.commitCleanup(ctx, p)
}

// commitCleanup commits removals; losing a race means that the next round does
// it.
func (s *Store) commitCleanup(ctx context.Context, p *plan) error {
	if len(p.batch.Changes) == 0 {
		return nil
	}
	rev, err := s.storage.Commit(ctx, p.batch)
	var lost *PreconditionError
	switch {
	case errors.As(err, &lost):
		return nil
	case err != nil:
		return s.storageError(ctx, err)
	}
	return s.model.wait(ctx, rev)
}
