package steward

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	budgetv1 "steward/clients/go/gen/steward/budget/v1"
)

const keyBytes = 32

// ProviderKey opens the key of a provider that a lease brought, which is sealed to whoever has the
// agent's IC token. It is for handshakes without a public key.
func ProviderKey(lease *budgetv1.HandshakeResponse, icToken string) (string, error) {
	parts := strings.Split(lease.GetIpToken(), ":")
	if len(parts) != 4 || parts[0] != "AES256" {
		return "", errors.New("steward: the sealed key is not AES256:<iv>:<ciphertext>:<tag>")
	}
	var sealed [3][]byte
	for at, part := range parts[1:] {
		bytes, err := base64.StdEncoding.DecodeString(part)
		if err != nil {
			return "", fmt.Errorf("steward: the sealed key is not in base64: %w", err)
		}
		sealed[at] = bytes
	}
	iv, ciphertext, tag := sealed[0], sealed[1], sealed[2]
	seal, err := sealOf(lease, icToken, len(iv))
	if err != nil {
		return "", fmt.Errorf("steward: the sealed key is not what this client knows: %w", err)
	}
	key, err := seal.Open(nil, iv, append(ciphertext, tag...), nil)
	if err != nil {
		return "", errors.New("steward: the sealed key does not open with this token")
	}
	return string(key), nil
}

func sealOf(lease *budgetv1.HandshakeResponse, icToken string, ivBytes int) (cipher.AEAD, error) {
	secret, err := hkdf.Key(sha256.New, []byte(icToken), lease.GetSealSalt(), string(lease.GetSealInfo()), keyBytes)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithNonceSize(block, ivBytes)
}
