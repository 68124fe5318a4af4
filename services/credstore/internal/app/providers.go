package app

import (
	"context"
	"net/netip"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/vault"
	"github.com/credstore/credstore/services/credstore/internal/broker"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// providers names every kind of external store that this server reaches, by its
// name in the contract.
func providers(allow []netip.Prefix) map[string]broker.Opener {
	egress := provider.Egress{Allow: allow}
	return map[string]broker.Opener{
		"vault": func(ctx context.Context, store *core.SecretStore, payload credential.Payload) (provider.Session, error) {
			v := store.Vault
			return vault.Open(ctx, vault.Config{
				Address: v.Address, Namespace: v.Namespace, Mount: v.Mount, CAPEM: v.CAPEM, Egress: egress,
			}, payload)
		},
	}
}
