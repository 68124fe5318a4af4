package conjur

import (
	"context"
	"encoding/base64"
	"encoding/json"
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
	a, err := provider.Ask(s.client, r, opLogin)
	if err != nil {
		return "", err
	}
	if a.Status != http.StatusOK {
		return "", s.judge(opLogin, a)
	}
	token := strings.TrimSpace(string(a.Body))
	if strings.HasPrefix(token, "{") { // an old appliance ignores the header
		token = base64.StdEncoding.EncodeToString([]byte(token))
	}
	if decoded, err := base64.StdEncoding.DecodeString(token); err != nil || !json.Valid(decoded) {
		return "", &provider.Error{Kind: provider.ErrUnavailable, Op: opLogin, Status: a.Status, Text: "the answer is not Conjur's"}
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
	a, err := provider.Ask(s.client, r, opIdentify)
	if err != nil {
		return credential.Identity{}, err
	}
	var who struct {
		Account  string `json:"account"`
		Username string `json:"username"`
	}
	switch {
	case a.Status == http.StatusNotFound:
		who.Account, who.Username = s.m.GetAccount(), s.m.GetLogin()
	case a.Status != http.StatusOK:
		return credential.Identity{}, s.judge(opIdentify, a, token)
	case json.Unmarshal(a.Body, &who) != nil || who.Username == "":
		return credential.Identity{}, &provider.Error{Kind: provider.ErrUnavailable, Op: opIdentify, Status: a.Status, Text: "the answer is not Conjur's"}
	}
	return credential.Identity{
		Name:  provider.Clean(who.Username, s.m.GetApiKey(), token),
		Facts: map[string]string{"account": provider.Clean(who.Account, s.m.GetApiKey(), token)},
	}, nil
}

// judge says which answer it is that is no success. Conjur says little: an
// unknown account, an unknown login and a wrong key are the same to it.
func (s session) judge(op string, a provider.Answer, secrets ...string) error {
	var complaint struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	e := &provider.Error{Kind: provider.ErrRefused, Op: op, Status: a.Status, RetryAfter: a.RetryAfter()}
	if err := json.Unmarshal(a.Body, &complaint); err == nil {
		e.Text = provider.Clean(complaint.Error.Message, append(secrets, s.m.GetApiKey())...)
	}
	switch {
	case a.Status == http.StatusTooManyRequests, a.Status >= 500:
		e.Kind = provider.ErrUnavailable
	case a.Status < 400:
		e.Kind = provider.ErrUnavailable
		e.Text = "the answer is a redirect, which is not followed: give the URL that it leads to"
	case a.Status == http.StatusUnauthorized && e.Text == "":
		e.Text = "the account, the login or the API key is wrong, or the login may not come from this address"
	case e.Text == "":
		e.Text = "the answer gives no reason; is the URL that of Conjur?"
	}
	return e
}
