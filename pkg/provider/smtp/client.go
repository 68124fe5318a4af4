package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
	"github.com/credstore/credstore/pkg/provider"
)

const (
	// maxLine is the most bytes of a line: twice what RFC 5321, section
	// 4.5.3.1.5, allows a server.
	maxLine = 1024
	// maxLines is the most lines of one reply.
	maxLines = 100
	// maxInitial is the longest AUTH command with its initial response; a longer
	// response is sent when it is asked for (RFC 4954, section 4).
	maxInitial = 500
)

// client is one conversation.
type client struct {
	conn    net.Conn
	reader  *bufio.Reader
	secured bool
	// extensions are what EHLO lists, each in upper case with its parameters.
	extensions map[string][]string
	secrets    []string
}

// reply is what a server answers.
type reply struct {
	code  int
	lines []string
}

func (r reply) text() string { return strings.Join(r.lines, " ") }

// secretsOf returns what must not be repeated from a server's words: the password
// and how AUTH encodes it.
func secretsOf(m *credentialv1.Smtp) []string {
	return []string{
		m.GetPassword(),
		plainResponse(m.GetUsername(), m.GetPassword()),
		base64.StdEncoding.EncodeToString([]byte(m.GetPassword())),
	}
}

func plainResponse(username, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + username + "\x00" + password))
}

func trimBrackets(host string) string {
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// fail returns the error of a reply that is a no: for now, or for good.
func (c *client) fail(op string, r reply) error {
	kind := provider.ErrRefused
	if r.code < 500 {
		kind = provider.ErrUnavailable
	}
	return &provider.Error{Kind: kind, Op: op, Status: r.code, Text: provider.Clean(r.text(), c.secrets...)}
}

func unsupported(op, text string) error {
	return &provider.Error{Kind: provider.ErrUnsupported, Op: op, Text: provider.Clean(text)}
}

// none says that the other side does not speak the protocol. What it did say is
// not repeated: it may be anything that listens there.
func none(op string) error {
	return &provider.Error{Kind: provider.ErrUnavailable, Op: op, Text: "what answers there is no mail server"}
}

// read reads a reply (RFC 5321, section 4.2).
func (c *client) read(op string) (reply, error) {
	if c.reader == nil {
		c.reader = bufio.NewReaderSize(c.conn, maxLine)
	}
	var r reply
	for range maxLines {
		line, err := c.reader.ReadSlice('\n')
		if err != nil && len(line) >= maxLine {
			return reply{}, none(op)
		}
		if err != nil {
			return reply{}, provider.NetworkError(op, err)
		}
		text := strings.TrimRight(string(line), "\r\n")
		code, last, ok := parseLine(text)
		if !ok || r.lines != nil && code != r.code {
			return reply{}, none(op)
		}
		r.code = code
		r.lines = append(r.lines, strings.TrimLeft(text[min(len(text), 4):], " "))
		if last {
			return r, nil
		}
	}
	return reply{}, none(op)
}

// parseLine reads the code of a line, and whether it is the last of a reply.
func parseLine(line string) (code int, last, ok bool) {
	if len(line) < 3 || strings.TrimLeft(line[:3], "0123456789") != "" {
		return 0, false, false
	}
	code, err := strconv.Atoi(line[:3])
	if err != nil || code < 200 || code > 599 {
		return 0, false, false
	}
	if len(line) == 3 || line[3] == ' ' {
		return code, true, true
	}
	return code, false, line[3] == '-'
}

// say sends a command and reads the reply.
func (c *client) say(op, command string) (reply, error) {
	if _, err := io.WriteString(c.conn, command+"\r\n"); err != nil {
		return reply{}, provider.NetworkError(op, err)
	}
	return c.read(op)
}

func (c *client) greeting() error {
	r, err := c.read("connect")
	if err != nil {
		return err
	}
	if r.code != 220 {
		return c.fail("connect", r)
	}
	return nil
}

func (c *client) hello(name string) error {
	r, err := c.say("ehlo", "EHLO "+name)
	if err != nil {
		return err
	}
	switch r.code {
	case 250:
	case 500, 502:
		return unsupported("ehlo", "the server speaks SMTP without extensions, and so without a login")
	default:
		return c.fail("ehlo", r)
	}
	c.extensions = map[string][]string{}
	for _, line := range r.lines[1:] {
		// Old servers write AUTH=PLAIN.
		if words := strings.Fields(strings.ToUpper(strings.Replace(line, "=", " ", 1))); len(words) > 0 {
			c.extensions[words[0]] = append(c.extensions[words[0]], words[1:]...)
		}
	}
	return nil
}

// secure makes the connection one of TLS. The certificate must be the host's.
func (c *client) secure(ctx context.Context, config *tls.Config) error {
	conn := tls.Client(c.conn, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return provider.NetworkError("tls", err)
	}
	c.conn, c.reader, c.secured = conn, nil, true
	return nil
}

// startTLS asks for TLS and greets anew: what the server said before may have
// come from anybody (RFC 3207, section 4.2).
func (c *client) startTLS(ctx context.Context, config *tls.Config, name string) error {
	if _, offered := c.extensions["STARTTLS"]; !offered {
		return &provider.Error{
			Kind: provider.ErrRefused, Op: "starttls",
			Text: "the server does not offer STARTTLS, and the password is not sent without TLS",
		}
	}
	r, err := c.say("starttls", "STARTTLS")
	if err != nil {
		return err
	}
	if r.code != 220 {
		return c.fail("starttls", r)
	}
	if c.reader.Buffered() > 0 {
		return &provider.Error{Kind: provider.ErrRefused, Op: "starttls", Text: "something was slipped in between STARTTLS and TLS: the connection is not trusted"}
	}
	if err := c.secure(ctx, config); err != nil {
		return err
	}
	return c.hello(name)
}

// authenticate logs in by the first of PLAIN and LOGIN that the server offers.
func (c *client) authenticate(username, password string) error {
	if !c.secured { // every way here goes through secure
		return &provider.Error{Kind: provider.ErrRefused, Op: "auth", Text: "the password is not sent without TLS"}
	}
	mechanisms, offered := c.extensions["AUTH"]
	switch {
	case !offered:
		return unsupported("auth", "the server offers no login")
	case slices.Contains(mechanisms, "PLAIN"):
		return c.authPlain(username, password)
	case slices.Contains(mechanisms, "LOGIN"):
		return c.authLogin(username, password)
	}
	slices.Sort(mechanisms)
	return unsupported("auth", fmt.Sprintf("the server takes none of PLAIN and LOGIN, only %s", strings.Join(mechanisms, ", ")))
}

// authPlain is RFC 4616.
func (c *client) authPlain(username, password string) error {
	response := plainResponse(username, password)
	if command := "AUTH PLAIN " + response; len(command) <= maxInitial {
		r, err := c.say("auth", command)
		if err != nil {
			return err
		}
		return c.result(r)
	}
	r, err := c.say("auth", "AUTH PLAIN")
	return c.respond(r, err, response)
}

// authLogin is the mechanism of draft-murchison-sasl-login, which was never
// finished, and which many servers have.
func (c *client) authLogin(username, password string) error {
	r, err := c.say("auth", "AUTH LOGIN")
	return c.respond(r, err,
		base64.StdEncoding.EncodeToString([]byte(username)), base64.StdEncoding.EncodeToString([]byte(password)))
}

// respond answers the server's challenges one by one.
func (c *client) respond(r reply, err error, responses ...string) error {
	for _, response := range responses {
		if err != nil {
			return err
		}
		if r.code != 334 {
			return c.result(r)
		}
		r, err = c.say("auth", response)
	}
	if err != nil {
		return err
	}
	return c.result(r)
}

// result tells the replies to AUTH apart (RFC 4954, section 6).
func (c *client) result(r reply) error {
	switch r.code {
	case 235:
		return nil
	case 334:
		return none("auth") // it asks on where the mechanism has an end
	case 500, 502, 503, 504:
		return &provider.Error{Kind: provider.ErrUnsupported, Op: "auth", Status: r.code, Text: provider.Clean(r.text(), c.secrets...)}
	}
	if r.code < 400 {
		return none("auth")
	}
	return c.fail("auth", r)
}

// quit takes leave. The login has been proved, whatever comes.
func (c *client) quit() {
	const patience = 2 * time.Second
	if c.conn.SetDeadline(time.Now().Add(patience)) == nil {
		_, _ = c.say("quit", "QUIT")
	}
}
