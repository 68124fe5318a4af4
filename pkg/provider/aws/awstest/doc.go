// Package awstest owns a stand-in for AWS in tests: STS, ECR, the metadata
// services of machines, containers and pods, and what EKS does with a token. It is
// no AWS: it knows users, roles, trust and sessions, and no other resources.
//
// It is written from AWS's reference, and checks what it receives: Signature
// Version 4 with the time it was made, session tokens, trust, permission, external
// ids, durations, tags and policies. What it refuses, it refuses in AWS's words.
package awstest
