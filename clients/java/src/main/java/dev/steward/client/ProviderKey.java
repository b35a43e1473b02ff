package dev.steward.client;

import dev.steward.budget.v1.HandshakeResponse;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.util.Base64;
import javax.crypto.Cipher;
import javax.crypto.Mac;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/** The key of a provider, as a lease brings it: sealed to whoever has the agent's IC token. */
public final class ProviderKey {
  private static final String PREFIX = "AES256";
  private static final int TAG_BYTES = 16;

  private ProviderKey() {}

  /**
   * Opens the key of a handshake without a public key.
   *
   * @throws IllegalArgumentException if it does not open with this token
   */
  public static String open(HandshakeResponse lease, String icToken) {
    String[] parts = lease.getIpToken().split(":");
    if (parts.length != 4 || !parts[0].equals(PREFIX)) {
      throw new IllegalArgumentException("the sealed key is not AES256:<iv>:<ciphertext>:<tag>");
    }
    Base64.Decoder text = Base64.getDecoder();
    try {
      Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
      SecretKeySpec key = new SecretKeySpec(derived(lease, icToken), "AES");
      cipher.init(
          Cipher.DECRYPT_MODE, key, new GCMParameterSpec(8 * TAG_BYTES, text.decode(parts[1])));
      cipher.update(text.decode(parts[2]));
      return new String(cipher.doFinal(text.decode(parts[3])), StandardCharsets.UTF_8);
    } catch (GeneralSecurityException error) {
      throw new IllegalArgumentException("the sealed key does not open with this token", error);
    }
  }

  /** HKDF-SHA256 (RFC 5869), of which one block is all that is needed. */
  private static byte[] derived(HandshakeResponse lease, String icToken)
      throws GeneralSecurityException {
    byte[] secret = icToken.getBytes(StandardCharsets.UTF_8);
    Mac extract = mac(lease.getSealSalt().toByteArray());
    Mac expand = mac(extract.doFinal(secret));
    expand.update(lease.getSealInfo().toByteArray());
    expand.update((byte) 1);
    return expand.doFinal();
  }

  private static Mac mac(byte[] key) throws GeneralSecurityException {
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(key, "HmacSHA256"));
    return mac;
  }
}
