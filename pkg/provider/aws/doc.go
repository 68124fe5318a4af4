// Package aws owns the dealings with AWS: it verifies access keys and roles by
// sts:GetCallerIdentity, and mints sessions, registry logins and tokens for EKS
// clusters from them. It stores and caches nothing, and does not decide who may
// ask.
//
// It goes through AWS's own client, but takes nothing from the environment and
// from ~/.aws, except for the kind awsRole, whose login is the machine's,
// container's or pod's own. Retries are its callers'.
package aws
