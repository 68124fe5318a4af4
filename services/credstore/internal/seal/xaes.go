package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
)

const (
	keySize   = 32
	nonceSize = 24
	tagSize   = 16

	// saltSize is the part of the nonce that selects the data key; the rest is
	// the AES-GCM nonce under that key.
	saltSize = 12
)

// xaes is XAES-256-GCM as specified at c2sp.org/XAES-256-GCM: AES-256-GCM with
// a data key derived per nonce, so that nonces are long enough to be random
// without counting them. The function returns the cipher for the one data key
// that a nonce selects; it is safe for concurrent use. The key is inside the
// function, where nothing prints it.
type xaes func(nonce []byte) (cipher.AEAD, error)

// newXAES keeps no reference to key, which has keySize bytes.
func newXAES(key []byte) (xaes, error) {
	if len(key) != keySize {
		return nil, fmt.Errorf("key has %d bytes, want %d", len(key), keySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make the block cipher: %w", err)
	}
	subkey := cmacSubkey(block)
	return func(nonce []byte) (cipher.AEAD, error) { return deriveGCM(block, subkey, nonce) }, nil
}

// seal appends the ciphertext and tag to dst, which must not overlap the
// plaintext.
func (x xaes) seal(dst, nonce, plaintext, aad []byte) ([]byte, error) {
	gcm, err := x(nonce)
	if err != nil {
		return nil, err
	}
	return gcm.Seal(dst, nonce[saltSize:], plaintext, aad), nil
}

// open allocates no more than the length of box for the plaintext.
func (x xaes) open(nonce, box, aad []byte) ([]byte, error) {
	gcm, err := x(nonce)
	if err != nil {
		return nil, err
	}
	return gcm.Open(nil, nonce[saltSize:], box, aad)
}

// cmacSubkey is K1 of CMAC (NIST SP 800-38B §6.1): the encryption of zero,
// doubled in GF(2^128), in constant time.
func cmacSubkey(block cipher.Block) []byte {
	k := make([]byte, aes.BlockSize)
	block.Encrypt(k, k)
	var carry byte
	for i := len(k) - 1; i >= 0; i-- {
		out := k[i] >> 7
		k[i] = k[i]<<1 | carry
		carry = out
	}
	k[len(k)-1] ^= 0x87 & -carry // the bit that fell out is folded back in
	return k
}

// deriveGCM makes the cipher for one data key. Each half of the key is the CMAC
// of a single block: 0 ‖ counter ‖ label ‖ 0 ‖ salt.
func deriveGCM(block cipher.Block, subkey, nonce []byte) (cipher.AEAD, error) {
	key := make([]byte, keySize)
	defer clear(key)
	for i := range 2 {
		half := key[i*aes.BlockSize : (i+1)*aes.BlockSize]
		half[1], half[2] = byte(i+1), 'X'
		copy(half[4:], nonce[:saltSize])
		subtle.XORBytes(half, half, subkey)
		block.Encrypt(half, half)
	}
	data, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make the block cipher: %w", err)
	}
	gcm, err := cipher.NewGCM(data)
	if err != nil {
		return nil, fmt.Errorf("make the AES-GCM cipher: %w", err)
	}
	return gcm, nil
}
