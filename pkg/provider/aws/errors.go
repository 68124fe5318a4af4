package aws

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/credstore/credstore/pkg/provider"
)

// reaction is what the code of an error of AWS means to a person.
type reaction struct {
	codes []string
	kind  error
	// text comes before AWS's own words.
	text string
	// mute leaves out AWS's own words: they repeat what was signed, or the time.
	mute bool
}

// badClock comes for a signature of another time. Its message begins with one of
// clockWords.
const badClock = "the clock of this server is wrong by more than five minutes, so that AWS refuses what it signs: set it"

var clockWords = []string{"Signature expired", "Signature not yet current"}

// reactions are in the words of STS and of ECR, which differ.
// Source: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
// and the errors of each call.
var reactions = []reaction{
	{
		codes: []string{"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"}, kind: provider.ErrRefused,
		text: "AWS does not know the key: it was deleted or deactivated, its session token is another's, or the region is of another partition or not enabled",
	},
	{
		codes: []string{"SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature"}, kind: provider.ErrRefused, mute: true,
		text: "the secret access key is not the one of the access key id",
	},
	{codes: []string{"RequestExpired"}, kind: provider.ErrRefused, mute: true, text: badClock},
	{
		codes: []string{"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}, kind: provider.ErrRefused,
		text: "the session has ended: get new temporary credentials",
	},
	{codes: []string{"AccessDenied", "AccessDeniedException"}, kind: provider.ErrRefused, text: "a permission is missing"},
	{codes: []string{"MalformedPolicyDocument", "MalformedPolicyDocumentException"}, kind: provider.ErrRefused, text: "the session policy is malformed"},
	{
		codes: []string{"PackedPolicyTooLarge", "PackedPolicyTooLargeException"}, kind: provider.ErrRefused,
		text: "the session policy and the tags are too large together, once STS has packed them: shorten them",
	},
	{
		codes: []string{"RegionDisabledException"}, kind: provider.ErrRefused,
		text: "STS is switched off for the account in this region: name another region, or switch it on",
	},
	{
		codes: []string{"InvalidIdentityToken", "InvalidIdentityTokenException", "IDPRejectedClaim", "IDPRejectedClaimException"},
		kind:  provider.ErrRefused, text: "the pod's token is refused: check the identity provider in IAM and its audience",
	},
	{codes: []string{"IDPCommunicationError", "IDPCommunicationErrorException"}, kind: provider.ErrUnavailable, text: "AWS cannot reach the cluster's identity provider"},
	{codes: []string{"ValidationError", "InvalidParameterValue", "InvalidParameterException", "InvalidParameterCombination"}, kind: provider.ErrRefused, text: "AWS refuses the request"},
	{
		codes: []string{"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException", "RequestThrottled", "RequestThrottledException"},
		kind:  provider.ErrUnavailable, text: "AWS throttles requests of the account",
	},
	{
		codes: []string{"ServiceUnavailable", "ServiceUnavailableException", "InternalFailure", "InternalError", "ServerException"},
		kind:  provider.ErrUnavailable, text: "AWS is not in order",
	},
}

// unknownError is what AWS's client makes of a code or a message that is missing.
const unknownError = "UnknownError"

// failed returns why a call failed, as package provider says it, or the context's
// error.
func failed(ctx context.Context, op string, err error, s session) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	status := 0
	if e, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		status = e.HTTPStatusCode()
	}
	if e, ok := errors.AsType[smithy.APIError](err); ok && e.ErrorCode() != unknownError {
		return answered(op, status, e.ErrorCode(), strings.TrimPrefix(e.ErrorMessage(), unknownError), s.secrets())
	}
	if errors.Is(err, errTooLong) {
		return unusable(op, "the answer is longer than any of AWS's")
	}
	if e, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return provider.NetworkError(op, e.Err)
	}
	// The connection broke in the middle of an answer.
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, io.ErrUnexpectedEOF) {
		return provider.NetworkError(op, err)
	}
	if _, ok := errors.AsType[*smithy.DeserializationError](err); ok || status != 0 {
		out := unusable(op, "the answer is none of AWS's: is there a proxy or another server in between?")
		out.Status = status
		return out
	}
	return provider.NetworkError(op, err)
}

// answered returns what an error code means.
func answered(op string, status int, code, message string, secrets []string) *provider.Error {
	out := &provider.Error{Kind: provider.ErrRefused, Op: op, Status: status}
	i := slices.IndexFunc(reactions, func(r reaction) bool { return slices.Contains(r.codes, code) })
	switch {
	case i >= 0:
		r := reactions[i]
		out.Kind, out.Text = r.kind, r.text
		if slices.ContainsFunc(clockWords, func(w string) bool { return strings.HasPrefix(message, w) }) {
			out.Text = badClock
		}
		if r.mute {
			message = ""
		}
	case status >= http.StatusInternalServerError || status == http.StatusTooManyRequests:
		out.Kind, out.Text = provider.ErrUnavailable, "AWS is not in order"
	default:
		out.Text = "AWS refuses the request"
	}
	out.Text += " (" + code + ")"
	if message != "" {
		out.Text += ": " + message
	}
	out.Text = provider.Clean(out.Text, secrets...)
	return out
}

// refusedRole says of an AssumeRole that was denied what there is to check. AWS
// mostly says the same for all of it, so as not to tell strangers.
func refusedRole(err error, externalID bool) error {
	var e *provider.Error
	const denied = "a permission is missing"
	if !errors.As(err, &e) || !strings.HasPrefix(e.Text, denied) {
		return err
	}
	text := "the role's trust policy must name this caller, without an external id since none is set, and the caller needs sts:AssumeRole"
	switch words := e.Text; {
	case strings.Contains(words, "no identity-based policy allows"):
		text = "the caller's own policies do not allow sts:AssumeRole on this role"
	case strings.Contains(words, "no resource-based policy allows"):
		text = "the role's trust policy does not name this caller, or asks for another external id"
	case externalID:
		text = "the role's trust policy must name this caller with this external id, and the caller needs sts:AssumeRole"
	}
	out := *e
	out.Text = provider.Clean(text + strings.TrimPrefix(e.Text, denied))
	return &out
}
