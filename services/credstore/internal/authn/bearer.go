package authn

import (
	"strings"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// Reasons of refusals that are made here; a token that is well-formed and
// unknown, deleted or expired is refused by the domain with its own.
const (
	ReasonTokenMissing   = "TOKEN_MISSING"
	ReasonTokenRepeated  = "TOKEN_REPEATED"
	ReasonTokenMalformed = "TOKEN_MALFORMED"
)

const (
	secretPrefix = "credstore_"
	maxSecret    = 512
	hint         = `send an API token as "Authorization: Bearer credstore_…"`
)

// bearer returns the secret in the values of an authorization header. Its errors
// never repeat what was sent.
func bearer(authorization []string) (string, error) {
	switch {
	case len(authorization) == 0:
		return "", refuse(ReasonTokenMissing, "the call carries no identity: "+hint)
	case len(authorization) > 1:
		return "", refuse(ReasonTokenRepeated, "the call carries more than one authorization: "+hint+", once")
	}
	scheme, secret, _ := strings.Cut(authorization[0], " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer"):
		return "", refuse(ReasonTokenMalformed, "the authorization is not of the scheme Bearer: "+hint)
	case !strings.HasPrefix(secret, secretPrefix):
		return "", refuse(ReasonTokenMalformed, `the token does not begin with "credstore_", so it was issued by somebody else: `+hint)
	case len(secret) > maxSecret || strings.ContainsFunc(secret, notVisible):
		return "", refuse(ReasonTokenMalformed, "the token is damaged, as by a line break of a paste: "+hint)
	}
	return secret, nil
}

func notVisible(r rune) bool { return r <= ' ' || r > '~' }

func refuse(reason, message string) error {
	return &core.Error{Kind: core.ErrUnauthenticated, Reason: reason, Message: message}
}
