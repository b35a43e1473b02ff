package dev.steward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.google.protobuf.Any;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import java.time.Duration;
import java.util.Optional;
import org.junit.jupiter.api.Test;

class RetriesTest {
  private static final Retries RETRIES = Retries.DEFAULT;
  private static final int RESOURCE_EXHAUSTED = 8;
  private static final int INTERNAL = 13;
  private static final int UNAVAILABLE = 14;

  @Test
  void theServersWishToWaitIsKeptWhateverTheCallDoes() {
    Optional<Duration> wish = Optional.of(Duration.ofMillis(300));
    assertEquals(wish, RETRIES.delay(1, refusal(RESOURCE_EXHAUSTED, 300), false, 0.5));
    assertEquals(wish, RETRIES.delay(1, refusal(UNAVAILABLE, 300), false, 0.5));
  }

  @Test
  void aQuotaWithoutATimeIsNotTriedAgain() {
    assertEquals(Optional.empty(), RETRIES.delay(1, refusal(RESOURCE_EXHAUSTED), true, 0.5));
  }

  @Test
  void aServerThatIsAwayIsTriedAgainOnlyWhereThatIsSafe() {
    assertEquals(
        Optional.of(Duration.ofMillis(50)), RETRIES.delay(1, refusal(UNAVAILABLE), true, 0.5));
    assertEquals(Optional.empty(), RETRIES.delay(1, refusal(UNAVAILABLE), false, 0.5));
  }

  @Test
  void waitsGrowTwofoldUpToTheLongest() {
    Retries patient = new Retries(10, RETRIES.firstDelay(), RETRIES.longestDelay());
    assertEquals(
        Optional.of(Duration.ofMillis(400)), patient.delay(3, refusal(UNAVAILABLE), true, 1));
    assertEquals(
        Optional.of(Duration.ofSeconds(5)), patient.delay(9, refusal(UNAVAILABLE), true, 1));
  }

  @Test
  void thereAreFourAttemptsAndNoMore() {
    assertEquals(
        Optional.of(Duration.ofMillis(300)),
        RETRIES.delay(3, refusal(UNAVAILABLE, 300), true, 0.5));
    assertEquals(Optional.empty(), RETRIES.delay(4, refusal(UNAVAILABLE, 300), true, 0.5));
  }

  @Test
  void nothingElseIsTriedAgain() {
    assertEquals(Optional.empty(), RETRIES.delay(1, refusal(INTERNAL, 300), true, 0.5));
  }

  private static StewardException refusal(int code) {
    return StewardException.of(Status.newBuilder().setCode(code).build());
  }

  private static StewardException refusal(int code, int retryAfterMs) {
    var delay = com.google.protobuf.Duration.newBuilder().setNanos(retryAfterMs * 1_000_000);
    Any detail = Any.pack(RetryInfo.newBuilder().setRetryDelay(delay).build());
    return StewardException.of(Status.newBuilder().setCode(code).addDetails(detail).build());
  }
}
