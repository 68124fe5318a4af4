package app

import (
	"net/netip"
	"testing"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Every kind has somebody to ask but those that nobody can be asked about, and
// whatever a kind can mint is minted by somebody.
func TestVendorsOfAllKinds(t *testing.T) {
	outside, err := reach(provider.Egress{}, VendorConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer outside.close()
	nobody := map[credential.Kind]bool{"basic": true, "apiToken": true, "opaque": true}
	known := map[credential.Kind]bool{}
	for _, kind := range credential.Kinds() {
		known[kind] = true
		v, ok := outside.vendors[kind]
		if ok == nobody[kind] || ok && v.Verifier == nil {
			t.Errorf("%s: a verifier is there: %t", kind, ok)
		}
		_, err := credential.NewTokenRequest(kind, nil)
		mints := err == nil || kind == "awsRole" || kind == "azureManagedIdentity" || kind == "azureWorkloadIdentity" || kind == "gcpExternalAccount"
		if (v.Minter != nil) != mints {
			t.Errorf("%s: a minter is there: %t; the kind mints: %t (%v)", kind, v.Minter != nil, mints, err)
		}
	}
	for kind := range outside.vendors {
		if !known[kind] {
			t.Errorf("%s is no kind", kind)
		}
	}
	if outside.stores["vault"] == nil {
		t.Error("no secret store of Vault")
	}
}

func TestVendorConfig(t *testing.T) {
	var c VendorConfig
	for _, bad := range []string{"", "aws.sts", "nosuch=https://x", "=https://x"} {
		if err := c.SetEndpoint(bad); err == nil {
			t.Errorf("endpoint %q is accepted", bad)
		}
	}
	for _, bad := range []string{"", "registry.example.com", "=host", "a=", "https://a=b"} {
		if err := c.AllowTokenHost(bad); err == nil {
			t.Errorf("token host %q is accepted", bad)
		}
	}
	if err := c.AllowTokenHost("registry.example.com=auth.example.net"); err != nil {
		t.Error(err)
	}
	for _, name := range vendorEndpoints() {
		// What is no URL is refused by the vendor's code, so each name arrives there.
		var one VendorConfig
		if err := one.SetEndpoint(name + "=://no url"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == dockerHub {
			continue // its address is only looked at when it is asked
		}
		if _, err := reach(provider.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, one); err == nil {
			t.Errorf("%s: what is no URL is accepted", name)
		}
	}
}
