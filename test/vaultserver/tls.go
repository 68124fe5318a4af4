package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// loadTLS returns the configuration to serve with and the certificate to trust,
// as PEM. Both are kept in the folder, so that a client that trusts the server
// still does after a restart; they are made anew when dir is empty.
func loadTLS(dir string) (*tls.Config, []byte, error) {
	path := filepath.Join(dir, "tls.pem")
	var bundle []byte
	if dir != "" {
		kept, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("reading the certificate: %w", err)
		}
		bundle = kept
	}
	if bundle == nil {
		made, err := selfSigned()
		if err != nil {
			return nil, nil, fmt.Errorf("making a certificate: %w", err)
		}
		bundle = made
		if dir != "" {
			if err := os.WriteFile(path, bundle, 0o600); err != nil {
				return nil, nil, fmt.Errorf("keeping the certificate: %w", err)
			}
		}
	}
	pair, err := tls.X509KeyPair(bundle, bundle)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the certificate: %w", err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		// Logins by certificate: Vault looks at it, not the handshake.
		ClientAuth: tls.RequestClientCert,
	}, certificate, nil
}

// selfSigned returns the PEM of a certificate for this machine, then its key.
func selfSigned() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "vaultserver"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...,
	), nil
}
