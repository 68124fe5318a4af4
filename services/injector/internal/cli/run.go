package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/credstore/credstore/pkg/client"
	"github.com/credstore/credstore/pkg/client/setsource"
	"github.com/credstore/credstore/services/injector/internal/app"
)

// defaultListen is where run's web server listens and health asks.
const defaultListen = "127.0.0.1:9470"

// noListen is what --http-listen takes for no web server.
const noListen = "off"

// settings are what flags and environment say.
type settings struct {
	env func(string) string

	address, ca, tokenFile string
	systemRoots, insecure  bool
	project, workload      string
	injections             []string
	root                   string
	heartbeat              time.Duration
	logFormat              string
}

func (s *settings) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.address, "address", s.env("CREDSTORE_ADDR"), "credstore's host:port, or unix:///path (CREDSTORE_ADDR)")
	f.StringVar(&s.ca, "ca", s.env("CREDSTORE_CA"), "file with the certificate authority of credstore, PEM (CREDSTORE_CA)")
	f.BoolVar(&s.systemRoots, "system-roots", false, "trust the system's certificate authorities too")
	f.BoolVar(&s.insecure, "insecure", false, "no TLS; only for loopback addresses and unix sockets")
	f.StringVar(&s.tokenFile, "token-file", s.env("CREDSTORE_TOKEN_FILE"), "file with the API token (CREDSTORE_TOKEN_FILE; or the token itself in CREDSTORE_TOKEN)")
	f.StringVar(&s.project, "project", or(s.env("CREDSTORE_PROJECT"), "default"), "project of the injections (CREDSTORE_PROJECT)")
	f.StringVar(&s.root, "root", s.env("INJECTOR_ROOT"), "directory to keep the files in (INJECTOR_ROOT)")
	f.StringVar(&s.workload, "workload", s.env("INJECTOR_WORKLOAD"), "name of this workload, for people (INJECTOR_WORKLOAD; default the host's name)")
	f.StringArrayVar(&s.injections, "injection", nil, "take only this injection, an id or a full name; repeatable")
	f.DurationVar(&s.heartbeat, "heartbeat", client.DefaultHeartbeat, "how often an idle credstore says that it is there; three missed ones mean that it is not")
	f.StringVar(&s.logFormat, "log-format", "text", "text or json")
}

// config checks the settings. Its errors name the flag and what to do.
func (s *settings) config(stderr io.Writer) (app.Config, error) {
	log, err := newLog(s.logFormat, stderr)
	if err != nil {
		return app.Config{}, usageError{err}
	}
	c := app.Config{
		Server: client.Options{
			Address: s.address, CAFile: s.ca, SystemRoots: s.systemRoots, Insecure: s.insecure,
			TokenFile: s.tokenFile, UserAgent: "credstore-injector/" + version(),
		},
		Set:  setsource.Options{Parent: "projects/" + s.project, Workload: s.workload, Heartbeat: s.heartbeat},
		Root: s.root,
		Log:  log,
	}
	token := s.env("CREDSTORE_TOKEN")
	switch {
	case s.address == "":
		return c, usageError{errors.New("no address: set --address or CREDSTORE_ADDR")}
	case s.root == "":
		return c, usageError{errors.New("no directory for the files: set --root or INJECTOR_ROOT")}
	case s.ca == "" && !s.systemRoots && !s.insecure:
		return c, usageError{errors.New("no certificate authority: set --ca or CREDSTORE_CA, or ask for --system-roots")}
	case s.project == "" || strings.Contains(s.project, "/"):
		return c, usageError{fmt.Errorf("project %q: want an id, as default", s.project)}
	case s.tokenFile == "" && token == "":
		return c, usageError{errors.New("no token: set --token-file or CREDSTORE_TOKEN_FILE (or CREDSTORE_TOKEN)")}
	case s.tokenFile == "":
		c.Server.Token = func(context.Context) (string, error) { return strings.TrimSpace(token), nil }
	}
	if c.Set.Workload == "" {
		if c.Set.Workload, err = os.Hostname(); err != nil {
			return c, fmt.Errorf("the host has no name: set --workload or INJECTOR_WORKLOAD: %w", err)
		}
	}
	for _, name := range s.injections {
		if !strings.Contains(name, "/") {
			name = c.Set.Parent + "/injections/" + name
		}
		c.Set.Injections = append(c.Set.Injections, name)
	}
	if _, err := setsource.New(c.Server, c.Set); err != nil {
		return c, usageError{err}
	}
	return c, nil
}

func newRun(env func(string) string, stderr io.Writer) *cobra.Command {
	s := &settings{env: env}
	var listen string
	var public bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep the files current until stopped",
		Long: `Keep the files current until a SIGTERM or SIGINT, and leave them then.

The web server answers /healthz, /readyz (200 once a complete set was applied,
before that 503 and why) and /metrics.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.config(stderr)
			if err != nil {
				return err
			}
			if listen != noListen {
				if err := app.CheckListen(listen, public); err != nil {
					return usageError{err}
				}
				c.Listen, c.Public = listen, public
			}
			return app.Run(cmd.Context(), c)
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&listen, "http-listen", defaultListen, "where the web server listens, or "+noListen)
	cmd.Flags().BoolVar(&public, "http-public", false, "let --http-listen be an address that others can reach")
	return cmd
}

func newOnce(env func(string) string, stderr io.Writer) *cobra.Command {
	s := &settings{env: env}
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "once",
		Short: "Write one complete set of files and end",
		Long: `Write one complete set of files and end: for jobs, and for what runs before the
workload. If the set is not complete in time, the exit code is 1 and the message
names the items that are missing.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.config(stderr)
			if err != nil {
				return err
			}
			if timeout < 0 {
				return usageError{fmt.Errorf("timeout %s is negative", timeout)}
			}
			return app.Once(cmd.Context(), c, timeout)
		},
	}
	s.flags(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait for a complete set; 0 means for ever")
	return cmd
}

func newHealth() *cobra.Command {
	var listen string
	var ready bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running injector whether it is well, for health checks of containers",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			return app.Health(cmd.Context(), listen, path)
		},
	}
	cmd.Flags().StringVar(&listen, "http-listen", defaultListen, "what run was given")
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether a complete set was applied")
	return cmd
}

func newLog(format string, w io.Writer) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	}
	return nil, fmt.Errorf("log format %q: want text or json", format)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
