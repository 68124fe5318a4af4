// Package oci owns the dealings with Oracle Cloud Infrastructure: signing a
// request with a user's API key, to ask whose it is. It mints nothing, since
// every request of that cloud is signed with the key itself, and reads nothing of
// this machine: neither ~/.oci/config nor the environment.
package oci
