package seal

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// A root key file is four lines of text:
//
//	credstore root key, format 1
//	id: file-0123456789abcdef
//	key: 32 random bytes in base64
//	checksum: the first 8 bytes, in hex, of the SHA-256 of the lines above
//
// The id is computed from the key and cannot be turned back into it.
const (
	rootFileTitle  = "credstore root key, format "
	rootFileHeader = rootFileTitle + "1"
	rootFileMode   = fs.FileMode(0o600)
	maxRootFile    = 4096 // far more than the format needs

	rootBoxMagic  = 0xC7
	rootBoxFormat = 1

	rootIDPurpose = "credstore/seal/root-key-id"
)

// ErrRootKeyFile: a file is not a usable root key. The error around it names
// the file, what is wrong and the fix, and never what the file holds.
var ErrRootKeyFile = errors.New("not a usable root key file")

// FileRootKey is a RootKey from a local file. It is read once and held in
// memory; it prints as its id only. Losing the file is losing every record: it
// belongs in a backup of its own, apart from the store's.
type FileRootKey struct {
	id     string
	aead   xaes
	random io.Reader
}

var _ RootKey = (*FileRootKey)(nil)

// CreateRootKeyFile makes a new random root key and writes it to path with mode
// 0600. When it returns, the file and its entry in the directory are on the
// disk. A file that exists is never overwritten: the error then wraps
// fs.ErrExist. The directory must exist.
func CreateRootKeyFile(path string) (*FileRootKey, error) {
	return createRootKeyFile(path, rand.Reader)
}

func createRootKeyFile(path string, random io.Reader) (*FileRootKey, error) {
	key := make([]byte, keySize)
	defer clear(key)
	if _, err := io.ReadFull(random, key); err != nil {
		return nil, fmt.Errorf("read random bytes for a root key: %w", err)
	}
	root, err := newFileRootKey(key, random)
	if err != nil {
		return nil, err
	}
	text := formatRootKey(key)
	defer clear(text)
	if err := writeNewFile(path, text); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("root key file %s is there already and is never overwritten: load it, or choose another path: %w", path, err)
		}
		return nil, fmt.Errorf("create root key file %s: %w", path, err)
	}
	return root, nil
}

// LoadRootKeyFile reads a root key. A symbolic link is followed. A file that
// others than its owner may read or write, that is not a regular file, or whose
// text was cut or changed is an error that wraps ErrRootKeyFile.
func LoadRootKeyFile(path string) (*FileRootKey, error) {
	text, err := readPrivateFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := parseRootKey(text)
	if err != nil {
		return nil, fmt.Errorf("root key file %s: %w: restore it from its backup", path, err)
	}
	defer clear(key)
	return newFileRootKey(key, rand.Reader)
}

func newFileRootKey(key []byte, random io.Reader) (*FileRootKey, error) {
	aead, err := newXAES(key)
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	return &FileRootKey{id: rootKeyID(key), aead: aead, random: random}, nil
}

// ID returns "file-" and 16 hexadecimal digits that are computed from the key.
func (k *FileRootKey) ID() string { return k.id }

// Wrap encrypts with XAES-256-GCM under a random nonce, which bounds no count
// of uses that a root key could reach. ctx is not used.
func (k *FileRootKey) Wrap(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	if len(plaintext) > MaxPlaintext {
		return nil, fmt.Errorf("plaintext has %d bytes, at most %d can be wrapped", len(plaintext), MaxPlaintext)
	}
	const prefix = 2 + nonceSize
	out := make([]byte, prefix, prefix+len(plaintext)+tagSize)
	out[0], out[1] = rootBoxMagic, rootBoxFormat
	nonce := out[2:prefix]
	if _, err := io.ReadFull(k.random, nonce); err != nil {
		return nil, fmt.Errorf("read random bytes for a nonce: %w", err)
	}
	return k.aead.seal(out, nonce, plaintext, rootBoxAAD(out[:2], aad))
}

// Unwrap decrypts. An altered ciphertext or aad is an error that wraps
// core.ErrSealBroken. ctx is not used.
func (k *FileRootKey) Unwrap(_ context.Context, ciphertext, aad []byte) ([]byte, error) {
	if len(ciphertext) < 2+nonceSize+tagSize || ciphertext[0] != rootBoxMagic || ciphertext[1] != rootBoxFormat {
		return nil, fmt.Errorf("not something that a root key file wrapped: %w", core.ErrSealBroken)
	}
	plaintext, err := k.aead.open(ciphertext[2:2+nonceSize], ciphertext[2+nonceSize:], rootBoxAAD(ciphertext[:2], aad))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, core.ErrSealBroken)
	}
	return plaintext, nil
}

func rootBoxAAD(header, aad []byte) []byte {
	return append(append(make([]byte, 0, len(header)+len(aad)), header...), aad...)
}

func rootKeyID(key []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(rootIDPurpose))
	return "file-" + hex.EncodeToString(mac.Sum(nil)[:8])
}

// formatRootKey returns the text of the file that holds key.
func formatRootKey(key []byte) []byte {
	b := make([]byte, 0, maxRootFile)
	b = append(b, rootFileHeader+"\nid: "+rootKeyID(key)+"\nkey: "...)
	b = base64.StdEncoding.AppendEncode(b, key)
	b = append(b, '\n')
	sum := rootFileChecksum(b)
	b = append(b, "checksum: "+sum+"\n"...)
	return b
}

func rootFileChecksum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// parseRootKey returns the key that text holds. Only what formatRootKey wrote
// is accepted, with or without the last line's end.
func parseRootKey(text []byte) ([]byte, error) {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	switch {
	case len(text) == 0:
		return nil, fmt.Errorf("%w: it is empty", ErrRootKeyFile)
	case len(text) > maxRootFile:
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrRootKeyFile, maxRootFile)
	case string(first) == rootFileHeader+"\r":
		return nil, fmt.Errorf("%w: its lines end in CR LF, so it was edited or converted", ErrRootKeyFile)
	case string(first) != rootFileHeader && bytes.HasPrefix(first, []byte(rootFileTitle)):
		return nil, fmt.Errorf("%w: it has a format that this version does not know", ErrRootKeyFile)
	case string(first) != rootFileHeader:
		return nil, fmt.Errorf("%w: its first line is not %q", ErrRootKeyFile, rootFileHeader)
	}
	at := bytes.Index(text, []byte("\nchecksum: "))
	if at < 0 {
		return nil, fmt.Errorf("%w: it has no checksum line, so it was truncated", ErrRootKeyFile)
	}
	body, tail := text[:at+1], text[at+1:]
	if string(bytes.TrimSuffix(tail, []byte("\n"))) != "checksum: "+rootFileChecksum(body) {
		return nil, fmt.Errorf("%w: its checksum does not match, so it was truncated or edited", ErrRootKeyFile)
	}
	lines := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[1], "id: ") || !strings.HasPrefix(lines[2], "key: ") {
		return nil, fmt.Errorf("%w: it has other lines than an id and a key", ErrRootKeyFile)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(lines[2][len("key: "):])
	if err != nil {
		// The decoder's error is left out: it tells about the key.
		return nil, fmt.Errorf("%w: its key is not in base64", ErrRootKeyFile)
	}
	if len(key) != keySize {
		return nil, fmt.Errorf("%w: its key has %d bytes, want %d", ErrRootKeyFile, len(key), keySize)
	}
	if lines[1][len("id: "):] != rootKeyID(key) {
		return nil, fmt.Errorf("%w: its id is that of another key", ErrRootKeyFile)
	}
	return key, nil
}

// writeNewFile creates path, or fails when it exists; a file that could not be
// completed is removed again.
func writeNewFile(path string, content []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, rootFileMode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// readPrivateFile reads a small regular file that only its owner may touch.
func readPrivateFile(path string) ([]byte, error) {
	// Looked at before it is opened, because opening a pipe would wait for a
	// writer; and again afterwards, because only the open file is certain.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("root key file: %w", err)
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("root key file: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	if info, err = f.Stat(); err != nil {
		return nil, fmt.Errorf("root key file: %w", err)
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	text := make([]byte, maxRootFile+1)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(text)
		return nil, fmt.Errorf("root key file: read %s: %w", path, err)
	}
	return text[:n], nil
}

func checkPrivate(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("root key file %s: %w: it is a %s, want a regular file", path, ErrRootKeyFile, kindOf(info))
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("root key file %s: %w: mode %04o lets others than its owner at it: run chmod 600 on it (in Kubernetes set defaultMode: 0400 on the volume)",
			path, ErrRootKeyFile, perm)
	}
	return nil
}

func kindOf(info fs.FileInfo) string {
	if info.IsDir() {
		return "directory"
	}
	return "special file (" + info.Mode().Type().String() + ")"
}
