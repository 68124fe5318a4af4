package azure

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/provider"
)

// Where identities are offered, and how the request looks there. Sources:
// https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
// https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference
const (
	metadataPath    = "/metadata/identity/oauth2/token"
	metadataVersion = "2018-02-01"
	serviceVersion  = "2019-08-01"
)

func (v *Vendor) managedIdentity(m *credentialv1.AzureManagedIdentity) *principal {
	p := &principal{client: m.GetClientId(), manager: v.cfg.ResourceManager}
	p.get = func(ctx context.Context, op, scope string) (accessToken, error) {
		return v.managedToken(ctx, op, m, strings.TrimSuffix(scope, defaultScope))
	}
	return p
}

// managedToken asks the service that the machine offers.
func (v *Vendor) managedToken(ctx context.Context, op string, m *credentialv1.AzureManagedIdentity, resource string) (accessToken, error) {
	request, client, err := v.managedRequest(ctx, op, m, resource)
	if err != nil {
		return accessToken{}, err
	}
	if client != v.metadata {
		defer client.CloseIdleConnections()
	}
	got, err := provider.Ask(client, request, op)
	switch {
	case err != nil:
		return accessToken{}, err
	case got.Status == http.StatusNotFound, got.Status == http.StatusGone:
		// The service says so while it is being updated.
		return accessToken{}, &provider.Error{
			Kind: provider.ErrUnavailable, Op: op, Status: got.Status,
			Text: "the metadata service does not offer tokens at this time",
		}
	case got.Status != http.StatusOK:
		return accessToken{}, judge(op, got, nil)
	}
	var answer struct {
		Token string          `json:"access_token"`
		On    json.RawMessage `json:"expires_on"`
	}
	if json.Unmarshal(got.Body, &answer) != nil || answer.Token == "" {
		return accessToken{}, notUnderstood(op)
	}
	seconds, err := strconv.ParseInt(strings.Trim(string(answer.On), `"`), 10, 64)
	if err != nil {
		return accessToken{}, notUnderstood(op)
	}
	return accessToken{text: answer.Token, end: time.Unix(seconds, 0)}, nil
}

// managedRequest says whom to ask: the service whose address the environment
// names, as App Service and Container Apps do it, or that of the virtual machine.
func (v *Vendor) managedRequest(ctx context.Context, op string, m *credentialv1.AzureManagedIdentity, resource string) (*http.Request, *http.Client, error) {
	query := url.Values{"resource": {resource}, "api-version": {metadataVersion}}
	address, client, header, value := v.cfg.Metadata+metadataPath, v.metadata, "Metadata", "true"
	resourceID, objectID := "msi_res_id", "object_id"
	if endpoint := v.cfg.Getenv("IDENTITY_ENDPOINT"); endpoint != "" {
		secret := v.cfg.Getenv("IDENTITY_HEADER")
		addresses, err := addressesOf(endpoint)
		if secret == "" || v.cfg.Getenv("IDENTITY_SERVER_THUMBPRINT") != "" || err != nil {
			return nil, nil, &provider.Error{
				Kind: provider.ErrUnsupported, Op: op,
				Text: "this server runs where managed identities are offered in a way that is not supported (Azure Arc, Service Fabric): virtual machines, AKS, App Service and Container Apps are",
			}
		}
		address, client, header, value = endpoint, provider.MetadataClient(addresses...), "X-Identity-Header", secret
		resourceID, objectID = "mi_res_id", "principal_id"
		query.Set("api-version", serviceVersion)
	}
	switch {
	case m.GetClientId() != "":
		query.Set("client_id", m.GetClientId())
	case m.GetObjectId() != "":
		query.Set(objectID, m.GetObjectId())
	case m.GetResourceId() != "":
		query.Set(resourceID, m.GetResourceId())
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, nil, notUnderstood(op)
	}
	request.Header.Set(header, value)
	return request, client, nil
}
