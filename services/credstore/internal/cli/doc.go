// Package cli owns the credstore command: its subcommands, flags, tables and
// exit codes. It decides nothing about credentials; the server does.
package cli
