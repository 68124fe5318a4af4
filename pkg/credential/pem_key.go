package credential

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
)

const (
	// pemMaxKey is the most bytes of a private key: room for RSA with pemMaxBits.
	// Parsing takes time that grows with the square of the size, and more.
	pemMaxKey = 8 << 10
	// pemMaxBits bounds the RSA keys that anything is computed with.
	pemMaxBits = 8192
)

const (
	pemTooLargeKey = "has a private key of more than 8,192 bits"
	pemBadKey      = "has a private key that cannot be read: it is damaged, or neither RSA, ECDSA (P-256, P-384, P-521) nor Ed25519"
)

// pemKey reads an unencrypted private key of RSA, ECDSA or Ed25519.
func pemKey(b pemBlock) (key crypto.Signer, problem string) {
	if len(b.der) > pemMaxKey {
		return nil, pemTooLargeKey
	}
	var parsed any
	var err error
	switch b.label {
	case pemPKCS1:
		parsed, err = x509.ParsePKCS1PrivateKey(b.der)
	case pemSEC1:
		parsed, err = x509.ParseECPrivateKey(b.der)
	default:
		parsed, err = x509.ParsePKCS8PrivateKey(b.der)
	}
	if err != nil {
		return nil, pemBadKey
	}
	return pemSigner(parsed)
}

// pemSigner returns a parsed private key of a type that is known here.
func pemSigner(parsed any) (key crypto.Signer, problem string) {
	switch k := parsed.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() > pemMaxBits {
			return nil, pemTooLargeKey
		}
		return k, ""
	case *ecdsa.PrivateKey:
		return k, ""
	case ed25519.PrivateKey:
		return k, ""
	case *ed25519.PrivateKey:
		return *k, ""
	}
	return nil, pemBadKey
}

// pemIsKey says whether a label is that of a private key, readable here or not.
func pemIsKey(label string) bool {
	switch label {
	case pemPKCS8, pemPKCS8Sealed, pemPKCS1, pemSEC1, pemDSA, pemOpenSSH:
		return true
	}
	return false
}

// pemEqual says whether a private key has the public key.
func pemEqual(key crypto.Signer, public any) bool {
	k, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(public)
}
