package providertest_test

import (
	"context"
	"testing"
	"time"

	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

func TestStore(t *testing.T) {
	const login = "login-of-the-suite"
	store := providertest.NewStore(login)
	store.TokenTime = time.Hour
	providertest.Run(t, providertest.Harness{
		Open:        func(ctx context.Context) (provider.Session, error) { return store.Open(ctx, login) },
		OpenRefused: func(ctx context.Context) (provider.Session, error) { return store.Open(ctx, "wrong-login") },
		Put:         func(_ *testing.T, path string, values map[string]string) uint32 { return store.Put(path, values) },
		Delete:      func(_ *testing.T, path string, n uint32) { store.Delete(path, n) },
		Undelete:    func(_ *testing.T, path string, n uint32) { store.Undelete(path, n) },
		Destroy:     func(_ *testing.T, path string, n uint32) { store.Destroy(path, n) },
		EndLogins:   func(*testing.T) { store.EndLogins() },
		Stop: func(*testing.T) func() {
			store.SetDown(&provider.Error{Kind: provider.ErrUnavailable, Status: 503, Text: "sealed"})
			return func() { store.SetDown(nil) }
		},
		Secrets: []string{login, "wrong-login"},
	})
}
