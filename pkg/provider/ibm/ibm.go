package ibm

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Config says where IBM Cloud is. The zero value is the real one; it holds no
// secret.
type Config struct {
	// Egress guards the addresses that are connected to.
	Egress provider.Egress
	// Endpoint is where IAM is, an https URL without a path:
	// "https://iam.cloud.ibm.com" when empty. The private endpoint of an account is
	// "https://private.iam.cloud.ibm.com".
	Endpoint string
	// CAPEM are the certificates to trust, the system's when empty.
	CAPEM string
}

const (
	defaultEndpoint = "https://iam.cloud.ibm.com"
	grantType       = "urn:ibm:params:oauth:grant-type:apikey"
	opVerify        = "verify"
	opMint          = "mint"
)

// Vendor verifies credentials of kind ibmCloud and mints from them. It implements
// provider.Verifier and provider.Minter, and prints as its name.
type Vendor struct {
	endpoint string
	client   *http.Client
}

// New checks the configuration. It connects to nobody.
func New(cfg Config) (*Vendor, error) {
	endpoint := strings.TrimSuffix(cfg.Endpoint, "/")
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" {
		return nil, errors.New("ibm: Endpoint must be an https URL without a path")
	}
	client, err := cfg.Egress.Client(cfg.CAPEM)
	if err != nil {
		return nil, fmt.Errorf("ibm: %w", err)
	}
	return &Vendor{endpoint: endpoint, client: client}, nil
}

// Close closes connections that are idle.
func (v *Vendor) Close() { v.client.CloseIdleConnections() }

// String returns "ibm".
func (v *Vendor) String() string { return "ibm" }

// GoString returns what String does.
func (v *Vendor) GoString() string { return v.String() }

// Verify exchanges the key for a token, which takes no right at all, and says
// whose it is.
func (v *Vendor) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	_, c, err := v.token(ctx, opVerify, login)
	if err != nil {
		return credential.Identity{}, err
	}
	key := login.Payload.Message().GetIbmCloud().GetApiKey()
	identity := credential.Identity{Facts: map[string]string{}}
	for _, name := range []string{c.Email, c.Subject, c.Name, c.ID} {
		if name != "" {
			identity.Name = provider.Clean(name, key)
			break
		}
	}
	for name, value := range map[string]string{
		"accountGuid": c.Account.ID, "iamId": c.ID, "name": c.Name, "subject": c.Subject, "subjectType": c.SubjectType,
	} {
		if value != "" {
			identity.Facts[name] = provider.Clean(value, key)
		}
	}
	return identity, nil
}

// Mint returns an access token, which IAM lets end after an hour.
func (v *Vendor) Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	if request.Message().GetIbmIamToken() == nil {
		return credential.Token{}, &provider.Error{Kind: provider.ErrUnsupported, Op: opMint, Text: "IBM Cloud makes no such token"}
	}
	a, _, err := v.token(ctx, opMint, login)
	if err != nil {
		return credential.Token{}, err
	}
	return credential.NewToken(&credentialv1.Token{
		Kind:       &credentialv1.Token_Bearer_{Bearer: &credentialv1.Token_Bearer{Token: a.Token, Type: "Bearer"}},
		ExpireTime: timestamppb.New(time.Unix(a.Expiration, 0)),
	})
}

// answer is IAM's answer to a request for a token.
// Source: https://cloud.ibm.com/apidocs/iam-identity-token-api#gettoken-apikey
type answer struct {
	Token      string `json:"access_token"`
	Expiration int64  `json:"expiration"`
}

// claims are what a token says. Nothing is granted by them: they came over TLS
// from IAM, and are compared and shown.
type claims struct {
	ID          string `json:"iam_id"`
	Subject     string `json:"sub"`
	SubjectType string `json:"sub_type"`
	Name        string `json:"name"`
	Email       string `json:"email"`
	Account     struct {
		ID string `json:"bss"`
	} `json:"account"`
}

// token exchanges the key, and checks the account.
func (v *Vendor) token(ctx context.Context, op string, login credential.Login) (answer, claims, error) {
	m := login.Payload.Message().GetIbmCloud()
	if m == nil {
		return answer{}, claims{}, &provider.Error{Kind: provider.ErrUnsupported, Op: op, Text: "the credential is not of kind ibmCloud"}
	}
	form := url.Values{"grant_type": {grantType}, "apikey": {m.GetApiKey()}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, v.endpoint+"/identity/token", strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, claims{}, notUnderstood(op)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	got, err := provider.Ask(v.client, request, op)
	switch {
	case err != nil:
		return answer{}, claims{}, err
	case got.Status != http.StatusOK:
		return answer{}, claims{}, judge(op, got, m.GetApiKey())
	}
	var a answer
	if json.Unmarshal(got.Body, &a) != nil || a.Token == "" || a.Expiration <= 0 {
		return answer{}, claims{}, notUnderstood(op)
	}
	c, ok := readClaims(a.Token)
	if !ok {
		return answer{}, claims{}, notUnderstood(op)
	}
	if !strings.EqualFold(c.Account.ID, m.GetAccountGuid()) {
		return answer{}, claims{}, otherAccount(op, c.Account.ID, m)
	}
	return a, c, nil
}

// otherAccount says that the key is of another account. Their ids are no secrets.
func otherAccount(op, account string, m *credentialv1.IbmCloud) error {
	text := "the API key belongs to account " + account + ", and the credential is for account " + m.GetAccountGuid()
	if account == "" {
		text = "the API key belongs to no account, and the credential is for account " + m.GetAccountGuid()
	}
	return &provider.Error{Kind: provider.ErrRefused, Op: op, Text: provider.Clean(text, m.GetApiKey())}
}

// readClaims reads a JWT without checking its signature.
func readClaims(token string) (claims, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return claims{}, false
	}
	var c claims
	if json.Unmarshal(payload, &c) != nil {
		return claims{}, false
	}
	return c, true
}

// noSuchKey is IAM's code for a key that is wrong or was deleted; its own words,
// that the key could not be found, follow ours.
const noSuchKey = "BXNIM0415E"

// judge makes an error of an answer that is no token. What differs from answer to
// answer, as the request's id in "context", is left out.
func judge(op string, a provider.Answer, key string) error {
	e := &provider.Error{Kind: provider.ErrRefused, Op: op, Status: a.Status, RetryAfter: a.RetryAfter()}
	switch {
	case a.Status == http.StatusTooManyRequests, a.Status == http.StatusRequestTimeout, a.Status >= http.StatusInternalServerError:
		e.Kind = provider.ErrUnavailable
	case a.Status < http.StatusBadRequest:
		e.Text = "the answer is a redirect, which is not followed"
		return e
	}
	var said struct {
		Code    string `json:"errorCode"`
		Message string `json:"errorMessage"`
	}
	words := "without a reason"
	if json.Unmarshal(a.Body, &said) == nil && said.Code+said.Message != "" {
		words = strings.Trim(said.Code+": "+said.Message, ": ")
	}
	if said.Code == noSuchKey {
		words = "the API key is wrong or was deleted: " + words
	}
	e.Text = provider.Clean(words, key)
	return e
}

func notUnderstood(op string) error {
	return &provider.Error{Kind: provider.ErrUnavailable, Op: op, Text: "the answer is none that IBM Cloud's documentation describes"}
}
