package app

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// restCase is a request that only HTTP can carry.
type restCase struct {
	name string
	// as is who calls; "" is the administrator.
	as   string
	call restCall
	http int
	want refusal
}

func (w *world) refusesREST(t *testing.T, c restCase) {
	if c.as == "" {
		c.as = "admin"
	}
	w.unchanged(t, "REST", func() (refusal, string) {
		got, code, text := w.overREST(t, c.as, c.call)
		if code != c.http {
			t.Errorf("HTTP status %d, want %d", code, c.http)
		}
		if strings.Contains(w.log.String(), forgedAddress) {
			t.Error("a forged address is in the log")
		}
		return got, text
	}, c.want)
}

const (
	allCredentials = "/v1/projects/default/credentials"
	oneCredential  = allCredentials + "/bot"
	forgedAddress  = "203.0.113.77"
)

func header(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(pairs); i += 2 {
		h[pairs[i]] = append(h[pairs[i]], pairs[i+1])
	}
	return h
}

// restCases are the traps of the REST side.
func restCases() []restCase {
	var cases []restCase
	for _, group := range [][]restCase{restBodies(), restURLs(), restHeaders()} {
		cases = append(cases, group...)
	}
	return cases
}

// restBodies are bodies that do not fit.
func restBodies() []restCase {
	create := func(body string) restCall {
		return restCall{method: "POST", target: allCredentials + "?credentialId=new", body: body}
	}
	update := func(body string) restCall { return restCall{method: "PATCH", target: oneCredential, body: body} }
	malformed := refusal{codes.InvalidArgument, "MALFORMED_BODY", ""}
	const good = `{"payload":{"basic":{"username":"new","password":"` + canary + `"}}}`
	var cases []restCase
	for _, c := range []struct {
		name, body string
		fields     string
	}{
		{"misspelt field of the payload", `{"payload":{"basic":{"username":"a","pasword":"` + canary + `"}}}`, "payload.basic.pasword"},
		{"misspelt kind", `{"payload":{"basics":{"username":"a","password":"` + canary + `"}}}`, "payload.basics"},
		{"misspelt field of the credential", `{"lables":{},"payload":{"basic":{"username":"a","password":"` + canary + `"}}}`, "lables"},
		{"field in another case", `{"payload":{"Basic":{"username":"a","password":"` + canary + `"}}}`, "payload.Basic"},
		{"the request for the credential", `{"credential":` + good + `}`, "credential"},
		{"the id in the body", `{"credentialId":"x","payload":{"basic":{"username":"a","password":"` + canary + `"}}}`, "credentialId"},
		{"secret as a field", `{"payload":{"basic":{"` + canary + ` ":"x"}}}`, "payload.basic.?"},
		{"two kinds", `{"payload":{"basic":{"username":"a","password":"` + canary + `"},"apiToken":{"token":"` + canary + `"}}}`, "payload.apiToken"},
		{"two methods of a kind", `{"payload":{"vault":{"token":"` + canary + `","appRole":{"roleId":"r"}}}}`, "payload.vault.appRole"},
		{"one field twice", `{"payload":{"basic":{"username":"a","password":"x","password":"` + canary + `"}}}`, "payload.basic.password"},
		{"one field in both spellings", `{"payload":{"apiToken":{"token":"x"},"api_token":{"token":"` + canary + `"}}}`, "payload.apiToken"},
		{"one field escaped and not", `{"payload":{"basic":{"username":"a","password":"x","p\u0061ssword":"` + canary + `"}}}`, "payload.basic.password"},
		{"one label twice", `{"labels":{"a":"1","a":"2"},"payload":{"basic":{"username":"a","password":"` + canary + `"}}}`, `labels["a"]`},
		{"number for a string", `{"payload":{"basic":{"username":"a","password":12345678}}}`, "payload.basic.password"},
		{"object for a string", `{"payload":{"basic":{"username":"a","password":{"x":"` + canary + `"}}}}`, "payload.basic.password"},
		{"array for an object", `{"payload":["` + canary + `"]}`, "payload"},
		{"string for an object", `{"payload":"` + canary + `"}`, "payload"},
		{"what is no base64", `{"payload":{"opaque":{"data":{"a":"` + canary + `!"}}}}`, "payload.opaque.data"},
		{"null for the payload", `{"payload":null}`, "payload"},
		{"null for the kind", `{"payload":{"basic":null}}`, "payload"},
		{"null for the password", `{"payload":{"basic":{"username":"a","password":null}}}`, "payload.basic.password"},
		{"an array", `["` + canary + `"]`, ""},
		{"a string", `"` + canary + `"`, ""},
		{"null", `null`, ""},
		{"nothing", `{}`, "payload"},
	} {
		cases = append(cases, restCase{name: "body with " + c.name, call: create(c.body), http: 400, want: refusal{codes.InvalidArgument, "INVALID_FIELD", c.fields}})
	}
	for name, body := range map[string]string{
		"cut off": good[:len(good)-2], "text behind": good + canary, "two objects": good + good, "single quotes": "{'payload':'" + canary + "'}",
		"a comment": "{/* " + canary + " */}", "a trailing comma": `{"description":"x",}`, "a byte order mark": "\ufeff" + good, "NaN": `{"description":NaN}`,
		"bytes that are no UTF-8": `{"description":"` + canary + "\xff" + `"}`, "a raw line break": "{\"description\":\"" + canary + "\n\"}",
		"half a surrogate": `{"description":"\ud800"}`, "a form": "payload=" + canary, "a leading zero": `{"activeVersion":01}`,
		"too much nesting": strings.Repeat(`{"payload":`, 100) + "1" + strings.Repeat("}", 100),
		"nested arrays":    `{"x":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`,
	} {
		cases = append(cases, restCase{name: "JSON with " + name, call: create(body), http: 400, want: malformed})
	}
	huge := `{"description":"` + canary + strings.Repeat("x", 1<<20) + `"}`
	tooLarge := refusal{codes.ResourceExhausted, "MESSAGE_TOO_LARGE", ""}
	announced, chunked := create(huge), create(huge)
	announced.header = header("Expect", "100-continue")
	chunked.unannounced = true
	return append(cases,
		restCase{name: "no body", call: create(""), http: 400, want: field("payload")},
		restCase{name: "body of more than 1 MiB", call: announced, http: 413, want: tooLarge},
		restCase{name: "body of more than 1 MiB, unannounced", call: chunked, http: 413, want: tooLarge},
		restCase{name: "body of more than 1 MiB from nobody", as: nobody, call: announced, http: 401, want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		restCase{name: "bad JSON from nobody", as: nobody, call: create(`{"x":"` + canary), http: 401, want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		restCase{name: "another name in the body than in the URL", call: update(`{"name":"projects/default/credentials/spare","description":"x"}`), http: 400, want: field("name")},
		restCase{name: "another project in the body than in the URL", call: restCall{
			method: "POST", target: allCredentials + ":batchWrite", body: `{"parent":"projects/other","operations":[{"delete":{"name":"projects/other/credentials/foreign"}}]}`,
		}, http: 400, want: field("parent")},
		restCase{name: "two operations in one", call: restCall{
			method: "POST", target: allCredentials + ":batchWrite",
			body: `{"operations":[{"delete":{"name":"projects/default/credentials/spare"},"create":{"credentialId":"x"}}]}`,
		}, http: 400, want: field("operations[0].create")},
		restCase{name: "two sources of an item", call: restCall{
			method: "POST", target: "/v1/projects/default/injections?injectionId=new",
			body: `{"selector":{"a":"b"},"items":[{"credential":{"name":"` + bot + `"},"secret":{"store":"x"},"file":{"path":"x"}}]}`,
		}, http: 400, want: field("items[0].secret")},
		restCase{name: "mode as a number", call: restCall{
			method: "POST", target: "/v1/projects/default/injections?injectionId=new",
			body: `{"selector":{"a":"b"},"items":[{"credential":{"name":"` + bot + `"},"file":{"path":"x","mode":400}}]}`,
		}, http: 400, want: field("items[0].file.mode")},
		restCase{name: "owner that is negative", call: restCall{
			method: "POST", target: "/v1/projects/default/injections?injectionId=new",
			body: `{"selector":{"a":"b"},"items":[{"credential":{"name":"` + bot + `"},"file":{"path":"x","uid":-1}}]}`,
		}, http: 400, want: field("items[0].file.uid")},
		restCase{name: "role as a number", call: restCall{method: "POST", target: "/v1/projects/default/tokens?tokenId=new", body: `{"role":1}`}, http: 400, want: field("role")},
		restCase{name: "role in lower case", call: restCall{method: "POST", target: "/v1/projects/default/tokens?tokenId=new", body: `{"role":"admin"}`}, http: 400, want: field("role")},
		restCase{name: "time that is none", call: restCall{method: "POST", target: "/v1/projects/default/tokens?tokenId=new", body: `{"role":"READER","expireTime":"tomorrow"}`}, http: 400, want: field("expireTime")},
		restCase{name: "duration that is none", call: restCall{method: "POST", target: oneCredential + "/usages?usageId=new", body: `{"user":"u","ttl":"1h"}`}, http: 400, want: field("ttl")},
		restCase{name: "body of a GET", call: restCall{method: "GET", target: oneCredential, body: `{}`}, http: 400, want: because(codes.InvalidArgument, "BODY_UNEXPECTED")},
		restCase{name: "body of a DELETE", call: restCall{method: "DELETE", target: allCredentials + "/spare", body: `{"force":true}`}, http: 400, want: because(codes.InvalidArgument, "BODY_UNEXPECTED")},
	)
}

// restURLs are paths, methods and queries.
func restURLs() []restCase {
	malformed := refusal{codes.InvalidArgument, "MALFORMED_URL", ""}
	unknown := *noPath()
	var cases []restCase
	for name, target := range map[string]string{
		"a wrong verb": oneCredential + ":nosuchverb", "an empty verb": oneCredential + ":", "two verbs": oneCredential + ":access:access", "a verb of another": oneCredential + ":batchWrite",
		"a slash behind": oneCredential + "/", "two slashes": "/v1/projects/default//credentials/bot", "another version": "/v2/projects/default/credentials/bot",
		"upper case": "/V1/projects/default/credentials/bot", "dot elements": "/v1/projects/default/x/../credentials/bot", "nothing": "/", "gRPC's form": "/credstore.v1.CredentialService/GetCredential",
		"a stream that is gRPC's alone": "/v1/projects/default/injections:watchSet", "metrics": "/metrics", "a debugger": "/debug/pprof/", "a file of the server": "/../../etc/passwd",
	} {
		cases = append(cases, restCase{name: "path with " + name, call: restCall{method: "GET", target: target}, http: 404, want: unknown})
	}
	for name, target := range map[string]string{
		"an encoded slash": allCredentials + "%2Fbot", "an encoded id": allCredentials + "/%62ot", "encoded dots": allCredentials + "/%2e%2e/bot", "an encoded colon": oneCredential + "%3Aaccess",
		"a NUL": oneCredential + "%00", "a double encoding": allCredentials + "%252Fbot", "a query with a semicolon": allCredentials + "?pageSize=1;filter=x", "a broken query": allCredentials + "?filter=%zz",
	} {
		cases = append(cases, restCase{name: "URL with " + name, call: restCall{method: "GET", target: target}, http: 400, want: malformed})
	}
	for _, method := range []string{"PUT", "HEAD", "POST", "TRACE", "get", "PROPFIND"} {
		want := refusal{codes.Unimplemented, "METHOD_NOT_ALLOWED", ""}
		if method == "HEAD" {
			want = refusal{} // an answer to HEAD has no body
		}
		cases = append(cases, restCase{name: "method " + method, call: restCall{method: method, target: oneCredential}, http: 405, want: want})
	}
	for name, c := range map[string]struct{ method, target, fields string }{
		"unknown":                       {"GET", allCredentials + "?fliter=x", "fliter"},
		"in another case":               {"GET", allCredentials + "?PageSize=1", "PageSize"},
		"that is a secret":              {"GET", allCredentials + "?" + canary + "%20=x", "?"},
		"given twice":                   {"GET", allCredentials + "?pageSize=1&pageSize=2", "pageSize"},
		"in both spellings":             {"GET", allCredentials + "?pageSize=1&page_size=2", "pageSize"},
		"that the path has":             {"GET", oneCredential + "?name=projects/default/credentials/spare", "name"},
		"that the path has as parent":   {"GET", allCredentials + "?parent=projects/other", "parent"},
		"of the body":                   {"POST", allCredentials + "?credentialId=x&payload.basic.password=" + canary, "payload.basic.password"},
		"of the body's top":             {"PATCH", oneCredential + "?description=x", "description"},
		"that is the body":              {"POST", allCredentials + "?credentialId=x&credential.description=x", "credential.description"},
		"that is no number":             {"GET", allCredentials + "?pageSize=many", "pageSize"},
		"that is too great":             {"GET", allCredentials + "?pageSize=2147483648", "pageSize"},
		"that is a fraction":            {"GET", allCredentials + "?pageSize=1.5", "pageSize"},
		"that is no boolean":            {"DELETE", allCredentials + "/spare?force=yes", "force"},
		"that is no boolean but 1":      {"DELETE", allCredentials + "/spare?force=1", "force"},
		"that is no view":               {"GET", allCredentials + ":watch?view=payload", "view"},
		"that is a view's number":       {"GET", allCredentials + ":watch?view=2", "view"},
		"that is no duration":           {"GET", allCredentials + ":watch?heartbeatInterval=30", "heartbeatInterval"},
		"that is a bearer token":        {"GET", allCredentials + "?access_token=" + canary, "access_token"},
		"that is a part of a message":   {"GET", allCredentials + ":watch?heartbeatInterval.seconds=30", "heartbeatInterval.seconds"},
		"that is no UTF-8":              {"GET", allCredentials + "?filter=%ff", "filter"},
		"that is an unknown mask":       {"PATCH", oneCredential + "?updateMask=pasword", "updateMask"},
		"that is a nested mask":         {"PATCH", oneCredential + "?update_mask=payload.basic.password", "updateMask"},
		"that is validateOnly misspelt": {"POST", allCredentials + "?credentialId=x&validate=true", "validate"},
	} {
		call := restCall{method: c.method, target: c.target}
		if c.method == "POST" || c.method == "PATCH" {
			call.body = `{"payload":{"basic":{"username":"bot","password":"` + canary + `"}}}`
		}
		cases = append(cases, restCase{name: "parameter " + name, call: call, http: 400, want: field(c.fields)})
	}
	return append(cases,
		restCase{name: "wrong path from nobody", as: nobody, call: restCall{method: "GET", target: "/nowhere"}, http: 401, want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		restCase{name: "wrong method from nobody", as: nobody, call: restCall{method: "PUT", target: oneCredential}, http: 401, want: because(codes.Unauthenticated, "TOKEN_MISSING")},
		restCase{name: "POST to a health check", call: restCall{method: "POST", target: "/healthz"}, http: 405, want: refusal{codes.Unimplemented, "METHOD_NOT_ALLOWED", ""}},
	)
}

// restHeaders are headers that claim something.
func restHeaders() []restCase {
	const good = `{"payload":{"basic":{"username":"new","password":"` + canary + `"}}}`
	create := func(h http.Header) restCall {
		return restCall{method: "POST", target: allCredentials + "?credentialId=new", body: good, header: h}
	}
	get := func(target string, h http.Header) restCall { return restCall{method: "GET", target: target, header: h} }
	media := because(codes.InvalidArgument, "UNSUPPORTED_MEDIA_TYPE")
	denied := because(codes.PermissionDenied, "PERMISSION_DENIED")
	missing, twice, malformed := because(codes.Unauthenticated, "TOKEN_MISSING"), because(codes.Unauthenticated, "TOKEN_REPEATED"), because(codes.Unauthenticated, "TOKEN_MALFORMED")
	var cases []restCase
	for name, h := range map[string]http.Header{
		"a form": header("Content-Type", "application/x-www-form-urlencoded"), "several parts": header("Content-Type", "multipart/form-data; boundary=x"),
		"plain text": header("Content-Type", "text/plain"), "JSON of somebody's": header("Content-Type", "application/merge-patch+json"), "no type": header("Content-Type", ""),
		"another alphabet": header("Content-Type", "application/json; charset=utf-16"), "two types": header("Content-Type", "application/json", "Content-Type", "application/json"),
		"compression": header("Content-Type", "application/json", "Content-Encoding", "gzip"), "protobuf": header("Content-Type", "application/x-protobuf"), "gRPC": header("Content-Type", "application/grpc"),
	} {
		cases = append(cases, restCase{name: "body as " + name, call: create(h), http: 415, want: media})
	}
	forged := func(pairs ...string) http.Header {
		return header(append(pairs, "Grpc-Metadata-Credstore-Remote", forgedAddress, "X-Forwarded-For", forgedAddress, "Forwarded", "for="+forgedAddress, "X-Real-Ip", forgedAddress)...)
	}
	return append(cases,
		restCase{name: "forged identity of an administrator", as: nobody, call: get(oneCredential+":access", forged("Grpc-Metadata-Authorization", "Bearer credstore_x")), http: 401, want: missing},
		restCase{name: "forged identity beside one's own", as: "reader", call: get(oneCredential+":access", forged("Grpc-Metadata-Authorization", "Bearer credstore_x")), http: 403, want: denied},
		restCase{name: "forged principal", as: "reader", call: get(oneCredential+":access", forged(
			"Grpc-Metadata-Principal", "projects/default/tokens/admin", "Grpc-Metadata-Role", "ADMIN", "X-Remote-User", "admin")), http: 403, want: denied},
		restCase{name: "forged address beside a guess", as: "unknown", call: get(oneCredential, forged()), http: 401, want: because(codes.Unauthenticated, "UNAUTHENTICATED")},
		restCase{name: "binary metadata", as: "reader", call: get(oneCredential+":access", forged("Grpc-Metadata-Authorization-Bin", "QmVhcmVy")), http: 403, want: denied},
		restCase{name: "method turned into DELETE", call: restCall{method: "POST", target: allCredentials + "/spare", header: header("X-Http-Method-Override", "DELETE")}, http: 405, want: because(codes.Unimplemented, "METHOD_NOT_ALLOWED")},
		restCase{name: "method turned into PATCH", call: restCall{
			method: "POST", target: oneCredential, body: `{"description":"x"}`, header: header("X-Http-Method-Override", "PATCH", "X-Method-Override", "PATCH"),
		}, http: 405, want: because(codes.Unimplemented, "METHOD_NOT_ALLOWED")},
		restCase{name: "form that asks to be a GET", call: restCall{
			method: "POST", target: oneCredential, body: "_method=GET", header: header("Content-Type", "application/x-www-form-urlencoded", "X-Http-Method-Override", "GET"),
		}, http: 405, want: because(codes.Unimplemented, "METHOD_NOT_ALLOWED")},
		restCase{name: "form with query parameters", call: restCall{
			method: "POST", target: allCredentials, body: "credentialId=new&payload.basic.password=" + canary, header: header("Content-Type", "application/x-www-form-urlencoded"),
		}, http: 415, want: media},
		restCase{name: "two tokens", as: nobody, call: get(oneCredential, header("Authorization", "Bearer credstore_a", "Authorization", "Bearer credstore_b")), http: 401, want: twice},
		restCase{name: "password for a token", as: nobody, call: get(oneCredential, header("Authorization", "Basic "+canary)), http: 401, want: malformed},
		restCase{name: "token of somebody else's", as: nobody, call: get(oneCredential, header("Authorization", "Bearer ghp_"+canary)), http: 401, want: malformed},
		restCase{name: "token without a scheme", as: nobody, call: get(oneCredential, header("Authorization", "credstore_"+canary)), http: 401, want: malformed},
		restCase{name: "empty authorization", as: nobody, call: get(oneCredential, header("Authorization", "")), http: 401, want: malformed},
		restCase{name: "token of 600 characters", as: nobody, call: get(oneCredential, header("Authorization", "Bearer credstore_"+strings.Repeat("a", 600))), http: 401, want: malformed},
		restCase{name: "two tokens in one", as: nobody, call: get(oneCredential, header("Authorization", "Bearer credstore_a, Bearer credstore_b")), http: 401, want: malformed},
		restCase{name: "token in a cookie", as: nobody, call: get(oneCredential, header("Cookie", "authorization=credstore_"+canary)), http: 401, want: missing},
	)
}
