package dev.steward.client;

import io.grpc.Status;
import java.time.Duration;
import java.util.Optional;

/**
 * When a refused call is made again, and after how long.
 *
 * @param maxAttempts in all, the first one counted
 * @param firstDelay at most this long is waited before the second attempt, and twice as long before
 *     each one after it
 * @param longestDelay no wait of the client's own choosing is longer
 */
public record Retries(int maxAttempts, Duration firstDelay, Duration longestDelay) {
  /** Four attempts, waits from 100 ms to 5 s. */
  public static final Retries DEFAULT =
      new Retries(4, Duration.ofMillis(100), Duration.ofSeconds(5));

  /** Every refusal is given at once. */
  public static final Retries NONE = new Retries(1, Duration.ZERO, Duration.ZERO);

  /**
   * How long to wait before the next attempt; empty to give the refusal.
   *
   * @param attempts made so far
   * @param isRepeatable doing it twice has the effect of doing it once
   * @param draw at random from 0 to 1: full jitter, so that many clients do not come back at once
   */
  Optional<Duration> delay(
      int attempts, StewardException refusal, boolean isRepeatable, double draw) {
    boolean isUnavailable = refusal.code() == Status.Code.UNAVAILABLE;
    if (attempts >= maxAttempts
        || !isUnavailable && refusal.code() != Status.Code.RESOURCE_EXHAUSTED) {
      return Optional.empty();
    }
    // Whoever says when to come back has not done what was asked.
    if (refusal.retryAfter().isPresent()) {
      return refusal.retryAfter();
    }
    if (!isUnavailable || !isRepeatable) {
      return Optional.empty();
    }
    double limit =
        Math.min(longestDelay.toNanos(), firstDelay.toNanos() * Math.pow(2, attempts - 1));
    return Optional.of(Duration.ofNanos((long) (limit * draw)));
  }
}
