package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/credstore/credstore/test/vaultserver/accesslog"
)

// shutdownGrace bounds how long requests under way may take once the server is
// told to end.
const shutdownGrace = 2 * time.Second

// options are the command's flags.
type options struct {
	listen    string
	data      string
	tls       bool
	accessLog string
	untilEOF  bool
}

// ready is the line that tells the caller how to reach the server.
type ready struct {
	Address   string `json:"address"`
	RootToken string `json:"rootToken"`
	// CAPEM is the certificate to trust, or empty without TLS.
	CAPEM string `json:"caPem"`
}

func main() {
	var opts options
	flag.StringVar(&opts.listen, "listen", "127.0.0.1:0", "host:port to serve on; port 0 lets the kernel choose")
	flag.StringVar(&opts.data, "data", "", "folder that keeps the data across restarts; empty keeps it in memory")
	flag.BoolVar(&opts.tls, "tls", false, "serve TLS with a self-signed certificate")
	flag.StringVar(&opts.accessLog, "access-log", "", "file to append a line of JSON to for each request")
	flag.BoolVar(&opts.untilEOF, "until-eof", false, "end when standard input does")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if opts.untilEOF {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		go func() {
			defer cancel()
			_, _ = io.Copy(io.Discard, os.Stdin) // an unreadable input has ended too
		}()
	}
	if err := run(ctx, opts, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "vaultserver:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, opts options, stdout io.Writer) (err error) {
	log := io.Discard
	if opts.accessLog != "" {
		file, err := os.OpenFile(opts.accessLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("opening the access log: %w", err)
		}
		defer file.Close()
		log = file
	}

	vault, err := openVault(opts.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vault.Close()) }()

	listener, err := net.Listen("tcp", opts.listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	line := ready{Address: "http://" + listener.Addr().String(), RootToken: vault.RootToken}
	server := &http.Server{Handler: accesslog.New(vault.Handler, log, time.Now), ReadHeaderTimeout: 10 * time.Second}
	serve := server.Serve
	if opts.tls {
		config, certificate, err := loadTLS(opts.data)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		server.TLSConfig = config
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
		line.Address = "https://" + listener.Addr().String()
		line.CAPEM = string(certificate)
	}

	served := make(chan error, 1)
	go func() { served <- serve(listener) }()
	if err := json.NewEncoder(stdout).Encode(line); err != nil {
		return errors.Join(fmt.Errorf("printing the address: %w", err), server.Close())
	}

	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close() // requests that did not end in time are cut
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}
