// Package registrytest owns a real container registry for conformance tests: it
// starts the program that the environment names, with TLS and a login by
// htpasswd or by a token server, and stops it with the test. It is for tests, and
// no part of what is shipped.
package registrytest
