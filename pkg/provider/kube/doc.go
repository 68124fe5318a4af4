// Package kube owns logins to Kubernetes clusters: it asks a cluster who a
// kubeconfig's user is and what that may do, and hands out what a client of the
// cluster authenticates with. It deploys nothing, stores nothing and runs no
// program: where a kubeconfig names one of a cloud's, the token comes from the
// vendor's package that the caller gives.
//
// It speaks to the API server over HTTPS by itself, without Kubernetes' client
// library:
//
//	POST /apis/authentication.k8s.io/v1/selfsubjectreviews
//	POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews
//
// Both are described in https://kubernetes.io/docs/reference/kubernetes-api/;
// any user that a cluster knows may ask them, and neither changes anything.
package kube
