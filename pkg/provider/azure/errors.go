package azure

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/credstore/credstore/pkg/provider"
)

// answer is an error of Entra ID, of the metadata service, or of a registry.
// Sources: RFC 6749, section 5.2;
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes;
// https://distribution.github.io/distribution/spec/api/#errors
type answer struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	Codes       []int  `json:"error_codes"`
	Errors      []struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"errors"`
}

// meanings says in few words what some of Entra ID's codes mean to the person
// who holds the credential. The vendor's own words follow.
var meanings = map[int]string{
	7000215: "the client secret is wrong, or its id was given in place of its value",
	7000222: "the client secret has expired",
	700016:  "the application is unknown in this tenant",
	7000229: "the application has no service principal in this tenant",
	7000112: "the application is disabled",
	90002:   "the tenant is unknown in this cloud",
	900023:  "the tenant is unknown in this cloud",
	700027:  "the certificate is not registered with the application, or has expired",
	700024:  "the assertion is not valid at this time: compare the clocks",
	700023:  "the assertion is for somebody else",
	70021:   "no federated credential of the application matches the token of this server",
	700211:  "no federated credential of the application matches the issuer of this server's token",
	700212:  "no federated credential of the application matches the audience of this server's token",
	700213:  "no federated credential of the application matches the subject of this server's token",
	700025:  "the application is a public client, which has no secret",
	500011:  "the resource is unknown in this tenant",
	1002012: "the scope is not one of the form RESOURCE/.default",
	70011:   "the scope is not valid",
	53003:   "a conditional access policy blocks the application",
	53000:   "a conditional access policy blocks the application",
}

// transient are the codes by which Entra ID asks to be asked again.
var transient = []int{90033, 90006, 50000, 90014}

var (
	codeInText = regexp.MustCompile(`AADSTS(\d{1,9})`)
	// Each answer ends with what identifies it in Microsoft's logs; an error's text
	// must be the same for the same reason.
	perAnswer = regexp.MustCompile(`\s*(Trace ID:|Correlation ID:|Timestamp:)`)
)

// judge makes an error of an answer that is no token.
func judge(op string, got provider.Answer, secrets []string) error {
	var a answer
	understood := json.Unmarshal(got.Body, &a) == nil
	code := a.code()
	e := &provider.Error{Kind: provider.ErrRefused, Op: op, Status: got.Status, RetryAfter: got.RetryAfter()}
	switch {
	case got.Status == http.StatusTooManyRequests, got.Status == http.StatusRequestTimeout, got.Status >= http.StatusInternalServerError,
		a.Error == "temporarily_unavailable", slices.Contains(transient, code):
		e.Kind = provider.ErrUnavailable
	case got.Status < http.StatusBadRequest:
		e.Text = "the answer is a redirect, which is not followed"
		return e
	}
	words := a.words()
	if !understood || words == "" {
		words = "without a reason"
	}
	if meaning := meanings[code]; meaning != "" {
		words = meaning + ": " + words
	}
	e.Text = provider.Clean(words, secrets...)
	return e
}

// code returns the number of Entra ID's error, 0 when there is none.
func (a answer) code() int {
	if len(a.Codes) > 0 {
		return a.Codes[0]
	}
	if found := codeInText.FindStringSubmatch(a.Description); found != nil {
		code, err := strconv.Atoi(found[1])
		if err == nil {
			return code
		}
	}
	return 0
}

// words returns the vendor's own, without what differs from answer to answer.
func (a answer) words() string {
	if len(a.Errors) > 0 {
		return strings.Trim(a.Errors[0].Code+": "+a.Errors[0].Message, ": ")
	}
	text := a.Description
	if at := perAnswer.FindStringIndex(text); at != nil {
		text = text[:at[0]]
	}
	if text == "" {
		return a.Error
	}
	return strings.TrimSpace(text)
}
