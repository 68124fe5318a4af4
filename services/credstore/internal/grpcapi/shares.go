package grpcapi

import (
	"sync"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// shares bounds how many calls of one project run at once: some of them wait for
// vendors and stores whose answer may never come, and hold their place meanwhile.
type shares struct {
	most int

	mu sync.Mutex
	of map[string]int
}

// newShares leaves half of the places to others.
func newShares(calls int) *shares {
	return &shares{most: max(1, calls/2), of: make(map[string]int)}
}

// take counts a call until release is called, once; it is refused when too many
// are under way.
func (s *shares) take(p *core.Principal) (release func(), err error) {
	owner := p.ProjectUID
	if p.AllProjects || owner == "" {
		owner = p.TokenUID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[owner] >= s.most {
		return nil, errShareTaken
	}
	s.of[owner]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.of[owner]--; s.of[owner] == 0 {
			delete(s.of, owner)
		}
	}, nil
}
