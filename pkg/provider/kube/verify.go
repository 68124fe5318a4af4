package kube

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/credstore/credstore/pkg/credential"
	"github.com/credstore/credstore/pkg/provider"
)

const (
	reviewPath = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
	accessPath = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	// anonymous is who a cluster takes for nobody.
	anonymous = "system:anonymous"
	// concurrency bounds the questions under way, of which there are ten.
	concurrency = 5
)

// resource is something that a deployment of an agent to all nodes creates.
type resource struct {
	group, plural string
	namespaced    bool
}

// needed are the resources whose creation and deletion is checked.
var needed = []resource{
	{group: "rbac.authorization.k8s.io", plural: "clusterroles"},
	{group: "rbac.authorization.k8s.io", plural: "clusterrolebindings"},
	{group: "apps", plural: "daemonsets", namespaced: true},
	{plural: "secrets", namespaced: true},
	{plural: "serviceaccounts", namespaced: true},
}

// verbs are what is checked of each resource.
var verbs = []string{"create", "delete"}

// Verify asks the cluster whose login it is (SelfSubjectReview; a cluster before
// version 1.28 cannot say), and whether that may create and delete cluster roles,
// cluster role bindings, daemon sets, secrets and service accounts
// (SelfSubjectAccessReview), ten checks in this order. What has a namespace is
// checked in the context's, or in all of them when the context names none.
func (v *Vendor) Verify(ctx context.Context, login credential.Login) (credential.Identity, error) {
	l, m, err := v.open(ctx, opVerify, login)
	if err != nil {
		return credential.Identity{}, err
	}
	c, err := v.connect(l, m)
	if err != nil {
		return credential.Identity{}, err
	}
	defer c.close()
	identity, err := c.whoAmI(ctx, l.Subject)
	if err != nil {
		return credential.Identity{}, err
	}
	identity.Checks, err = c.mayDeploy(ctx, l.Namespace)
	if err != nil {
		return credential.Identity{}, err
	}
	return identity, nil
}

// whoAmI asks for the user. claimed is who the login says it is.
func (c *client) whoAmI(ctx context.Context, claimed string) (credential.Identity, error) {
	var answer struct {
		Status struct {
			UserInfo struct {
				Username string   `json:"username"`
				UID      string   `json:"uid"`
				Groups   []string `json:"groups"`
			} `json:"userInfo"`
		} `json:"status"`
	}
	question := map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
	err := c.ask(ctx, reviewPath, question, &answer)
	if e, ok := errors.AsType[*provider.Error](err); ok && e.Status == http.StatusNotFound {
		// The access reviews that follow prove the login as well.
		return credential.Identity{Name: provider.Clean(claimed, c.secrets...)}, nil
	}
	if err != nil {
		return credential.Identity{}, err
	}
	user := answer.Status.UserInfo
	if user.Username == "" || user.Username == anonymous {
		return credential.Identity{}, &provider.Error{
			Kind: provider.ErrRefused, Op: opVerify,
			Text: "the cluster does not know the " + c.words + ": it takes the request for that of nobody (" + anonymous + ")",
		}
	}
	identity := credential.Identity{Name: provider.Clean(user.Username, c.secrets...), Facts: map[string]string{}}
	if len(user.Groups) > 0 {
		identity.Facts["groups"] = provider.Clean(strings.Join(user.Groups, ", "), c.secrets...)
	}
	if user.UID != "" {
		identity.Facts["uid"] = provider.Clean(user.UID, c.secrets...)
	}
	return identity, nil
}

// mayDeploy asks for each of the permissions that are needed.
func (c *client) mayDeploy(ctx context.Context, namespace string) ([]credential.Check, error) {
	checks := make([]credential.Check, len(needed)*len(verbs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for i, r := range needed {
		for j, verb := range verbs {
			group.Go(func() error {
				check, err := c.may(ctx, verb, r, namespace)
				checks[i*len(verbs)+j] = check
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return checks, nil
}

// may asks for one permission.
func (c *client) may(ctx context.Context, verb string, r resource, namespace string) (credential.Check, error) {
	check := credential.Check{Name: verb + " " + r.plural}
	if r.group != "" {
		check.Name += "." + r.group
	}
	attributes := map[string]string{"verb": verb, "group": r.group, "resource": r.plural}
	if r.namespaced && namespace != "" {
		attributes["namespace"] = namespace
		check.Name += " in namespace " + namespace
	}
	var answer struct {
		Status struct {
			Allowed         bool   `json:"allowed"`
			Reason          string `json:"reason"`
			EvaluationError string `json:"evaluationError"`
		} `json:"status"`
	}
	err := c.ask(ctx, accessPath, map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
		"spec": map[string]any{"resourceAttributes": attributes},
	}, &answer)
	if e, ok := errors.AsType[*provider.Error](err); ok && e.Status == http.StatusForbidden {
		// The login is good, and may not even ask.
		check.Message = e.Text
		return check, nil
	}
	if err != nil {
		return credential.Check{}, err
	}
	check.Passed = answer.Status.Allowed
	if !check.Passed {
		check.Message = "the cluster's authorization does not allow it"
		for _, why := range []string{answer.Status.Reason, answer.Status.EvaluationError} {
			if why != "" {
				check.Message += ": " + why
			}
		}
		check.Message = provider.Clean(check.Message, c.secrets...)
	}
	return check, nil
}
