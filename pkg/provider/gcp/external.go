package gcp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/credstore/credstore/pkg/provider"
)

// The types of subject tokens that have a form of their own.
const (
	awsTokenType  = "urn:ietf:params:aws:token-type:aws4_request"
	samlTokenType = "urn:ietf:params:oauth:token-type:saml2"
)

// maxSubjectToken bounds a subject token's file, in bytes.
const maxSubjectToken = 64 << 10

// federation is what is used of the document of an external account
// (https://google.aip.dev/auth/4117).
type federation struct {
	Audience      string `json:"audience"`
	TokenType     string `json:"subject_token_type"`
	Impersonation struct {
		Seconds int `json:"token_lifetime_seconds"`
	} `json:"service_account_impersonation"`
	Source source `json:"credential_source"`
}

// source is where the subject token comes from.
type source struct {
	File    string            `json:"file"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Format  struct {
		Type  string `json:"type"`
		Field string `json:"subject_token_field_name"`
	} `json:"format"`
}

// exchange exchanges the identity's own token for a federated access token of
// Google's (RFC 8693).
func (c *Client) exchange(ctx context.Context, f *federation, scopes []string) (bearer, error) {
	subject, err := c.subjectToken(ctx, f)
	if err != nil {
		return bearer{}, err
	}
	k := call{op: "exchange", client: c.http, secrets: []string{subject}}
	answer, err := c.postForm(ctx, k, c.cfg.STSURL, url.Values{
		"grant_type":           {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"audience":             {f.Audience},
		"scope":                {strings.Join(scopes, " ")},
		"requested_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
		"subject_token":        {subject},
		"subject_token_type":   {f.TokenType},
	})
	if err != nil {
		return bearer{}, err
	}
	return c.accessToken(k, answer)
}

// subjectOp names the reading of the identity's own token in errors.
const subjectOp = "subject token"

func (c *Client) subjectToken(ctx context.Context, f *federation) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if f.TokenType == awsTokenType {
		return c.awsSubjectToken(ctx, f)
	}
	var text []byte
	var err error
	if f.Source.File != "" {
		text, err = readToken(f.Source.File)
	} else {
		text, err = c.fetchToken(ctx, f.Source)
	}
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if f.Source.Format.Type == "json" {
		var fields map[string]json.RawMessage
		if json.Unmarshal(text, &fields) != nil || json.Unmarshal(fields[f.Source.Format.Field], &token) != nil {
			return "", unusable(subjectOp, "the source gives no JSON object with the field that subject_token_field_name names")
		}
	}
	// Who may name a file of the server must not send it anywhere, be it to
	// Google, unless it is what it should be.
	if !isToken(f.TokenType, token) {
		return "", unusable(subjectOp, "what the source gives is not a token of the type that subject_token_type names")
	}
	return token, nil
}

// compactJWS is the form of a signed JSON web token (RFC 7515, section 3.1).
var compactJWS = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

func isToken(kind, token string) bool {
	if kind != samlTokenType {
		return compactJWS.MatchString(token)
	}
	decoded, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(token), "="))
	return err == nil && strings.HasPrefix(strings.TrimSpace(string(decoded)), "<")
}

// readToken reads a file of the server. Errors do not name it: the name is a
// part of the payload.
func readToken(name string) ([]byte, error) {
	// Without waiting, if it is a pipe: the context could not end that.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		why := "cannot be opened"
		switch {
		case errors.Is(err, fs.ErrNotExist):
			why = "does not exist on this server"
		case errors.Is(err, fs.ErrPermission):
			why = "may not be read by this server"
		}
		return nil, unusable(subjectOp, "the file that credential_source names "+why)
	}
	text, err := readRegular(f)
	// Nothing was written, so nothing can be lost.
	_ = f.Close()
	return text, err
}

func readRegular(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxSubjectToken {
		return nil, unusable(subjectOp, "the file that credential_source names is no ordinary file of at most 65,536 bytes")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSubjectToken))
	if err != nil {
		return nil, &provider.Error{Kind: provider.ErrUnavailable, Op: subjectOp, Text: "the file that credential_source names cannot be read"}
	}
	return text, nil
}

// fetchToken asks a URL: an https one wherever Egress lets it, or the metadata
// service of Azure.
func (c *Client) fetchToken(ctx context.Context, s source) ([]byte, error) {
	k := call{op: subjectOp, client: c.http}
	to := s.URL
	u, err := url.Parse(to)
	if err != nil {
		return nil, unusable(subjectOp, "the stored URL is none: store the document again")
	}
	if u.Scheme != "https" {
		base, ok := c.metadataBase(u)
		if !ok || u.Path != "/metadata/identity/oauth2/token" {
			return nil, unusable(subjectOp, "the stored URL is neither https nor that of Azure's metadata service")
		}
		k.client, to = c.metadata, base+u.RequestURI()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return nil, unusable(subjectOp, "the stored URL is none: store the document again")
	}
	for name, value := range s.Headers {
		r.Header.Set(name, value)
		k.secrets = append(k.secrets, value)
	}
	a, err := k.send(r)
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusOK {
		return nil, k.foreign(a)
	}
	return a.Body, nil
}

// foreign judges an answer of somebody else than Google, whose words are taken
// only if they have OAuth's form.
func (k call) foreign(a provider.Answer) error {
	e := &provider.Error{Kind: provider.ErrRefused, Op: k.op, Status: a.Status, Text: "the source of the subject token gave no token"}
	if c, ok := parseComplaint(a.Body); ok {
		e.Text += ": " + provider.Clean(c.text, k.secrets...)
	}
	if a.Status < 400 || a.Status >= 500 || a.Status == http.StatusTooManyRequests {
		e.Kind, e.RetryAfter = provider.ErrUnavailable, a.RetryAfter()
	}
	return e
}

// metadataBase returns the root of the metadata service that a URL is of, and
// whether it is of one.
func (c *Client) metadataBase(u *url.URL) (string, bool) {
	_, ok := metadataHosts[u.Host]
	switch {
	case u.Scheme != "http" || !ok:
		return "", false
	case c.cfg.MetadataURL != "":
		return strings.TrimSuffix(c.cfg.MetadataURL, "/"), true
	}
	return "http://" + u.Host, true
}
