package seal

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// The vectors of the specification, c2sp.org/XAES-256-GCM: one for each value
// of the bit that the subkey's doubling folds back.
func TestXAESVectors(t *testing.T) {
	nonce, plaintext := []byte("ABCDEFGHIJKLMNOPQRSTUVWX"), []byte("XAES-256-GCM")
	for _, tt := range []struct {
		name      string
		key       byte
		aad, want string
	}{
		{"high bit clear", 0x01, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{"high bit set", 0x03, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, err := newXAES(bytes.Repeat([]byte{tt.key}, keySize))
			if err != nil {
				t.Fatal(err)
			}
			box, err := x.seal(nil, nonce, plaintext, []byte(tt.aad))
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(box); got != tt.want {
				t.Errorf("sealed to %s, want %s", got, tt.want)
			}
			got, err := x.open(nonce, box, []byte(tt.aad))
			if err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("opened to %q, %v", got, err)
			}
		})
	}
}

func TestXAESKeySize(t *testing.T) {
	for _, n := range []int{0, 16, 24, 31, 33} {
		if _, err := newXAES(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes was accepted", n)
		}
	}
}
