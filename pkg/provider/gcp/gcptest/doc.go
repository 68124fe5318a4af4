// Package gcptest owns a fake of Google Cloud for tests: the OAuth token
// endpoint, the Security Token Service, the IAM Credentials API, and a listing
// that takes API keys. It knows no resources, policies beyond who may act as
// whom, and quotas.
//
// It checks what it is sent as Google does: the signature of an assertion with
// the public half of the key, its issuer, audience, times and scopes; the
// signature and audience of a subject token, or of a request to AWS; bearers,
// delegates and lifetimes. It answers with Google's words, as far as they are
// documented or seen in public reports.
package gcptest
