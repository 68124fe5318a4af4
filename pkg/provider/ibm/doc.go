// Package ibm owns the dealings with IBM Cloud's Identity and Access Management:
// it verifies API keys by exchanging them for an access token, and mints such
// tokens. It caches none, and calls no other service of IBM Cloud.
//
// A key says nothing of the account that it belongs to; the token does. A key of
// another account than the credential names is refused, in Verify and in Mint
// alike, so that no one acts in an account that nobody meant.
package ibm
