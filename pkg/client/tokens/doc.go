// Package tokens owns short-lived tokens that stay current by themselves in a
// program that has credstore mint them: it asks for one before the last has
// ended, at once when the credential behind it changes, and goes on with the last
// good one while credstore is away. It knows no vendor's SDK: the packages
// awscreds, azcreds, oauthcreds, grpccreds and httpcreds beside it turn a Source
// into what an SDK wants.
package tokens
