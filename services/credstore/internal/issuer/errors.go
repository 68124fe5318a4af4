package issuer

import (
	"errors"
	"strconv"
	"strings"

	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// errStopping is what Mint answers once the Issuer is closed.
var errStopping = &core.Error{Kind: core.ErrUnavailable, Reason: core.ReasonVendorUnavailable, Message: "the server is stopping: call again"}

// errTooSlow is what callers get of a call that was given up.
var errTooSlow = &core.Error{Kind: core.ErrUnavailable, Reason: core.ReasonVendorUnavailable, Message: "the vendor gave no token in time: call again later"}

// words returns what a vendor answered, for people.
func words(e *provider.Error) string {
	text := e.Text
	if e.Status != 0 {
		text = strconv.Itoa(e.Status) + " " + text
	}
	if text == "" {
		text = e.Kind.Error()
	}
	// What link-local addresses are refused for, nothing allows.
	if errors.Is(e, provider.ErrForbiddenAddress) && strings.HasSuffix(text, "configuration can allow it") {
		text += " with --allow-target"
	}
	return provider.Clean(text)
}

// mintError turns a vendor's answer into the domain's error.
func mintError(name string, e *provider.Error) error {
	switch {
	case errors.Is(e, provider.ErrUnsupported):
		return &core.InvalidError{Violations: []core.FieldViolation{{Field: "token", Description: words(e)}}}
	case errors.Is(e, provider.ErrUnavailable):
		return &core.Error{
			Kind: core.ErrUnavailable, Reason: core.ReasonVendorUnavailable, Resource: name,
			Message: "no token can be minted from " + name + " now: " + words(e),
		}
	case errors.Is(e, provider.ErrForbiddenAddress):
		// Not unavailable: calling again helps only after somebody changed something.
		return &core.Error{
			Kind: core.ErrPrecondition, Reason: core.ReasonMintRefused, Resource: name,
			Message: "no token is minted from " + name + ": " + words(e),
		}
	}
	return &core.Error{
		Kind: core.ErrPrecondition, Reason: core.ReasonMintRefused, Resource: name,
		Message: "no token is minted from " + name + ", since the vendor refuses: " + words(e),
	}
}
