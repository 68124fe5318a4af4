package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

// Mint returns what a client of the cluster authenticates with: the token or the
// client certificate of the document as it is, or a token that is minted from
// the token source. The cluster is not asked. What has ended is refused.
func (v *Vendor) Mint(ctx context.Context, login credential.Login, request credential.TokenRequest) (credential.Token, error) {
	const op = "mint"
	if request.Message().GetKubernetesLogin() == nil {
		return credential.Token{}, &provider.Error{Kind: provider.ErrUnsupported, Op: op, Text: "only kubernetesLogin is minted from a kubeconfig"}
	}
	_, m, err := v.open(ctx, op, login)
	if err != nil {
		return credential.Token{}, err
	}
	exec, err := execCredential(m)
	if err != nil {
		return credential.Token{}, err
	}
	out := &credentialv1.Token{Kind: &credentialv1.Token_Kubernetes{Kubernetes: &credentialv1.Token_KubernetesCredential{
		Token: m.token, ClientCertificatePem: m.certificatePEM, ClientKeyPem: m.keyPEM, ExecCredential: exec,
	}}}
	if !m.expireTime.IsZero() {
		out.ExpireTime = timestamppb.New(m.expireTime)
	}
	return credential.NewToken(out)
}

// execCredential is what a credential plugin prints
// (https://kubernetes.io/docs/reference/config-api/client-authentication.v1/).
// Clients keep it until its end, or until the cluster refuses it.
func execCredential(m material) (string, error) {
	type status struct {
		ExpirationTimestamp   string `json:"expirationTimestamp,omitempty"`
		Token                 string `json:"token,omitempty"`
		ClientCertificateData string `json:"clientCertificateData,omitempty"`
		ClientKeyData         string `json:"clientKeyData,omitempty"`
	}
	end := ""
	if !m.expireTime.IsZero() {
		end = m.expireTime.UTC().Format(time.RFC3339)
	}
	encoded, err := json.Marshal(struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Spec       map[string]any `json:"spec"`
		Status     status         `json:"status"`
	}{
		APIVersion: "client.authentication.k8s.io/v1",
		Kind:       "ExecCredential",
		Spec:       map[string]any{"interactive": false},
		Status:     status{ExpirationTimestamp: end, Token: m.token, ClientCertificateData: m.certificatePEM, ClientKeyData: m.keyPEM},
	})
	if err != nil {
		return "", fmt.Errorf("encode the ExecCredential: %w", err)
	}
	return string(encoded), nil
}
