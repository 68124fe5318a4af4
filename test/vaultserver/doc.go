// Command vaultserver owns a real HashiCorp Vault for the conformance tests: one
// process with a key-value engine (version 2) at secret/ and the logins approle,
// aws, cert (with -tls), jwt, kubernetes and userpass, each under its own
// name, that can be stopped, started again with its data, and asked which requests it
// has served. It is no part of the product: it is a module of its own because
// Vault brings several hundred dependencies and a licence that is not ours
// (Business Source License), and nothing that is shipped imports it.
//
//	vaultserver [-listen 127.0.0.1:0] [-data DIR] [-tls] [-access-log FILE] [-until-eof]
//
// When it is ready to serve it prints one line of JSON on standard output:
//
//	{"address":"http://127.0.0.1:8200","rootToken":"hvs.…","caPem":""}
//
// With -data DIR the state is kept in DIR. A later start with the same folder
// unseals itself and prints the same root token (and, with -tls, the same
// certificate); to come back at the same address, pass the address that was
// printed to -listen. Without -data everything is in memory. The unseal key lies
// beside the data, so never keep anything of value in it.
//
// Requests are counted at Vault, which is the only place where a test can see
// how often a secret was really read:
//
//	GET    /test/requests   {"GET /v1/secret/data/app": 3, …}
//	DELETE /test/requests   the same, and starts again at zero
//
// With -access-log FILE a line of JSON is appended for each request after it
// was answered, with time, method, path, query and status, and never with a
// token or a body.
//
// It ends, with exit code 0, on SIGINT or SIGTERM and, with -until-eof, when
// its standard input reaches its end, so that a test that dies leaves no server
// behind. SIGKILL loses nothing that was acknowledged.
package main
