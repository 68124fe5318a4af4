// Command kubeapiserver owns a real Kubernetes API server for the conformance
// tests, with authorization by roles (RBAC), on an etcd of its own, and a small
// client on Kubernetes' client library. It is no part of the product: it is a
// module of its own because Kubernetes brings several hundred dependencies, and
// nothing that is shipped imports it.
//
//	kubeapiserver
//
// serves on loopback, at a port that the kernel chooses, with its state in a
// temporary folder. There are no controllers and no nodes: what is created stays
// as it was written, and namespaces have no default service account. When it is
// ready it prints one line of JSON on standard output:
//
//	{"url":"https://127.0.0.1:…","caPem":"…","adminKubeconfig":"…","clientCaPem":"…","clientCaKeyPem":"…",
//	 "tokenIssuer":"https://kubernetes.default.svc","tokenKeyPem":"…"}
//
// The administrator of the kubeconfig may do everything. With the client
// authority's key a test issues client certificates, and with the tokens' key
// service account tokens that the server cannot be asked for, as expired ones.
// The server's log goes to standard error. It ends, with exit code 0, on SIGINT
// or SIGTERM and when its standard input reaches its end, so that a test that
// dies leaves no server behind.
//
//	kubeapiserver client KUBECONFIG
//
// calls the cluster of a kubeconfig's current context as any program does that
// is built on client-go, credential plugins included, and prints one line:
//
//	{"user":"…","groups":["…"],"version":"…","namespaces":["…"]}
//
// Its exit code is 1 when a call fails, with the reason on standard error.
package main
