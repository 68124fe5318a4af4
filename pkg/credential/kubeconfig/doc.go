// Package kubeconfig owns the reading of kubeconfig documents (the file format
// of kubectl, version v1 of kind Config): what a paste leaves around one, the
// choice of a context, and the login that the context makes. It opens no file,
// runs no program and knows no cluster; the rules for the rest of a credential
// are those of package credential.
//
// The reference is
// https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. What kubectl
// reads from elsewhere is refused here: files, programs and proxies of the
// machine that it runs on.
package kubeconfig
