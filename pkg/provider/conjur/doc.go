// Package conjur owns the dealings with CyberArk Conjur: logging in with an API
// key, and asking whose it is. It reads no secrets of an appliance, and nothing of
// this machine: neither ~/.conjurrc nor the environment.
package conjur
