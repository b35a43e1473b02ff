package dev.steward.client;

import java.time.Duration;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** How a thread waits for an answer. */
final class Waiting {
  private Waiting() {}

  /** The answer, or its refusal as thrown here. */
  static <A> A await(CompletableFuture<A> answer) {
    return await(answer, null);
  }

  /**
   * @param timeout null for as long as it takes
   */
  static <A> A await(CompletableFuture<A> answer, Duration timeout) {
    try {
      return timeout == null ? answer.get() : answer.get(timeout.toNanos(), TimeUnit.NANOSECONDS);
    } catch (ExecutionException error) {
      throw StewardException.of(error.getCause()).here();
    } catch (TimeoutException error) {
      answer.cancel(false);
      throw new StewardException.DeadlineExceeded(
          "there was no answer in %s s; what was asked may have been done"
              .formatted(timeout.toMillis() / 1000.0));
    } catch (InterruptedException error) {
      answer.cancel(false);
      Thread.currentThread().interrupt();
      throw new CancellationException("interrupted while waiting for an answer");
    }
  }
}
