package provider

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"syscall"
)

// NetworkError returns why a store gave no answer. The text is the same each
// time, unlike net's, which names the local port, and crypto/x509's, which
// names the time of day; and it has no URL in it.
func NetworkError(op string, err error) *Error {
	if e, ok := errors.AsType[*EgressError](err); ok {
		return &Error{Kind: ErrForbiddenAddress, Op: op, Text: Clean(e.Error())}
	}
	return &Error{Kind: ErrUnavailable, Op: op, Text: Clean(networkText(err))}
}

func networkText(err error) string {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Sprintf("look up %s: %s", e.Name, e.Err)
	}
	if text := certificateText(err); text != "" {
		return text
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Addr != nil {
		return fmt.Sprintf("%s %s: %s", e.Op, e.Addr, reason(e.Err))
	}
	return reason(err)
}

// httpForHTTPS is what net/http says instead of crypto/tls, in an error without a
// type.
const httpForHTTPS = "http: server gave HTTP response to HTTPS client"

// certificateText returns what is wrong with TLS, "" when nothing is.
func certificateText(err error) string {
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		_ = e // its text names the certificate's issuer, which the peer chose
		return "the certificate is signed by an unknown authority: give the server's certificate authority"
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("the certificate is not valid for %s", e.Host)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if e.Reason == x509.Expired {
			return "the certificate has expired or is not yet valid"
		}
		return e.Error()
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.Err.Error()
	}
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	if e, ok := errors.AsType[*url.Error](err); ok && e.Err.Error() == httpForHTTPS {
		noTLS = true
	}
	if noTLS {
		return "the server does not speak TLS"
	}
	if e, ok := errors.AsType[tls.AlertError](err); ok {
		return e.Error()
	}
	return ""
}

// reason returns the innermost words, which name no addresses.
func reason(err error) string {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e.Error()
	}
	switch {
	case errors.Is(err, errTooLong):
		return fmt.Sprintf("the answer has more than %d bytes", MaxAnswer)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timed out"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed before an answer"
	case errors.Is(err, net.ErrClosed):
		return "the connection was closed"
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return "timed out"
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Sprintf("no answer (%T)", e.Err)
	}
	return fmt.Sprintf("no answer (%T)", err)
}
