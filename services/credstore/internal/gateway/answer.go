package gateway

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/credstore/credstore/services/credstore/internal/jsoncheck"
)

// domain is that of every ErrorInfo, as package grpcapi's.
const domain = "credstore"

// Reasons of refusals that are made here, before a call reaches the server.
const (
	reasonInvalidField     = "INVALID_FIELD"
	reasonMalformedBody    = "MALFORMED_BODY"
	reasonMalformedURL     = "MALFORMED_URL"
	reasonBodyTooLarge     = "MESSAGE_TOO_LARGE"
	reasonBodyUnexpected   = "BODY_UNEXPECTED"
	reasonMediaType        = "UNSUPPORTED_MEDIA_TYPE"
	reasonPathUnknown      = "PATH_UNKNOWN"
	reasonMethodNotAllowed = "METHOD_NOT_ALLOWED"
	reasonInternal         = "INTERNAL"
	reasonUnspecified      = "UNSPECIFIED"
)

// refusal is an answer that is made here.
type refusal struct {
	http       int
	code       codes.Code
	reason     string
	message    string
	violations []jsoncheck.Violation
	allow      []string
}

// invalid is a refusal that names fields.
func invalid(message string, violations []jsoncheck.Violation) *refusal {
	return &refusal{
		http: http.StatusBadRequest, code: codes.InvalidArgument, reason: reasonInvalidField,
		message: message, violations: violations,
	}
}

func (r *refusal) write(w http.ResponseWriter) {
	for _, m := range r.allow {
		w.Header().Add("Allow", m)
	}
	st := status.New(r.code, r.message)
	info := &errdetails.ErrorInfo{Reason: r.reason, Domain: domain}
	if len(r.violations) > 0 {
		bad := &errdetails.BadRequest{}
		for _, v := range r.violations {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Description})
		}
		if with, err := st.WithDetails(info, bad); err == nil {
			st = with
		}
	} else if with, err := st.WithDetails(info); err == nil {
		st = with
	}
	writeStatus(w, r.http, st)
}

// answerOf returns the status that answers an error of a call: the server's,
// with fields named by their path in the body. The server names them by their
// path in its request, of which the body is a part.
func answerOf(ctx context.Context, err error) *status.Status {
	st := withReason(status.Convert(err))
	route := originOf(ctx).route
	if route == nil || route.bodyField == "" {
		return st
	}
	p := st.Proto()
	for i, packed := range p.GetDetails() {
		bad := &errdetails.BadRequest{}
		if packed.UnmarshalTo(bad) != nil {
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			if inBody, ok := strings.CutPrefix(v.GetField(), route.bodyField+"."); ok {
				p.Message = strings.ReplaceAll(p.GetMessage(), v.GetField()+":", inBody+":")
				v.Field = inBody
			}
		}
		if again, err := anypb.New(bad); err == nil {
			p.Details[i] = again
		}
	}
	return status.FromProto(p)
}

// withReason adds an ErrorInfo to a status that has none: one made by gRPC's own
// code, as for a lost connection.
func withReason(st *status.Status) *status.Status {
	for _, d := range st.Details() {
		if _, ok := d.(*errdetails.ErrorInfo); ok {
			return st
		}
	}
	if with, err := st.WithDetails(&errdetails.ErrorInfo{Reason: reasonUnspecified, Domain: domain}); err == nil {
		return with
	}
	return st
}

// writeStatus answers with the HTTP code, or, when it is 0, with that of the
// status.
func writeStatus(w http.ResponseWriter, code int, st *status.Status) {
	if code == 0 {
		code = runtime.HTTPStatusFromCode(st.Code())
	}
	for _, d := range st.Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok {
			seconds := int64((retry.GetRetryDelay().AsDuration() + time.Second - 1) / time.Second)
			w.Header().Set("Retry-After", strconv.FormatInt(max(seconds, 1), 10))
		}
	}
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	body, err := protojson.Marshal(st.Proto())
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"code":13,"message":"the error cannot be shown"}`)
	}
	body = append(body, '\n')
	w.Header().Set("Content-Type", "application/json")
	// With its length a client knows that it has the answer before the stream ends.
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	// The caller may be gone; there is nobody left to tell.
	_, _ = w.Write(body)
}
