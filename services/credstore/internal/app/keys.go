package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/seal"
	"github.com/credstore/credstore/services/credstore/internal/storage/sqlite"
)

// state is what lies behind the servers: the durable store and the domain.
type state struct {
	storage *sqlite.Store
	sealer  *seal.Sealer
}

// openState opens the database of a data folder and the keys to it. It makes
// both when create is set and there is no database yet.
func openState(ctx context.Context, d Dir, rootKeyPath string, create bool) (*state, error) {
	known, err := exists(d.Database())
	if err != nil {
		return nil, err
	}
	if !known && !create {
		return nil, fmt.Errorf("there is no store in %s: make one with `credstore init --data %s`", d, d)
	}
	root, err := rootKey(rootKeyPath, !known)
	if err != nil {
		return nil, err
	}
	storage, err := sqlite.Open(ctx, sqlite.Options{Path: d.Database()})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.Database(), err)
	}
	info, err := storage.Info(ctx)
	if err != nil {
		return nil, errors.Join(err, storage.Close())
	}
	// Anything in the store was sealed, so keys that are gone are a loss to be
	// told of and not a reason to make new ones.
	sealer, err := seal.Open(ctx, root, core.NewStorageSealKeys(storage), seal.Options{MustExist: info.Revision > 0})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the keys of %s with %s: %w", d.Database(), rootKeyPath, err), storage.Close())
	}
	return &state{storage: storage, sealer: sealer}, nil
}

// rootKey loads the root key, and makes it for a new store.
func rootKey(path string, create bool) (*seal.FileRootKey, error) {
	known, err := exists(path)
	if err != nil {
		return nil, err
	}
	if !known && create {
		return seal.CreateRootKeyFile(path)
	}
	if !known {
		return nil, fmt.Errorf("the root key %s is missing; without it nothing in the store can be read: name it by --root-key or CREDSTORE_ROOT_KEY if it is elsewhere, or put it back from its backup", path)
	}
	return seal.LoadRootKeyFile(path)
}

// issueToken makes a token for the one who holds the data folder, and writes it
// to a file for that user only. If the file has a token that works, it stays.
func issueToken(ctx context.Context, store *core.Store, file string, r core.CreateTokenRequest) error {
	ctx = core.AsSystem(ctx)
	if old, err := os.ReadFile(file); err == nil {
		if _, err := store.Authenticate(ctx, strings.TrimSpace(string(old))); err == nil {
			return nil
		}
	}
	// A token whose file was lost is of no use to anybody.
	err := store.DeleteToken(ctx, core.DeleteRequest[resourcename.Token]{Name: r.Name})
	if err != nil && !errors.Is(err, core.ErrNotFound) {
		return err
	}
	_, secret, err := store.CreateToken(ctx, r)
	if err != nil {
		return err
	}
	return writeFile(file, []byte(secret+"\n"), 0o600)
}

// adminToken asks for the first administrator's token.
func adminToken() core.CreateTokenRequest {
	return core.CreateTokenRequest{
		Name:        resourcename.Token{Project: core.DefaultProject, ID: "admin"},
		Description: "first administrator, made with the store", Role: core.Admin, AllProjects: true,
	}
}
