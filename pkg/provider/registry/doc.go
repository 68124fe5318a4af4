// Package registry owns what credstore does at container registries: it proves a
// stored login by the distribution API's own flow, and hands it out as a docker
// configuration. It makes no tokens of clouds (their packages do), and pulls and
// pushes nothing.
//
// The registry chooses the address of its token server, in its answer to the
// first request. The password goes there only over TLS, and only when the token
// server belongs to the registry: it has the same host and port, or the same
// registrable domain (by the public suffix list) at the port of https or that of
// the registry, or it is one of a few pairs that vendors document, or the
// configuration names it. Otherwise a registry that somebody took over, or that
// passes on the challenge of another, could have passwords sent to anybody and
// requests made to any host.
package registry
