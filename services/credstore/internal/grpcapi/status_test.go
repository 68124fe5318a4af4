package grpcapi_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/grpcapi"
)

type tooMuch struct{}

func (tooMuch) Error() string             { return "slow down" }
func (tooMuch) Reason() string            { return "TOO_MUCH" }
func (tooMuch) RetryAfter() time.Duration { return 3 * time.Second }

func TestStatusError(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("outer: %w", fmt.Errorf("inner: %w", err)) }
	for name, test := range map[string]struct {
		err     error
		code    codes.Code
		reason  string
		message string
	}{
		"bare sentinel":     {core.ErrNotFound, codes.NotFound, "NOT_FOUND", "not found"},
		"wrapped sentinel":  {wrap(core.ErrAborted), codes.Aborted, "WRITE_CONFLICT", "outer: inner: aborted"},
		"not found":         {wrap(&core.Error{Kind: core.ErrNotFound, Reason: "NOT_FOUND", Message: "m"}), codes.NotFound, "NOT_FOUND", "m"},
		"exists":            {&core.Error{Kind: core.ErrAlreadyExists, Reason: "ALREADY_EXISTS", Message: "m"}, codes.AlreadyExists, "ALREADY_EXISTS", "m"},
		"denied":            {&core.Error{Kind: core.ErrPermissionDenied, Reason: "PERMISSION_DENIED", Message: "m"}, codes.PermissionDenied, "PERMISSION_DENIED", "m"},
		"unauthenticated":   {&core.Error{Kind: core.ErrUnauthenticated, Reason: "TOKEN_MISSING", Message: "m"}, codes.Unauthenticated, "TOKEN_MISSING", "m"},
		"precondition":      {&core.Error{Kind: core.ErrPrecondition, Reason: "VERSION_ACTIVE", Message: "m"}, codes.FailedPrecondition, "VERSION_ACTIVE", "m"},
		"aborted":           {&core.Error{Kind: core.ErrAborted, Reason: "ETAG_MISMATCH", Message: "m"}, codes.Aborted, "ETAG_MISMATCH", "m"},
		"unavailable":       {&core.Error{Kind: core.ErrUnavailable, Reason: "STORAGE_UNAVAILABLE", Message: "m"}, codes.Unavailable, "STORAGE_UNAVAILABLE", "m"},
		"no reason":         {&core.Error{Kind: core.ErrUnauthenticated, Message: "m"}, codes.Unauthenticated, "UNAUTHENTICATED", "m"},
		"invalid":           {&core.InvalidError{Violations: []core.FieldViolation{{Field: "a", Description: "b"}}}, codes.InvalidArgument, "INVALID_FIELD", "invalid argument: a: b"},
		"invalid, reason":   {wrap(&core.InvalidError{Reason: "REQUEST_ID_REUSED"}), codes.InvalidArgument, "REQUEST_ID_REUSED", ""},
		"cancelled":         {wrap(context.Canceled), codes.Canceled, "CANCELLED", "the call was cancelled"},
		"late":              {wrap(context.DeadlineExceeded), codes.DeadlineExceeded, "DEADLINE_EXCEEDED", ""},
		"exhausted":         {wrap(tooMuch{}), codes.ResourceExhausted, "TOO_MUCH", ""},
		"unknown":           {errors.New("disk /dev/sda: bad block"), codes.Internal, "INTERNAL", ""},
		"gRPC's own":        {status.Error(codes.Unavailable, "transport is closing"), codes.Unavailable, "TRANSPORT", "transport is closing"},
		"not implemented":   {status.Error(codes.Unimplemented, "no such method"), codes.Unimplemented, "METHOD_UNKNOWN", "no such method"},
		"domain over lates": {fmt.Errorf("%w: %w", &core.Error{Kind: core.ErrUnavailable, Reason: "R", Message: "m"}, context.DeadlineExceeded), codes.Unavailable, "R", "m"},
	} {
		t.Run(name, func(t *testing.T) {
			log := &logs{}
			ctx := core.WithCallID(t.Context(), "c4ll")
			err := grpcapi.StatusError(ctx, slog.New(log), test.err)
			refused(t, err, test.code, test.reason, "")
			if test.message != "" && status.Convert(err).Message() != test.message {
				t.Errorf("message is %q, want %q", status.Convert(err).Message(), test.message)
			}
			if id := detail[*errdetails.ErrorInfo](err).GetMetadata()["callId"]; id != "c4ll" {
				t.Errorf("call id is %q", id)
			}
			if logged := strings.Contains(log.text(), test.err.Error()); logged != (test.code == codes.Internal) {
				t.Errorf("logged: %v: %s", logged, log.text())
			}
			if test.code == codes.Internal && (strings.Contains(err.Error(), "sda") || !strings.Contains(err.Error(), "c4ll")) {
				t.Errorf("the answer to an unknown error is %v", err)
			}
		})
	}
	if err := grpcapi.StatusError(t.Context(), slog.New(&logs{}), nil); err != nil {
		t.Errorf("nil became %v", err)
	}
}

func TestStatusDetails(t *testing.T) {
	answer := func(err error) error { return grpcapi.StatusError(t.Context(), slog.New(slog.DiscardHandler), err) }

	invalid := answer(&core.InvalidError{Violations: []core.FieldViolation{{Field: "a", Description: "x"}, {Field: "b", Description: "y"}}})
	var got []string
	for _, v := range detail[*errdetails.BadRequest](invalid).GetFieldViolations() {
		got = append(got, v.GetField()+"="+v.GetDescription())
	}
	if diff := cmp.Diff([]string{"a=x", "b=y"}, got); diff != "" {
		t.Errorf("violations (-want +got)\n%s", diff)
	}

	name := resourcename.Usage{Project: "p", Collection: "credentials", Resource: "c", ID: "u"}
	inUse := answer(&core.Error{Kind: core.ErrPrecondition, Reason: core.ReasonCredentialInUse, Message: "m", Resource: "projects/p/credentials/c", InUse: &core.InUse{
		Usages:    []core.Usage{{Name: name, Source: core.Derived, User: "projects/p/injections/i"}},
		Consumers: []core.Consumer{{Workload: "w", Version: 3, Named: true}}, TotalUsages: 101, TotalConsumers: 1,
	}})
	d := detail[*credstorev1.UsagesDetail](inUse)
	if d.GetTotalUsages() != 101 || d.GetTotalConsumers() != 1 || len(d.GetUsages()) != 1 || d.GetUsages()[0].GetName() != name.String() ||
		d.GetUsages()[0].GetSource() != credstorev1.Usage_DERIVED || d.GetConsumers()[0].GetVersion() != 3 {
		t.Errorf("usages are %v", d)
	}
	if r := detail[*errdetails.ErrorInfo](inUse).GetMetadata()["resource"]; r != "projects/p/credentials/c" {
		t.Errorf("resource is %q", r)
	}

	for _, test := range []struct {
		err      error
		min, max time.Duration
	}{
		{core.ErrUnavailable, time.Second / 2, 5 * time.Second / 2},
		{tooMuch{}, 3 * time.Second, 3 * time.Second},
		{core.ErrAborted, 0, 0},
		{core.ErrNotFound, 0, 0},
	} {
		after := detail[*errdetails.RetryInfo](answer(test.err)).GetRetryDelay().AsDuration()
		if after < test.min || after > test.max {
			t.Errorf("%v: retry after %v, want %v to %v", test.err, after, test.min, test.max)
		}
	}
}
