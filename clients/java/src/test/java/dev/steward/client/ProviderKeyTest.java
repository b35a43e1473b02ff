package dev.steward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.google.protobuf.ByteString;
import dev.steward.budget.v1.HandshakeResponse;
import java.util.Base64;
import org.junit.jupiter.api.Test;

class ProviderKeyTest {
  /** As the server seals "sk-standin" for "lease_1" of "agent_1" to the token "ic_token". */
  private static final HandshakeResponse LEASE =
      HandshakeResponse.newBuilder()
          .setIpToken("AES256:SSBKeLO/Ook/+G/b:3NuM4rdAOR9ahQ==:zsJLq1VF+EzeTc09pYF8Yg==")
          .setSealSalt(bytes("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="))
          .setSealInfo(
              bytes(
                  "AAAAE3N0ZXdhcmQgaXBfdG9rZW4gdjEAAAAHbGVhc2VfMQAAAAdhZ2VudF8x" + "AAAAAAAAAAE="))
          .build();

  @Test
  void aKeyOpensWithTheTokenItWasSealedTo() {
    assertEquals("sk-standin", ProviderKey.open(LEASE, "ic_token"));
  }

  @Test
  void aKeyOpensWithNoOtherToken() {
    assertThrows(IllegalArgumentException.class, () -> ProviderKey.open(LEASE, "another"));
  }

  @Test
  void aKeyOpensForNoOtherLease() {
    HandshakeResponse other = LEASE.toBuilder().setSealInfo(ByteString.EMPTY).build();
    assertThrows(IllegalArgumentException.class, () -> ProviderKey.open(other, "ic_token"));
  }

  @Test
  void whatIsSealedInAnotherFormIsRefused() {
    HandshakeResponse other = LEASE.toBuilder().setIpToken("HPKE:AAAA").build();
    assertThrows(IllegalArgumentException.class, () -> ProviderKey.open(other, "ic_token"));
  }

  private static ByteString bytes(String base64) {
    return ByteString.copyFrom(Base64.getDecoder().decode(base64));
  }
}
