package grpcapi

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

// domain is that of every ErrorInfo.
const domain = "credstore"

// Reasons of answers that are made here and not in the domain.
const (
	ReasonInternal         = "INTERNAL"
	ReasonCancelled        = "CANCELLED"
	ReasonDeadlineExceeded = "DEADLINE_EXCEEDED"
	ReasonMethodUnknown    = "METHOD_UNKNOWN"
	ReasonMessageTooLarge  = "MESSAGE_TOO_LARGE"
	ReasonMessageMalformed = "MESSAGE_MALFORMED"
	ReasonRateLimited      = "RATE_LIMITED"
	ReasonOverloaded       = "OVERLOADED"
	ReasonShuttingDown     = "SHUTTING_DOWN"
	ReasonStreamNotOpened  = "STREAM_NOT_OPENED"
	ReasonTransport        = "TRANSPORT"
)

// exhausted is an error that says that the caller asks for too much, with its
// reason and the time after which to try again, 0 when that would not help.
type exhausted interface {
	error
	Reason() string
	RetryAfter() time.Duration
}

// codeOf is where a status code is decided. reason is for errors that have none
// of their own. An error that is not known here is INTERNAL.
func codeOf(err error) (code codes.Code, reason string) {
	for _, known := range [...]struct {
		kind   error
		code   codes.Code
		reason string
	}{
		{core.ErrInvalid, codes.InvalidArgument, core.ReasonInvalidField},
		{core.ErrNotFound, codes.NotFound, core.ReasonNotFound},
		{core.ErrAlreadyExists, codes.AlreadyExists, core.ReasonAlreadyExists},
		{core.ErrPermissionDenied, codes.PermissionDenied, core.ReasonPermissionDenied},
		{core.ErrUnauthenticated, codes.Unauthenticated, core.ReasonUnauthenticated},
		{core.ErrPrecondition, codes.FailedPrecondition, core.ReasonConflict},
		{core.ErrAborted, codes.Aborted, core.ReasonConflict},
		{core.ErrUnavailable, codes.Unavailable, core.ReasonStorage},
		// Behind the domain's, which may wrap them.
		{context.DeadlineExceeded, codes.DeadlineExceeded, ReasonDeadlineExceeded},
		{context.Canceled, codes.Canceled, ReasonCancelled},
	} {
		if errors.Is(err, known.kind) {
			return known.code, known.reason
		}
	}
	if e := exhausted(nil); errors.As(err, &e) {
		return codes.ResourceExhausted, e.Reason()
	}
	if st, ok := status.FromError(err); ok {
		return st.Code(), transportReason(st.Code()) // gRPC's own, as for a connection that broke
	}
	return codes.Internal, ReasonInternal
}

func transportReason(c codes.Code) string {
	if c == codes.Unimplemented {
		return ReasonMethodUnknown
	}
	return ReasonTransport
}

// StatusError returns what a caller is answered for an error of the domain, of
// authentication or of the server: a gRPC status with a google.rpc.ErrorInfo,
// and with a BadRequest, RetryInfo or UsagesDetail where there is something to
// say. Nil stays nil. An error that is not known is logged whole, which is safe
// because errors hold no secrets, and answered with a plain sentence and the
// call's id.
func StatusError(ctx context.Context, log *slog.Logger, err error) error {
	if err == nil {
		return nil
	}
	code, reason := codeOf(err)
	message := err.Error()
	info := &errdetails.ErrorInfo{Reason: reason, Domain: domain}
	if id := core.CallID(ctx); id != "" {
		info.Metadata = map[string]string{"callId": id}
	}
	details := []protoadapt.MessageV1{protoadapt.MessageV1Of(info)}

	var known *core.Error
	var invalid *core.InvalidError
	switch {
	case code == codes.Internal:
		log.LogAttrs(ctx, slog.LevelError, "call failed", slog.String("callId", core.CallID(ctx)), slog.Any("error", err))
		message = "the server failed: its log says why, under call " + core.CallID(ctx)
	case errors.As(err, &invalid):
		if invalid.Reason != "" {
			info.Reason = invalid.Reason
		}
		bad := &errdetails.BadRequest{}
		for _, v := range invalid.Violations {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Description})
		}
		details = append(details, protoadapt.MessageV1Of(bad))
	case errors.As(err, &known):
		message = known.Message
		if known.Reason != "" {
			info.Reason = known.Reason
		}
		if known.Resource != "" {
			if info.Metadata == nil {
				info.Metadata = make(map[string]string, 1)
			}
			info.Metadata["resource"] = known.Resource
		}
		if known.InUse != nil {
			details = append(details, protoadapt.MessageV1Of(usagesDetail(known.InUse)))
		}
	case code == codes.Canceled:
		message = "the call was cancelled"
	case code == codes.DeadlineExceeded:
		message = "the call took longer than its deadline: whether a change was made is not known"
	default:
		if st, ok := status.FromError(err); ok {
			message = st.Message()
		}
	}
	if after := retryAfter(err, code); after > 0 {
		details = append(details, protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}))
	}
	st, withErr := status.New(code, message).WithDetails(details...)
	if withErr != nil {
		log.LogAttrs(ctx, slog.LevelError, "error details cannot be encoded", slog.Any("error", withErr))
		return status.Error(code, message)
	}
	return st.Err()
}

// retryAfter says when it makes sense to try again, 0 for never by itself.
func retryAfter(err error, code codes.Code) time.Duration {
	if e := exhausted(nil); errors.As(err, &e) {
		return e.RetryAfter()
	}
	if code != codes.Unavailable {
		return 0
	}
	// Spread, so that those who were refused together do not come back so.
	return time.Second/2 + rand.N(2*time.Second) //nolint:gosec // jitter needs no secrecy
}

func usagesDetail(u *core.InUse) *credstorev1.UsagesDetail {
	return &credstorev1.UsagesDetail{
		Usages: convertAll(u.Usages, usageMessage), Consumers: convertAll(u.Consumers, consumerMessage),
		TotalUsages: count(u.TotalUsages), TotalConsumers: count(u.TotalConsumers),
	}
}

// limitError is an exhausted of this package.
type limitError struct {
	reason, message string
	after           time.Duration
}

func (e *limitError) Error() string             { return e.message }
func (e *limitError) Reason() string            { return e.reason }
func (e *limitError) RetryAfter() time.Duration { return e.after }

func unavailable(reason, message string) error {
	return &core.Error{Kind: core.ErrUnavailable, Reason: reason, Message: message}
}
