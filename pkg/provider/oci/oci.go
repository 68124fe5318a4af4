package oci

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Config says where Oracle Cloud is. The zero value is the real one; it holds no
// secret.
type Config struct {
	// Egress guards the addresses that are connected to.
	Egress provider.Egress
	// Endpoint is where the Identity service is, an https URL without a path; that
	// of the credential's region and realm when empty, as
	// "https://identity.eu-frankfurt-1.oraclecloud.com".
	Endpoint string
	// CAPEM are the certificates to trust, the system's when empty.
	CAPEM string
}

const opVerify = "verify"

// realms are the domains of the realms, which an OCID names in its third part.
// Source: https://docs.oracle.com/iaas/Content/General/Concepts/regions.htm and
// the tables of the vendor's clients.
var realms = map[string]string{
	"oc1": "oraclecloud.com", "oc2": "oraclegovcloud.com", "oc3": "oraclegovcloud.com", "oc4": "oraclegovcloud.uk",
	"oc8": "oraclecloud8.com", "oc9": "oraclecloud9.com", "oc10": "oraclecloud10.com", "oc14": "oraclecloud14.com",
	"oc15": "oraclecloud15.com", "oc19": "oraclecloud.eu", "oc20": "oraclecloud20.com", "oc21": "oraclecloud21.com",
	"oc23": "oraclecloud23.com", "oc24": "oraclecloud24.com", "oc26": "oraclecloud26.com", "oc29": "oraclecloud29.com",
	"oc35": "oraclecloud35.com", "oc42": "oraclecloud42.com", "oc51": "oraclecloud51.com",
}

// Vendor verifies credentials of kind oci. It implements provider.Verifier, and
// prints as its name.
type Vendor struct {
	endpoint string
	client   *http.Client
}

var _ provider.Verifier = (*Vendor)(nil)

// New checks the configuration. It connects to nobody.
func New(cfg Config) (*Vendor, error) {
	endpoint := strings.TrimSuffix(cfg.Endpoint, "/")
	if u, err := url.Parse(endpoint); endpoint != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.User != nil) {
		return nil, errors.New("oci: Endpoint must be an https URL without a path")
	}
	client, err := cfg.Egress.Client(cfg.CAPEM)
	if err != nil {
		return nil, fmt.Errorf("oci: %w", err)
	}
	return &Vendor{endpoint: endpoint, client: client}, nil
}

// Close closes connections that are idle.
func (v *Vendor) Close() { v.client.CloseIdleConnections() }

// String returns "oci".
func (v *Vendor) String() string { return "oci" }

// GoString returns what String does.
func (v *Vendor) GoString() string { return v.String() }

// Verify implements provider.Verifier: it asks for the user whose key it is
// (GetUser). A user who may not see itself is told by its OCID: the answer then
// says that the signature was accepted, since whoever signs wrongly is told so.
func (v *Vendor) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	m := login.Payload.Message().GetOci()
	if m == nil {
		return credential.Identity{}, refused("the credential is not of kind oci")
	}
	request, err := v.request(ctx, m)
	if err != nil {
		return credential.Identity{}, err
	}
	a, err := provider.Ask(v.client, request, opVerify)
	if err != nil {
		return credential.Identity{}, err
	}
	if a.Status != http.StatusOK {
		return judge(a, m)
	}
	return identity(a.Body, m)
}

func refused(text string) *provider.Error {
	return &provider.Error{Kind: provider.ErrRefused, Op: opVerify, Text: text}
}

// request returns the signed request.
func (v *Vendor) request(ctx context.Context, m *credentialv1.Oci) (*http.Request, error) {
	endpoint := v.endpoint
	if endpoint == "" {
		domain, known := realms[realm(m.GetTenancy())]
		if !known {
			return nil, &provider.Error{Kind: provider.ErrUnsupported, Op: opVerify, Text: "the tenancy is of a realm that this server does not know"}
		}
		endpoint = "https://identity." + m.GetRegion() + "." + domain
	}
	signer, err := credential.PrivateKey(m.GetPrivateKeyPem(), m.GetPassphrase())
	if err != nil {
		return nil, refused(provider.Clean(err.Error()))
	}
	key, ok := signer.(*rsa.PrivateKey)
	if !ok {
		return nil, refused("the private key is not of RSA")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/20160918/users/"+url.PathEscape(m.GetUser()), nil)
	if err != nil {
		return nil, refused("the region makes no address")
	}
	request.Header.Set("Accept", "application/json")
	keyID := m.GetTenancy() + "/" + m.GetUser() + "/" + m.GetFingerprint()
	if err := sign(request, key, keyID, time.Now()); err != nil {
		return nil, refused("the private key cannot sign: it may be too small")
	}
	return request, nil
}

// realm returns the third part of an OCID, "" when there is none.
func realm(ocid string) string {
	if parts := strings.SplitN(ocid, ".", 4); len(parts) == 4 {
		return parts[2]
	}
	return ""
}

// sign adds the date and the signature, version 1
// (https://docs.oracle.com/iaas/Content/API/Concepts/signingrequests.htm). The
// request has no body.
func sign(r *http.Request, key *rsa.PrivateKey, keyID string, now time.Time) error {
	r.Header.Set("Date", now.UTC().Format(http.TimeFormat))
	text := strings.Join([]string{
		"date: " + r.Header.Get("Date"),
		"(request-target): " + strings.ToLower(r.Method) + " " + r.URL.RequestURI(),
		"host: " + r.URL.Host,
	}, "\n")
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	r.Header.Set("Authorization", fmt.Sprintf(
		`Signature version="1",keyId="%s",algorithm="rsa-sha256",headers="date (request-target) host",signature="%s"`,
		keyID, base64.StdEncoding.EncodeToString(signature)))
	return nil
}

// identity returns whose the key is.
// Source: https://docs.oracle.com/iaas/api/#/en/identity/20160918/User/GetUser
func identity(body []byte, m *credentialv1.Oci) (credential.Identity, error) {
	var user struct {
		ID          string `json:"id"`
		Name        string `json:"name"`
		Description string `json:"description"`
		State       string `json:"lifecycleState"`
		Tenancy     string `json:"compartmentId"`
	}
	if err := json.Unmarshal(body, &user); err != nil || user.ID == "" {
		return credential.Identity{}, &provider.Error{
			Kind: provider.ErrUnavailable, Op: opVerify, Status: http.StatusOK, Text: "the answer is not Oracle Cloud's",
		}
	}
	if user.ID != m.GetUser() {
		return credential.Identity{}, refused("the answer is about another user")
	}
	who := credential.Identity{Name: provider.Clean(user.Name), Facts: map[string]string{}}
	if who.Name == "" {
		who.Name = m.GetUser()
	}
	for name, value := range map[string]string{
		"description": user.Description, "lifecycleState": user.State, "tenancy": user.Tenancy,
	} {
		if value = provider.Clean(value); value != "" {
			who.Facts[name] = value
		}
	}
	return who, nil
}

// judge says which answer it is that is no user.
// Source: https://docs.oracle.com/iaas/Content/API/References/apierrors.htm
func judge(a provider.Answer, m *credentialv1.Oci) (credential.Identity, error) {
	var complaint struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(a.Body, &complaint); err != nil || complaint.Code == "" {
		complaint.Code, complaint.Message = "", "the answer is not Oracle Cloud's"
	}
	e := &provider.Error{Kind: provider.ErrRefused, Op: opVerify, Status: a.Status, RetryAfter: a.RetryAfter()}
	e.Text = provider.Clean(strings.TrimSpace(complaint.Code + " " + complaint.Message))
	switch {
	case a.Status == http.StatusNotFound && complaint.Code == "NotAuthorizedOrNotFound":
		return credential.Identity{Name: m.GetUser()}, nil
	case a.Status == http.StatusTooManyRequests, a.Status >= 500, a.Status < 400, complaint.Code == "":
		e.Kind = provider.ErrUnavailable
	}
	return credential.Identity{}, e
}
