package inject

import (
	"fmt"
	"strings"
)

// cause says why an item's file is not what the set says.
type cause struct {
	message string
	// noValue says that the server gave no content; waits, that it should have.
	noValue, undelivered bool
}

// choice is the file that an item gets.
type choice struct {
	id string
	// current says that it is what the set wants. Otherwise it is the last good
	// one.
	current bool
	// fromPending says that the content is the pending one; otherwise it is
	// what is on the disk.
	fromPending bool
}

// refusal says that an item's file could not be published.
type refusal struct {
	message string
	// again says that its last good file could not be either.
	again bool
}

// plan is what is to be published, and what is not as it should be.
type plan struct {
	choices []choice
	causes  map[string]cause
	// waits says that nothing is published: it is the first start, and an item
	// has no content.
	waits bool
	// incomplete are the items that get no file, in order.
	incomplete []string
	// undelivered says that a content is missing that the server should send.
	undelivered bool
}

// decide makes a plan. started says that files were published before; refused
// are the items that a previous attempt could not publish.
func (m *manifest) decide(started bool, refused map[string]refusal) plan {
	p := plan{causes: map[string]cause{}}
	ids := m.ids()
	paths := newPathSet()
	for _, id := range ids {
		if c, bad := m.entries[id].problem(id, paths, refused); bad {
			p.causes[id] = c
			p.undelivered = p.undelivered || c.undelivered
		}
	}
	m.holdBack(ids, p.causes)

	taken := newPathSet()
	chosen := make(map[string]choice, len(ids))
	choose := func(id string, c choice) {
		if _, ok := taken.add(m.entries[id].item.Path, id); ok {
			c.id = id
			chosen[id] = c
		}
	}
	// What is current goes first: a last good file must not be in its way.
	for _, id := range ids {
		if _, bad := p.causes[id]; !bad {
			e := m.entries[id]
			choose(id, choice{current: true, fromPending: e.pending != nil && e.pending.digest == e.item.Digest})
		}
	}
	for _, id := range ids {
		e := m.entries[id]
		c, bad := p.causes[id]
		switch {
		case !bad || refused[id].again || e.target.Path == "" && e.applied == nil:
		case c.noValue && e.item.Group == "" && e.pending != nil && e.refused == "":
			// It was delivered, and never got to the disk: it is the last good.
			choose(id, choice{fromPending: true})
		case e.applied != nil:
			choose(id, choice{})
		}
	}
	for _, id := range ids {
		if c, ok := chosen[id]; ok {
			p.choices = append(p.choices, c)
			continue
		}
		p.incomplete = append(p.incomplete, id)
		if !started && p.causes[id].noValue {
			p.waits = true
		}
	}
	if p.waits {
		m.wait(ids, &p)
	}
	return p
}

// problem says why an item cannot have what it wants, regardless of its group.
// paths holds those of the items before it.
func (e *entry) problem(id string, paths *pathSet, refused map[string]refusal) (cause, bool) {
	if e.refused != "" {
		return cause{message: e.refused}, true
	}
	if other, ok := paths.add(e.item.Path, id); !ok {
		return cause{message: fmt.Sprintf("its path overlaps with that of item %q, which is kept: change one of the injections", clip(other, 300))}, true
	}
	if r, ok := refused[id]; ok {
		return cause{message: r.message}, true
	}
	if e.item.State == Failed {
		message := "the server has no value for it"
		if e.item.Message != "" {
			message += ": " + e.item.Message
		}
		return cause{message: message, noValue: true}, true
	}
	delivered := e.pending != nil && e.pending.digest == e.item.Digest
	written := e.applied != nil && e.applied.digest != "" && e.applied.digest == e.item.Digest
	if !delivered && !written {
		return cause{message: "its content was not delivered, or its file was changed by somebody else", noValue: true, undelivered: true}, true
	}
	return cause{}, false
}

// holdBack gives all items of a group a cause if one has.
func (m *manifest) holdBack(ids []string, causes map[string]cause) {
	type group struct{ injection, name string }
	culprits := map[group]string{}
	for _, id := range ids {
		it := m.entries[id].item
		key := group{it.Injection, it.Group}
		if _, bad := causes[id]; bad && it.Group != "" && culprits[key] == "" {
			culprits[key] = id
		}
	}
	for _, id := range ids {
		it := m.entries[id].item
		culprit := culprits[group{it.Injection, it.Group}]
		if _, bad := causes[id]; !bad && culprit != "" {
			causes[id] = cause{message: fmt.Sprintf("held back with its group %q by item %q", clip(it.Group, 63), clip(culprit, 300))}
		}
	}
}

// wait turns a plan into one that publishes nothing.
func (m *manifest) wait(ids []string, p *plan) {
	var missing []string
	for _, id := range p.incomplete {
		if p.causes[id].noValue {
			missing = append(missing, clip(id, 300))
		}
	}
	message := "the first start waits for " + clip(strings.Join(missing, ", "), 600)
	for _, id := range ids {
		if _, bad := p.causes[id]; !bad {
			p.causes[id] = cause{message: message}
		}
	}
	p.choices = nil
	p.incomplete = ids
}

// failures lists the causes as a report does.
func (m *manifest) failures(causes map[string]cause) []Failure {
	var failures []Failure
	for _, id := range m.ids() {
		if c, bad := causes[id]; bad {
			failures = append(failures, Failure{ID: id, Injection: m.entries[id].item.Injection, Message: clip(c.message, maxMessage)})
		}
	}
	return failures
}

// maxMessage is how many characters the message of a failure has at most.
const maxMessage = 1024

// clip cuts off a text after most characters.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
