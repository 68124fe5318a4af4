package webhook

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
	"github.com/credstore/credstore/pkg/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

const (
	slackURL   = "https://hooks.slack.com/services/T024BE7LD/B024BE7LE/slack-secret-canary"
	discordURL = "https://discord.com/api/webhooks/1234567890/discord-token-canary"
	otherURL   = "https://alerts.example.com/hooks/other-secret-canary?key=query-secret-canary"
)

// fake is Slack, Discord and another host in one, written from their references.
// What would post a message fails the test.
type fake struct {
	*httptest.Server
	t     *testing.T
	calls atomic.Int32
	fail  func(w http.ResponseWriter) bool
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /services/{team}/{hook}/{secret}", f.slack)
	mux.HandleFunc("GET /api/webhooks/{id}/{token}", f.discord)
	mux.HandleFunc("GET /api/v10/webhooks/{id}/{token}", f.discord)
	mux.HandleFunc("OPTIONS /hooks/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s to a path of nobody", r.Method)
		http.NotFound(w, r)
	})
	f.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.calls.Add(1)
		if f.fail == nil || !f.fail(w) {
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) slack(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var message struct {
		Text        *string           `json:"text"`
		Attachments []json.RawMessage `json:"attachments"`
		Blocks      []json.RawMessage `json:"blocks"`
	}
	switch {
	case r.PathValue("team") != "T024BE7LD":
		http.Error(w, "no_team", http.StatusNotFound)
	case r.PathValue("hook") != "B024BE7LE":
		http.Error(w, "no_service", http.StatusNotFound)
	case r.PathValue("secret") != "slack-secret-canary":
		http.Error(w, "invalid_token "+r.PathValue("secret"), http.StatusForbidden)
	case err != nil || r.Header.Get("Content-Type") != "application/json" || json.Unmarshal(body, &message) != nil:
		http.Error(w, "invalid_payload", http.StatusBadRequest)
	case message.Text == nil || *message.Text == "" && len(message.Attachments)+len(message.Blocks) == 0:
		http.Error(w, "no_text", http.StatusBadRequest)
	default:
		f.t.Errorf("a message was posted")
		_, _ = io.WriteString(w, "ok")
	}
}

func (f *fake) discord(w http.ResponseWriter, r *http.Request) {
	answer := func(status int, body map[string]any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	switch {
	case r.URL.RawQuery != "":
		f.t.Errorf("it was asked with a query")
	case r.PathValue("id") != "1234567890":
		answer(http.StatusNotFound, map[string]any{"message": "Unknown Webhook", "code": 10015})
	case r.PathValue("token") != "discord-token-canary":
		answer(http.StatusUnauthorized, map[string]any{"message": "Invalid Webhook Token", "code": 50027})
	default:
		answer(http.StatusOK, map[string]any{
			"type": 1, "id": "1234567890", "name": "Spidey Bot", "channel_id": "199737254929760256", "guild_id": "199737254929760257",
			"token": "discord-token-canary", "url": discordURL,
		})
	}
}

// client sends what is for the three hosts to the fake.
func (f *fake) client() *Webhook {
	return New(Config{
		Egress: loopback, CAPEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})),
		Endpoints: map[string]string{"hooks.slack.com": f.URL, "discord.com": f.URL, "alerts.example.com": f.URL},
	})
}

func loginOf(t *testing.T, url string) credential.Login {
	t.Helper()
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Webhook{Webhook: &credentialv1.Webhook{Url: url}}})
	if err != nil {
		t.Fatal(err)
	}
	return credential.Login{Name: "projects/default/credentials/alerts", ID: "1", Payload: p}
}

func TestVendor(t *testing.T) {
	for _, test := range []struct{ name, good, wrong, identity string }{
		{"Slack", slackURL, strings.Replace(slackURL, "slack-secret", "wr0ng-secret", 1), ""},
		{"Discord", discordURL, strings.Replace(discordURL, "discord-token", "wr0ng-token", 1), "Spidey Bot"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			providertest.RunVendor(t, providertest.VendorHarness{
				Verifier: f.client(), Good: loginOf(t, test.good), Identity: test.identity, Wrong: loginOf(t, test.wrong),
				Calls: func() int { return int(f.calls.Load()) },
				Stop: func(*testing.T) func() {
					f.fail = func(w http.ResponseWriter) bool {
						w.WriteHeader(http.StatusServiceUnavailable)
						return true
					}
					return func() { f.fail = nil }
				},
				Secrets: []string{"slack-secret-canary", "discord-token-canary", "wr0ng-secret-canary", "wr0ng-token-canary"},
			})
		})
	}
}

func TestDiscord(t *testing.T) {
	f := newFake(t)
	want := credential.Identity{Name: "Spidey Bot", Facts: map[string]string{
		"webhookId": "1234567890", "channelId": "199737254929760256", "guildId": "199737254929760257",
	}}
	for _, url := range []string{
		discordURL, discordURL + "/slack?wait=true", discordURL + "/github", discordURL + "?thread_id=1",
		strings.Replace(discordURL, "/api/", "/api/v10/", 1),
	} {
		got, err := f.client().Verify(t.Context(), loginOf(t, url))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

func TestAnswers(t *testing.T) {
	answer := func(status int, body string) func(http.ResponseWriter) bool {
		return func(w http.ResponseWriter) bool {
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	for _, test := range []struct {
		name, url string
		fail      func(http.ResponseWriter) bool
		kind      error
		text      string
	}{
		{"Slack, no service", strings.Replace(slackURL, "B024BE7LE", "B024BE7LF", 1), nil, provider.ErrRefused, "verify: refused: 404 no_service"},
		{"Slack, no team", strings.Replace(slackURL, "T024BE7LD", "T024BE7LF", 1), nil, provider.ErrRefused, "verify: refused: 404 no_team"},
		{"Slack, secret repeated", strings.Replace(slackURL, "slack-secret", "wr0ng-secret", 1), nil, provider.ErrRefused, "verify: refused: 403 invalid_token (redacted)"},
		{"Slack, archived", slackURL, answer(http.StatusGone, "channel_is_archived"), provider.ErrRefused, "verify: refused: 410 channel_is_archived"},
		{"Slack, prohibited", slackURL, answer(http.StatusForbidden, "action_prohibited"), provider.ErrRefused, "verify: refused: 403 action_prohibited"},
		{"Slack, something else", slackURL, answer(http.StatusBadRequest, "invalid_payload"), provider.ErrUnavailable, "verify: store unavailable: 400 it is not what Slack answers to a message without text"},
		{"Slack, too many", slackURL, answer(http.StatusTooManyRequests, "rate_limited"), provider.ErrUnavailable, "verify: store unavailable: 429 too many requests"},
		{"Slack, workflow", "https://hooks.slack.com/triggers/T0/1/slack-secret-canary", nil, provider.ErrUnsupported, "verify: not supported: whatever is sent to it starts the workflow: nothing proves it without that"},
		{"Discord, unknown", strings.Replace(discordURL, "1234567890", "1234567891", 1), nil, provider.ErrRefused, "verify: refused: 404 Unknown Webhook"},
		{"Discord, wrong token", strings.Replace(discordURL, "discord-token", "wr0ng-token", 1), nil, provider.ErrRefused, "verify: refused: 401 Invalid Webhook Token"},
		{"Discord, a page", discordURL, answer(http.StatusOK, "<html>"), provider.ErrUnavailable, "verify: store unavailable: 200 it is not what Discord answers"},
		{"Discord, another object", discordURL, answer(http.StatusOK, "{}"), provider.ErrUnavailable, "verify: store unavailable: 200 it is not what Discord answers"},
		{"other", otherURL, nil, provider.ErrUnsupported, "verify: not supported: 204 alerts.example.com is reached, but only a message would prove the webhook, and none is sent"},
		{"other, not found", otherURL, answer(http.StatusNotFound, ""), provider.ErrUnsupported, "verify: not supported: 404 alerts.example.com is reached, but only a message would prove the webhook, and none is sent"},
		{"other, gone", otherURL, answer(http.StatusGone, ""), provider.ErrRefused, "verify: refused: 410 the host says that the webhook is gone for good"},
		{"other, down", otherURL, answer(http.StatusBadGateway, otherURL), provider.ErrUnavailable, "verify: store unavailable: 502 bad gateway"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			f.fail = test.fail
			_, err := f.client().Verify(t.Context(), loginOf(t, test.url))
			if !errors.Is(err, test.kind) || err.Error() != test.text {
				t.Errorf("error is %v; want %q", err, test.text)
			}
			if e, ok := errors.AsType[*provider.Error](err); !ok || e.Status == http.StatusTooManyRequests && e.RetryAfter != 3*time.Second {
				t.Errorf("error is %#v", err)
			}
			if text := fmt.Sprintf("%+v", err); strings.Contains(text, "canary") {
				t.Errorf("a secret is in %s", text)
			}
			if unasked := test.name == "Slack, workflow"; unasked != (f.calls.Load() == 0) {
				t.Errorf("%d requests", f.calls.Load())
			}
		})
	}
}

// Where the host cannot be reached, the error names it and no more of the URL.
func TestUnreachable(t *testing.T) {
	f := newFake(t)
	w := f.client()
	f.Close()
	for _, url := range []string{slackURL, discordURL, otherURL} {
		_, err := w.Verify(t.Context(), loginOf(t, url))
		if !errors.Is(err, provider.ErrUnavailable) || strings.Contains(err.Error(), "canary") {
			t.Errorf("error is %v", err)
		}
	}
}

func TestPrivateAddressIsRefused(t *testing.T) {
	_, err := New(Config{}).Verify(t.Context(), loginOf(t, "https://127.0.0.1:8443/other-secret-canary"))
	if !errors.Is(err, provider.ErrRefused) || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("error is %v", err)
	}
}

func TestCancelled(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.client().Verify(ctx, loginOf(t, otherURL)); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestOtherKind(t *testing.T) {
	p, err := credential.NewPayload(&credentialv1.Payload{Kind: &credentialv1.Payload_Basic{Basic: &credentialv1.Basic{Username: "a", Password: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{}).Verify(t.Context(), credential.Login{Payload: p}); !errors.Is(err, provider.ErrUnsupported) {
		t.Errorf("error is %v", err)
	}
}
