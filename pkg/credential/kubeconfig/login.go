package kubeconfig

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Cloud is whose clusters a user's program logs in to.
type Cloud string

// The clouds whose programs have a replacement.
const (
	EKS Cloud = "eks"
	GKE Cloud = "gke"
	AKS Cloud = "aks"
)

// Login is what one context of a document makes: where the cluster is and what
// is shown to it. It is printed by fmt, slog and encoding/json as its context
// alone.
type Login struct {
	// Context, Cluster and User are names of the document's own; Namespace is the
	// context's, "" for the default one.
	Context, Cluster, User, Namespace string
	// Server is the API server's URL, with https.
	Server string
	// TLSServerName is the name that the server's certificate is checked for; ""
	// for that of the URL.
	TLSServerName string
	// CAPEM holds the certificates to trust; "" for the system's.
	CAPEM string
	// Token is a bearer token; CertificatePEM and KeyPEM a client certificate,
	// first its own and then those between, and its key. One of both is there,
	// or both, unless Plugin is.
	Token                  string
	CertificatePEM, KeyPEM string
	// Subject is who the token or the certificate says it belongs to, "" when it
	// does not.
	Subject string
	// ExpireTime is when the token or the certificate ends, the earlier of both;
	// zero when neither says.
	ExpireTime time.Time
	// Plugin is the program that the user logs in with; nil when the login is in
	// the document.
	Plugin *Plugin
}

// Plugin is what a user's "exec" or "auth-provider" asks a cloud's program for.
// The login of that program, as a profile, is not in it.
type Plugin struct {
	Cloud Cloud
	// ClusterName, Region and RoleARN are for EKS; the role is optional.
	ClusterName, Region, RoleARN string
	// ServerID and TenantID are for AKS, both optional: the application that the
	// cluster expects tokens for, and the directory that issues them.
	ServerID, TenantID string
}

// Authentication says by what the user logs in: "token", "clientCertificate",
// "clientCertificate+token", or the cloud.
func (l *Login) Authentication() string {
	switch {
	case l.Plugin != nil:
		return string(l.Plugin.Cloud)
	case l.CertificatePEM == "":
		return "token"
	case l.Token == "":
		return "clientCertificate"
	}
	return "clientCertificate+token"
}

// String returns the context and "(redacted)".
func (l *Login) String() string { return fmt.Sprintf("context %q (redacted)", l.Context) }

// GoString returns what String does.
func (l *Login) GoString() string { return l.String() }

// Format writes what String returns, whatever the verb and its flags.
func (l *Login) Format(s fmt.State, _ rune) {
	// A formatter has no way to report an error; fmt ignores it as well.
	_, _ = io.WriteString(s, l.String())
}

// LogValue returns what String does.
func (l *Login) LogValue() slog.Value { return slog.StringValue(l.String()) }

// MarshalJSON returns what String does, as a JSON string.
func (l *Login) MarshalJSON() ([]byte, error) { return json.Marshal(l.String()) }
