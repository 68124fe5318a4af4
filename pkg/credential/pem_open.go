package credential

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // read only: keys that older programs have encrypted
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // as above
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"hash"

	"golang.org/x/crypto/ssh"
)

const (
	pemWrongPassphrase = "it does not open the key"
	pemNotSealed       = "the key is not encrypted, so leave it empty"
	pemSealed          = "it is empty, and the key is encrypted"
	// pemSealedBy says which encryption of a key is understood.
	pemSealedBy = `has a key whose encryption is not supported: encrypt it anew, as with "openssl pkcs8 -topk8 -v2 aes256 -in FILE"`
	// pemMaxIterations bounds the work on a pass phrase. OpenSSL's default is
	// 2,048; what people are told to use is at most 600,000.
	pemMaxIterations = 1_000_000
)

// PrivateKey reads one RSA, ECDSA or Ed25519 key in PEM form (PKCS#8, PKCS#1 or
// SEC 1), opened with the pass phrase when it is encrypted. The error's text is a
// sentence for people, and repeats nothing of either.
func PrivateKey(pem, passphrase string) (crypto.Signer, error) {
	b, problem := pemOneKey(pem)
	if problem != "" {
		return nil, errors.New("the private key " + problem)
	}
	key, problem, wrong := pemOpen(b, passphrase)
	switch {
	case problem != "":
		return nil, errors.New("the private key " + problem)
	case wrong != "":
		return nil, errors.New("the pass phrase is not that of the private key: " + wrong)
	}
	return key, nil
}

// pemOneKey returns the only private key of a text.
func pemOneKey(pasted string) (key pemBlock, problem string) {
	blocks, problem := pemRead(pasted)
	switch {
	case problem != "":
		return key, problem
	case len(blocks) == 0:
		return key, pemNone(pasted)
	}
	found, public := 0, false
	for _, b := range blocks {
		if pemIsKey(b.label) {
			key = b
			found++
		}
		public = public || b.label == "PUBLIC KEY" || b.label == "RSA PUBLIC KEY"
	}
	switch {
	case found > 1:
		return key, "has more than one private key: keep one"
	case found == 0 && public:
		return key, "is a public key: paste the private one"
	case found == 0:
		return key, "has no private key"
	}
	return key, ""
}

// pemOpen reads a private key in another form than OpenSSH's own. The problem is
// that of the key, as the end of a sentence that begins with "it"; wrong is that
// of the pass phrase.
func pemOpen(b pemBlock, passphrase string) (key crypto.Signer, problem, wrong string) {
	switch {
	case b.label == pemDSA || b.label == pemOpenSSH:
		return nil, pemBadKey, ""
	case !b.sealed() && passphrase != "":
		return nil, "", pemNotSealed
	case !b.sealed():
		key, problem = pemKey(b)
		return key, problem, ""
	case passphrase == "":
		return nil, "", pemSealed
	case len(b.der) > pemMaxKey:
		return nil, pemTooLargeKey, ""
	}
	var parsed any
	var err error
	if b.label == pemPKCS8Sealed {
		parsed, err = pemOpenPKCS8(b.der, passphrase)
	} else {
		parsed, err = ssh.ParseRawPrivateKeyWithPassphrase([]byte(b.encode()), []byte(passphrase))
	}
	switch {
	case errors.Is(err, errPEMUnsupported):
		return nil, pemSealedBy, ""
	case err != nil:
		return nil, "", pemWrongPassphrase
	}
	key, problem = pemSigner(parsed)
	return key, problem, ""
}

var (
	errPEMUnsupported = errors.New("encryption is not supported")
	errPEMPassphrase  = errors.New("wrong pass phrase")
)

// The structures of an encrypted key (RFC 5958, section 3) under PBES2 with
// PBKDF2 (RFC 8018, appendix A).
type (
	pkcs8Sealed struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbes2Parameters struct {
		KDF    pkix.AlgorithmIdentifier
		Cipher pkix.AlgorithmIdentifier
	}
	pbkdf2Parameters struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
)

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
)

// pemCiphers are the ciphers of PBES2, by their object identifiers.
var pemCiphers = map[string]struct {
	size  int
	block func([]byte) (cipher.Block, error)
}{
	"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
	"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
	"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
	"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
}

// pemHashes are those of PBKDF2; none stands for SHA-1.
var pemHashes = map[string]func() hash.Hash{
	"":                    sha1.New,
	"1.2.840.113549.2.7":  sha1.New,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
}

// pemOpenPKCS8 decrypts a key. Its error is errPEMUnsupported or one that means
// that the pass phrase is wrong.
func pemOpenPKCS8(der []byte, passphrase string) (any, error) {
	var sealed pkcs8Sealed
	var scheme pbes2Parameters
	var derive pbkdf2Parameters
	var iv []byte
	understood := pemDecode(der, &sealed) && sealed.Algorithm.Algorithm.Equal(oidPBES2) &&
		pemDecode(sealed.Algorithm.Parameters.FullBytes, &scheme) && scheme.KDF.Algorithm.Equal(oidPBKDF2) &&
		pemDecode(scheme.KDF.Parameters.FullBytes, &derive) && derive.Iterations > 0 && derive.Iterations <= pemMaxIterations &&
		pemDecode(scheme.Cipher.Parameters.FullBytes, &iv)
	if !understood {
		return nil, errPEMUnsupported
	}
	c, known := pemCiphers[scheme.Cipher.Algorithm.String()]
	h, hashed := pemHashes[derive.PRF.Algorithm.String()]
	if !known || !hashed {
		return nil, errPEMUnsupported
	}
	secret, err := pbkdf2.Key(h, passphrase, derive.Salt, derive.Iterations, c.size)
	if err != nil {
		return nil, errPEMUnsupported
	}
	defer clear(secret)
	block, err := c.block(secret)
	if err != nil || len(iv) != block.BlockSize() || len(sealed.Data) == 0 || len(sealed.Data)%block.BlockSize() != 0 {
		return nil, errPEMUnsupported
	}
	plain := make([]byte, len(sealed.Data))
	defer clear(plain)
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, sealed.Data)
	pad := int(plain[len(plain)-1])
	if pad == 0 || pad > block.BlockSize() {
		return nil, errPEMPassphrase
	}
	return x509.ParsePKCS8PrivateKey(plain[:len(plain)-pad])
}

// pemDecode reads one DER value and nothing behind it.
func pemDecode(der []byte, to any) bool {
	rest, err := asn1.Unmarshal(der, to)
	return err == nil && len(rest) == 0
}
