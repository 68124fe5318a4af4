package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/credstore/credstore/services/credstore/internal/app"
)

// logFlags say how the log looks.
type logFlags struct{ format, level string }

func (l *logFlags) add(cmd *cobra.Command, level string) {
	cmd.Flags().StringVar(&l.format, "log-format", "text", "text or json")
	cmd.Flags().StringVar(&l.level, "log-level", level, "debug, info, warn or error")
}

func (l *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	o := &slog.HandlerOptions{}
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, usageError{errors.New("--log-level is debug, info, warn or error")}
	}
	o.Level = level
	switch l.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, usageError{errors.New("--log-format is text or json")}
}

func newServe(s Streams) *cobra.Command {
	var cfg app.ServerConfig
	var logs logFlags
	var allow, ambient, endpoints, tokenHosts []string
	var smtpPorts []uint
	var vendorCA string
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the server", Args: exactArgs(0),
		Long: "Run the server on a data folder that `credstore init` made.\nSIGTERM and SIGINT stop it gracefully; SIGHUP opens the audit log anew.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if cfg.Logger, err = logs.logger(s.Err); err != nil {
				return err
			}
			if cfg.Dir == "" {
				return usageError{errors.New("--data is needed: the folder that `credstore init` made")}
			}
			for _, a := range allow {
				p, err := netip.ParsePrefix(a)
				if err != nil {
					return usageError{fmt.Errorf("--allow-target %q is not a network, as 10.0.0.0/8", a)}
				}
				cfg.AllowTargets = append(cfg.AllowTargets, p)
			}
			for _, a := range ambient {
				if err := cfg.Ambient.Bind(a); err != nil {
					return usageError{fmt.Errorf("--ambient %w", err)}
				}
			}
			for _, e := range endpoints {
				if err := cfg.Vendors.SetEndpoint(e); err != nil {
					return usageError{fmt.Errorf("--vendor-endpoint %w", err)}
				}
			}
			for _, h := range tokenHosts {
				if err := cfg.Vendors.AllowTokenHost(h); err != nil {
					return usageError{fmt.Errorf("--registry-token-host %w", err)}
				}
			}
			for _, p := range smtpPorts {
				if p == 0 || p > math.MaxUint16 {
					return usageError{errors.New("--smtp-port is a port, 1 to 65535")}
				}
				cfg.Vendors.SMTPPorts = append(cfg.Vendors.SMTPPorts, uint16(p))
			}
			if vendorCA != "" {
				pem, err := readFile("--vendor-ca", vendorCA)
				if err != nil {
					return err
				}
				cfg.Vendors.CAPEM = string(pem)
			}
			server, err := app.OpenServer(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			stop := reopenOnHangup(cmd.Context(), server, cfg.Logger)
			defer stop()
			return server.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar((*string)(&cfg.Dir), "data", s.Getenv("CREDSTORE_DATA"), "data folder (CREDSTORE_DATA)")
	f.StringVar(&cfg.RootKey, "root-key", s.Getenv("CREDSTORE_ROOT_KEY"), "root key file (CREDSTORE_ROOT_KEY; default: in the data folder)")
	f.StringVar(&cfg.GRPCListen, "grpc-listen", "127.0.0.1:7443", "address for gRPC")
	f.StringVar(&cfg.RESTListen, "rest-listen", "127.0.0.1:7444", "address for REST")
	f.StringVar(&cfg.MetricsListen, "metrics-listen", "", "loopback address for Prometheus metrics")
	f.StringSliceVar(&cfg.Hosts, "host", nil, "further names and addresses of this server, for its certificate")
	f.StringVar(&cfg.CertFile, "tls-cert", "", "certificate in place of one by the data folder's own authority")
	f.StringVar(&cfg.KeyFile, "tls-key", "", "its key")
	f.BoolVar(&cfg.Insecure, "insecure", false, "serve without TLS, at loopback addresses only")
	f.StringSliceVar(&allow, "allow-target", nil, "private networks that external stores and vendors may be in, as 10.0.0.0/8")
	f.StringSliceVar(&ambient, "ambient", nil, "kinds of credentials that act as the server itself, KIND=PROJECT, as awsRole=default; kind vault with where its login is made, vault=PROJECT@https://HOST:PORT[/NAMESPACE][/auth/MOUNT]")
	f.StringSliceVar(&endpoints, "vendor-endpoint", nil, "where a vendor is asked in place of its public endpoint, NAME=URL, as aws.sts=https://sts.example.com")
	f.StringSliceVar(&tokenHosts, "registry-token-host", nil, "token servers elsewhere that registries may send logins to, REGISTRY=HOST")
	f.UintSliceVar(&smtpPorts, "smtp-port", nil, "ports that mail servers may be asked at beside the usual ones")
	f.StringVar(&vendorCA, "vendor-ca", "", "PEM file that the certificates of vendors are checked against (default: the system's)")
	f.StringVar(&cfg.AuditLog, "audit-log", "", "audit log (default: in the data folder)")
	f.BoolVar(&cfg.AuditSync, "audit-sync", false, "wait for the disk after every line of the audit log")
	logs.add(cmd, "info")
	return cmd
}

// reopenOnHangup opens the logs anew on SIGHUP, until the returned function is
// called.
func reopenOnHangup(ctx context.Context, server *app.Server, log *slog.Logger) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-hangup:
				if err := server.ReopenLogs(); err != nil {
					log.Error("audit log could not be opened anew", "error", err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(hangup)
		cancel()
		<-ended
	}
}

func newDev(s Streams) *cobra.Command {
	var cfg app.DevConfig
	var logs logFlags
	cmd := &cobra.Command{
		Use: "dev", Short: "Run server, injector and a demonstration in one process and one folder", Args: exactArgs(0),
		Long: `Run server, injector and a demonstration in one process and one folder, until
interrupted. DIR/env has the shell assignments to reach it; it is written last,
so that a script waits for it. With --once the demonstration runs by itself,
prints what it measured and ends.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if cfg.Logger, err = logs.logger(s.Err); err != nil {
				return err
			}
			cfg.Out = s.Out
			return app.Dev(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Dir, "dir", "", "folder for everything (default: a fresh one)")
	f.StringVar(&cfg.GRPCListen, "grpc-listen", "127.0.0.1:0", "address for gRPC")
	f.StringVar(&cfg.RESTListen, "rest-listen", "127.0.0.1:0", "address for REST")
	f.BoolVar(&cfg.Once, "once", false, "run the demonstration and end")
	f.IntVar(&cfg.Changes, "changes", 200, "how many changes the demonstration measures")
	logs.add(cmd, "warn")
	return cmd
}

func newInit(s Streams) *cobra.Command {
	var cfg app.InitConfig
	cmd := &cobra.Command{
		Use: "init", Short: "Make a data folder: root key, certificates, database, first administrator's token", Args: exactArgs(0),
		Long: "Make a data folder: root key, certificate authority, database, and the first\nadministrator's token in a file. Called again it adds what is missing and changes\nnothing else. The server must not be running.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Dir == "" {
				return usageError{errors.New("--data is needed: the folder to make")}
			}
			if err := app.Init(cmd.Context(), cfg); err != nil {
				return err
			}
			_, err := fmt.Fprintf(s.Out, "data folder      %s\nCA certificate   %s\nadmin token      %s\nroot key         %s   keep a copy elsewhere: without it the store cannot be read\n",
				cfg.Dir, cfg.Dir.CA(), cfg.Dir.AdminToken(), either(cfg.RootKey, cfg.Dir.RootKey()))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar((*string)(&cfg.Dir), "data", s.Getenv("CREDSTORE_DATA"), "data folder (CREDSTORE_DATA)")
	f.StringVar(&cfg.RootKey, "root-key", s.Getenv("CREDSTORE_ROOT_KEY"), "root key file (CREDSTORE_ROOT_KEY; default: in the data folder)")
	f.StringSliceVar(&cfg.Hosts, "host", nil, "further names and addresses of the server, for its certificate")
	return cmd
}

func newHealth(s Streams) *cobra.Command {
	var url, ca string
	cmd := &cobra.Command{
		Use: "health", Short: "Say whether a server can serve, for container health checks", Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url == "" {
				return usageError{errors.New("--url is needed, or CREDSTORE_URL")}
			}
			config := &tls.Config{MinVersion: tls.VersionTLS12}
			if ca != "" {
				pem, err := readFile("--ca (CREDSTORE_CA)", ca)
				if err != nil {
					return err
				}
				config.RootCAs = x509.NewCertPool()
				config.RootCAs.AppendCertsFromPEM(pem)
			}
			cl := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: config}}
			r, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, url+"/readyz", nil)
			if err != nil {
				return err
			}
			answer, err := cl.Do(r)
			if err != nil {
				return err
			}
			_ = answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				return fmt.Errorf("not ready: %s", answer.Status)
			}
			_, err = fmt.Fprintln(s.Out, "ready")
			return err
		},
	}
	cmd.Flags().StringVar(&url, "url", s.Getenv("CREDSTORE_URL"), "URL of the REST side (CREDSTORE_URL)")
	cmd.Flags().StringVar(&ca, "ca", s.Getenv("CREDSTORE_CA"), "PEM file that its certificate is checked against (CREDSTORE_CA)")
	return cmd
}

func newVersion(s Streams) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(s.Out, "credstore", buildVersion())
			return err
		},
	}
}

// buildVersion is what the Go tool recorded: a module version, or "(devel)".
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
