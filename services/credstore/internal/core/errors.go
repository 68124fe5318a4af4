package core

import (
	"errors"
	"fmt"
	"strings"
)

// What the domain answers. Callers ask with errors.Is; package grpcapi
// translates them into status codes, in one place.
var (
	ErrAlreadyExists    = errors.New("already exists")
	ErrInvalid          = errors.New("invalid argument")
	ErrPermissionDenied = errors.New("permission denied")
	ErrUnauthenticated  = errors.New("not authenticated")
	ErrPrecondition     = errors.New("failed precondition")
	ErrAborted          = errors.New("aborted")
	ErrUnavailable      = errors.New("unavailable")
)

// Machine-readable reasons, as ErrorInfo.reason tells them. They are part of
// the contract.
const (
	ReasonInvalidField      = "INVALID_FIELD"
	ReasonNotFound          = "NOT_FOUND"
	ReasonAlreadyExists     = "ALREADY_EXISTS"
	ReasonCredentialInUse   = "CREDENTIAL_IN_USE"
	ReasonSecretStoreInUse  = "SECRET_STORE_IN_USE"
	ReasonProjectNotEmpty   = "PROJECT_NOT_EMPTY"
	ReasonProjectProtected  = "PROJECT_PROTECTED"
	ReasonEtagMismatch      = "ETAG_MISMATCH"
	ReasonConflict          = "WRITE_CONFLICT"
	ReasonVersionNotEnabled = "VERSION_NOT_ENABLED"
	ReasonVersionActive     = "VERSION_ACTIVE"
	ReasonVersionDestroyed  = "VERSION_DESTROYED"
	ReasonUsageDerived      = "USAGE_DERIVED"
	ReasonPathConflict      = "PATH_CONFLICT"
	ReasonRequestIDReused   = "REQUEST_ID_REUSED"
	ReasonPermissionDenied  = "PERMISSION_DENIED"
	ReasonUnauthenticated   = "UNAUTHENTICATED"
	ReasonAuditUnavailable  = "AUDIT_UNAVAILABLE"
	ReasonStorage           = "STORAGE_UNAVAILABLE"

	// ReasonVerificationFailed: a write that asked for it was not verified.
	ReasonVerificationFailed = "VERIFICATION_FAILED"
	// ReasonMintRefused: the vendor refuses to make the token.
	ReasonMintRefused = "MINT_REFUSED"
	// ReasonVendorUnavailable: the vendor gave no usable answer.
	ReasonVendorUnavailable = "VENDOR_UNAVAILABLE"
	// ReasonAmbientNotBound: the server's configuration does not let the project
	// act as the server.
	ReasonAmbientNotBound = "AMBIENT_NOT_BOUND"
	// ReasonAddressMismatch: a secret store's credential is for another server.
	ReasonAddressMismatch = "ADDRESS_MISMATCH"
	// ReasonReferenceCycle: credentials would refer to each other in a ring.
	ReasonReferenceCycle = "REFERENCE_CYCLE"
)

// Error is a failure with a reason that programs can act on. Its message names
// no secret material.
type Error struct {
	// Kind is one of the sentinels of this package.
	Kind    error
	Reason  string
	Message string
	// Resource is the full name of the resource in question, if one is.
	Resource string
	// InUse is set when the reason is that something is in use.
	InUse *InUse
}

func (e *Error) Error() string { return e.Message }

// Unwrap lets errors.Is find the sentinel.
func (e *Error) Unwrap() error { return e.Kind }

// InUse lists who uses a resource that cannot go. The lists hold at most 100
// each; the totals count all.
type InUse struct {
	Usages         []Usage
	Consumers      []Consumer
	TotalUsages    int
	TotalConsumers int
}

// FieldViolation says what is wrong with one field, named by its JSON path, and
// how to put it right.
type FieldViolation struct {
	Field       string
	Description string
}

// InvalidError is bad input: every violation that was found, in one answer.
type InvalidError struct {
	Reason     string // ReasonInvalidField when empty
	Violations []FieldViolation
}

func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Violations))
	for i, v := range e.Violations {
		parts[i] = v.Field + ": " + v.Description
	}
	return "invalid argument: " + strings.Join(parts, "; ")
}

// Unwrap lets errors.Is find ErrInvalid.
func (e *InvalidError) Unwrap() error { return ErrInvalid }

// invalid collects violations; its zero value is ready.
type invalid struct{ violations []FieldViolation }

func (v *invalid) add(field, format string, args ...any) {
	v.violations = append(v.violations, FieldViolation{field, fmt.Sprintf(format, args...)})
}

func (v *invalid) err() error {
	if len(v.violations) == 0 {
		return nil
	}
	return &InvalidError{Violations: v.violations}
}

func invalidField(field, format string, args ...any) error {
	return &InvalidError{Violations: []FieldViolation{{field, fmt.Sprintf(format, args...)}}}
}

// errStopping ends streams, and the calls that wait, when the Store stops.
var errStopping = &Error{Kind: ErrUnavailable, Reason: "SHUTTING_DOWN", Message: "the server is stopping: connect again"}

func notFound(name fmt.Stringer) error {
	return &Error{Kind: ErrNotFound, Reason: ReasonNotFound, Resource: name.String(), Message: name.String() + " does not exist"}
}

func alreadyExists(name fmt.Stringer) error {
	return &Error{Kind: ErrAlreadyExists, Reason: ReasonAlreadyExists, Resource: name.String(), Message: name.String() + " exists already"}
}

func etagMismatch(name fmt.Stringer) error {
	return &Error{
		Kind: ErrAborted, Reason: ReasonEtagMismatch, Resource: name.String(),
		Message: name.String() + " was changed since the etag was read: get it again and repeat the change",
	}
}

func precondition(reason string, name fmt.Stringer, format string, args ...any) error {
	return &Error{Kind: ErrPrecondition, Reason: reason, Resource: name.String(), Message: name.String() + " " + fmt.Sprintf(format, args...)}
}
