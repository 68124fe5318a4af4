package ibmtest_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/credstore/credstore/pkg/provider/ibm/ibmtest"
)

func TestServerChecksWhatItReceives(t *testing.T) {
	s := ibmtest.New(t, map[string]ibmtest.Owner{"right": {Account: "a", IAM: "IBMid-1"}})
	client, err := s.Egress().Client(s.CAPEM)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	for _, test := range []struct {
		name    string
		method  string
		query   string
		form    url.Values
		headers http.Header
		status  int
		code    string
	}{
		{name: "good", status: http.StatusOK},
		{name: "wrong key", form: url.Values{"apikey": {"wrong"}}, status: http.StatusBadRequest, code: "BXNIM0415E"},
		{name: "no key", form: url.Values{"apikey": nil}, status: http.StatusBadRequest, code: "BXNIM0415E"},
		{name: "wrong grant", form: url.Values{"grant_type": {"password"}}, status: http.StatusBadRequest, code: "BXNIM0137E"},
		{name: "parameters in the address", query: "?apikey=right", status: http.StatusBadRequest, code: "BXNIM0122E"},
		{name: "another kind of answer", headers: http.Header{"Accept": {"text/html"}}, status: http.StatusNotAcceptable, code: "BXNIM0121E"},
		{name: "another kind of body", headers: http.Header{"Content-Type": {"application/json"}}, status: http.StatusUnsupportedMediaType, code: "BXNIM0120E"},
		{name: "another method", method: http.MethodPut, status: http.StatusMethodNotAllowed},
	} {
		t.Run(test.name, func(t *testing.T) {
			form := url.Values{"grant_type": {"urn:ibm:params:oauth:grant-type:apikey"}, "apikey": {"right"}}
			maps.Copy(form, test.form)
			method := http.MethodPost
			if test.method != "" {
				method = test.method
			}
			request, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/identity/token"+test.query, strings.NewReader(form.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			request.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}}
			maps.Copy(request.Header, test.headers)
			resp, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var fields struct {
				Code  string `json:"errorCode"`
				Token string `json:"access_token"`
			}
			if resp.StatusCode != http.StatusMethodNotAllowed {
				if err := json.NewDecoder(resp.Body).Decode(&fields); err != nil {
					t.Fatal(err)
				}
			}
			if resp.StatusCode != test.status || fields.Code != test.code {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, fields.Code, test.status, test.code)
			}
			if good := resp.StatusCode == http.StatusOK; good != (s.CheckToken(fields.Token) == nil) {
				t.Errorf("status %d, token %q", resp.StatusCode, fields.Token)
			}
		})
	}
}

// A token of another server, whose signature is another, is none.
func TestWrongSignature(t *testing.T) {
	owners := map[string]ibmtest.Owner{"right": {Account: "a"}}
	s, other := ibmtest.New(t, owners), ibmtest.New(t, owners)
	client, err := s.Egress().Client(other.CAPEM)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, other.URL+"/identity/token",
		strings.NewReader("grant_type=urn:ibm:params:oauth:grant-type:apikey&apikey=right"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}}
	resp, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var fields struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&fields); err != nil {
		t.Fatal(err)
	}
	if other.CheckToken(fields.Token) != nil || s.CheckToken(fields.Token) == nil {
		t.Error("a token is good where it was not made")
	}
}
