// Package credential owns the payloads of credentials: their kinds, what makes
// a payload valid, its public facts and its fields. It does not store, deliver
// or use them, and knows nothing of the metadata around them.
//
// Generated messages print their secrets; a [Payload] never does. Adding a kind
// takes one message in credential/v1/payload.proto, one file here (kind_KIND.go,
// with its examples in testdata/kinds/KIND.json) and one line in the table of
// kinds.go.
package credential
