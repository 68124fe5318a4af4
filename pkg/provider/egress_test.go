package provider

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func prefixes(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range all {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestEgressCheck(t *testing.T) {
	everything := Egress{Allow: prefixes("0.0.0.0/0", "::/0")}
	for _, test := range []struct {
		addr          string
		byDefault     bool
		whenAllAllows bool
	}{
		// Public.
		{"8.8.8.8", true, true},
		{"2606:4700::1111", true, true},
		{"::ffff:8.8.8.8", true, true},
		{"64:ff9b::808:808", true, true},
		// Only when configured.
		{"127.0.0.1", false, true},
		{"127.255.255.254", false, true},
		{"::1", false, true},
		{"::ffff:127.0.0.1", false, true},
		{"10.1.2.3", false, true},
		{"172.16.0.1", false, true},
		{"172.32.0.1", true, true},
		{"192.168.1.1", false, true},
		{"::ffff:192.168.1.1", false, true},
		{"fd00::1", false, true},
		{"fc00::1", false, true},
		{"100.64.0.1", false, true},
		{"100.128.0.1", true, true},
		{"198.18.0.1", false, true},
		{"192.0.2.1", false, true},
		{"240.0.0.1", false, true},
		{"255.255.255.255", false, true},
		{"fec0::1", false, true},
		{"2001:db8::1", false, true},
		{"64:ff9b::a01:203", false, true}, // 10.1.2.3
		{"2002:a01:203::1", false, true},  // 10.1.2.3
		{"::10.1.2.3", false, true},
		// Never.
		{"169.254.169.254", false, false},
		{"169.254.0.1", false, false},
		{"169.254.170.2", false, false},
		{"::ffff:169.254.169.254", false, false},
		{"64:ff9b::a9fe:a9fe", false, false},
		{"2002:a9fe:a9fe::", false, false},
		{"::169.254.169.254", false, false},
		{"fe80::1", false, false},
		{"fe80::1%eth0", false, false},
		{"febf::1", false, false},
		{"fd00:ec2::254", false, false},
		{"fd00:ec2::23", false, false},
		{"fd20:ce::254", false, false},
		{"fd00:c1::a9fe:a9fe", false, false},
		{"fd00:42::42", false, false},
		{"100.100.100.200", false, false},
		{"168.63.129.16", false, false},
		{"192.0.0.192", false, false},
		{"0.0.0.0", false, false},
		{"0.1.2.3", false, false},
		{"::", false, false},
		{"::ffff:0.0.0.0", false, false},
		{"224.0.0.1", false, false},
		{"ff02::1", false, false},
	} {
		addr := netip.MustParseAddr(test.addr)
		if err := (Egress{}).Check(addr); (err == nil) != test.byDefault {
			t.Errorf("%s by default: %v", addr, err)
		}
		err := everything.Check(addr)
		if (err == nil) != test.whenAllAllows {
			t.Errorf("%s when everything is allowed: %v", addr, err)
		}
		var e *EgressError
		if err != nil && (!errors.As(err, &e) || e.Why == "") {
			t.Errorf("%s: error is %#v", addr, err)
		}
	}
	if err := (Egress{}).Check(netip.Addr{}); err == nil {
		t.Error("the zero address is allowed")
	}
	some := Egress{Allow: prefixes("10.0.0.0/8")}
	if err := some.Check(netip.MustParseAddr("10.9.9.9")); err != nil {
		t.Errorf("allowed: %v", err)
	}
	if err := some.Check(netip.MustParseAddr("192.168.0.1")); err == nil {
		t.Error("what is not allowed is")
	}
}

func FuzzEgressCheck(f *testing.F) {
	for _, a := range []string{"127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1"} {
		f.Add(netip.MustParseAddr(a).AsSlice())
	}
	everything := Egress{Allow: prefixes("0.0.0.0/0", "::/0")}
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		err := everything.Check(addr)
		plain := addr.Unmap()
		if err == nil && (plain.IsLinkLocalUnicast() || plain.IsMulticast() || plain.IsUnspecified()) {
			t.Errorf("%s is allowed", addr)
		}
		// Allowing less never opens anything.
		if err != nil && (Egress{}).Check(addr) == nil {
			t.Errorf("%s is allowed by default only", addr)
		}
	})
}

// The guard looks at the address that is connected to, after the name was
// resolved, and nothing is sent before it.
func TestEgressTransport(t *testing.T) {
	reached := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HTTP_PROXY", server.URL)
	get := func(e Egress) error {
		transport, err := e.Transport("")
		if err != nil {
			t.Fatal(err)
		}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Get("http://localhost:" + port)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	err = get(Egress{})
	var refused *EgressError
	if !errors.As(err, &refused) || reached {
		t.Errorf("loopback by name: %v, reached: %t", err, reached)
	}
	if e := NetworkError("read", err); !errors.Is(e, ErrRefused) || !errors.Is(e, ErrForbiddenAddress) || !strings.Contains(e.Text, "loopback") {
		t.Errorf("as an error of the store: %v", e)
	}
	if err := get(Egress{Allow: prefixes("127.0.0.0/8", "::1/128")}); err != nil || !reached {
		t.Errorf("allowed loopback: %v, reached: %t", err, reached)
	}
	if _, err := (Egress{}).Transport("nonsense"); err == nil {
		t.Error("nonsense is a certificate authority")
	}
	if err := everythingUDP(); err == nil {
		t.Error("the guard lets UDP through")
	}
}

func everythingUDP() error {
	return Egress{Allow: prefixes("0.0.0.0/0")}.Control("udp4", "8.8.8.8:53", nil)
}
