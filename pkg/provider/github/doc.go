// Package github owns the dealings with GitHub for the kind githubApp: proving
// that a private key is an App's, and minting installation access tokens. It
// knows no repositories beyond their names, and keeps no token.
//
// It speaks to the REST API (version 2022-11-28) of github.com or of the server
// that the payload names, with the App's JSON web token, and follows no
// redirect.
package github
