package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Config says how webhooks are reached. Its zero value is for public ones.
type Config struct {
	Egress provider.Egress
	// CAPEM is the authority of the hosts, in PEM form; the system's when empty.
	CAPEM string
	// Endpoints are https URLs, without a path, to send to in place of a host, as
	// of a gateway for what leaves the network.
	Endpoints map[string]string
}

// Webhook verifies webhooks. It is safe for concurrent use and keeps nothing.
type Webhook struct{ cfg Config }

// New returns a Webhook.
func New(cfg Config) *Webhook { return &Webhook{cfg: cfg} }

var _ provider.Verifier = (*Webhook)(nil)

// The services that can be asked, as the kind's fact "service" names them.
const (
	slack   = "slack"
	discord = "discord"
)

// Verify makes the call that proves the webhook without a message:
//
//   - Slack gets a message without text, which it refuses as "no_text" when it
//     knows the webhook, and otherwise by the webhook's own fault
//     (https://api.slack.com/changelog/2016-05-17-changes-to-errors-for-incoming-webhooks);
//   - Discord tells what the webhook is (Get Webhook with Token); the identity is
//     its name.
//
// Any other host is asked by OPTIONS, which changes nothing: 410 is ErrRefused,
// every other answer ErrUnsupported. 404 too, since many answer it to all but
// POST. A trigger of a Slack workflow is not called at all: whatever is sent
// starts the workflow.
func (w *Webhook) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	m := login.Payload.Message().GetWebhook()
	if m == nil {
		return credential.Identity{}, &provider.Error{Kind: provider.ErrUnsupported, Op: "verify", Text: "the credential is no webhook"}
	}
	s, err := w.open(m)
	if err != nil {
		return credential.Identity{}, err
	}
	defer s.client.CloseIdleConnections()
	switch login.Payload.Facts()["service"] {
	case slack:
		return credential.Identity{}, s.slack(ctx)
	case discord:
		return s.discord(ctx)
	}
	return credential.Identity{}, s.other(ctx)
}

// session is one conversation with a host.
type session struct {
	client *http.Client
	host   string // of the webhook; target may lead to another
	target url.URL
	// secrets are what must not be repeated: the URL and its parts.
	secrets []string
}

func (w *Webhook) open(m *credentialv1.Webhook) (*session, error) {
	client, err := w.cfg.Egress.Client(w.cfg.CAPEM)
	if err != nil {
		return nil, &provider.Error{Kind: provider.ErrRefused, Op: "verify", Text: provider.Clean(err.Error())}
	}
	u, err := url.Parse(m.GetUrl())
	if err != nil { // the kind's check has read it
		return nil, &provider.Error{Kind: provider.ErrRefused, Op: "verify", Text: "the URL cannot be read"}
	}
	s := &session{client: client, host: u.Hostname(), target: *u, secrets: secretsOf(m, u)}
	if other := w.cfg.Endpoints[u.Host]; other != "" {
		endpoint, err := url.Parse(other)
		if err != nil {
			return nil, &provider.Error{Kind: provider.ErrRefused, Op: "verify", Text: "the endpoint that is configured for the host is no URL"}
		}
		s.target.Scheme, s.target.Host = endpoint.Scheme, endpoint.Host
	}
	return s, nil
}

// secretsOf returns the URL, what follows its host, and each part of that which
// is long enough to be the secret and no word of the service.
func secretsOf(m *credentialv1.Webhook, u *url.URL) []string {
	const shortest = 8
	all := []string{m.GetUrl(), u.RequestURI(), u.EscapedPath(), u.RawQuery, m.GetSecret()}
	for _, part := range strings.FieldsFunc(u.RequestURI(), func(c rune) bool { return strings.ContainsRune("/?&=", c) }) {
		if len(part) >= shortest && !slices.Contains([]string{"services", "webhooks"}, part) {
			all = append(all, part)
		}
	}
	return all
}

// slack sends a message without text.
func (s *session) slack(ctx context.Context) error {
	if !strings.HasPrefix(s.target.Path, "/services/") {
		return unsupported(0, "whatever is sent to it starts the workflow: nothing proves it without that")
	}
	a, err := s.do(ctx, http.MethodPost, strings.NewReader(`{"text":""}`))
	if err != nil {
		return err
	}
	text := strings.TrimSpace(string(a.Body))
	switch {
	case a.Status == http.StatusOK,
		a.Status == http.StatusBadRequest && (text == "no_text" || strings.HasPrefix(text, "missing_text")):
		return nil
	case a.Status == http.StatusForbidden, a.Status == http.StatusNotFound, a.Status == http.StatusGone:
		return s.fail(provider.ErrRefused, a, text)
	case a.Status == http.StatusBadRequest && text == "invalid_token":
		return s.fail(provider.ErrRefused, a, text)
	}
	return s.unavailable(a, "it is not what Slack answers to a message without text")
}

// discord asks what the webhook is.
func (s *session) discord(ctx context.Context) (credential.Identity, error) {
	parts := strings.Split(s.target.EscapedPath(), "/")
	for i, part := range parts {
		// Behind the token may be the form of another service ("/slack"), and in
		// the query where in the channel to post.
		if part == "webhooks" && len(parts) > i+2 {
			s.target.RawPath = ""
			s.target.Path = strings.Join(parts[:i+3], "/")
		}
	}
	s.target.RawQuery = ""
	a, err := s.do(ctx, http.MethodGet, nil)
	if err != nil {
		return credential.Identity{}, err
	}
	var body struct {
		ID        string `json:"id"`
		Name      string `json:"name"`
		ChannelID string `json:"channel_id"`
		GuildID   string `json:"guild_id"`
		Message   string `json:"message"`
	}
	readable := json.Unmarshal(a.Body, &body) == nil
	switch {
	case a.Status == http.StatusOK && readable && body.ID != "":
		facts := map[string]string{"webhookId": body.ID}
		for name, value := range map[string]string{"channelId": body.ChannelID, "guildId": body.GuildID} {
			if value != "" {
				facts[name] = s.clean(value)
			}
		}
		return credential.Identity{Name: s.clean(body.Name), Facts: facts}, nil
	case a.Status == http.StatusUnauthorized, a.Status == http.StatusForbidden, a.Status == http.StatusNotFound:
		return credential.Identity{}, s.fail(provider.ErrRefused, a, body.Message)
	}
	return credential.Identity{}, s.unavailable(a, "it is not what Discord answers")
}

// other finds out whether the host is there.
func (s *session) other(ctx context.Context) error {
	a, err := s.do(ctx, http.MethodOptions, nil)
	switch {
	case err != nil:
		return err
	case a.Status == http.StatusGone:
		return s.fail(provider.ErrRefused, a, "the host says that the webhook is gone for good")
	case a.Status == http.StatusTooManyRequests || a.Status >= http.StatusInternalServerError:
		return s.unavailable(a, "")
	}
	return unsupported(a.Status, fmt.Sprintf("%s is reached, but only a message would prove the webhook, and none is sent", s.host))
}
