package conjur

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Config says how appliances may be reached; where they are stands in each
// credential. It holds no secret.
type Config struct {
	// Egress guards the addresses that are connected to.
	Egress provider.Egress
}

const (
	opLogin    = "login"
	opIdentify = "identify"
	// maxAnswer bounds an answer, in bytes.
	maxAnswer = 1 << 20
)

// Vendor verifies credentials of kind conjur. It implements provider.Verifier,
// and prints as its name.
type Vendor struct{ egress provider.Egress }

var _ provider.Verifier = (*Vendor)(nil)

// New returns a Vendor. It connects to nobody.
func New(cfg Config) *Vendor { return &Vendor{egress: cfg.Egress} }

// String returns "conjur".
func (v *Vendor) String() string { return "conjur" }

// GoString returns what String does.
func (v *Vendor) GoString() string { return v.String() }

// Verify implements provider.Verifier: it exchanges the API key for an access
// token, which ends after eight minutes and cannot be given back, and asks
// whose that is. An appliance too old to be asked has been shown enough.
func (v *Vendor) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	m := login.Payload.Message().GetConjur()
	if m == nil {
		return credential.Identity{}, &provider.Error{Kind: provider.ErrRefused, Op: opLogin, Text: "the credential is not of kind conjur"}
	}
	client, err := v.egress.Client(m.GetCaPem())
	if err != nil {
		return credential.Identity{}, &provider.Error{Kind: provider.ErrRefused, Op: opLogin, Text: provider.Clean(err.Error())}
	}
	// Each credential trusts its own authorities, so connections are not shared.
	defer client.CloseIdleConnections()
	s := session{client: client, m: m}
	token, err := s.authenticate(ctx)
	if err != nil {
		return credential.Identity{}, err
	}
	return s.whoAmI(ctx, token)
}

// session is one login.
type session struct {
	client *http.Client
	m      *credentialv1.Conjur
}

// authenticate returns an access token, in base64.
// Source: https://docs.cyberark.com/conjur-open-source/latest/en/content/developer/conjur_api_authenticate.htm
func (s session) authenticate(ctx context.Context) (string, error) {
	path := "/authn/" + url.PathEscape(s.m.GetAccount()) + "/" + url.PathEscape(s.m.GetLogin()) + "/authenticate"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.m.GetUrl()+path, strings.NewReader(s.m.GetApiKey()))
	if err != nil {
		return "", &provider.Error{Kind: provider.ErrRefused, Op: opLogin, Text: "the URL makes no address"}
	}
	r.Header.Set("Content-Type", "text/plain")
	r.Header.Set("Accept-Encoding", "base64")
	status, body, err := s.do(r, opLogin)
	if err != nil {
		return "", err
	}
	if status != http.StatusOK {
		return "", s.judge(opLogin, status, body)
	}
	token := strings.TrimSpace(string(body))
	if strings.HasPrefix(token, "{") { // an old appliance ignores the header
		token = base64.StdEncoding.EncodeToString([]byte(token))
	}
	if decoded, err := base64.StdEncoding.DecodeString(token); err != nil || !json.Valid(decoded) {
		return "", &provider.Error{Kind: provider.ErrUnavailable, Op: opLogin, Status: status, Text: "the answer is not Conjur's"}
	}
	return token, nil
}

// whoAmI asks whose the token is.
// Source: https://docs.cyberark.com/conjur-open-source/latest/en/content/developer/conjur_api_whoami.htm
func (s session) whoAmI(ctx context.Context, token string) (credential.Identity, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.m.GetUrl()+"/whoami", nil)
	if err != nil {
		return credential.Identity{}, &provider.Error{Kind: provider.ErrRefused, Op: opIdentify, Text: "the URL makes no address"}
	}
	r.Header.Set("Authorization", `Token token="`+token+`"`)
	r.Header.Set("Accept-Encoding", "identity")
	status, body, err := s.do(r, opIdentify)
	if err != nil {
		return credential.Identity{}, err
	}
	var who struct {
		Account  string `json:"account"`
		Username string `json:"username"`
	}
	switch {
	case status == http.StatusNotFound:
		who.Account, who.Username = s.m.GetAccount(), s.m.GetLogin()
	case status != http.StatusOK:
		return credential.Identity{}, s.judge(opIdentify, status, body, token)
	case json.Unmarshal(body, &who) != nil || who.Username == "":
		return credential.Identity{}, &provider.Error{Kind: provider.ErrUnavailable, Op: opIdentify, Status: status, Text: "the answer is not Conjur's"}
	}
	return credential.Identity{
		Name:  provider.Clean(who.Username, s.m.GetApiKey(), token),
		Facts: map[string]string{"account": provider.Clean(who.Account, s.m.GetApiKey(), token)},
	}, nil
}

// do makes a request and returns what was answered. Its error is a
// *provider.Error or the context's.
func (s session) do(r *http.Request, op string) (status int, body []byte, err error) {
	response, err := s.client.Do(r)
	if err == nil {
		status = response.StatusCode
		body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
		err = errors.Join(err, response.Body.Close())
	}
	switch {
	case err == nil:
		return status, body, nil
	case r.Context().Err() != nil:
		return 0, nil, r.Context().Err()
	}
	return 0, nil, provider.NetworkError(op, err)
}

// judge says which answer it is that is no success. Conjur says little: an
// unknown account, an unknown login and a wrong key are the same to it.
func (s session) judge(op string, status int, body []byte, secrets ...string) error {
	var complaint struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	e := &provider.Error{Kind: provider.ErrRefused, Op: op, Status: status}
	if err := json.Unmarshal(body, &complaint); err == nil {
		e.Text = provider.Clean(complaint.Error.Message, append(secrets, s.m.GetApiKey())...)
	}
	switch {
	case status == http.StatusTooManyRequests, status >= 500:
		e.Kind = provider.ErrUnavailable
	case status < 400:
		e.Kind = provider.ErrUnavailable
		e.Text = "the answer is a redirect, which is not followed: give the URL that it leads to"
	case status == http.StatusUnauthorized && e.Text == "":
		e.Text = "the account, the login or the API key is wrong, or the login may not come from this address"
	case e.Text == "":
		e.Text = "the answer gives no reason; is the URL that of Conjur?"
	}
	return e
}
