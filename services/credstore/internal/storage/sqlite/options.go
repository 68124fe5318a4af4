package sqlite

import (
	"errors"
	"fmt"
	"time"
)

// What Open and the Store answer besides the errors of core.
var (
	// ErrLocked: another Store, in this process or another, has the file open.
	ErrLocked = errors.New("store is in use by another process")
	// ErrNotStore: the file exists and is not a store of this program.
	ErrNotStore = errors.New("file is not a credstore database")
	// ErrCorrupt: the file is ours and its content contradicts itself.
	ErrCorrupt = errors.New("database is damaged")
	// ErrFailed: the disk failed a write in a way that leaves its outcome
	// unknown. The store takes no more commits; close and open it again.
	ErrFailed = errors.New("storage has failed and must be opened again")
)

// Options configures Open. Only Path is required.
type Options struct {
	// Path is the database file. Its directory must exist; the file is made
	// with mode 0600 when it does not exist, and set to 0600 when it does.
	Path string
	// BusyTimeout is how long a statement waits for a lock that another
	// program holds on the file. 0 means 5 s.
	BusyTimeout time.Duration
	// MaxBatch is how many commits one SQLite transaction takes at most.
	// 0 means 256.
	MaxBatch int
	// HistoryCommits and HistoryAge bound the history that Feed can replay:
	// commits beyond the newest HistoryCommits, and those older than
	// HistoryAge, are compacted by and by. 0 means 100,000 and 24 h.
	HistoryCommits int
	HistoryAge     time.Duration
	// FeedBuffer is how many commits wait in memory for one slow Feed before
	// it goes on from the log. 0 means 256; 1 MiB of values bounds it as well.
	FeedBuffer int
	// Clock tells the time of commits. Nil means time.Now.
	Clock func() time.Time
}

const (
	// readers is how many reads use the database at the same time.
	readers = 4
	// groupBytes ends the gathering of a group, so that one transaction of
	// large values does not make small ones wait for long.
	groupBytes = 4 << 20
	// feedBytes bounds the values that wait in memory for one Feed.
	feedBytes = 1 << 20
	// maxKeyBytes and maxValueBytes are what a slot can hold.
	maxKeyBytes   = 1<<16 - 1
	maxValueBytes = 256 << 20
	// maintenanceInterval is how often the age of the history is looked at and
	// the write-ahead log is truncated.
	maintenanceInterval = 30 * time.Second
)

// knobs are settings that only this package's tests change.
type knobs struct {
	synchronous string              // "FULL"
	steps       []step              // schemaSteps()
	tick        <-chan time.Time    // nil: every maintenanceInterval
	beforeWrite func() error        // called in each transaction before its first write
	atCommit    func() error        // called in place of COMMIT when it returns an error
	committed   func()              // called between COMMIT and showing the commit
	walPages    int                 // pages written between checkpoints
	setup       func(w *conn) error // called once with the writing connection
}

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Path == "":
		return o, errors.New("sqlite: Options.Path is empty: name the database file")
	case o.BusyTimeout < 0, o.MaxBatch < 0, o.HistoryCommits < 0, o.HistoryAge < 0, o.FeedBuffer < 0:
		return o, fmt.Errorf("sqlite: open %s: BusyTimeout, MaxBatch, HistoryCommits, HistoryAge and FeedBuffer must not be negative", o.Path)
	}
	if o.BusyTimeout == 0 {
		o.BusyTimeout = 5 * time.Second
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = 256
	}
	if o.HistoryCommits == 0 {
		o.HistoryCommits = 100_000
	}
	if o.HistoryAge == 0 {
		o.HistoryAge = 24 * time.Hour
	}
	if o.FeedBuffer == 0 {
		o.FeedBuffer = 256
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return o, nil
}

func (k knobs) withDefaults() knobs {
	if k.synchronous == "" {
		k.synchronous = "FULL"
	}
	if k.steps == nil {
		k.steps = schemaSteps()
	}
	if k.walPages == 0 {
		k.walPages = 8000 // as counted: 16 to 32 MiB
	}
	return k
}
