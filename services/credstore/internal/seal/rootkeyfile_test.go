package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

func TestCreateAndLoadRootKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "root.key")
	made, err := CreateRootKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	loaded, err := LoadRootKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.ID() != made.ID() || !strings.HasPrefix(made.ID(), "file-") || len(made.ID()) != len("file-")+16 {
		t.Errorf("made %s, loaded %s", made.ID(), loaded.ID())
	}
	wrapped, err := made.Wrap(t.Context(), []byte(canary), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := loaded.Unwrap(t.Context(), wrapped, []byte("aad")); err != nil || string(got) != canary {
		t.Errorf("unwrapped to %q, %v", got, err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if k, err := LoadRootKeyFile(link); err != nil || k.ID() != made.ID() {
		t.Errorf("through a symlink: %v", err)
	}

	other, err := CreateRootKeyFile(filepath.Join(dir, "other.key"))
	if err != nil {
		t.Fatal(err)
	}
	if other.ID() == made.ID() {
		t.Error("two new keys have one id")
	}
}

func TestCreateRootKeyFileNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "root.key")
	if _, err := CreateRootKeyFile(path); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{path, dangling} {
		if _, err := CreateRootKeyFile(at); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), at) {
			t.Errorf("got %v, want fs.ErrExist and the path", err)
		}
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the file has changed")
	}
	if _, err := os.Stat(filepath.Join(dir, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file was made through a dangling symlink")
	}
	if _, err := CreateRootKeyFile(filepath.Join(dir, "no", "such", "dir")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

func TestLoadRootKeyFileRefusesModes(t *testing.T) {
	text := formatRootKey(testRootBytes)
	for _, mode := range []fs.FileMode{0o400, 0o600, 0o700} {
		if _, err := LoadRootKeyFile(writeFile(t, text, mode)); err != nil {
			t.Errorf("%o: %v", mode, err)
		}
	}
	for _, mode := range []fs.FileMode{0o640, 0o620, 0o604, 0o602, 0o644, 0o660, 0o601, 0o440, 0o777} {
		path := writeFile(t, text, mode)
		_, err := LoadRootKeyFile(path)
		if !errors.Is(err, ErrRootKeyFile) {
			t.Errorf("%o: %v, want ErrRootKeyFile", mode, err)
			continue
		}
		for _, part := range []string{path, "chmod 600"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%o: the error does not say %q: %v", mode, part, err)
			}
		}
	}
	// A symlink does not hide the mode of the file.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(writeFile(t, text, 0o644), link); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadRootKeyFile(link); !errors.Is(err, ErrRootKeyFile) {
		t.Errorf("through a symlink: %v", err)
	}
}

func TestLoadRootKeyFileOtherThings(t *testing.T) {
	if _, err := LoadRootKeyFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := LoadRootKeyFile(t.TempDir()); !errors.Is(err, ErrRootKeyFile) || !strings.Contains(err.Error(), "directory") {
		t.Errorf("directory: %v", err)
	}
	if _, err := LoadRootKeyFile(os.DevNull); !errors.Is(err, ErrRootKeyFile) || !strings.Contains(err.Error(), "special file") {
		t.Errorf("device: %v", err)
	}
	huge := append(formatRootKey(testRootBytes), make([]byte, 1<<20)...)
	if _, err := LoadRootKeyFile(writeFile(t, huge, 0o600)); !errors.Is(err, ErrRootKeyFile) || !strings.Contains(err.Error(), "longer") {
		t.Errorf("huge: %v", err)
	}
}

func TestParseRootKey(t *testing.T) {
	good := string(formatRootKey(testRootBytes))
	encoded := base64.StdEncoding.EncodeToString(testRootBytes)
	lines := strings.SplitAfter(good, "\n")
	// signed puts the right checksum under other lines.
	signed := func(body string) string { return body + "checksum: " + rootFileChecksum([]byte(body)) + "\n" }
	idLine := "id: " + rootKeyID(testRootBytes) + "\n"
	title := rootFileHeader + "\n"
	if signed(title+idLine+"key: "+encoded+"\n") != good {
		t.Fatal("signed does not make what formatRootKey makes")
	}

	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "empty"},
		{"another file", "-----BEGIN PRIVATE KEY-----\n", "first line"},
		{"leading space", " " + good, "first line"},
		{"byte order mark", "\ufeff" + good, "first line"},
		{"Windows line ends", strings.ReplaceAll(good, "\n", "\r\n"), "CR LF"},
		{"newer format", strings.Replace(good, "format 1", "format 2", 1), "does not know"},
		{"header only", title, "truncated"},
		{"checksum line missing", strings.Join(lines[:3], ""), "truncated"},
		{"checksum cut", good[:len(good)-3], "truncated"},
		{"key edited", strings.Replace(good, encoded[:4], "AAAA", 1), "edited"},
		{"id edited", strings.Replace(good, "id: file-", "id: filf-", 1), "edited"},
		{"checksum in capitals", lines[0] + lines[1] + lines[2] + "checksum: " + strings.ToUpper(lines[3][len("checksum: "):]), "edited"},
		{"something after it", good + "x", "edited"},
		{"two line ends after it", good + "\n", "edited"},
		{"twice", good + good, "edited"},
		{"id missing", signed(title + "key: " + encoded + "\n"), "other lines"},
		{"order changed", signed(title + "key: " + encoded + "\n" + idLine), "other lines"},
		{"one line more", signed(title + idLine + "key: " + encoded + "\nnote: x\n"), "other lines"},
		{"not base64", signed(title + idLine + "key: " + strings.Repeat("*", 44) + "\n"), "base64"},
		{"base64 with stray bits", signed(title + idLine + "key: " + encoded[:42] + "p=\n"), "base64"},
		{"31 bytes", signed(title + idLine + "key: " + base64.StdEncoding.EncodeToString(testRootBytes[:31]) + "\n"), "31 bytes"},
		{"33 bytes", signed(title + idLine + "key: " + base64.StdEncoding.EncodeToString(append(testRootBytes[:32:32], 1)) + "\n"), "33 bytes"},
		{"id of another key", signed(title + "id: file-0000000000000000\nkey: " + encoded + "\n"), "another key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := LoadRootKeyFile(writeFile(t, []byte(tt.text), 0o600))
			if !errors.Is(err, ErrRootKeyFile) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want ErrRootKeyFile with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), encoded[:8]) {
				t.Errorf("the error holds the key: %v", err)
			}
		})
	}

	t.Run("without the last line end", func(t *testing.T) {
		key, err := parseRootKey([]byte(strings.TrimSuffix(good, "\n")))
		if err != nil || !bytes.Equal(key, testRootBytes) {
			t.Errorf("got another key, or %v", err)
		}
	})
	t.Run("cut anywhere", func(t *testing.T) {
		for n := range len(good) - 1 {
			if _, err := parseRootKey([]byte(good[:n])); !errors.Is(err, ErrRootKeyFile) {
				t.Fatalf("cut to %d bytes: %v", n, err)
			}
		}
	})
	t.Run("every bit flipped", func(t *testing.T) {
		for bit := range 8 * len(good) {
			b := []byte(good)
			b[bit/8] ^= 1 << (bit % 8)
			if _, err := parseRootKey(b); !errors.Is(err, ErrRootKeyFile) {
				t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
			}
		}
	})
}

func TestFileRootKeyWrap(t *testing.T) {
	root := testRoot(t)
	wrapped, err := root.Wrap(t.Context(), []byte(canary), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(wrapped, []byte(canary[:8])) {
		t.Error("the wrapped bytes hold the plaintext")
	}
	broken := func(name string, ciphertext, aad []byte) {
		t.Helper()
		got, err := root.Unwrap(t.Context(), ciphertext, aad)
		if !errors.Is(err, core.ErrSealBroken) || got != nil {
			t.Fatalf("%s: %v, want ErrSealBroken", name, err)
		}
		wantNoContent(t, err, ciphertext)
	}
	for bit := range 8 * len(wrapped) {
		b := bytes.Clone(wrapped)
		b[bit/8] ^= 1 << (bit % 8)
		broken("bit flipped", b, []byte("aad"))
	}
	for n := range wrapped {
		broken("cut", wrapped[:n], []byte("aad"))
	}
	broken("another aad", wrapped, []byte("aae"))
	broken("no aad", wrapped, nil)
	if _, err := root.Wrap(t.Context(), make([]byte, MaxPlaintext+1), nil); err == nil {
		t.Error("a plaintext beyond MaxPlaintext was wrapped")
	}
}

func TestCreateRootKeyFileLeavesNothingHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	if _, err := createRootKeyFile(path, strings.NewReader("too little")); err == nil {
		t.Error("a key was made of too little randomness")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was left: %v", err)
	}
}
