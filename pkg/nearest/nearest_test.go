package nearest

import (
	"strings"
	"testing"
)

func TestWord(t *testing.T) {
	among := []string{"username", "password", "ca", "port", "sshKey"}
	for word, want := range map[string]string{
		"password":                  "password",
		"pasword":                   "password",
		"passwrod":                  "password",
		"passwordd":                 "password",
		"pasw0rd":                   "password",
		"paw0rd":                    "",
		"PASSWORD":                  "password",
		"sshkey":                    "sshKey",
		"cb":                        "ca",
		"xy":                        "", // every letter is wrong
		"":                          "",
		"hunter2":                   "",
		strings.Repeat("a", 65):     "",
		"username" + "\x00\x00":     "username",
		"username" + "\x00\x00\x00": "",
	} {
		if got := Word(word, among); got != want {
			t.Errorf("%q is taken for %q, want %q", word, got, want)
		}
	}
	if got := Word("ab", []string{"abcd", "abc"}); got != "abc" {
		t.Errorf("not the nearest: %q", got)
	}
}
