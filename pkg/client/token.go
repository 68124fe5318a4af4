package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"google.golang.org/grpc/credentials"
)

// maxTokenBytes bounds a token file: whatever is longer is no token.
const maxTokenBytes = 16 << 10

// bearer puts a token on each call. It refuses connections that could be read
// on the way.
type bearer struct {
	token  func(context.Context) (string, error)
	secure bool
}

var _ credentials.PerRPCCredentials = bearer{}

// tokens returns what puts tokens on calls; nil for none.
func (o Options) tokens() credentials.PerRPCCredentials {
	switch {
	case o.Token != nil:
		return bearer{token: o.Token, secure: !o.Insecure}
	case o.TokenFile != "":
		f := &tokenFile{path: o.TokenFile}
		return bearer{token: f.token, secure: !o.Insecure}
	}
	return nil
}

// GetRequestMetadata has errors that say what to do, and never the token.
func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b.token(ctx)
	if err != nil {
		return nil, tokenError(err)
	}
	if err := checkToken(token); err != nil {
		return nil, tokenError(err)
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity is false only where localOnly guards the connection.
func (b bearer) RequireTransportSecurity() bool { return b.secure }

func checkToken(token string) error {
	if token == "" {
		return errors.New("token is empty")
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("token has characters that no token has: visible ASCII without spaces is expected")
	}
	return nil
}

// tokenFile reads a token again when its file changes, and keeps the last good
// one when that fails: a file may be away for a moment while it is replaced.
type tokenFile struct {
	path string

	mu   sync.Mutex
	seen os.FileInfo // of the file that last was read from
	last string
}

func (f *tokenFile) token(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && f.last != "" && os.SameFile(info, f.seen) && info.ModTime().Equal(f.seen.ModTime()) && info.Size() == f.seen.Size() {
		return f.last, nil
	}
	var token string
	if err == nil {
		token, info, err = readToken(f.path)
	}
	if err != nil {
		if f.last != "" {
			return f.last, nil
		}
		return "", err
	}
	f.last, f.seen = token, info
	return token, nil
}

// readToken returns the token in a file, without the white space around it.
func readToken(path string) (string, os.FileInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", nil, fmt.Errorf("token file: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	info, err := file.Stat()
	if err != nil {
		return "", nil, fmt.Errorf("token file: %w", err)
	}
	if info.IsDir() {
		return "", nil, fmt.Errorf("token file: %w", &fs.PathError{Op: "read", Path: path, Err: errors.New("is a directory")})
	}
	data, err := io.ReadAll(io.LimitReader(file, maxTokenBytes+1))
	if err != nil {
		return "", nil, fmt.Errorf("token file: %w", err)
	}
	if len(data) > maxTokenBytes {
		return "", nil, fmt.Errorf("token file %s: larger than any token", path)
	}
	token := strings.TrimSpace(string(data))
	if err := checkToken(token); err != nil {
		return "", nil, fmt.Errorf("token file %s: %w", path, err)
	}
	return token, info, nil
}
