package oci_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// fake is the Identity service as far as a key can be verified with it, written
// from the vendor's reference. It checks the signature with the public half of
// the key that the key id names, and the clock.
type fake struct {
	server *httptest.Server
	keys   map[string]*rsa.PublicKey // by key id
	users  map[string]string         // name by OCID; who is not there may not see itself
	now    func() time.Time
	calls  atomic.Int64
	// override answers instead, when it returns true.
	override atomic.Pointer[func(http.ResponseWriter) bool]
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{keys: map[string]*rsa.PublicKey{}, users: map[string]string{}, now: time.Now}
	f.server = httptest.NewTLSServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fake) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw}))
}

func complain(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"code": code, "message": message})
}

var parameter = regexp.MustCompile(`(\w+)="([^"]*)"`)

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.calls.Add(1)
	if o := f.override.Load(); o != nil && (*o)(w) {
		return
	}
	if problem := f.problem(r); problem != "" {
		complain(w, http.StatusUnauthorized, "NotAuthenticated", problem)
		return
	}
	user, ok := strings.CutPrefix(r.URL.Path, "/20160918/users/")
	name := f.users[user]
	if !ok || r.Method != http.MethodGet || name == "" {
		complain(w, http.StatusNotFound, "NotAuthorizedOrNotFound", "Authorization failed or requested resource not found.")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"id": user, "name": name, "description": "deploys", "lifecycleState": "ACTIVE", "compartmentId": tenancy,
	})
}

// problem says what is wrong with a request's signature, "" when nothing is.
func (f *fake) problem(r *http.Request) string {
	const incomplete = "The required information to complete authentication was not provided or was incorrect."
	scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	given := map[string]string{}
	for _, m := range parameter.FindAllStringSubmatch(rest, -1) {
		given[m[1]] = m[2]
	}
	date, err := http.ParseTime(r.Header.Get("Date"))
	skew := f.now().Sub(date).Abs()
	switch {
	case scheme != "Signature", given["version"] != "1", given["algorithm"] != "rsa-sha256", err != nil:
		return incomplete
	case skew > 5*time.Minute:
		return "Date '" + r.Header.Get("Date") + "' is not within allowed clock skew."
	}
	var lines []string
	need := map[string]bool{"date": true, "(request-target)": true, "host": true}
	for header := range strings.FieldsSeq(given["headers"]) {
		value := r.Header.Get(header)
		switch header {
		case "(request-target)":
			value = strings.ToLower(r.Method) + " " + r.URL.RequestURI()
		case "host":
			value = r.Host
		}
		delete(need, header)
		lines = append(lines, header+": "+value)
	}
	key := f.keys[given["keyId"]]
	signature, err := base64.StdEncoding.DecodeString(given["signature"])
	if len(need) > 0 || key == nil || err != nil {
		return incomplete
	}
	digest := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) != nil {
		return incomplete
	}
	return ""
}
