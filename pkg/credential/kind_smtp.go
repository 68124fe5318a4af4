package credential

import (
	"strings"

	credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"
)

// smtp is a login to a mail server.
var smtp = behaviour[*credentialv1.Smtp]{
	check: checkSmtp,
	facts: func(m *credentialv1.Smtp) map[string]string {
		return map[string]string{"host": m.GetHost(), "username": m.GetUsername()}
	},
}

// The ports of submission: RFC 8314, section 3.3, and RFC 6409, section 3.1.
const (
	portSubmissions = 465
	portSubmission  = 587
)

func checkSmtp(m *credentialv1.Smtp, r *report) {
	readSmtpAddress(m, r)
	r.check("host", m.GetHost(), wantMailHost, isEmpty, serviceHost)
	if m.GetPort() > 65535 {
		r.add("port", "must be a number from 1 to 65535; it is greater")
	}
	checkSmtpSecurity(m, r)
	m.Username = trimPasted(m.GetUsername())
	r.check("username", m.GetUsername(), "1 to 1,024 characters without control characters", isEmpty, moreCharactersThan(1024), holdsControl)
	// The line break at the end of a file or of a paste.
	m.Password = strings.TrimRight(m.GetPassword(), "\r\n")
	r.check("password", m.GetPassword(), "1 to 4,096 bytes in one line, without NUL", isEmpty, longerThan(4096),
		holds("\r\n", "a line break"), holds("\x00", "a NUL"))
	m.From = trimPasted(m.GetFrom())
	if m.GetFrom() != "" {
		r.check("from", m.GetFrom(), `an address alone, as "alerts@example.com"`, isNoMailbox)
	}
	m.CaPem = checkAuthority("caPem", m.GetCaPem(), r)
}

// checkSmtpSecurity fills in the port and how the connection begins, each from
// the other where that is beyond doubt.
func checkSmtpSecurity(m *credentialv1.Smtp, r *report) {
	if m.GetSecurity() == credentialv1.Smtp_SECURITY_UNSPECIFIED {
		m.Security = credentialv1.Smtp_STARTTLS
		if m.GetPort() == portSubmissions {
			m.Security = credentialv1.Smtp_TLS
		}
	}
	switch m.GetSecurity() {
	case credentialv1.Smtp_STARTTLS:
		if m.GetPort() == 0 {
			m.Port = portSubmission
		}
		if m.GetPort() == portSubmissions {
			r.add("security", "must be TLS for port 465, where servers speak TLS from the beginning; it is STARTTLS")
		}
	case credentialv1.Smtp_TLS:
		if m.GetPort() == 0 {
			m.Port = portSubmissions
		}
		if m.GetPort() == portSubmission {
			r.add("security", "must be STARTTLS for port 587, where servers speak TLS only after that command; it is TLS")
		}
	default:
		r.add("security", "must be STARTTLS or TLS; it is another number")
	}
}
