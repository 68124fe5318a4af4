package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// seen is what the client saw of the cluster.
type seen struct {
	User       string   `json:"user"`
	Groups     []string `json:"groups"`
	Version    string   `json:"version"`
	Namespaces []string `json:"namespaces"`
}

// call uses a cluster as any client does.
func call(ctx context.Context, path string, stdout io.Writer) error {
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.Timeout = time.Minute
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("asking who it is: %w", err)
	}
	out := seen{User: review.Status.UserInfo.Username, Groups: review.Status.UserInfo.Groups}
	version, err := client.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("asking for the version: %w", err)
	}
	out.Version = version.GitVersion
	namespaces, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing namespaces: %w", err)
	}
	for _, n := range namespaces.Items {
		out.Namespaces = append(out.Namespaces, n.Name)
	}
	return json.NewEncoder(stdout).Encode(out)
}
