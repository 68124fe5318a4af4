package gateway

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// refusedWithBody are requests that are refused while their body is unread.
var refusedWithBody = map[string]struct {
	method, target, contentType, token string
	http                               int
}{
	"no token":    {"POST", "/v1/projects/p/credentials", "application/json", "", 401},
	"no path":     {"POST", "/v1/nowhere", "application/json", "Bearer credstore_x", 404},
	"bad query":   {"POST", "/v1/projects/p/credentials?id=c", "application/json", "Bearer credstore_x", 400},
	"method":      {"PUT", "/v1/projects/p/credentials", "application/json", "Bearer credstore_x", 405},
	"public path": {"POST", "/healthz", "application/json", "", 405},
	"media type":  {"POST", "/v1/projects/p/credentials", "text/plain", "Bearer credstore_x", 415},
	"no body":     {"DELETE", "/v1/projects/p/credentials/c", "application/json", "Bearer credstore_x", 400},
}

// startHTTP2 serves the gateway over TLS and HTTP/2, and counts connections.
func startHTTP2(t *testing.T) (s *httptest.Server, connections func() int) {
	t.Helper()
	var mu sync.Mutex
	var n int
	s = httptest.NewUnstartedServer(newHandler(t, &recorder{}))
	s.EnableHTTP2 = true
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if state == http.StateNew {
			n++
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// TestRefusalsReachHTTP2 holds that each refusal arrives whole, however much of
// the body the client has sent, and that the connection outlives it.
func TestRefusalsReachHTTP2(t *testing.T) {
	s, connections := startHTTP2(t)
	ctx := t.Context()
	try := func(t *testing.T, name, method, target, contentType, token string, want int, body io.Reader) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, method, s.URL+target, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		if token != "" {
			r.Header.Set("Authorization", token)
		}
		res, err := s.Client().Do(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		var a answer
		if err != nil || json.Unmarshal(text, &a) != nil || res.StatusCode != want || a.Code == 0 || res.ProtoMajor != 2 {
			t.Fatalf("%s: %s %d, %v: %s", name, res.Proto, res.StatusCode, err, text)
		}
	}
	const small, target, token = `{"payload":{"apiToken":{"token":"t"}}}`, "/v1/projects/p/credentials", "Bearer credstore_x"
	large := bytes.Repeat([]byte(" "), MaxBody+MaxBody/2)
	// The first one alone: together they would each open a connection.
	try(t, "first", "POST", "/v1/nowhere", "application/json", token, 404, strings.NewReader(small))
	t.Run("group", func(t *testing.T) {
		for name, c := range refusedWithBody {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for range 100 {
					try(t, name, c.method, c.target, c.contentType, c.token, c.http, strings.NewReader(small))
				}
				for range 3 {
					try(t, "1 MB", c.method, c.target, c.contentType, c.token, c.http, bytes.NewReader(large[:1_000_000]))
				}
				// Nobody sends the rest of this body.
				slow, end := io.Pipe()
				go func() { _, _ = io.WriteString(end, small[:1]) }()
				try(t, "slow", c.method, c.target, c.contentType, c.token, c.http, slow)
				_ = end.Close()
			})
		}
		t.Run("large", func(t *testing.T) {
			t.Parallel()
			for range 2 {
				try(t, "announced", "POST", target, "application/json", token, 413, bytes.NewReader(large))
				try(t, "not announced", "POST", target, "application/json", token, 413, io.MultiReader(bytes.NewReader(large)))
			}
		})
	})
	if n := connections(); n != 1 {
		t.Errorf("the refusals took %d connections", n)
	}
}

// http2Client is one request on a connection of HTTP/2, frame by frame.
type http2Client struct {
	t    *testing.T
	conn net.Conn
	*http2.Framer
	// What may be sent on the stream and on the connection, as granted so far.
	onStream, onConnection int
}

// openHTTP2 sends the header of a request whose body goes on.
func openHTTP2(t *testing.T, s *httptest.Server, method, target, contentType, token string) *http2Client {
	t.Helper()
	config := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := &http2Client{t: t, conn: conn, Framer: http2.NewFramer(conn, conn), onConnection: 65535}
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	header := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", method},
		{":scheme", "https"},
		{":authority", "localhost"},
		{":path", target},
		{"content-type", contentType},
		{"authorization", token},
	} {
		if f[1] == "" {
			continue
		}
		if err := header.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = io.WriteString(conn, http2.ClientPreface)
	c.must(err)
	c.must(c.WriteSettings())
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
	return c
}

func (c *http2Client) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next frame, and notes what it grants.
func (c *http2Client) read() http2.Frame {
	c.t.Helper()
	c.must(c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)))
	f, err := c.ReadFrame()
	c.must(err)
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			c.onStream += int(v)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 1 {
			c.onStream += int(f.Increment)
		} else {
			c.onConnection += int(f.Increment)
		}
	}
	return f
}

// next returns the next frame that answers, or ends something.
func (c *http2Client) next() http2.Frame {
	c.t.Helper()
	for {
		switch f := c.read().(type) {
		case *http2.SettingsFrame, *http2.WindowUpdateFrame:
		default:
			return f
		}
	}
}

// readAnswer reads an answer, before which nothing may come that ends the stream.
func (c *http2Client) readAnswer(want int) {
	c.t.Helper()
	f := c.next()
	header, ok := f.(*http2.MetaHeadersFrame)
	if !ok || header.PseudoValue("status") != fmt.Sprint(want) {
		c.t.Fatalf("got %v, not the header of HTTP %d", f, want)
	}
	f = c.next()
	data, ok := f.(*http2.DataFrame)
	if !ok {
		c.t.Fatalf("got %v, not the answer", f)
	}
	var a answer
	if err := json.Unmarshal(data.Data(), &a); err != nil || a.Code == 0 {
		c.t.Fatalf("%v: %s", err, data.Data())
	}
}

// TestRefusalComesBeforeTheStreamEnds holds what clients need that send when the
// answer comes: no GOAWAY and no end of the stream together with it.
func TestRefusalComesBeforeTheStreamEnds(t *testing.T) {
	s, _ := startHTTP2(t)
	for name, r := range refusedWithBody {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := time.Now()
			c := openHTTP2(t, s, r.method, r.target, r.contentType, r.token)
			c.must(c.WriteData(1, false, []byte("{")))
			c.readAnswer(r.http)
			f := c.next()
			data, ok := f.(*http2.DataFrame)
			if !ok || !data.StreamEnded() || time.Since(asked) < lingerTime {
				t.Fatalf("after %v: %v, not the end of a stream that lingered", time.Since(asked), f)
			}
			f = c.next()
			if reset, ok := f.(*http2.RSTStreamFrame); !ok || reset.ErrCode != http2.ErrCodeNo {
				t.Errorf("got %v, not a reset without an error", f)
			}
		})
	}
}

// TestBodyThatEndsIsNotLingeredFor holds that a client which sends its body to
// the end waits for nothing, and is not reset.
func TestBodyThatEndsIsNotLingeredFor(t *testing.T) {
	s, _ := startHTTP2(t)
	c := openHTTP2(t, s, "POST", "/v1/nowhere", "application/json", "Bearer credstore_x")
	c.readAnswer(404)
	c.must(c.WriteData(1, true, []byte("{}")))
	f := c.next()
	if data, ok := f.(*http2.DataFrame); !ok || !data.StreamEnded() {
		t.Fatalf("got %v, not the end of the stream", f)
	}
	c.must(c.WritePing(false, [8]byte{1}))
	f = c.next()
	if _, ok := f.(*http2.PingFrame); !ok {
		t.Errorf("got %v, not the answer to a ping", f)
	}
}

// TestEndlessBodyIsBounded holds that behind a refusal a client may send no more
// than one accepted body beyond what HTTP/2 let it send unasked.
func TestEndlessBodyIsBounded(t *testing.T) {
	const window = 1 << 20 // net/http's default for a stream
	s, _ := startHTTP2(t)
	c := openHTTP2(t, s, "POST", "/v1/nowhere", "application/json", "Bearer credstore_x")
	c.readAnswer(404)
	sent, chunk := 0, make([]byte, 16<<10)
	for {
		for sent+len(chunk) <= min(c.onStream, c.onConnection) {
			c.must(c.WriteData(1, false, chunk))
			sent += len(chunk)
		}
		switch c.read().(type) {
		case *http2.DataFrame, *http2.RSTStreamFrame:
			if sent == 0 || sent > window+MaxBody+len(chunk) {
				t.Errorf("the client could send %d bytes", sent)
			}
			return
		}
	}
}
