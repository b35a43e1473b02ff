package dev.steward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class AddressTest {
  @Test
  void aHostAndPortAreSpokenToInPlainText() {
    assertEquals(new Address("127.0.0.1:50051", false), Address.parse("127.0.0.1:50051", false));
  }

  @Test
  void aHostAndPortWithRootsAreSpokenToInTls() {
    assertEquals(new Address("steward:50051", true), Address.parse("steward:50051", true));
  }

  @Test
  void aSchemeSaysHowItIsSpokenTo() {
    assertEquals(new Address("steward:443", true), Address.parse("https://steward:443/", false));
    assertEquals(new Address("steward:80", false), Address.parse("http://steward:80", true));
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "ftp://steward:21", "https://steward:443/api"})
  void whatIsNoAddressIsRefused(String text) {
    assertThrows(IllegalArgumentException.class, () -> Address.parse(text, false));
  }
}
