package steward

import (
	"encoding/base64"
	"strings"
	"testing"

	budgetv1 "steward/clients/go/gen/steward/budget/v1"
)

// sealedLease is as the server seals "sk-standin" for "lease_1" of "agent_1" to the token "ic_token".
func sealedLease(t *testing.T) *budgetv1.HandshakeResponse {
	t.Helper()
	bytes := func(text string) []byte {
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return decoded
	}
	return &budgetv1.HandshakeResponse{
		IpToken:  "AES256:SSBKeLO/Ook/+G/b:3NuM4rdAOR9ahQ==:zsJLq1VF+EzeTc09pYF8Yg==",
		SealSalt: bytes("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
		SealInfo: bytes("AAAAE3N0ZXdhcmQgaXBfdG9rZW4gdjEAAAAHbGVhc2VfMQAAAAdhZ2VudF8xAAAAAAAAAAE="),
	}
}

func TestAKeyOpensWithTheTokenItWasSealedTo(t *testing.T) {
	if key, err := ProviderKey(sealedLease(t), "ic_token"); key != "sk-standin" || err != nil {
		t.Errorf("it is %q: %v", key, err)
	}
}

func TestAKeyOpensWithNothingElse(t *testing.T) {
	for says, each := range map[string]struct {
		token  string
		change func(*budgetv1.HandshakeResponse)
		want   string
	}{
		"another token": {"another", func(*budgetv1.HandshakeResponse) {}, "does not open with this token"},
		"another lease": {"ic_token", func(lease *budgetv1.HandshakeResponse) { lease.SealInfo = nil }, "does not open"},
		"another seal":  {"ic_token", func(lease *budgetv1.HandshakeResponse) { lease.IpToken = "HPKE:AAAA" }, "is not AES256"},
		"no iv":         {"ic_token", func(lease *budgetv1.HandshakeResponse) { lease.IpToken = "AES256::AA==:AA==" }, "is not what this client knows"},
		"no base64":     {"ic_token", func(lease *budgetv1.HandshakeResponse) { lease.IpToken = "AES256:%:%:%" }, "is not in base64"},
	} {
		lease := sealedLease(t)
		each.change(lease)
		if key, err := ProviderKey(lease, each.token); err == nil || !strings.Contains(err.Error(), each.want) {
			t.Errorf("with %s it is %q: %v", says, key, err)
		}
	}
}
