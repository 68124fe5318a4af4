package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// history is what writers and watchers saw of a store in its whole life, over
// all its restarts: nothing in it may ever be said twice and differently.
type history struct {
	mu       sync.Mutex
	said     map[string]string
	failures []string
	// commits counts the commits that were seen alone, and by how many watchers.
	commits, sightings int
}

func newHistory() *history { return &history{said: map[string]string{}} }

// maxFailures bounds what is remembered: the first ones tell the most.
const maxFailures = 20

func (h *history) fail(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.failures) < maxFailures {
		h.failures = append(h.failures, fmt.Sprintf(format, args...))
	}
}

// all returns the failures.
func (h *history) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.failures)
}

// say records that what is value; it is a failure when it was another.
func (h *history) say(who, what, value string) (first bool) {
	h.mu.Lock()
	before, known := h.said[what]
	if !known {
		h.said[what] = value
	}
	h.mu.Unlock()
	if known && before != value {
		h.fail("%s saw of %s:\n%s\nand it had been:\n%s", who, what, value, before)
	}
	return !known
}

// metadata records a credential. Its etag stands for one revision of it.
func (h *history) metadata(who string, c *credstorev1.Credential) {
	h.say(who, c.GetName()+" at etag "+c.GetEtag(), describe(c))
}

// secret records the payload of a version, which never changes.
func (h *history) secret(who, uid string, version uint32, secret string) {
	h.say(who, fmt.Sprintf("version %d of %s", version, uid), secret)
}

// commit records everything that a revision changed.
func (h *history) commit(who string, revision uint64, changes []*credstorev1.Change) {
	lines := make([]string, 0, len(changes))
	for _, c := range changes {
		text := describe(c.GetCredential())
		if c.GetType() == credstorev1.Change_DELETE {
			text = c.GetCredential().GetName() // its uid is for TestCrashResumedDelete
		}
		lines = append(lines, c.GetType().String()+" "+text)
	}
	slices.Sort(lines)
	first := h.say(who, fmt.Sprintf("revision %d", revision), strings.Join(lines, "\n"))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sightings++
	if first {
		h.commits++
	}
}

// describe is all of a credential's metadata but what time alone changes, which
// no watch tells.
func describe(c *credstorev1.Credential) string {
	c = proto.CloneOf(c)
	c.AgeState = credstorev1.Credential_AGE_STATE_UNSPECIFIED
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s uid %s version %d labels %v (%x)", c.GetName(), c.GetUid(), c.GetActiveVersion(), c.GetLabels(), b)
}
