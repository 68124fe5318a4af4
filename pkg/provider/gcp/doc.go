// Package gcp owns the dealings with Google Cloud for the kinds
// gcpServiceAccount, gcpApiKey and gcpExternalAccount: proving that a credential
// works, and minting access tokens, ID tokens, logins to registries and to
// clusters. It does not decide who may do so, keeps no token, and reads no
// secrets of Secret Manager.
//
// It speaks HTTP to four of Google's endpoints, without Google's client library:
// the OAuth token endpoint (JWT bearer grant, RFC 7523), the Security Token
// Service (token exchange, RFC 8693), the IAM Credentials API, and for an API
// key one listing. What a stored document says of addresses is not used: the
// addresses are this package's own, or the configuration's, so that no document
// chooses who sees an assertion.
//
// A gcpExternalAccount acts as the server itself: for it, and for it alone, the
// package reads the file that the document names, asks the metadata service of
// the machine's cloud, and looks at the environment variables of AWS. What it
// finds goes to Google's Security Token Service and nowhere else, and only if it
// has the form of a token.
package gcp
