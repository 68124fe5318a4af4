package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

const (
	tokenIssuer = "https://kubernetes.default.svc"
	// startTime bounds how long etcd and the server may take until they are
	// ready, on a machine that is busy.
	startTime = 3 * time.Minute
)

// ready is the line that tells the caller how to reach the server.
type ready struct {
	URL             string `json:"url"`
	CAPEM           string `json:"caPem"`
	AdminKubeconfig string `json:"adminKubeconfig"`
	ClientCAPEM     string `json:"clientCaPem"`
	ClientCAKeyPEM  string `json:"clientCaKeyPem"`
	TokenIssuer     string `json:"tokenIssuer"`
	TokenKeyPEM     string `json:"tokenKeyPem"`
}

// serve runs etcd and the API server until ctx ends.
func serve(ctx context.Context, stdout io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "kubeapiserver-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	etcd, err := startEtcd(ctx, filepath.Join(dir, "etcd"))
	if err != nil {
		return err
	}
	defer etcd.Close()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	line, flags, err := identities(dir, "https://"+listener.Addr().String())
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- runServer(ctx, listener, etcd.Clients[0].Addr().String(), flags) }()
	if err := awaitReady(ctx, line, served); err != nil {
		cancel()
		return err
	}
	if err := json.NewEncoder(stdout).Encode(line); err != nil {
		return fmt.Errorf("printing the address: %w", err)
	}
	if err := <-served; err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

func startEtcd(ctx context.Context, dir string) (*embed.Etcd, error) {
	loopback := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "fatal"   // it reports its own end as errors
	config.UnsafeNoFsync = true // nothing here outlives the process
	config.ListenClientUrls, config.ListenPeerUrls = []url.URL{loopback}, []url.URL{loopback}
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err = <-etcd.Err():
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(startTime):
		err = errors.New("it is not ready in time")
	}
	etcd.Close()
	return nil, fmt.Errorf("starting etcd: %w", err)
}

// identities makes the keys and certificates of the server and of its
// administrator, and the server's flags that name them.
func identities(dir, address string) (ready, []string, error) {
	serving, err := newAuthority("cluster")
	if err != nil {
		return ready{}, nil, err
	}
	clients, err := newAuthority("clients")
	if err != nil {
		return ready{}, nil, err
	}
	tokens, err := newAuthority("tokens") // of which only the key is used
	if err != nil {
		return ready{}, nil, err
	}
	certificate, key, err := serving.issue(pkix.Name{CommonName: "kube-apiserver"}, x509.ExtKeyUsageServerAuth, net.IPv4(127, 0, 0, 1))
	if err != nil {
		return ready{}, nil, err
	}
	admin, adminKey, err := clients.issue(pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return ready{}, nil, err
	}
	kubeconfig, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: address, CertificateAuthorityData: []byte(serving.pem)}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"admin": {ClientCertificateData: []byte(admin), ClientKeyData: []byte(adminKey)}},
		Contexts:       map[string]*clientcmdapi.Context{"admin": {Cluster: "test", AuthInfo: "admin"}},
		CurrentContext: "admin",
	})
	if err != nil {
		return ready{}, nil, fmt.Errorf("writing the kubeconfig: %w", err)
	}
	var flags []string
	for _, file := range []struct{ flag, name, content string }{
		{"tls-cert-file", "server.pem", certificate + serving.pem},
		{"tls-private-key-file", "server-key.pem", key},
		{"client-ca-file", "clients.pem", clients.pem},
		{"service-account-signing-key-file", "tokens-key.pem", tokens.keyPEM},
		{"service-account-key-file", "tokens-key.pem", tokens.keyPEM},
	} {
		path := filepath.Join(dir, file.name)
		if err := os.WriteFile(path, []byte(file.content), 0o600); err != nil {
			return ready{}, nil, fmt.Errorf("writing a key: %w", err)
		}
		flags = append(flags, "--"+file.flag+"="+path)
	}
	return ready{
		URL: address, CAPEM: serving.pem, AdminKubeconfig: string(kubeconfig),
		ClientCAPEM: clients.pem, ClientCAKeyPEM: clients.keyPEM,
		TokenIssuer: tokenIssuer, TokenKeyPEM: tokens.keyPEM,
	}, flags, nil
}

// runServer is what kube-apiserver's command does after its flags are read, with
// a listener of ours: the command takes no port 0.
func runServer(ctx context.Context, listener net.Listener, etcd string, flags []string) error {
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return fmt.Errorf("listening on %s, which is no TCP address", listener.Addr())
	}
	s := options.NewServerRunOptions()
	fs := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	named := s.Flags()
	for _, set := range named.FlagSets {
		fs.AddFlagSet(set)
	}
	flags = append(flags,
		"--etcd-servers=http://"+etcd,
		"--authorization-mode=RBAC",
		"--service-account-issuer="+tokenIssuer,
		"--service-cluster-ip-range=10.0.0.0/24",
		// Nothing answers at the server's own service, and loopback may not.
		"--endpoint-reconciler-type=none",
		"--advertise-address=127.0.0.1",
	)
	if err := fs.Parse(flags); err != nil {
		return fmt.Errorf("reading the flags: %w", err)
	}
	s.SecureServing.Listener, s.SecureServing.BindPort = listener, address.Port
	s.SecureServing.BindAddress, s.SecureServing.ExternalAddress = address.IP, address.IP
	if err := s.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("setting the features: %w", err)
	}
	completed, err := s.Complete(ctx)
	if err != nil {
		return fmt.Errorf("completing the options: %w", err)
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return fmt.Errorf("checking the options: %w", errors.Join(errs...))
	}
	return app.Run(ctx, completed)
}

// awaitReady asks the server until it says that it is in order.
func awaitReady(ctx context.Context, line ready, served <-chan error) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(line.CAPEM))
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}},
		Timeout:   5 * time.Second,
	}
	defer client.CloseIdleConnections()
	deadline := time.After(startTime)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if isReady(ctx, client, line.URL) {
			return nil
		}
		select {
		case <-tick.C:
		case err := <-served:
			return fmt.Errorf("starting the API server: %w", errors.Join(err, ctx.Err()))
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return errors.New("the API server is not ready in time")
		}
	}
}

func isReady(ctx context.Context, client *http.Client, address string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body) // only the status matters
	return answer.StatusCode == http.StatusOK
}
