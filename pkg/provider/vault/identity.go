package vault

import (
	"context"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// unnamed is a token that works and of which nobody says whose it is.
const unnamed = "a token that may not look itself up"

// Identify returns the display name of the login, with its role and entity when
// there are any.
func (s *Session) Identify(ctx context.Context) (string, error) {
	who, err := s.whoAmI(ctx)
	return who.Name, err
}

// whoAmI asks whose login it is.
func (s *Session) whoAmI(ctx context.Context) (credential.Identity, error) {
	l, err := s.current(ctx)
	if err != nil {
		return credential.Identity{}, err
	}
	answer, err := s.lookUp(ctx, opIdentify, l)
	switch {
	case err == nil:
		return identity(answer), nil
	case !forbidden(err) || ended(err):
		return credential.Identity{}, err
	}
	// Either the token is not valid, or its policies do not include looking it up.
	// This needs no policy, only a valid token.
	_, mountsErr := s.ask(ctx, opIdentify, l, func(ctx context.Context) (*api.Secret, error) {
		return l.client.Logical().ReadWithContext(ctx, "sys/internal/ui/mounts")
	})
	switch {
	case mountsErr != nil && ctx.Err() != nil:
		return credential.Identity{}, ctx.Err()
	case mountsErr != nil:
		return credential.Identity{}, err
	case l.who != "":
		return credential.Identity{Name: l.who}, nil
	}
	return credential.Identity{Name: unnamed}, nil
}

// identity returns whose token it is, from what Vault knows about it.
func identity(answer *api.Secret) credential.Identity {
	meta, _ := answer.Data["meta"].(map[string]any)
	texts := map[string]string{}
	for name, value := range meta {
		texts[name] = text(value)
	}
	who := credential.Identity{
		Name:  name(text(answer.Data["display_name"]), texts, text(answer.Data["entity_id"])),
		Facts: map[string]string{},
	}
	policies := slices.Concat(list(answer.Data["policies"]), list(answer.Data["identity_policies"]))
	slices.Sort(policies)
	for fact, value := range map[string]string{
		"policies": strings.Join(slices.Compact(policies), ", "),
		"entityId": text(answer.Data["entity_id"]),
	} {
		if value = provider.Clean(value); value != "" {
			who.Facts[fact] = value
		}
	}
	return who
}

// granted returns whose token a login brought, from its answer.
func granted(mount string, a *api.SecretAuth) string {
	display := mount
	if user := a.Metadata["username"]; user != "" {
		display += "-" + user // as Vault makes it
	}
	return name(display, a.Metadata, a.EntityID)
}

func name(display string, meta map[string]string, entity string) string {
	if display == "" {
		display = "token"
	}
	for _, key := range []string{"role_name", "role", "cert_name"} {
		if role := meta[key]; role != "" {
			display += " role " + role
			break
		}
	}
	if entity != "" {
		display += " (entity " + entity + ")"
	}
	return provider.Clean(display)
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func list(v any) []string {
	all, _ := v.([]any)
	var out []string
	for _, e := range all {
		if s := text(e); s != "" {
			out = append(out, s)
		}
	}
	return out
}
