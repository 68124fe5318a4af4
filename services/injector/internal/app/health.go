package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Health asks a running injector's web server at address for path, /healthz or
// /readyz. Its error says what the answer was.
func Health(ctx context.Context, address, path string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("web server: address %q: want host:port", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // what listens everywhere listens here
	}
	ctx, cancel := context.WithTimeout(ctx, webTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return fmt.Errorf("web server: %w", err)
	}
	// A transport of its own: no proxy stands between a container and itself.
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("web server: %w", err)
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("web server: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, answer.Status, strings.ReplaceAll(strings.TrimSpace(string(body)), "\n", "; "))
	}
	return nil
}
