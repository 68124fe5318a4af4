package core

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
)

// AgeState says how it stands with a secret's age and end. Of several that hold,
// the greatest is told. The numbers are those of the contract and not stored.
type AgeState uint32

// The states of an age.
const (
	// AgeUnspecified: there is no secret that lives long.
	AgeUnspecified AgeState = iota
	AgeFresh
	// AgeDue: older than the rotation period.
	AgeDue
	// AgeOverdue: older than the rotation period by a third and more.
	AgeOverdue
	// AgeExpiring: it ends within ExpiringBefore.
	AgeExpiring
	// AgeExpired: it has ended.
	AgeExpired
)

var ageStates = []string{"AGE_STATE_UNSPECIFIED", "FRESH", "DUE", "OVERDUE", "EXPIRING", "EXPIRED"}

// String returns the state's name in the contract.
func (s AgeState) String() string {
	if int(s) < len(ageStates) {
		return ageStates[s]
	}
	return ageStates[AgeUnspecified]
}

// moment is what an age is told by: the time, and the period of the project.
type moment struct {
	now    time.Time
	period time.Duration
}

func momentIn(p *Project) moment {
	return moment{now: time.Now(), period: p.RotationPeriod}
}

// ageState is the state of a credential at a moment.
func (c *Credential) ageState(m moment) AgeState {
	if end := c.ExpireTime; !end.IsZero() {
		switch left := end.Sub(m.now); {
		case left <= 0:
			return AgeExpired
		case left <= ExpiringBefore:
			return AgeExpiring
		}
	}
	period := cmp.Or(c.RotationPeriod, m.period, DefaultRotationPeriod)
	switch age := m.now.Sub(c.RotateTime); {
	case c.Ageless:
		return AgeUnspecified
	case age >= period+period/3:
		return AgeOverdue
	case age > period:
		return AgeDue
	}
	return AgeFresh
}

// AgeState says how it stands with a credential's age now, by its own rotation
// period or its project's. It asks nobody: who has the credential may know.
func (s *Store) AgeState(c *Credential) AgeState {
	m := moment{now: time.Now()}
	if p, _, ok := lookup[*Project](s.model, keyProject(c.Name.Parent())); ok {
		m.period = p.RotationPeriod
	}
	return c.ageState(m)
}

// Ages are how many credentials of a kind a project has, by how it stands with
// their age and with their last verification.
type Ages struct {
	Project resourcename.Project
	Kind    credential.Kind
	// States has an entry for each AgeState.
	States [AgeExpired + 1]int
	// Verifications has an entry for each VerificationState; 0 counts those
	// that were never verified since they became active.
	Verifications [VerificationUnsupported + 1]int
}

// Ages counts the credentials of all projects, by project and kind, for metrics;
// kinds that a project has none of are left out. It asks nobody and shows no
// name of a credential. It takes time in proportion to the store.
func (s *Store) Ages() []Ages {
	v := s.model.view()
	type group struct {
		project string
		kind    credential.Kind
	}
	counts := make(map[group]*Ages)
	m := moment{now: time.Now()}
	project := ""
	v.scan(prefixIn, func(_ string, e entry) bool {
		c, ok := e.value.(*Credential)
		if !ok {
			return true
		}
		if c.Name.Project != project {
			project, m.period = c.Name.Project, 0
			if p, _, ok := lookup[*Project](v, keyProject(c.Name.Parent())); ok {
				m.period = p.RotationPeriod
			}
		}
		g := group{project, c.Kind}
		n, ok := counts[g]
		if !ok {
			n = &Ages{Project: c.Name.Parent(), Kind: c.Kind}
			counts[g] = n
		}
		n.States[c.ageState(m)]++
		n.Verifications[c.verificationState()]++
		return true
	})
	out := make([]Ages, 0, len(counts))
	for _, n := range counts {
		out = append(out, *n)
	}
	slices.SortFunc(out, func(a, b Ages) int {
		return cmp.Or(strings.Compare(a.Project.ID, b.Project.ID), strings.Compare(string(a.Kind), string(b.Kind)))
	})
	return out
}

// verificationState is 0 when there was no verification.
func (c *Credential) verificationState() VerificationState {
	if c.Verification == nil || c.Verification.State > VerificationUnsupported {
		return 0
	}
	return c.Verification.State
}
