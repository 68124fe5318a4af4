// Package client owns talking to credstore from Go: connections, tokens, errors
// that programs can ask about, and credentials that stay current by themselves.
// It does not know what a program does with a credential, and it writes no
// files: packages setsource and inject do.
//
// A program that wants one value dials and asks:
//
//	c, err := client.Dial(client.Options{Address: "credstore:8443", CAFile: "ca.pem", TokenFile: "token"})
//	answer, err := c.Credentials.AccessCredential(ctx, &credstorev1.AccessCredentialRequest{Name: name})
//	if errors.Is(err, client.ErrNotFound) { … }
//
// One that must not fail when credstore is away watches, and reads the last good
// value at any time without waiting:
//
//	w, err := c.WatchCredentials(client.WatchOptions{Parent: "projects/default", Payload: true})
//	err = w.WaitSynced(ctx)
//	credential, ok := w.Get(name)
package client
