package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/credstore/credstore/services/credstore/internal/authz"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// InitConfig is what Init needs.
type InitConfig struct {
	Dir Dir
	// RootKey is the root key's file; empty means the data folder's.
	RootKey string
	// Hosts are the names and addresses that clients will use, for the server's
	// certificate; those of this machine are included.
	Hosts  []string
	Logger *slog.Logger
}

// Init makes a data folder: root key, certificate authority, database, and the
// first administrator's token in a file. Called again it adds what is missing
// and changes nothing else.
func Init(ctx context.Context, c InitConfig) error {
	if err := c.Dir.make(); err != nil {
		return err
	}
	if _, err := ensureCertificates(c.Dir, withLocalHosts(c.Hosts), time.Now()); err != nil {
		return err
	}
	st, err := openState(ctx, c.Dir, rootKeyPath(c.Dir, c.RootKey), true)
	if err != nil {
		return err
	}
	err = withStore(ctx, st, c.Logger, func(store *core.Store) error {
		return issueToken(ctx, store, c.Dir.AdminToken(), adminToken())
	})
	return errors.Join(err, st.storage.Close())
}

func rootKeyPath(d Dir, path string) string {
	if path != "" {
		return path
	}
	return d.RootKey()
}

// withLocalHosts adds what this machine calls itself.
func withLocalHosts(hosts []string) []string {
	return append([]string{"localhost", "127.0.0.1", "::1"}, hosts...)
}

// withStore runs f with a domain that no server stands before.
func withStore(ctx context.Context, st *state, log *slog.Logger, f func(*core.Store) error) error {
	store, err := core.New(ctx, core.Config{
		Storage: st.storage, Sealer: st.sealer, Authorizer: authz.New(), Auditor: discardAudit{}, Derive: st.sealer.Derive, Logger: log,
	})
	if err != nil {
		return err
	}
	run, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- store.Run(run) }()
	err = f(store)
	cancel()
	if runErr := <-ended; runErr != nil {
		err = errors.Join(err, fmt.Errorf("store: %w", runErr))
	}
	return err
}

// discardAudit is for the work of the one who holds the data folder, who could
// read everything in it anyway.
type discardAudit struct{}

func (discardAudit) Record(context.Context, core.AuditEntry) error { return nil }
