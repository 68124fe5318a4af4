// Package webhook owns the proof that a stored webhook works, as far as one can
// be had without a message that people see: it never sends one. Slack and Discord
// can be asked; of others only a message would tell.
package webhook
