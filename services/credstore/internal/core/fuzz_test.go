package core

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
)

// Tokens come from outside: whatever they hold, they decode to what encodes to
// them again, or not at all.

func FuzzPageToken(f *testing.F) {
	f.Add("")
	f.Add(encodePageToken(queryHash("in/p/credential/", ""), "in/p/credential/demo"))
	f.Add(encodePageToken([8]byte{}, ""))
	f.Add(encodePageToken(queryHash("x"), strings.Repeat("k", 780)))
	f.Add(resumeToken{rev: 7}.encode())
	f.Add("AQ\n")
	f.Fuzz(func(t *testing.T, token string) {
		query, last, err := decodePageToken(token)
		if err == nil && encodePageToken(query, last) != token {
			t.Errorf("%q decodes, and encodes to %q", token, encodePageToken(query, last))
		}
		// What decodes is still good for one query only, and only below its
		// prefix.
		const prefix = "in/p/credential/"
		hash := queryHash(prefix, "")
		_, after, err := Page{Token: token}.resolve(prefix, hash)
		switch {
		case err != nil:
			var i *InvalidError
			if !errors.As(err, &i) || i.Violations[0].Field != "pageToken" {
				t.Errorf("%q: %v", token, err)
			}
		case token != "" && (query != hash || !strings.HasPrefix(after, prefix)):
			t.Errorf("%q of another query is taken, to go on behind %q", token, after)
		}
		// A token that was made here is taken here and nowhere else.
		made := encodePageToken(hash, prefix+token)
		if len(made) > 1024 {
			return
		}
		if _, after, err := (Page{Token: made}).resolve(prefix, hash); err != nil || after != prefix+token {
			t.Errorf("round trip of %q: %q, %v", token, after, err)
		}
		if _, _, err := (Page{Token: made}).resolve(prefix, queryHash(prefix, "kind = basic")); err == nil {
			t.Error("a token of another filter is taken")
		}
		if _, _, err := (Page{Token: made}).resolve("in/other/credential/", hash); err == nil {
			t.Error("a token of another project is taken")
		}
	})
}

func FuzzResumeToken(f *testing.F) {
	f.Add("", uint64(0), uint64(0))
	f.Add(resumeToken{feed: feedBytes("id"), rev: 1 << 40, nonce: 7, query: queryHash("q")}.encode(), uint64(1), uint64(2))
	f.Add(encodePageToken(queryHash("x"), strings.Repeat("k", 32)), uint64(1), uint64(2))
	f.Add(strings.Repeat("A", 300), ^uint64(0), ^uint64(0))
	f.Fuzz(func(t *testing.T, token string, rev, nonce uint64) {
		if got, err := decodeResumeToken(token); err == nil && got.encode() != token {
			t.Errorf("%q decodes, and encodes to %q", token, got.encode())
		}
		want := resumeToken{feed: feedBytes(token), rev: Revision(rev), nonce: nonce, query: queryHash(token)}
		if got, err := decodeResumeToken(want.encode()); err != nil || got != want {
			t.Errorf("round trip of %+v: %+v, %v", want, got, err)
		}
		// A page token is no resume token and the other way round, unless their
		// lengths agree; then the query decides.
		if _, _, err := (Page{Token: want.encode()}).resolve("in/p/credential/", queryHash("in/p/credential/", "")); err == nil {
			t.Error("a resume token is taken for a page token")
		}
	})
}

// printed is a filter as text that means the same.
func (f filter) printed() string {
	terms := make([]string, len(f))
	for i, t := range f {
		field := t.field
		if t.label != "" {
			field += "." + t.label
		}
		value := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(t.value)
		terms[i] = field + " " + t.op + ` "` + value + `"`
	}
	return strings.Join(terms, " AND ")
}

// unplaced is a filter without the places of its terms.
func (f filter) unplaced() filter {
	out := slices.Clone(f)
	for i := range out {
		out[i].at = 0
	}
	return out
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{
		"", "kind = basic", `labels.team="a b" AND name != projects/p/credentials/c`, `labels.a/b.c != "\"\\"`, "kind=basic and kind!=vault",
		"kind", "= x", "kind ! x", "labels. = x", "labels.A = x", `kind = "open`, `kind = "a"b`, "kind = a b", "x = y", "kind = a AND", `kind = "\`,
		strings.Repeat("kind=a AND ", 400), "kind==a", "labels.a=b=c", " kind = a ", "kind =", "labels.x = \xff",
		"age>90d", "age >= 12h AND age<30m", "expires < 14d", "expires <= 45s", `age > "1d"`, "age = 1d", "age > -1d", "age > 99999999999999999999d", "age>d", "age > 1w",
		"ageState = DUE", "ageState != EXPIRED AND verification = REFUSED", "verification = STATE_UNSPECIFIED", "ageState > DUE", "kind < a", "kind <> a", "age => 1d", "age > +1d", "age > 1 d",
		"kind = bassic", "kind='basic'", "labels.x = 'a b'", "labels.x = it's", "name = demo", "name = projects/p/credentials/c", "kind = Basic AND name != x",
	} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	c := &Credential{
		Name: resourcename.Credential{Project: "p", ID: "c"}, Kind: "basic", Labels: map[string]string{"team": "a b", "x": ""},
		RotateTime: now.Add(-100 * day), ExpireTime: now.Add(10 * day),
	}
	m := moment{now: now}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFilter(text)
		if err != nil {
			var i *InvalidError
			if !errors.As(err, &i) || len(i.Violations) != 1 || i.Violations[0].Field != "filter" {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		for _, term := range got {
			if term.field == "labels" != (term.label != "") || term.span < 0 || term.span > maxSpan || term.at < 1 || term.at > len(text) || !strings.HasPrefix(text[term.at-1:], strings.SplitN(term.field, ".", 2)[0]) {
				t.Errorf("%q has the term %+v", text, term)
			}
		}
		matches := got.match(c, m)
		if got.refuseTimed() == nil && got.match(c, moment{}) != matches {
			t.Errorf("%q can be watched, and depends on the time", text)
		}
		if len(got.printed()) > MaxFilter {
			return
		}
		again, err := parseFilter(got.printed())
		if err != nil || !slices.Equal(got.unplaced(), again.unplaced()) || again.match(c, m) != matches {
			t.Errorf("%q is %+v, and printed as %q %+v, %v", text, got, got.printed(), again, err)
		}
	})
}

func TestFilter(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	c := &Credential{
		Name: resourcename.Credential{Project: "p", ID: "c"}, Kind: "basic", Labels: map[string]string{"team": "a", "zone": "eu west"},
		RotateTime: now.Add(-100 * day), ExpireTime: now.Add(10 * day), Verification: &Verification{State: VerificationRefused},
	}
	// The other is ageless, without an end, and was never verified.
	other := &Credential{Name: resourcename.Credential{Project: "p", ID: "other"}, Kind: "awsAssumeRole", Ageless: true, RotateTime: now.Add(-100 * day)}
	const bad = "bad"
	tests := []struct {
		text string
		want string // which of the two match, or bad
	}{
		{"", "c other"},
		{"   ", "c other"},
		{"kind = basic", "c"},
		{"kind=basic", "c"},
		{`kind = "basic"`, "c"},
		{"kind != basic", "other"},
		{"labels.team = a AND kind = basic", "c"},
		{"labels.team = a and labels.team != b", "c"},
		{"labels.team = a AND kind = vault", ""},
		{`labels.zone = "eu west"`, "c"},
		{`labels.zone = "eu  west"`, ""},
		{"labels.none = a", ""},
		{"labels.none != a", "c other"},
		{`labels.none = ""`, ""},
		{"name = projects/p/credentials/c", "c"},
		{"name != projects/p/credentials/c", "other"},
		{"name = projects/q/credentials/c", ""},
		{"labels.team = it's", ""},
		{`labels.team = "'a'"`, ""},
		{"age > 90d", "c"},
		{"age>90d", "c"},
		{`age > "90d"`, "c"},
		{"age > 100d", ""},
		{"age >= 100d", "c"},
		{"age <= 100d", "c"},
		{"age < 100d", ""},
		{"age > 2399h AND age < 2401h", "c"},
		{"age > 143999m", "c"},
		{"age > 8639999s", "c"},
		{"age > 0d", "c"},
		{"expires < 14d", "c"},
		{"expires < 10d", ""},
		{"expires <= 10d", "c"},
		{"expires > 14d", ""},
		{"expires > 0s", "c"},
		{"ageState = EXPIRING", "c"},
		{"ageState != EXPIRING", "other"},
		{"ageState = AGE_STATE_UNSPECIFIED", "other"},
		{"verification = REFUSED", "c"},
		{"verification != REFUSED", "other"},
		{"verification = STATE_UNSPECIFIED", "other"},
		{"kind = basic AND age > 90d AND verification = REFUSED", "c"},
		{"labels.zone = eu west", bad},
		{"labels.team = a OR kind = basic", bad},
		{"labels.team = a kind = basic", bad},
		{"team = a", bad},
		{"labels = a", bad},
		{"labels. = a", bad},
		{"labels.Team = a", bad},
		{"kind", bad},
		{"kind =", bad},
		{"kind > a", bad},
		{"kind == a", bad},
		{"AND kind = a", bad},
		{"kind = basic AND", bad},
		{"kind = bassic", bad},
		{"kind != bassic", bad},
		{"kind = Basic", bad},
		{`kind = ""`, bad},
		{"kind = 'basic'", bad},
		{"labels.team = 'a'", bad},
		{"labels.team = 'a b'", bad},
		{"age > '90d'", bad},
		{"name = c", bad},
		{"name != c", bad},
		{"name = credentials/c", bad},
		{"name = projects/p/credentials/c/versions/1", bad},
		{`name = ""`, bad},
		{`kind = "a`, bad},
		{`kind = "a\`, bad},
		{"age = 90d", bad},
		{"age != 90d", bad},
		{"age > 90", bad},
		{"age > d", bad},
		{"age > 1w", bad},
		{"age > -1d", bad},
		{"age > +1d", bad},
		{"age > 1.5d", bad},
		{"age > 1d12h", bad},
		{"age > 36501d", bad},
		{"age > 9223372036854775807s", bad},
		{"age > 1_0d", bad},
		{"expires = 1d", bad},
		{"ageState = due", bad},
		{"ageState > DUE", bad},
		{"verification = OK", bad},
		{strings.Repeat("x", MaxFilter+1), bad},
	}
	for _, tt := range tests {
		f, err := parseFilter(tt.text)
		if (err != nil) != (tt.want == bad) {
			t.Errorf("%.60q: %v", tt.text, err)
			continue
		}
		if err != nil {
			continue
		}
		var got []string
		for _, c := range []*Credential{c, other} {
			if f.match(c, moment{now: now}) {
				got = append(got, c.Name.ID)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%q matches %v, want %s", tt.text, got, tt.want)
		}
	}
}

// Refusals say where, and what to write instead.
func TestFilterErrors(t *testing.T) {
	const kinds = "basic, apiToken, opaque, vault, certificate, sshKey, awsAccessKey, awsRole, awsAssumeRole, azureServicePrincipal, azureManagedIdentity, azureWorkloadIdentity, gcpServiceAccount, gcpApiKey, gcpExternalAccount, ibmCloud, oci, kubeconfig, dockerRegistry, githubApp, gitlabToken, smtp, webhook, conjur"
	for text, want := range map[string]string{
		"kind = basic AND age = 90d":       "expected >, >=, < or <= at character 22: age is compared with a length of time",
		"  age > soon ":                    "expected a length of time at character 9: a number of at most 36500 days and d, h, m or s behind it, as 90d",
		"kind = oci AND ageState = LATE":   "unknown value at character 27: ageState is one of AGE_STATE_UNSPECIFIED, FRESH, DUE, OVERDUE, EXPIRING, EXPIRED",
		"verification=OK":                  "unknown value at character 14: verification is one of STATE_UNSPECIFIED, VERIFIED, REFUSED, UNREACHABLE, UNSUPPORTED",
		"kind > a":                         "expected = or != at character 6: kind has no order",
		"kind = oci AND colour = red":      "unknown field at character 16: use kind, name, labels.KEY, age, ageState, expires or verification",
		"kind = oci OR kind = smtp":        "expected AND at character 12",
		"kind":                             "expected FIELD = VALUE at character 1",
		"kind = oci AND labels.x ! b":      "expected = or != at character 25",
		"kind = oci AND labels.x = \"b\"c": "expected a value behind the operator of the term at character 16; quote one that holds spaces",
		"ageState = due":                   "unknown value at character 12: ageState is one of AGE_STATE_UNSPECIFIED, FRESH, DUE, OVERDUE, EXPIRING, EXPIRED; did you mean DUE?",
		"kind = bassic":                    "unknown value at character 8: kind is one of " + kinds + "; did you mean basic?",
		"kind = APITOKEN":                  "unknown value at character 8: kind is one of " + kinds + "; did you mean apiToken?",
		"kind = password":                  "unknown value at character 8: kind is one of " + kinds,
		`kind = "basic "`:                  "unknown value at character 8: kind is one of " + kinds + "; did you mean basic?",
		"kind='basic'":                     "single quotes at character 6: use double quotes, or none where the value holds no spaces",
		"name = demo":                      "expected a full name at character 8, as projects/PROJECT/credentials/CREDENTIAL",
		"name = a/b":                       "expected a full name at character 8, as projects/PROJECT/credentials/CREDENTIAL",
	} {
		_, err := parseFilter(text)
		if err == nil || err.Error() != "invalid argument: filter: "+want {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
}

// Every single bit of a token counts.
func TestTokensAreChecked(t *testing.T) {
	tokens := map[string]string{
		"resume": resumeToken{feed: feedBytes("6f9619ff-8b86-d011-b42d-00cf4fc964ff"), rev: 300, nonce: 1 << 60, query: queryHash("q")}.encode(),
		"page":   encodePageToken(queryHash("in/p/credential/", ""), "in/p/credential/demo"),
	}
	decodes := func(kind, token string) bool {
		if kind == "resume" {
			_, err := decodeResumeToken(token)
			return err == nil
		}
		_, _, err := decodePageToken(token)
		return err == nil
	}
	for kind, token := range tokens {
		if !decodes(kind, token) {
			t.Fatal(kind, token)
		}
		for i := range token {
			for bit := range 7 {
				b := []byte(token)
				b[i] ^= 1 << bit
				if decodes(kind, string(b)) {
					t.Errorf("%s token with bit %d of letter %d flipped decodes", kind, bit, i)
				}
			}
			if decodes(kind, token[:i]) || decodes(kind, token[i+1:]) {
				t.Errorf("a part of a %s token decodes", kind)
			}
		}
	}
	if decodes("resume", tokens["page"]) {
		t.Error("a page token is a resume token")
	}
}

func TestPaging(t *testing.T) {
	m := newModel(nil)
	for i := range 25 {
		c := &Credential{Name: resourcename.Credential{Project: "p", ID: "c-" + strconv.Itoa(i)}}
		m.put(keyCredential(c.Name), entry{rev: Revision(i + 1), value: c})
	}
	m.put(keyCredential(resourcename.Credential{Project: "p2", ID: "x"}), entry{rev: 99, value: &Credential{}})
	list := func(page Page, query string) ([]*Credential, string, error) {
		return listPage(m.view(), keyIn("p")+kindCredential, page, query, func(*Credential) bool { return true })
	}
	for _, size := range []int{1, 7, 24, 25, 26, 0, MaxPageSize * 2} {
		var got []string
		page, pages := Page{Size: size}, 0
		for {
			out, next, err := list(page, "")
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, c := range out {
				got = append(got, c.Name.ID)
			}
			if page.Token = next; next == "" {
				break
			}
		}
		if len(slices.Compact(got)) != 25 || !slices.IsSorted(got) {
			t.Errorf("size %d: %v", size, got)
		}
		if want := (25 + max(size, 1) - 1) / max(size, 1); size > 0 && pages != want {
			t.Errorf("size %d: %d pages, want %d", size, pages, want)
		}
	}
	if _, _, err := list(Page{Size: -1}, ""); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	_, next, err := list(Page{Size: 3}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := list(Page{Size: 3, Token: next}, "kind = basic"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a token of another filter: %v", err)
	}
	// The one it stands on may be gone by the next page.
	m.remove(keyCredential(resourcename.Credential{Project: "p", ID: "c-10"}), 100)
	out, _, err := list(Page{Size: 3, Token: next}, "")
	if err != nil || out[0].Name.ID != "c-11" {
		t.Errorf("behind one that is gone: %v, %v", out, err)
	}
}
