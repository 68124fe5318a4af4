package gcp

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/credstore/credstore/pkg/provider"
)

// Google's public endpoints.
const (
	// TokenURL is where assertions are exchanged, and the audience that they are
	// made out to wherever Config sends them.
	TokenURL = "https://oauth2.googleapis.com/token"
	// STSURL is the token endpoint of the Security Token Service.
	STSURL = "https://sts.googleapis.com/v1/token"
	// IAMCredentialsURL is the root of the IAM Service Account Credentials API.
	IAMCredentialsURL = "https://iamcredentials.googleapis.com"
	// APIKeyURL is a listing that costs nothing and takes API keys.
	APIKeyURL = "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1"
)

// metadataHosts are where the clouds have the metadata service of a machine: AWS
// and Azure, and AWS over IPv6.
var metadataHosts = map[string]netip.AddrPort{
	"169.254.169.254": netip.MustParseAddrPort("169.254.169.254:80"),
	"[fd00:ec2::254]": netip.MustParseAddrPort("[fd00:ec2::254]:80"),
}

// Config says how Google is reached. Its zero value reaches the public endpoints.
type Config struct {
	// Egress guards the addresses that are connected to, except for those of the
	// metadata service.
	Egress provider.Egress
	// CAPEM are the certificates to trust, the system's when "".
	CAPEM string
	// TokenURL, STSURL, IAMCredentialsURL and APIKeyURL replace the constants of
	// the same names, as for a private endpoint.
	TokenURL, STSURL, IAMCredentialsURL, APIKeyURL string
	// MetadataURL replaces the addresses of the metadata service: an http URL of
	// an IP address with its port, without a path.
	MetadataURL string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Getenv looks up the environment variables of AWS; os.Getenv when nil. Only
	// external accounts have them looked up.
	Getenv func(string) string
}

// Client is a provider.Verifier and a provider.Minter for the kinds of Google
// Cloud. It holds no secret and is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
	// metadata connects to the metadata service alone.
	metadata *http.Client
}

var (
	_ provider.Verifier = (*Client)(nil)
	_ provider.Minter   = (*Client)(nil)
)

// New makes a client. An error says what is wrong with the configuration.
func New(cfg Config) (*Client, error) {
	for _, d := range []struct {
		url      *string
		standard string
	}{{&cfg.TokenURL, TokenURL}, {&cfg.STSURL, STSURL}, {&cfg.IAMCredentialsURL, IAMCredentialsURL}, {&cfg.APIKeyURL, APIKeyURL}} {
		if *d.url == "" {
			*d.url = d.standard
		}
		if u, err := url.Parse(*d.url); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			return nil, fmt.Errorf("an endpoint of Google Cloud is no https URL: the public one is %s", d.standard)
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Getenv == nil {
		cfg.Getenv = os.Getenv
	}
	addresses := []netip.AddrPort{metadataHosts["169.254.169.254"], metadataHosts["[fd00:ec2::254]"]}
	if cfg.MetadataURL != "" {
		u, err := url.Parse(cfg.MetadataURL)
		if err != nil || u.Scheme != "http" || strings.Trim(u.Path, "/") != "" {
			return nil, errors.New("the metadata service's address is no http URL without a path")
		}
		address, err := netip.ParseAddrPort(u.Host)
		if err != nil {
			return nil, errors.New("the metadata service's address has no IP address with a port")
		}
		addresses = []netip.AddrPort{address}
	}
	client, err := cfg.Egress.Client(cfg.CAPEM)
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, http: client, metadata: provider.MetadataClient(addresses...)}
	// A connection that is kept has goroutines that outlive the call; these calls
	// are rare, and each goes to another host.
	for _, client := range []*http.Client{c.http, c.metadata} {
		if transport, ok := client.Transport.(*http.Transport); ok {
			transport.DisableKeepAlives = true
		}
	}
	return c, nil
}

// String returns the package's name.
func (c *Client) String() string { return "gcp" }

// GoString returns what String does.
func (c *Client) GoString() string { return c.String() }
