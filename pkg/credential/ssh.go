package credential

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/crypto/ssh"
)

// sshMaxRounds bounds the work on a pass phrase, of which each round takes about
// 10 ms: 16 and 24 are the defaults of ssh-keygen.
const sshMaxRounds = 32

const (
	sshDSA     = `is a DSA key, which OpenSSH no longer accepts: make another one, as with "ssh-keygen -t ed25519"`
	sshDamaged = "has a private key that cannot be read: it is damaged"
	sshHalves  = "has a public and a private half that do not belong together"
	sshMany    = "has more than one private key: keep one"
)

// sshParts is what is public in a key.
type sshParts struct {
	block   pemBlock
	public  ssh.PublicKey
	comment string
}

// sshRead reads a private key, which the pass phrase must open. The problems are
// those of the key and of the pass phrase, as pemOpen returns them.
func sshRead(pasted, passphrase string) (k sshParts, problem, wrong string) {
	if problem = sshNoPrivateKey(pasted); problem != "" {
		return k, problem, ""
	}
	if k.block, problem = pemOneKey(pasted); problem != "" {
		return k, problem, ""
	}
	switch k.block.label {
	case pemDSA:
		return k, sshDSA, ""
	case pemOpenSSH:
		problem, wrong = k.open(passphrase)
		return k, problem, wrong
	}
	key, problem, wrong := pemOpen(k.block, passphrase)
	if problem != "" || wrong != "" {
		return k, problem, wrong
	}
	var err error
	if k.public, err = ssh.NewPublicKey(key.Public()); err != nil {
		return k, pemBadKey, ""
	}
	return k, "", ""
}

// sshNoPrivateKey says what else was pasted, if it is known.
func sshNoPrivateKey(pasted string) string {
	text := trimPasted(pasted)
	first, _, _ := strings.Cut(text, " ")
	switch {
	case strings.HasPrefix(text, "PuTTY-User-Key-File-"):
		return pemNone(text)
	case strings.Contains(text, "-----BEGIN "):
		return ""
	case strings.HasPrefix(text, "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY"):
		return `is a key in the form of ssh.com: convert it with "ssh-keygen -i -f FILE"`
	case strings.HasSuffix(first, "-cert-v01@openssh.com"):
		return "is a certificate: paste the private key, the file without -cert.pub"
	case strings.HasPrefix(first, "ssh-"), strings.HasPrefix(first, "ecdsa-sha2-"), strings.HasPrefix(first, "sk-"),
		strings.HasPrefix(text, "---- BEGIN SSH2 PUBLIC KEY"):
		return "is a public key: paste the private key, the file without .pub"
	}
	return ""
}

// sshEnvelope is the part of OpenSSH's form that is not encrypted
// (openssh-portable, PROTOCOL.key).
type sshEnvelope struct {
	Cipher  string
	KDF     string
	Options string
	Keys    uint32
	Public  []byte
	Private []byte
	Rest    []byte `ssh:"rest"`
}

func (e sshEnvelope) sealed() bool { return e.KDF != "none" || e.Cipher != "none" }

const sshMagic = "openssh-key-v1\x00"

// envelope reads what can be read without the pass phrase.
func (k *sshParts) envelope() (e sshEnvelope, problem string) {
	inner, ok := bytes.CutPrefix(k.block.der, []byte(sshMagic))
	switch {
	case len(k.block.der) > pemMaxKey:
		return e, pemTooLargeKey
	case !ok || ssh.Unmarshal(inner, &e) != nil:
		return e, sshDamaged
	case e.Keys != 1:
		return e, sshMany
	}
	public, err := ssh.ParsePublicKey(e.Public)
	switch {
	case err != nil:
		return e, sshDamaged
	case strings.HasPrefix(public.Type(), "sk-"):
		return e, "is a key of a hardware token, which works with the token alone: make another one"
	case public.Type() == "ssh-dss":
		return e, sshDSA
	}
	k.public = public
	if !e.sealed() {
		k.comment = sshComment(e.Private, public.Type())
	}
	return e, ""
}

// open reads a key in OpenSSH's form.
func (k *sshParts) open(passphrase string) (problem, wrong string) {
	e, problem := k.envelope()
	switch {
	case problem != "":
		return problem, ""
	case !e.sealed() && passphrase != "":
		return "", pemNotSealed
	case e.sealed() && passphrase == "":
		return "", pemSealed
	case e.sealed():
		if problem = e.seal(); problem != "" {
			return problem, ""
		}
	}
	key, problem, wrong := sshOpen(k.block, passphrase)
	if problem != "" || wrong != "" {
		return problem, wrong
	}
	own, err := ssh.NewPublicKey(key.Public())
	if err != nil || !bytes.Equal(own.Marshal(), e.Public) {
		return sshHalves, ""
	}
	return "", ""
}

// seal checks how a key is encrypted: with a cipher of OpenSSH's defaults, and
// not so slowly that it stops this program.
func (e sshEnvelope) seal() (problem string) {
	const again = `: encrypt it anew with "ssh-keygen -p -Z aes256-ctr -a 24 -f FILE"`
	if e.KDF != "bcrypt" || e.Cipher != "aes256-ctr" && e.Cipher != "aes256-cbc" {
		return "has a key whose encryption is not supported" + again
	}
	var options struct {
		Salt   string
		Rounds uint32
	}
	if err := ssh.Unmarshal([]byte(e.Options), &options); err != nil {
		return sshDamaged
	}
	if options.Rounds > sshMaxRounds {
		return "has a key whose pass phrase takes more than 32 rounds to check" + again
	}
	return ""
}

// sshOpen opens a key in OpenSSH's form, of which the envelope is sound.
func sshOpen(b pemBlock, passphrase string) (key crypto.Signer, problem, wrong string) {
	text := []byte(b.encode())
	var parsed any
	var err error
	if passphrase == "" {
		parsed, err = ssh.ParseRawPrivateKey(text)
	} else {
		parsed, err = ssh.ParseRawPrivateKeyWithPassphrase(text, []byte(passphrase))
	}
	switch {
	case err != nil && passphrase != "":
		return nil, "", pemWrongPassphrase
	case err != nil:
		return nil, sshDamaged, ""
	}
	if k, ok := parsed.(*ed25519.PrivateKey); ok && !bytes.Equal(*k, ed25519.NewKeyFromSeed(k.Seed())) {
		return nil, sshHalves, ""
	}
	key, problem = pemSigner(parsed)
	return key, problem, ""
}

// sshComment returns the comment of an unencrypted key.
func sshComment(private []byte, kind string) string {
	// Before it stand two check numbers, the type, and the numbers of the key.
	numbers := map[string]int{ssh.KeyAlgoRSA: 6, ssh.KeyAlgoED25519: 2}[kind]
	if numbers == 0 {
		numbers = 3 // ECDSA: curve, public point, private number
	}
	rest := private[min(8, len(private)):]
	for range numbers + 1 {
		if _, rest = sshString(rest); rest == nil {
			return ""
		}
	}
	comment, _ := sshString(rest)
	return certText(string(comment))
}

// sshString cuts a string (RFC 4251, section 5); rest is nil when there is none.
func sshString(data []byte) (text, rest []byte) {
	if len(data) < 4 {
		return nil, nil
	}
	n := binary.BigEndian.Uint32(data)
	if uint64(n) > uint64(len(data)-4) {
		return nil, nil
	}
	return data[4 : 4+n], data[4+n:]
}

// authorized returns the line for an authorized_keys file.
func (k sshParts) authorized() string {
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.public)))
	if k.comment != "" {
		line += " " + k.comment
	}
	return line
}

// sshFacts returns what is public in a key that sshRead accepted. The pass phrase
// is left alone where the key's form shows the public half without it: checking
// one is slow on purpose.
func sshFacts(text, passphrase string) (map[string]string, error) {
	k := sshParts{}
	var problem, wrong string
	if k.block, problem = pemOneKey(text); problem != "" {
		return nil, errors.New(problem)
	}
	if k.block.label == pemOpenSSH {
		_, problem = k.envelope()
	} else {
		k, problem, wrong = sshRead(text, passphrase)
	}
	if problem != "" || wrong != "" {
		return nil, errors.New(problem + wrong)
	}
	facts := map[string]string{
		"type":        k.public.Type(),
		"fingerprint": ssh.FingerprintSHA256(k.public),
		"publicKey":   k.authorized(),
	}
	if k.comment != "" {
		facts["comment"] = k.comment
	}
	return facts, nil
}
