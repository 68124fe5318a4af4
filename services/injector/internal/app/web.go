package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/credstore/credstore/pkg/inject"
)

// webTimeout bounds a request, and how long a stop waits for those that run.
const webTimeout = 5 * time.Second

// web answers /healthz, /readyz and /metrics. Its zero value listens nowhere.
type web struct {
	listener net.Listener
	server   *http.Server
}

// CheckListen says whether the web server may listen at address.
func CheckListen(address string, public bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("web server: address %q: want host:port", address)
	}
	if ip := net.ParseIP(host); !public && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("web server: %q is no loopback address, as 127.0.0.1: use one, or allow it with --http-public", address)
	}
	return nil
}

func listen(c Config, engine *inject.Engine, metrics prometheus.Gatherer) (*web, error) {
	if c.Listen == "" {
		return &web{}, nil
	}
	if err := CheckListen(c.Listen, c.Public); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("web server: %w", err)
	}
	c.Log.Info("web server listens", "address", l.Addr().String())
	return &web{listener: l, server: &http.Server{
		Handler:           handler(engine, metrics),
		ReadTimeout:       webTimeout,
		ReadHeaderTimeout: webTimeout,
		WriteTimeout:      2 * webTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
	}}, nil
}

// serve answers until ctx ends.
func (w *web) serve(ctx context.Context) error {
	if w.server == nil {
		return nil
	}
	failed := make(chan error, 1)
	go func() { failed <- w.server.Serve(w.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("web server: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), webTimeout)
	defer cancel()
	err := w.server.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = w.server.Close()
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// handler answers without ever showing a content: all it sees are the engine's
// status and metrics, which hold none.
func handler(engine *inject.Engine, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		text(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s := engine.Status(); !s.Ready {
			text(w, http.StatusServiceUnavailable, s.Reasons...)
			return
		}
		text(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{DisableCompression: true, MaxRequestsInFlight: 4}))
	return mux
}

func text(w http.ResponseWriter, code int, lines ...string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(strings.Join(lines, "\n") + "\n"))
}
