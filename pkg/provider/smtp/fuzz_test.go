package smtp

import (
	"bufio"
	"errors"
	"strings"
	"testing"

	"github.com/credstore/credstore/pkg/provider"
)

// FuzzReplies reads what any server could send.
func FuzzReplies(f *testing.F) {
	for _, seed := range []string{
		"220 mail.example.com ESMTP\r\n", "250-a\r\n250-AUTH PLAIN LOGIN\r\n250 HELP\r\n", "235\r\n", "334 VXNlcm5hbWU6\n",
		"220-a\r\n250 b\r\n", "2", "\r\n", "SSH-2.0-x\r\n", "999 x\r\n", "22\x00 x\r\n", strings.Repeat("250-x\r\n", 120),
		"250 " + strings.Repeat("x", 2000) + "\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		c := &client{reader: bufio.NewReaderSize(strings.NewReader(input), maxLine)}
		for {
			r, err := c.read("connect")
			if err != nil {
				if e, ok := errors.AsType[*provider.Error](err); !ok || !errors.Is(e, provider.ErrUnavailable) {
					t.Errorf("error is %#v", err)
				}
				return
			}
			if r.code < 200 || r.code > 599 || len(r.lines) == 0 || len(r.lines) > maxLines {
				t.Errorf("%d, %d lines", r.code, len(r.lines))
			}
			for _, line := range r.lines {
				if len(line) > maxLine || strings.Contains(line, "\n") {
					t.Errorf("a line of %d bytes", len(line))
				}
			}
		}
	})
}
