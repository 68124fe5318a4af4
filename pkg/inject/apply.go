package inject

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/credstore/credstore/pkg/inject/fileset"
	"github.com/credstore/credstore/pkg/targetpath"
)

// result is what became of one attempt to bring the files up to date.
type result struct {
	plan   plan
	change fileset.Change
	// failed is why nothing could be published at all.
	failed error
	// unsettled is why what was published may not last.
	unsettled error
}

// apply brings the files up to date with the manifest as far as that can be,
// and schedules another attempt for the rest. The caller holds e.mu.
func (e *Engine) apply(ctx context.Context) result {
	disk, unread := e.readBack()
	defer wipe(disk)
	refused := map[string]refusal{}
	// Each round that does not return refuses an item once more, and none can be
	// refused more than twice.
	for range 2*len(e.manifest.entries) + 1 {
		p := e.manifest.decide(e.started, refused)
		if p.waits {
			e.schedule(false, p.undelivered)
			return result{plan: p}
		}
		files, err := e.assemble(p, disk, unread)
		if err != nil {
			return e.failed(p, err)
		}
		change, err := e.files.Publish(ctx, files)
		var settle *fileset.SettleError
		if err == nil || errors.As(err, &settle) {
			e.published(p, files)
			e.schedule(err != nil || len(refused) > 0, p.undelivered)
			return result{plan: p, change: change, unsettled: err}
		}
		culprits := e.culprits(p, err)
		if len(culprits) == 0 {
			return e.failed(p, err)
		}
		for _, id := range culprits {
			_, again := refused[id]
			refused[id] = refusal{message: err.Error(), again: again}
		}
	}
	return e.failed(e.manifest.decide(e.started, refused), errors.New("items could not be published one after the other"))
}

// failed is the result of an attempt that left everything as it was.
func (e *Engine) failed(p plan, err error) result {
	for _, c := range p.choices {
		if c.fromPending {
			if _, bad := p.causes[c.id]; !bad {
				p.causes[c.id] = cause{message: err.Error()}
			}
		}
	}
	e.schedule(true, p.undelivered)
	return result{plan: p, failed: err}
}

// readBack returns the published files, and notes which of them are not what
// was written. The error says that some could not be read.
func (e *Engine) readBack() (map[string]fileset.File, error) {
	if !slices.ContainsFunc(slices.Collect(maps.Values(e.manifest.entries)), func(en *entry) bool { return en.applied != nil }) {
		return nil, nil
	}
	disk, err := e.files.Current()
	for _, en := range e.manifest.entries {
		if en.applied == nil || en.applied.kept != nil {
			continue
		}
		f, ok := disk[en.item.Path]
		switch {
		case ok && sha256.Sum256(f.Content) != en.applied.sum:
			en.applied = &onDisk{sum: sha256.Sum256(f.Content)}
		case !ok && err == nil:
			en.applied = nil
		}
	}
	return disk, err
}

// assemble puts contents to a plan. unread says that some of disk could not be
// read: then a plan that would lose a file is refused.
func (e *Engine) assemble(p plan, disk map[string]fileset.File, unread error) ([]fileset.File, error) {
	if e.blind != nil && slices.ContainsFunc(p.incomplete, func(id string) bool { return p.causes[id].noValue }) {
		return nil, e.blind
	}
	files := make([]fileset.File, 0, len(p.choices))
	for _, c := range p.choices {
		en := e.manifest.entries[c.id]
		f := en.target
		switch {
		case c.fromPending:
			f.Content = en.pending.bytes
		default:
			written, ok := disk[en.item.Path]
			if en.applied.kept != nil {
				written, ok = *en.applied.kept, true
			}
			if !ok {
				return nil, errors.Join(fmt.Errorf("%q cannot be read back", en.item.Path), unread)
			}
			if !c.current {
				f = written // with the mode and the owner that it has
			}
			f.Content = written.Content
		}
		files = append(files, f)
	}
	return files, nil
}

// published notes that a plan is what is on the disk.
func (e *Engine) published(p plan, files []fileset.File) {
	for i, c := range p.choices {
		en := e.manifest.entries[c.id]
		f := files[i]
		if c.fromPending {
			en.applied = &onDisk{digest: en.pending.digest, sum: sha256.Sum256(f.Content)}
		}
		if !readable(f, e.euid) && (c.fromPending || en.applied.kept != nil) {
			f.Content = bytes.Clone(f.Content)
			en.applied.kept = &f
		}
		if c.fromPending {
			en.drop()
		}
	}
	for _, id := range p.incomplete {
		e.manifest.entries[id].applied = nil
	}
	clear(e.manifest.gone)
	e.started = true
	e.blind = nil
}

// readable says whether a process of user euid can read a file back that it
// wrote, by the file's mode and owner alone.
func readable(f fileset.File, euid int) bool {
	return euid == 0 || (f.UID == nil || *f.UID == euid) && f.Mode&0o400 != 0
}

// culprits returns the items that a failure to publish is about; none if it is
// about all.
func (e *Engine) culprits(p plan, err error) []string {
	var (
		pathErr  *targetpath.Error
		fileErr  *fileset.FileError
		ownerErr *fileset.OwnerError
		inTheWay *fileset.ConflictError
		is       func(path string) bool
	)
	switch {
	case errors.As(err, &pathErr):
		is = func(path string) bool { return path == pathErr.Path }
	case errors.As(err, &fileErr):
		is = func(path string) bool { return path == fileErr.Path }
	case errors.As(err, &ownerErr):
		is = func(path string) bool { return path == ownerErr.Path }
	case errors.As(err, &inTheWay):
		is = func(path string) bool { return firstElement(path) == inTheWay.Name }
	default:
		return nil
	}
	var ids []string
	for _, c := range p.choices {
		if is(e.manifest.entries[c.id].item.Path) {
			ids = append(ids, c.id)
		}
	}
	return ids
}

// report tells the log, the status and the source what became of an attempt.
// fresh says that it was for a new set. The caller holds e.mu.
func (e *Engine) report(r result, fresh bool) {
	rep := Report{Revision: e.manifest.revision, Failures: e.manifest.failures(r.plan.causes)}
	if r.failed != nil {
		for _, id := range slices.Sorted(maps.Keys(e.manifest.gone)) {
			rep.Failures = append(rep.Failures, Failure{ID: id, Injection: e.manifest.gone[id], Message: clip("not removed yet: "+r.failed.Error(), maxMessage)})
		}
		slices.SortFunc(rep.Failures, func(a, b Failure) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) })
	}
	now := time.Now()
	if r.failed == nil && !r.change.Empty() {
		latency := now.Sub(e.received)
		e.latency.observe(latency.Seconds())
		e.log.Info("set applied", "revision", rep.Revision, "added", len(r.change.Added), "changed", len(r.change.Changed),
			"removed", len(r.change.Removed), "failures", len(rep.Failures), "latency", latency)
	}
	e.logTrouble(r, rep)

	absent := e.manifest.absent(e.expect)
	complete := r.failed == nil && len(r.plan.incomplete) == 0 && len(absent) == 0
	// The status comes first: whoever sees the report may ask for it at once.
	e.status.applied(e.manifest, rep, r, absent, complete, now, e.received)
	same := rep.Revision == e.reported.Revision && slices.Equal(rep.Failures, e.reported.Failures)
	e.reported = rep
	if fresh || !same {
		e.source.Report(rep)
	}
	if complete && r.unsettled == nil && !e.isDone {
		e.isDone = true
		close(e.completed)
	}
}

// maxLogged is how many items one message of the log names at most.
const maxLogged = 20

func (e *Engine) logTrouble(r result, rep Report) {
	if r.failed != nil {
		e.publishFailures.add(1)
		e.log.Error("nothing was published; the set from before stays; will retry", "revision", rep.Revision, "error", r.failed)
	}
	if r.unsettled != nil {
		e.log.Warn("the set is published and may not survive a loss of power; will retry", "revision", rep.Revision, "error", r.unsettled)
	}
	if slices.Equal(rep.Failures, e.reported.Failures) {
		return
	}
	for _, f := range rep.Failures[:min(len(rep.Failures), maxLogged)] {
		e.log.Warn("item not applied", "item", f.ID, "reason", f.Message)
	}
	if more := len(rep.Failures) - maxLogged; more > 0 {
		e.log.Warn("more items not applied", "count", more)
	}
}

// wipe overwrites contents that were read back.
func wipe(files map[string]fileset.File) {
	for _, f := range files {
		clear(f.Content)
	}
}
