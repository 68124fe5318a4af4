package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/fanout"
)

// Config is what a Store needs. Storage, Sealer, Authorizer and Auditor are
// required; the caller closes the Storage after Run has returned.
type Config struct {
	Storage    Storage
	Sealer     Sealer
	Authorizer Authorizer
	Auditor    Auditor
	// Derive returns a stable key for a purpose, which changes only when the
	// whole store is replaced. Item digests are made with one.
	Derive func(purpose string) []byte
	// Brokerage reaches external stores; without one, testing or refreshing a
	// secret store answers that it is unavailable.
	Brokerage Brokerage
	// Issuer reaches the vendors of credentials; without one, verifying and
	// minting answer that they are unavailable.
	Issuer Issuer
	// Bound says whether a payload that acts as the server itself may do so in a
	// project; nil means nowhere.
	Bound func(credential.Payload, resourcename.Project) bool
	// ReadyMade are credentials that New makes where they are absent.
	ReadyMade []ReadyMade
	// Logger gets what operators need to know; never a payload. Nil discards.
	Logger *slog.Logger
	// Random makes ids and tokens; it must be crypto/rand.Reader outside of
	// tests.
	Random io.Reader
	// Fanout bounds what waits for slow watchers; zero values mean defaults.
	Fanout fanout.Limits
	// ConsumerMemory is how long a consumer that vanished still counts; 0 means
	// 15 minutes.
	ConsumerMemory time.Duration
}

// Store is the domain: every operation of the contract, for one storage. Its
// methods are safe for concurrent use. Each of them asks the Authorizer about
// the principal in its context first.
type Store struct {
	cfg       Config
	storage   Storage
	model     *model
	feed      Feed
	hub       *fanout.Hub[*update]
	consumers *consumers
	sets      *sets
	wanted    *wantedList[Wanted]
	tokens    *wantedList[WantedToken]
	digestKey []byte
	log       *slog.Logger
	feedID    string
	streamSeq atomic.Uint64
	ready     atomic.Bool
	stopOnce  sync.Once
	// referenceTurn is held by the write that may add references.
	referenceTurn chan struct{}
}

// New loads the state and makes the project "default" in an empty store, and the
// configured credentials that are absent. The Store answers reads at once;
// changes, those of New included, need Run.
func New(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.ConsumerMemory == 0 {
		cfg.ConsumerMemory = 15 * time.Minute
	}
	info, err := cfg.Storage.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if _, err := cfg.Storage.Get(ctx, keyProject(resourcename.Project{ID: DefaultProject})); errors.Is(err, ErrNotFound) && info.Revision <= 1 {
		// Revision 1 can only be the sealer's keys.
		if err := makeDefaultProject(ctx, cfg); err != nil {
			return nil, err
		}
	}
	s := &Store{
		cfg:       cfg,
		storage:   cfg.Storage,
		consumers: newConsumers(cfg.ConsumerMemory),
		digestKey: cfg.Derive("item digests"),
		log:       cfg.Logger,
		feedID:    info.FeedID,

		referenceTurn: make(chan struct{}, 1),
	}
	if s.model, s.feed, err = loadModel(ctx, cfg.Sealer, cfg.Storage); err != nil {
		return nil, err
	}
	s.hub = fanout.New[*update](cfg.Fanout, uint64(s.model.rev))
	s.sets = newSets(s)
	s.wanted = newWantedList(s.model.view(), wantedIn)
	s.tokens = newWantedList(s.model.view(), wantedTokensIn)
	if err := s.makeReady(ctx); err != nil {
		s.feed.Close()
		return nil, err
	}
	return s, nil
}

func makeDefaultProject(ctx context.Context, cfg Config) error {
	now := time.Now()
	uid, err := newUID(cfg.Random)
	if err != nil {
		return err
	}
	name := resourcename.Project{ID: DefaultProject}
	key := keyProject(name)
	p := &Project{Name: name, UID: uid, Description: "made with the store", CreateTime: now, UpdateTime: now}
	sealed, err := sealRecord(cfg.Sealer, key, encodeProject(p))
	if err != nil {
		return err
	}
	_, err = cfg.Storage.Commit(ctx, Batch{
		If:      []Precondition{{Condition: Absent, Key: key}},
		Changes: []Change{{Key: key, Value: sealed}},
	})
	if _, ok := errors.AsType[*PreconditionError](err); ok {
		return nil // another server was faster
	}
	return err
}

// Run follows the storage's feed and cleans up what has lapsed, until ctx ends;
// then every stream ends and it returns nil. It is called once.
func (s *Store) Run(ctx context.Context) error {
	defer s.stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	janitor := make(chan struct{})
	go func() {
		defer close(janitor)
		s.runJanitor(ctx)
	}()
	defer func() { <-janitor }()
	s.ready.Store(true)
	defer s.ready.Store(false)
	for {
		commits, err := s.nextCommits(ctx)
		switch {
		case ctx.Err() != nil:
			cancel()
			return nil
		case errors.Is(err, ErrCompacted):
			if err := s.reload(ctx); err != nil {
				cancel()
				return err
			}
			continue
		case err != nil:
			cancel()
			return fmt.Errorf("follow the feed: %w", err)
		}
		if err := s.take(ctx, commits); err != nil {
			cancel()
			return err
		}
	}
}

// maxMerged bounds how many commits are taken in as one step.
const maxMerged = 10_000

// nextCommits returns the next commit, or, when the feed no longer has all of
// what it changed, that one and those after it that make up for it: only after
// the last of them is the state one that the store was ever in. When they are
// too many, it answers as for a history that is gone.
func (s *Store) nextCommits(ctx context.Context) ([]Commit, error) {
	var commits []Commit
	missing := make(map[string]struct{})
	for len(commits) < maxMerged {
		c, err := s.feed.Next(ctx)
		if err != nil {
			return nil, err
		}
		commits = append(commits, c)
		for _, ch := range c.Changes {
			if ch.Superseded {
				missing[ch.Key] = struct{}{}
			} else {
				delete(missing, ch.Key)
			}
		}
		if len(missing) == 0 {
			return commits, nil
		}
	}
	return nil, ErrCompacted
}

// Ready says whether the Store follows its storage.
func (s *Store) Ready() bool { return s.ready.Load() }

func (s *Store) stop() {
	s.stopOnce.Do(func() {
		s.feed.Close()
		close(s.model.stopped)
		s.hub.Close()
		s.sets.close()
	})
}

// take applies some commits as one step and publishes it.
func (s *Store) take(ctx context.Context, commits []Commit) error {
	u, topics, err := s.model.apply(commits)
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	if slices.ContainsFunc(commits, func(c Commit) bool { return slices.ContainsFunc(c.Changes, s.wanted.affected) }) {
		s.wanted.refresh(s.model.view())
	}
	if slices.ContainsFunc(commits, func(c Commit) bool { return slices.ContainsFunc(c.Changes, s.tokens.affected) }) {
		s.tokens.refresh(s.model.view())
	}
	for _, c := range u.credentials {
		s.forgetTokens(c.old, c.now)
	}
	size := 256
	for _, c := range commits {
		for _, ch := range c.Changes {
			size += 64 + 2*len(ch.Key) + len(ch.Value)
		}
	}
	err = s.hub.Publish(uint64(u.rev), topics, size, u, func(ids []string) error {
		payloads := u.payloads()
		if len(payloads) == 0 {
			return nil
		}
		return s.recordPush(ctx, payloads, slices.Clone(ids), u.rev) // the hub reuses ids; an Auditor may keep them
	})
	if err != nil && !errors.Is(err, fanout.ErrClosed) {
		// Those that should have been named catch up, and record it, themselves.
		s.log.Error("push is not on record", "revision", uint64(u.rev), "error", err)
	}
	return nil
}

// reload starts over from a snapshot when the feed was compacted under us.
func (s *Store) reload(ctx context.Context) error {
	s.feed.Close()
	fresh, feed, err := loadModel(ctx, s.cfg.Sealer, s.storage)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	s.feed = feed
	before := s.model.view()
	s.model.replace(fresh)
	s.wanted.refresh(s.model.view())
	s.tokens.refresh(s.model.view())
	s.forgetAllTokens(before, s.model.view())
	return s.hub.Reset(uint64(fresh.rev))
}

// plan is what a mutation wants to commit.
type plan struct {
	batch Batch
	// name and response are remembered when the request carries a request_id.
	name     string
	response proto.Message
}

func (p *plan) require(c Condition, key string, rev Revision) {
	p.batch.If = append(p.batch.If, Precondition{Condition: c, Key: key, Revision: rev})
}

func (p *plan) remove(key string) {
	p.batch.Changes = append(p.batch.Changes, Change{Key: key, Delete: true})
}

// put seals a record and adds it to the plan.
func (s *Store) put(p *plan, key string, m proto.Message) error {
	sealed, err := sealRecord(s.cfg.Sealer, key, m)
	if err != nil {
		return err
	}
	p.batch.Changes = append(p.batch.Changes, Change{Key: key, Value: sealed})
	return nil
}

func sealRecord(sealer Sealer, key string, m proto.Message) ([]byte, error) {
	plain, err := marshal(m)
	if err != nil {
		return nil, err
	}
	return sealer.Seal(Place{Key: key}, plain)
}

// maxAttempts bounds how often a mutation is planned anew when others change
// the same records.
const maxAttempts = 16

// mutate plans on the state as it is and commits; when a precondition does not
// hold any more, it plans again on the newer state. planFn returns the errors
// that the caller gets, and may be called several times. The returned revision
// is applied to the model.
func (s *Store) mutate(ctx context.Context, validateOnly bool, planFn func(view) (*plan, error)) (Revision, error) {
	for range maxAttempts {
		p, err := planFn(s.model.view())
		if err != nil {
			return 0, err
		}
		if validateOnly {
			return 0, nil
		}
		rev, err := s.storage.Commit(ctx, p.batch)
		if err == nil {
			if err := s.model.wait(ctx, rev); err != nil {
				return 0, fmt.Errorf("committed, not yet visible: %w", err)
			}
			return rev, nil
		}
		if _, ok := errors.AsType[*PreconditionError](err); !ok {
			return 0, s.storageError(ctx, err)
		}
		if err := s.catchUp(ctx); err != nil {
			return 0, err
		}
	}
	return 0, &Error{Kind: ErrAborted, Reason: ReasonConflict, Message: "others keep changing the same resources: repeat the call"}
}

// catchUp waits until the model has what the storage has now.
func (s *Store) catchUp(ctx context.Context) error {
	info, err := s.storage.Info(ctx)
	if err != nil {
		return s.storageError(ctx, err)
	}
	return s.model.wait(ctx, info.Revision)
}

func (s *Store) storageError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.log.Error("storage failed", "error", err)
	return &Error{Kind: ErrUnavailable, Reason: ReasonStorage, Message: "the store cannot write now: repeat the call later"}
}

// project returns the project or says that there is none.
func project(r reader, name resourcename.Project) (*Project, error) {
	p, _, ok := lookup[*Project](r, keyProject(name))
	if !ok {
		return nil, notFound(name)
	}
	return p, nil
}

func (s *Store) streamID(kind string) string {
	return fmt.Sprintf("%s-%d", kind, s.streamSeq.Add(1))
}
