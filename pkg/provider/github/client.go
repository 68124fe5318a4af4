package github

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/provider"
)

// Config says how GitHub is reached. Its zero value reaches it directly.
type Config struct {
	// Egress guards the addresses that are connected to.
	Egress provider.Egress
	// CAPEM are the certificates to trust, the system's when "".
	CAPEM string
	// APIURL replaces "https://api.github.com" where a payload names that.
	APIURL string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Client is a provider.Verifier and a provider.Minter for GitHub Apps. It holds
// no secret and is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
}

var (
	_ provider.Verifier = (*Client)(nil)
	_ provider.Minter   = (*Client)(nil)
)

// New makes a client. An error says what is wrong with the configuration.
func New(cfg Config) (*Client, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if u, err := url.Parse(cfg.APIURL); cfg.APIURL != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil) {
		return nil, errors.New("the address of GitHub's API is no https URL")
	}
	cfg.APIURL = strings.TrimSuffix(cfg.APIURL, "/")
	client, err := cfg.Egress.Client(cfg.CAPEM)
	if err != nil {
		return nil, err
	}
	// A connection that is kept has goroutines that outlive the call.
	if transport, ok := client.Transport.(*http.Transport); ok {
		transport.DisableKeepAlives = true
	}
	return &Client{cfg: cfg, http: client}, nil
}

// String returns the package's name.
func (c *Client) String() string { return "github" }

// GoString returns what String does.
func (c *Client) GoString() string { return c.String() }
