package credential

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"

	"software.sslmate.com/src/go-pkcs12"
)

const (
	azurePFXField     = "certificatePfx"
	azurePFXPassword  = "certificatePassword"
	azureConvertPFX   = `; "openssl pkcs12 -in file.pfx -out file.pem -nodes" makes a PEM text of it, for certificatePem`
	azureWantPFX      = "must be a PKCS#12 file (.pfx, .p12) with one certificate, its RSA key and their chain; it "
	azurePFXNoChain   = azureWantPFX + "holds no certificate" + azureConvertPFX
	azurePFXNoKey     = azureWantPFX + "holds no private key: was it exported with it?"
	azurePFXDamaged   = azureWantPFX + "is none, or is damaged" + azureConvertPFX
	azurePFXForeign   = azureWantPFX + "is written in a way that is not read here" + azureConvertPFX
	azureWrongPasword = "must be the password of the PKCS#12 file; it is another one, or the file is damaged"
	azureNoPassword   = "must be the password of the PKCS#12 file; it is empty, and the file has one"
)

// azureMaxIterations bounds how often a file may have its password hashed, its
// two or three parts together: what takes less than a quarter of a second. Windows and
// OpenSSL write 2,000 or so for a part, Java 10,000.
const azureMaxIterations = 150_000

// azureFromPFX reads a PKCS#12 file, which may be in base64 as Key Vault hands it
// out. The problem is a sentence about the field.
func azureFromPFX(file []byte, password string) (chain azureChain, field, problem string) {
	if bytes.Contains(file, []byte("-----BEGIN ")) {
		return azureChain{}, azurePFXField, azureWantPFX + "is a PEM text: give it to certificatePem"
	}
	if decoded, ok := azureBase64(string(file)); ok && file[0] != azureSequence {
		file = decoded
	}
	safe, problem := azureSafePFX(file, password)
	if problem != "" {
		return azureChain{}, azurePFXField, problem
	}
	for i, file := range safe {
		key, certificate, above, err := pkcs12.DecodeChain(file, password)
		if i == 0 {
			err = azureFirstError(err)
		}
		if err != nil {
			field, problem := azurePFXError(err, password)
			return azureChain{}, field, problem
		}
		typed, ok := key.(*rsa.PrivateKey)
		if !ok {
			return azureChain{}, azurePFXField, azureWantPFX + azureNoRSA
		}
		chain = azureChain{key: typed, certificates: append([]*x509.Certificate{certificate}, above...)}
	}
	if len(chain.certificates) > azureMaxBlocks {
		return azureChain{}, azurePFXField, azureWantPFX + "holds more than 20 certificates"
	}
	if chain, problem = chain.complete(); problem != "" {
		return azureChain{}, azurePFXField, azureWantPFX + problem
	}
	return chain, "", ""
}

// azureFirstError returns an error of the file that azureSafePFX made, whose MAC
// says nothing about the password: what decrypts to nonsense was decrypted with
// another one.
func azureFirstError(err error) error {
	_, foreign := errors.AsType[pkcs12.NotImplementedError](err)
	if err == nil || foreign || err.Error() == azureNoCertificate {
		return err
	}
	return pkcs12.ErrIncorrectPassword
}

// azurePFXError returns what to do about an error of DecodeChain.
func azurePFXError(err error, password string) (field, problem string) {
	if errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption) {
		if password == "" {
			return azurePFXPassword, azureNoPassword
		}
		return azurePFXPassword, azureWrongPasword
	}
	if _, ok := errors.AsType[pkcs12.NotImplementedError](err); ok {
		return azurePFXField, azurePFXForeign
	}
	if err.Error() == azureNoCertificate {
		return azurePFXField, azurePFXNoChain
	}
	return azurePFXField, azurePFXDamaged
}

// The outer forms of RFC 7292, as far as their costs are to be known before the
// library goes through them.
type (
	azurePFX struct {
		Version  int
		AuthSafe azureContent
		MAC      azureMAC `asn1:"optional"`
	}
	azureContent struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	azureMAC struct {
		Digest     azureDigest
		Salt       []byte
		Iterations int `asn1:"optional,default:1"`
	}
	azureDigest struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	azureEncrypted struct {
		Version int
		Info    struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Content   asn1.RawValue `asn1:"tag:0,optional"`
		}
	}
	azureBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue `asn1:"tag:0,explicit"`
		Attributes asn1.RawValue `asn1:"set,optional"`
	}
	azureShrouded struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	azureScheme struct { // the parameters of PBES2, and as far as it goes of PBMAC1
		KDF    pkix.AlgorithmIdentifier
		Second pkix.AlgorithmIdentifier
	}
	azureKDF struct {
		Salt       asn1.RawValue
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	azurePBE struct {
		Salt       []byte
		Iterations int
	}
)

const azureSequence = 0x30

// azureNoCertificate is what the library says, which has no error of its own for
// it.
const azureNoCertificate = "pkcs12: certificate missing"

// oid returns an object identifier; they are no constants in Go.
func azureOID(parts ...int) asn1.ObjectIdentifier { return parts }

func azureOIDData() asn1.ObjectIdentifier      { return azureOID(1, 2, 840, 113549, 1, 7, 1) }
func azureOIDEncrypted() asn1.ObjectIdentifier { return azureOID(1, 2, 840, 113549, 1, 7, 6) }
func azureOIDShrouded() asn1.ObjectIdentifier {
	return azureOID(1, 2, 840, 113549, 1, 12, 10, 1, 2)
}
func azureOIDKey() asn1.ObjectIdentifier    { return azureOID(1, 2, 840, 113549, 1, 12, 10, 1, 1) }
func azureOIDPBES2() asn1.ObjectIdentifier  { return azureOID(1, 2, 840, 113549, 1, 5, 13) }
func azureOIDPBMAC1() asn1.ObjectIdentifier { return azureOID(1, 2, 840, 113549, 1, 5, 14) }
func azureOIDPBKDF2() asn1.ObjectIdentifier { return azureOID(1, 2, 840, 113549, 1, 5, 12) }
func azureOIDHMAC() asn1.ObjectIdentifier   { return azureOID(1, 2, 840, 113549, 2, 9) }

// azureSafePFX returns files that take a bounded time to decode, the last of
// them the given one; a file of which that cannot be told is refused.
//
// A file says itself how often its password is hashed, up to 2^63 times, and the
// library does so. The counts of its outer parts can be read; those of a key
// that is in the encrypted part (where nobody writes one, but where one can be)
// cannot, before it is decrypted. The library refuses a second key when it meets
// it, before it hashes: so the first file to decode is the same with the part
// that has the key in front, and that passes only when there is no other.
func azureSafePFX(file []byte, password string) ([][]byte, string) {
	var pfx azurePFX
	var inner []byte
	var contents []azureContent
	if !azureDER(file, &pfx) || !azureDER(pfx.AuthSafe.Content.Bytes, &inner) || !azureDER(inner, &contents) {
		return nil, azurePFXDamaged
	}
	const most = 2 // that the library reads
	if len(contents) > most {
		return nil, azurePFXForeign
	}
	count, ok := azureMACIterations(pfx.MAC)
	if !ok {
		return nil, azurePFXForeign
	}
	keys := 0
	var ordered []azureContent
	for _, c := range contents {
		n, k, ok := azureContentIterations(c)
		if !ok || n > azureMaxIterations {
			return nil, azurePFXForeign
		}
		count += n
		keys += k
		if k > 0 {
			ordered = append([]azureContent{c}, ordered...)
		} else {
			ordered = append(ordered, c)
		}
	}
	if keys == 0 {
		return nil, azurePFXNoKey
	}
	if count > azureMaxIterations {
		return nil, azurePFXForeign
	}
	first, err := azureWritePFX(ordered, password)
	if err != nil {
		return nil, azurePFXForeign
	}
	return [][]byte{first, file}, ""
}

// azureDER decodes all of the bytes.
func azureDER(encoded []byte, into any) bool {
	rest, err := asn1.Unmarshal(encoded, into)
	return err == nil && len(rest) == 0
}

// azureMACIterations says how often the password is hashed for the file's MAC.
func azureMACIterations(mac azureMAC) (int, bool) {
	switch {
	case len(mac.Digest.Algorithm.Algorithm) == 0:
		return 0, true
	case mac.Digest.Algorithm.Algorithm.Equal(azureOIDPBMAC1()):
		return azureIterations(mac.Digest.Algorithm)
	}
	return mac.Iterations, mac.Iterations > 0 && mac.Iterations <= azureMaxIterations
}

// azureContentIterations does so for a part of the file, as far as it can be
// seen, and counts the keys in it.
func azureContentIterations(c azureContent) (count, keys int, ok bool) {
	switch {
	case c.Type.Equal(azureOIDEncrypted()):
		var encrypted azureEncrypted
		if !azureDER(c.Content.Bytes, &encrypted) {
			return 0, 0, false
		}
		count, ok = azureIterations(encrypted.Info.Algorithm)
		return count, 0, ok
	case !c.Type.Equal(azureOIDData()):
		return 0, 0, false
	}
	var data []byte
	var bags []azureBag
	if !azureDER(c.Content.Bytes, &data) || !azureDER(data, &bags) {
		return 0, 0, false
	}
	for _, bag := range bags {
		shrouded := bag.ID.Equal(azureOIDShrouded())
		if !shrouded && !bag.ID.Equal(azureOIDKey()) {
			continue
		}
		// Large numbers that claim to be a key are slow to check.
		const around = 500
		if keys++; keys > 1 || len(bag.Value.Bytes) > azureMaxKey+around {
			return 0, 0, false
		}
		if !shrouded {
			continue
		}
		var key azureShrouded
		if !azureDER(bag.Value.Bytes, &key) {
			return 0, 0, false
		}
		if count, ok = azureIterations(key.Algorithm); !ok {
			return 0, 0, false
		}
	}
	return count, keys, true
}

// azureIterations reads the count of a password-based algorithm; false when it
// has none, or one beyond the limit.
func azureIterations(algorithm pkix.AlgorithmIdentifier) (int, bool) {
	parameters := algorithm.Parameters.FullBytes
	if algorithm.Algorithm.Equal(azureOIDPBES2()) || algorithm.Algorithm.Equal(azureOIDPBMAC1()) {
		var scheme azureScheme
		var kdf azureKDF
		if !azureDER(parameters, &scheme) || !scheme.KDF.Algorithm.Equal(azureOIDPBKDF2()) ||
			!azureDER(scheme.KDF.Parameters.FullBytes, &kdf) {
			return 0, false
		}
		return kdf.Iterations, kdf.Iterations > 0 && kdf.Iterations <= azureMaxIterations
	}
	var pbe azurePBE
	if !azureDER(parameters, &pbe) {
		return 0, false
	}
	// The key and the vector it begins with are derived one after the other.
	return 2 * pbe.Iterations, pbe.Iterations > 0 && pbe.Iterations <= azureMaxIterations
}

// azureWritePFX writes the parts as a file of the same password, under a MAC of
// RFC 9579; with no password it needs none.
func azureWritePFX(contents []azureContent, password string) ([]byte, error) {
	inner, err := asn1.Marshal(contents)
	if err != nil {
		return nil, err
	}
	octets, err := asn1.Marshal(inner)
	if err != nil {
		return nil, err
	}
	type plain struct {
		Version  int
		AuthSafe azureContent
	}
	safe := azureContent{
		Type:    azureOIDData(),
		Content: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: octets},
	}
	if password == "" {
		return asn1.Marshal(plain{Version: 3, AuthSafe: safe})
	}
	const salt, iterations = "credstore", 1
	hash := pkix.AlgorithmIdentifier{Algorithm: azureOIDHMAC()}
	saltDER, err := asn1.Marshal([]byte(salt))
	if err != nil {
		return nil, err
	}
	kdf, err := asn1.Marshal(azureKDF{
		Salt: asn1.RawValue{FullBytes: saltDER}, Iterations: iterations, KeyLength: sha256.Size, PRF: hash,
	})
	if err != nil {
		return nil, err
	}
	scheme, err := asn1.Marshal(azureScheme{
		KDF:    pkix.AlgorithmIdentifier{Algorithm: azureOIDPBKDF2(), Parameters: asn1.RawValue{FullBytes: kdf}},
		Second: hash,
	})
	if err != nil {
		return nil, err
	}
	key, err := pbkdf2.Key(sha256.New, password, []byte(salt), iterations, sha256.Size)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(inner)
	return asn1.Marshal(azurePFX{Version: 3, AuthSafe: safe, MAC: azureMAC{
		Digest: azureDigest{
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: azureOIDPBMAC1(), Parameters: asn1.RawValue{FullBytes: scheme}},
			Digest:    mac.Sum(nil),
		},
		Salt: []byte(salt), Iterations: iterations,
	}})
}
