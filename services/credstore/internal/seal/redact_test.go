package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// Whatever prints a value that leads to keys prints no key.
func TestRedaction(t *testing.T) {
	root, store := testRoot(t), new(keyStore)
	s := mustOpen(t, root, store)
	_, set, err := unwrapKeySet(t.Context(), root, store.wrapped)
	if err != nil {
		t.Fatal(err)
	}
	// As somebody's configuration might hold them.
	type hidden struct {
		root  *FileRootKey
		iface RootKey
		value FileRootKey
		s     *Sealer
		set   keySet
		ring  *keyring
		aead  xaes
		key   secretKey
	}
	type shown struct {
		Root  *FileRootKey
		Iface RootKey
		Value FileRootKey
		S     *Sealer
		Key   secretKey
	}
	secrets := [][]byte{testRootBytes, set.secret(), set.epochs[0].key()}

	for _, tt := range []struct {
		name  string
		value any
		want  string // what must be seen, when the value is asked itself
	}{
		{"root key", root, root.ID()},
		{"root key by value", *root, ""},
		{"nil root key", (*FileRootKey)(nil), ""},
		{"sealer", s, s.ID()},
		{"nil sealer", (*Sealer)(nil), ""},
		{"key", set.secret, "redacted"},
		{"epoch key", set.epochs[0], ""},
		{"key set", set, ""},
		{"key set by value", *set, ""},
		{"keyring", s.ring.Load(), ""},
		{"cipher", root.aead, ""},
		{"hidden fields", hidden{root, root, *root, s, *set, s.ring.Load(), root.aead, set.secret}, ""},
		{"pointer to hidden fields", &hidden{root, root, *root, s, *set, s.ring.Load(), root.aead, set.secret}, ""},
		{"shown fields", shown{root, root, *root, s, set.secret}, root.ID()},
		{"slice", []any{root, s, set, set.secret}, root.ID()},
		{"map", map[string]any{"a": root, "b": s, "c": set.secret}, root.ID()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for how, out := range printings(tt.value) {
				for _, secret := range secrets {
					if form := findKey(out, secret); form != "" {
						t.Errorf("%s prints key bytes (%s): %s", how, form, out)
					}
				}
				if tt.want != "" && !strings.Contains(out, tt.want) {
					t.Errorf("%s prints %q, want %q in it", how, out, tt.want)
				}
			}
		})
	}

	// The search itself finds a key that is printed.
	for how, out := range printings(struct{ K []byte }{testRootBytes}) {
		if !strings.Contains(how, "%T") && findKey(out, testRootBytes) == "" {
			t.Errorf("%s printed a key and it was not found: %s", how, out)
		}
	}
}

func printings(v any) map[string]string {
	out := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x", "%#x", "%o", "%40v"} {
		out[verb] = fmt.Sprintf(verb, v)
	}
	out["Sprint"] = fmt.Sprint(v)
	out["error"] = fmt.Errorf("because of %v", v).Error()
	if b, err := json.Marshal(v); err == nil {
		// A struct without shown fields is {} to JSON, which has nothing to say.
		if string(b) != "{}" {
			out["json"] = string(b)
		}
	}
	var text, js bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "v", v)
	slog.New(slog.NewJSONHandler(&js, nil)).Info("m", "v", v)
	out["slog text"], out["slog json"] = text.String(), js.String()
	if s, ok := v.(fmt.Stringer); ok {
		out["String"] = safely(s.String)
	}
	if s, ok := v.(fmt.GoStringer); ok {
		out["GoString"] = safely(s.GoString)
	}
	if s, ok := v.(slog.LogValuer); ok {
		out["LogValue"] = safely(func() string { return s.LogValue().String() })
	}
	return out
}

// safely is for nil pointers, whose methods may panic in a way that fmt hides.
func safely(f func() string) (s string) {
	defer func() {
		if r := recover(); r != nil {
			s = fmt.Sprint("panic: ", r)
		}
	}()
	return f()
}

// findKey tells in which form out holds the first four bytes of a key.
func findKey(out string, key []byte) string {
	k := key[:4]
	forms := map[string]string{
		"raw":          string(k),
		"quoted":       strings.Trim(fmt.Sprintf("%q", k), `"`),
		"hex":          hex.EncodeToString(k),
		"base64":       base64.StdEncoding.EncodeToString(key[:6]),
		"decimal":      strings.Trim(fmt.Sprintf("%d", k), "[]"),
		"go":           strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", k), "[]byte{"), "}"),
		"octal":        strings.Trim(fmt.Sprintf("%o", k), "[]"),
		"spaced hex":   fmt.Sprintf("% x", k),
		"padded":       strings.Trim(fmt.Sprintf("%40v", k[:2]), "[]"),
		"json numbers": fmt.Sprintf("%d,%d,%d,%d", k[0], k[1], k[2], k[3]),
	}
	for form, text := range forms {
		if text != "" && strings.Contains(strings.ToLower(out), strings.ToLower(text)) {
			return form
		}
	}
	return ""
}
