// Package gitlab owns the proof of stored tokens of GitLab: it asks the server
// that a token belongs to whose it is. It changes nothing there and makes no
// tokens.
package gitlab
