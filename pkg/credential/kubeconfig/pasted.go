package kubeconfig

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLayers is how many wrappings around a document are taken off, as a quoted
// string inside of a code fence.
const maxLayers = 4

var (
	// prompt begins a line that shows a command: "$ ", "root@node:~# ",
	// "[me@host ~]$ ". A number sign alone would be a comment of the document.
	prompt = regexp.MustCompile(`^(\S*[$%>❯]|\S+#|\[[^\]\n]*\][$#])\s+\S`)
	// bare is the prompt that follows the output of a command.
	bare = regexp.MustCompile(`^(\S*[$%❯]|\S+#|\[[^\]\n]*\][$#])$`)
	// heredoc begins a document as a shell or Terraform quotes it.
	heredoc = regexp.MustCompile(`^(?:[^\n:]*[ =])?<<[-~]?['"]?([A-Z]+)['"]?[^\n:]*$`)
)

// Pasted returns the document without what a paste leaves around it: byte order
// marks, empty lines, the line ends of Windows, no-break spaces in indentation, a
// shell's prompt, a code fence, a here-document, quotes around the whole, and
// base64 of the whole. What is left ends with one line break, and is else as it
// was. Pasted again it is the same.
func Pasted(text string) string {
	for range maxLayers {
		text = trim(text)
		inner, wrapped := unwrap(text)
		if !wrapped {
			break
		}
		text = inner
	}
	text = trim(text)
	if text == "" {
		return ""
	}
	return text + "\n"
}

// trim removes what is not seen. The first line keeps its indentation, which
// means something.
func trim(text string) string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, "\r", "\n")
	for {
		text = strings.TrimLeft(text, "\ufeff\u200b")
		line, rest, more := strings.Cut(text, "\n")
		if !more || strings.TrimSpace(line) != "" {
			break
		}
		text = rest
	}
	text = strings.TrimRightFunc(text, func(c rune) bool { return unicode.IsSpace(c) || c == '\ufeff' || c == '\u200b' })
	return spaces(text)
}

// spaces makes spaces of the no-break spaces that web pages indent with.
func spaces(text string) string {
	const noBreak = "\u00a0"
	if !strings.Contains(text, noBreak) {
		return text
	}
	var out strings.Builder
	for line := range strings.Lines(text) {
		rest := strings.TrimLeft(line, " "+noBreak)
		out.WriteString(strings.ReplaceAll(line[:len(line)-len(rest)], noBreak, " "))
		out.WriteString(rest)
	}
	return out.String()
}

// unwrap takes one wrapping off.
func unwrap(text string) (string, bool) {
	first, rest, lines := strings.Cut(text, "\n")
	first = strings.TrimSpace(first)
	start := strings.LastIndexByte(text, '\n') + 1
	last := text[start:]
	switch {
	case strings.HasPrefix(text, `"`):
		var inner string
		if json.Unmarshal([]byte(text), &inner) == nil {
			return inner, true
		}
	case lines && strings.HasPrefix(text, "'") && strings.HasSuffix(text, "'") && strings.Count(text, "'") == 2:
		return text[1 : len(text)-1], true
	case lines && strings.HasPrefix(first, "```"):
		if last == "```" && start > len(first) {
			return strings.TrimSuffix(rest, last), true
		}
	case lines && prompt.MatchString(first):
		return rest, true
	case lines && bare.MatchString(last):
		return text[:start], true
	case lines:
		word := heredoc.FindStringSubmatch(first)
		if word != nil && last == word[1] {
			return strings.TrimSuffix(rest, last), true
		}
	}
	return unbase64(text)
}

// unbase64 decodes a text that is nothing but base64 of another.
func unbase64(text string) (string, bool) {
	const shortest = 40
	packed := strings.Map(func(c rune) rune {
		if c == '\n' || c == ' ' || c == '\t' {
			return -1
		}
		return c
	}, text)
	if len(packed) < shortest {
		return "", false
	}
	packed = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(packed, "="))
	decoded, err := base64.RawStdEncoding.DecodeString(packed)
	if err != nil || !utf8.Valid(decoded) || !strings.ContainsAny(string(decoded), ":{") {
		return "", false
	}
	return string(decoded), true
}
