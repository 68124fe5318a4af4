package credential

import (
	"slices"
	"strings"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	kubeconfigfile "github.com/credstore/credstore/pkg/credential/kubeconfig"
	"github.com/credstore/credstore/pkg/resourcename"
)

// kubeconfig is a login to a Kubernetes cluster.
var kubeconfig = behaviour[*credentialv1.Kubeconfig]{
	check: checkKubeconfig,
	facts: kubeconfigFacts,
	references: func(m *credentialv1.Kubeconfig) []string {
		if m.GetTokenSource() == "" {
			return nil
		}
		return []string{m.GetTokenSource()}
	},
	expireTime: func(m *credentialv1.Kubeconfig) time.Time {
		if login := kubeconfigLogin(m); login != nil {
			return login.ExpireTime
		}
		return time.Time{}
	},
	checkSource: checkKubeconfigSource,
	// What a program logs in with is not in the document.
	longLived: func(m *credentialv1.Kubeconfig) bool {
		login := kubeconfigLogin(m)
		return login == nil || login.Plugin == nil
	},
	mints:    []string{"kubernetesLogin"},
	forwards: true,
	checkRequest: func(m *credentialv1.TokenRequest, r *report) {
		login := m.GetKubernetesLogin()
		for _, field := range []struct{ name, value string }{
			{"cluster", login.GetCluster()},
			{"region", login.GetRegion()},
			{"roleArn", login.GetRoleArn()},
			{"serverId", login.GetServerId()},
		} {
			if field.value != "" {
				r.add(field.name, "must be empty: a kubeconfig says it itself")
			}
		}
	},
}

// kubeconfigSources says which kinds make tokens for the clusters of a cloud.
var kubeconfigSources = map[kubeconfigfile.Cloud][]Kind{
	kubeconfigfile.EKS: {"awsAccessKey", "awsRole", "awsAssumeRole"},
	kubeconfigfile.GKE: {"gcpServiceAccount"},
	kubeconfigfile.AKS: {"azureServicePrincipal", "azureManagedIdentity", "azureWorkloadIdentity"},
}

// kubeconfigKinds lists the kinds for a cloud, for a sentence.
func kubeconfigKinds(cloud kubeconfigfile.Cloud) string {
	kinds := kubeconfigSources[cloud]
	var text strings.Builder
	for i, kind := range kinds {
		switch {
		case i == 0:
		case i == len(kinds)-1:
			text.WriteString(" or ")
		default:
			text.WriteString(", ")
		}
		text.WriteString(string(kind))
	}
	return text.String()
}

func checkKubeconfig(m *credentialv1.Kubeconfig, r *report) {
	m.Document = kubeconfigfile.Pasted(m.GetDocument())
	m.Context, m.TokenSource = strings.TrimSpace(m.GetContext()), trimPasted(m.GetTokenSource())
	login, problems := kubeconfigfile.Parse(m.GetDocument(), m.GetContext())
	for _, p := range problems {
		r.add(p.Field, p.Text)
	}
	if m.GetTokenSource() != "" {
		if _, err := resourcename.ParseCredential(m.GetTokenSource()); err != nil {
			r.add("tokenSource", `must be the full name of a credential, as "projects/default/credentials/deployer"; it is not`)
		}
	}
	if login == nil {
		return
	}
	m.Context = login.Context
	switch {
	case login.Plugin == nil && m.GetTokenSource() != "":
		r.add("tokenSource", "must be empty: the context's user logs in with what is in the document")
	case login.Plugin != nil && m.GetTokenSource() == "":
		cloud := login.Plugin.Cloud
		r.add("tokenSource", "must name the credential that tokens for the "+strings.ToUpper(string(cloud))+
			" cluster are minted from, of kind "+kubeconfigKinds(cloud)+
			": the context's user logs in with a program, and none is run here")
	}
}

func checkKubeconfigSource(m *credentialv1.Kubeconfig, source Kind, r *report) {
	login := kubeconfigLogin(m)
	if login == nil || login.Plugin == nil {
		return
	}
	cloud := login.Plugin.Cloud
	if !slices.Contains(kubeconfigSources[cloud], source) {
		r.add("tokenSource", "must name a credential that tokens for "+strings.ToUpper(string(cloud))+
			" are minted from, of kind "+kubeconfigKinds(cloud)+"; it names one of another kind")
	}
}

// kubeconfigLogin returns the login of a valid payload; nil for one that was
// stored under other rules.
func kubeconfigLogin(m *credentialv1.Kubeconfig) *kubeconfigfile.Login {
	login, _ := kubeconfigfile.Parse(m.GetDocument(), m.GetContext())
	return login
}

func kubeconfigFacts(m *credentialv1.Kubeconfig) map[string]string {
	login := kubeconfigLogin(m)
	if login == nil {
		return nil
	}
	facts := map[string]string{
		"server": login.Server, "cluster": login.Cluster, "context": login.Context, "user": login.User,
		"authentication": login.Authentication(), "namespace": login.Namespace, "subject": login.Subject,
	}
	if p := login.Plugin; p != nil {
		facts["eksCluster"], facts["region"], facts["roleArn"] = p.ClusterName, p.Region, p.RoleARN
		facts["serverId"], facts["tenantId"] = p.ServerID, p.TenantID
	}
	for name, value := range facts {
		if value == "" {
			delete(facts, name)
		}
	}
	return facts
}
