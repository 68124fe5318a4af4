// Package smtp owns the proof of a stored login to a mail server: it connects,
// makes the connection confidential, authenticates and leaves. It sends no mail.
//
// It is a client of its own instead of net/smtp, which reads lines and answers of
// any length, and neither bounds a conversation nor tells what a server said
// before TLS from what it said under it.
package smtp
