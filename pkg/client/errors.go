package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// What calls fail with; ask with errors.Is. An error may be several: what is in
// use is ErrInUse and ErrPrecondition.
var (
	ErrInvalid          = errors.New("invalid argument")
	ErrNotFound         = errors.New("not found")
	ErrAlreadyExists    = errors.New("already exists")
	ErrUnauthenticated  = errors.New("not authenticated")
	ErrPermissionDenied = errors.New("permission denied")
	ErrPrecondition     = errors.New("failed precondition")
	ErrAborted          = errors.New("aborted")
	ErrExhausted        = errors.New("resource exhausted")
	ErrUnavailable      = errors.New("unavailable")

	// ErrInUse is what deleting something that is in use fails with; errors.As
	// with an *InUseError tells by whom.
	ErrInUse = errors.New("in use")
	// ErrEtagMismatch says that the resource was changed since it was read: read
	// it again and repeat the change.
	ErrEtagMismatch = errors.New("etag mismatch")
	// ErrVersionNotEnabled says that a version is disabled or destroyed.
	ErrVersionNotEnabled = errors.New("version not enabled")
	// ErrPathConflict says that two injections want overlapping paths.
	ErrPathConflict = errors.New("path conflict")
)

// domain is that of the ErrorInfo of every error of credstore.
const domain = "credstore"

var byCode = map[codes.Code]error{
	codes.InvalidArgument:    ErrInvalid,
	codes.OutOfRange:         ErrInvalid,
	codes.NotFound:           ErrNotFound,
	codes.AlreadyExists:      ErrAlreadyExists,
	codes.Unauthenticated:    ErrUnauthenticated,
	codes.PermissionDenied:   ErrPermissionDenied,
	codes.FailedPrecondition: ErrPrecondition,
	codes.Aborted:            ErrAborted,
	codes.ResourceExhausted:  ErrExhausted,
	codes.Unavailable:        ErrUnavailable,
	codes.Canceled:           context.Canceled,
	codes.DeadlineExceeded:   context.DeadlineExceeded,
}

var byReason = map[string]error{
	"CREDENTIAL_IN_USE":   ErrInUse,
	"SECRET_STORE_IN_USE": ErrInUse,
	"ETAG_MISMATCH":       ErrEtagMismatch,
	"VERSION_NOT_ENABLED": ErrVersionNotEnabled,
	"PATH_CONFLICT":       ErrPathConflict,
}

// Error is what a call failed with. status.FromError works on it too.
type Error struct {
	Code codes.Code
	// Reason is the machine-readable one, as "CREDENTIAL_IN_USE"; empty if the
	// error is not credstore's own.
	Reason  string
	Message string
	// Metadata is what credstore adds to the reason; it may be nil.
	Metadata map[string]string

	status *status.Status
}

func (e *Error) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("%s (%s)", e.Message, e.Code)
	}
	return fmt.Sprintf("%s (%s)", e.Message, e.Reason)
}

// Is finds the sentinels of this package, by code and by reason.
func (e *Error) Is(target error) bool {
	return target != nil && (byCode[e.Code] == target || byReason[e.Reason] == target)
}

// GRPCStatus returns what came over the wire.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// InUseError is ErrInUse with who uses it.
type InUseError struct {
	Err *Error
	// Usages and Consumers are at most 100 each; the totals count all.
	Usages         []*credstorev1.Usage
	Consumers      []*credstorev1.Consumer
	TotalUsages    int
	TotalConsumers int
}

func (e *InUseError) Error() string { return e.Err.Error() }

// Unwrap returns the plain error.
func (e *InUseError) Unwrap() error { return e.Err }

// InvalidError is ErrInvalid with all that is wrong.
type InvalidError struct {
	Err        *Error
	Violations []Violation
}

// Violation says what is wrong with one field, named by its JSON path.
type Violation struct {
	Field, Description string
}

// Error tells every violation with its field.
func (e *InvalidError) Error() string {
	if len(e.Violations) == 0 {
		return e.Err.Error()
	}
	parts := make([]string, len(e.Violations))
	for i, v := range e.Violations {
		parts[i] = v.Field + ": " + v.Description
	}
	return "invalid argument: " + strings.Join(parts, "; ")
}

// Unwrap returns the plain error.
func (e *InvalidError) Unwrap() error { return e.Err }

// fromStatus turns an error of gRPC into one of this package. nil, io.EOF and
// errors that are no status stay what they are.
func fromStatus(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if _, done := errors.AsType[*Error](err); done {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	e := &Error{Code: s.Code(), Message: s.Message(), status: s}
	var invalid *errdetails.BadRequest
	var usages *credstorev1.UsagesDetail
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == domain {
				e.Reason, e.Metadata = d.GetReason(), d.GetMetadata()
			}
		case *errdetails.BadRequest:
			invalid = d
		case *credstorev1.UsagesDetail:
			usages = d
		}
	}
	switch {
	case errors.Is(e, ErrInUse):
		return &InUseError{
			Err: e, Usages: usages.GetUsages(), Consumers: usages.GetConsumers(),
			TotalUsages: int(usages.GetTotalUsages()), TotalConsumers: int(usages.GetTotalConsumers()),
		}
	case invalid != nil:
		inv := &InvalidError{Err: e}
		for _, v := range invalid.GetFieldViolations() {
			inv.Violations = append(inv.Violations, Violation{Field: v.GetField(), Description: v.GetDescription()})
		}
		return inv
	}
	return e
}

func unaryErrors(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return fromStatus(invoke(ctx, method, req, reply, cc, opts...))
}

func streamErrors(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, fromStatus(err)
	}
	return typedStream{s}, nil
}

// typedStream is a stream whose errors are of this package.
type typedStream struct{ grpc.ClientStream }

func (s typedStream) RecvMsg(m any) error { return fromStatus(s.ClientStream.RecvMsg(m)) }
func (s typedStream) SendMsg(m any) error { return fromStatus(s.ClientStream.SendMsg(m)) }

// tokenError makes a failure to get a token one that gRPC passes on as it is.
func tokenError(err error) error {
	text := strings.TrimSpace(err.Error())
	if failed, ok := errors.AsType[*fs.PathError](err); ok && (MayBeSecret(failed.Path) || errors.Is(failed, syscall.ENAMETOOLONG)) {
		text = "token file: the token stands in the place of the file's name, which is not repeated here"
	}
	return status.Error(codes.Unauthenticated, "no token to send: "+text)
}

// MayBeSecret says whether what was given for the name of a file looks like what
// should be in it: a token of credstore, JSON, PEM, or several lines. Errors end in
// logs, so they must not repeat it.
func MayBeSecret(name string) bool {
	start := strings.TrimSpace(name)
	for _, prefix := range []string{"credstore_", "{", "[", "-----"} {
		if strings.HasPrefix(start, prefix) {
			return true
		}
	}
	return strings.ContainsAny(name, "\r\n")
}
